from __future__ import annotations

import json
import re

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from builders import ROOT
from expected_events import list_events
from stepensemble import Ensemble
from stepensemble.publishing.schemas import API, PUBLISHED, render_schema
from stepensemble.serving.openapi import describe_api


@pytest.mark.parametrize("path", PUBLISHED)
def test_a_published_schema_equals_the_generated_one(path: str) -> None:
    assert (ROOT / path).read_text() == render_schema(PUBLISHED[path]()), "run: make schemas"


@pytest.mark.parametrize("path", PUBLISHED)
def test_a_published_schema_is_valid_json_schema(path: str) -> None:
    Draft202012Validator.check_schema(json.loads((ROOT / path).read_text()))


def test_the_shipped_manifest_names_its_schema_and_fits_it() -> None:
    manifest = json.loads((ROOT / "models" / "manifest.json").read_text())
    schema = ROOT / "models" / manifest["$schema"]
    Draft202012Validator(json.loads(schema.read_text())).validate(manifest)


@pytest.mark.parametrize("event", list_events("passenger"), ids=lambda path: path.name)
def test_outputs_of_the_shipped_ensemble_fit_their_schema(event: str) -> None:
    ensemble = Ensemble.load(ROOT / "models" / "manifest.json")
    output = ensemble.predict(json.loads((ROOT / "events" / event).read_text()))
    schema = json.loads((ROOT / "docs" / "output.schema.json").read_text())
    Draft202012Validator(schema).validate(json.loads(json.dumps(output, allow_nan=False)))


def test_the_published_openapi_document_equals_the_generated_one_and_is_valid() -> None:
    document = (ROOT / API).read_text()
    assert document == render_schema(describe_api()), "run: make schemas"
    validate(json.loads(document))


def test_the_openapi_document_refers_to_exactly_its_component_schemas() -> None:
    document = json.dumps(describe_api())
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', document))
    assert referred == set(describe_api()["components"]["schemas"])
