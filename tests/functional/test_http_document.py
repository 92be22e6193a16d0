"""The HTTP API does what its OpenAPI document states: schemathesis generates requests from the document."""

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
"""Without the checks that expect a request that fits the document to be accepted: it does not list the features."""


@pytest.fixture(scope="module")
def http_url(local: LocalStack, stack: Stack) -> str:
    """Address of the HTTP API of the shipped ensemble."""
    assert stack.outputs
    assert local.http is not None
    return local.http


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_response_fits_the_document(case: schemathesis.Case, http_url: str) -> None:
    case.call_and_validate(base_url=http_url, checks=CHECKS)
