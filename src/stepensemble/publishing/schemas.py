"""Writes the published JSON Schemas from the structures that they describe: `make schemas`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepensemble.core.aggregation.output import output_schema
from stepensemble.core.schema.manifest import json_schema
from stepensemble.serving.openapi import describe_api

PUBLISHED = {"models/manifest.schema.json": json_schema, "docs/output.schema.json": output_schema}
"""The path of each schema in the project, and the function that makes it."""

API = "docs/openapi.json"


def render_schema(schema: Mapping[str, Any]) -> str:
    """Return a schema as the text of its file."""
    return json.dumps(schema, indent=2) + "\n"


def write_schemas(project: Path) -> None:
    """Write every published schema, and the OpenAPI document."""
    for path, make in (*PUBLISHED.items(), (API, describe_api)):
        (project / path).write_text(render_schema(make()))


if __name__ == "__main__":
    write_schemas(Path.cwd())
