"""The HTTP door keeps what its OpenAPI document says, whatever is sent: schemathesis makes up requests from it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stepensemble.cli.stacks import Stack
from stepensemble.local.stack import LocalStack
from stepensemble.serving.openapi import describe_api

schema = schemathesis.openapi.from_dict(describe_api())
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
"""Not those that expect what fits the document to be accepted: which features there are, it does not say."""


@pytest.fixture(scope="module")
def http_url(local: LocalStack, stack: Stack) -> str:
    """Address of the HTTP API of the shipped ensemble."""
    assert stack.outputs
    assert local.http is not None
    return local.http


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_door_answers_as_its_document_says(case: schemathesis.Case, http_url: str) -> None:
    case.call_and_validate(base_url=http_url, checks=CHECKS)
