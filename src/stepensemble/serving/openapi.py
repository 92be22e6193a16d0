"""The OpenAPI document of the HTTP API; docs/openapi.json is written from it, and GET /openapi.json answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepensemble.core.aggregation.output import Output
from stepensemble.core.payload import MAX_ROWS
from stepensemble.core.problems import Problem
from stepensemble.core.record import Record
from stepensemble.core.releases.release import SHORT

JSON = "application/json"
NUMBER_OR_MORE: dict[str, Any] = {"description": "A number, a text, or nested lists of them."}
ROW: dict[str, Any] = {"type": "object", "description": "Feature name to value."}
ROWS: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": MAX_ROWS}
SIGNATURE: dict[str, Any] = {
    "type": "string",
    "enum": ["", "serving_default", "features"],
    "description": "`features` asks a member with the ensemble's features; a member's own signature may be named too.",
}

METHODS: Mapping[str, tuple[str, str]] = {
    "predict": ("Predictions", "PredictRequest"),
    "classify": ("Every class with its probability", "ExamplesRequest"),
    "regress": ("A number a row", "ExamplesRequest"),
}

RESPONSES: Mapping[int, str] = {
    400: "The request is not what it should be; every bad field of its body is named.",
    403: "Clients of this stack may not read what is recorded.",
    404: "There is nothing of that name.",
    409: "The prediction id is taken by another input, or the release asked for is not current.",
    413: "The body or the answer has more than 6 MB, or the payload more beside its rows than an execution carries.",
    415: "The body is of a type, or compressed in a way, that is not taken.",
    422: "Too few members answered; what they said is recorded.",
    429: "Too many requests; `Retry-After` says in how many seconds to ask again.",
    500: "Something went wrong; its log says what.",
    503: "Not available now; `Retry-After` says in how many seconds to ask again.",
    504: "The function did not answer in time.",
    507: "The disk of the local stack takes no writes, and nothing was recorded; the message names it.",
}


def describe_api() -> dict[str, Any]:
    """Return the document, OpenAPI 3.1."""
    _, schemas = msgspec.json.schema_components((Output, Record, Problem), ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stepensemble",
            "version": "1",
            "description": "Ask an ensemble of models, or one of them; TensorFlow Serving's clients may stay as they "
            "are (https://www.tensorflow.org/tfx/serving/api_rest).",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"iam": []}, {"jwt": []}, {}],
        "paths": {**_own_paths(), **_serving_paths()},
        "components": {
            "securitySchemes": {
                "iam": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4 of the service execute-api; the default.",
                },
                "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
            "schemas": {**schemas, **_requests(), **_answers()},
        },
    }


def _own_paths() -> dict[str, Any]:
    asked = {
        "required": True,
        "content": {
            JSON: {"schema": _ref("Payload")},
            **{
                f"image/{kind}": {"schema": {"type": "string", "contentMediaType": f"image/{kind}"}}
                for kind in ("png", "jpeg", "webp")
            },
        },
    }
    return {
        "/predict": {
            "post": {
                "operationId": "ask",
                "summary": "Ask the ensemble, and get all that its members said",
                "requestBody": asked,
                "responses": _responses("Output", "Refusal", 400, 409, 413, 415, 422, 429, 500, 503, 507),
            }
        },
        "/predictions/{prediction_id}": {
            "get": {
                "operationId": "recall",
                "summary": "What is recorded of a prediction",
                "parameters": [_parameter("prediction_id", "As an answer names it.")],
                "responses": _responses("Record", "Refusal", 400, 403, 404, 413, 429, 500, 503),
            }
        },
        "/health": {
            "get": {
                "operationId": "health",
                "summary": "Whether something is published",
                "responses": _responses("Health", "Refusal", 429, 500, 503),
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "describe",
                "summary": "This document",
                "responses": _responses("Document", "Refusal", 429, 500),
            }
        },
    }


def _serving_paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    name = _parameter("name", "The ensemble's, or a member's.")
    version = _parameter("version", "A release: the first 13 hex digits of its digest, as a decimal number.")
    version["schema"] = {"type": "string", "pattern": r"^\d{1,19}$"}
    label = _parameter("label", "Of the current release, or of the canary.")
    label["schema"] = {"type": "string", "enum": ["stable", "canary"]}
    for place, suffix, parameters in (
        ("", "", [name]),
        ("/versions/{version}", "OfVersion", [name, version]),
        ("/labels/{label}", "OfLabel", [name, label]),
    ):
        path = f"/v1/models/{{name}}{place}"
        paths[path] = _get(f"status{suffix}", "Which versions are served", "ModelStatus", parameters)
        paths[f"{path}/metadata"] = _get(
            f"metadata{suffix}", "Names, types and shapes of inputs and outputs", "Metadata", parameters
        )
        for method, (summary, request) in METHODS.items():
            paths[f"{path}:{method}"] = {
                "post": {
                    "operationId": f"{method}{suffix}",
                    "summary": f"{summary}, in TensorFlow Serving's words",
                    "parameters": parameters,
                    "requestBody": {"required": True, "content": {JSON: {"schema": _ref(request)}}},
                    "responses": _responses(
                        f"{method.capitalize()}Response",
                        "ServingRefusal",
                        *(400, 404, 409, 413, 415, 422, 429, 500, 503, 507),
                    ),
                }
            }
    return paths


def _get(operation: str, summary: str, schema: str, parameters: list[Any]) -> dict[str, Any]:
    responses = _responses(schema, "ServingRefusal", 400, 404, 429, 500, 503)
    return {
        "get": {"operationId": operation, "summary": summary, "parameters": parameters, "responses": responses},
    }


def _requests() -> dict[str, Any]:
    one_row = {"required": ["features"], "properties": {"features": ROW}}
    many_rows = {"required": ["instances"], "properties": {"instances": {**ROWS, "items": ROW}}}
    pointed = {"type": "object", "required": ["s3"], "properties": {"s3": {"type": "string"}}}
    return {
        "Payload": {
            "type": "object",
            "description": "The payload of an execution.",
            "properties": {
                "prediction_id": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
                "metadata": {"type": "object", "description": "Kept on the record."},
                "release": {"type": "string", "pattern": "^[0-9a-f]{8,64}$", "description": "Answer only from it."},
                "quorum": {"type": "object", "description": "Fields that replace the manifest's."},
            },
            "oneOf": [
                one_row,
                many_rows,
                {"required": ["instances"], "properties": {"instances": pointed}},
            ],
        },
        "PredictRequest": {
            "type": "object",
            "properties": {"signature_name": SIGNATURE},
            "oneOf": [
                {
                    "required": ["instances"],
                    "properties": {"instances": {**ROWS, "items": {}, "description": "Objects by name, or values."}},
                },
                {
                    "required": ["inputs"],
                    "properties": {
                        "inputs": {
                            "oneOf": [
                                {**ROWS, "items": {}},
                                {"type": "object", "minProperties": 1, "additionalProperties": {**ROWS, "items": {}}},
                            ]
                        }
                    },
                },
            ],
        },
        "ExamplesRequest": {
            "type": "object",
            "required": ["examples"],
            "properties": {
                "signature_name": SIGNATURE,
                "context": {**ROW, "description": "Features that all examples have."},
                "examples": {**ROWS, "items": ROW},
            },
        },
    }


def _answers() -> dict[str, Any]:
    text = {"type": "string"}
    version = {
        "type": "object",
        "required": ["version", "state", "status"],
        "properties": {
            "version": {"type": "string", "pattern": r"^\d+$"},
            "state": {"const": "AVAILABLE"},
            "status": {"type": "object", "properties": {"error_code": text, "error_message": text}},
        },
    }
    pair = {"type": "array", "prefixItems": [text, {"type": "number"}], "minItems": 2, "maxItems": 2}
    return {
        "PredictResponse": {
            "oneOf": [
                _object(predictions={"type": "array", "items": NUMBER_OR_MORE}),
                _object(outputs={"type": ["array", "object"]}),
            ]
        },
        "ClassifyResponse": _object(results={"type": "array", "items": {"type": "array", "items": pair}}),
        "RegressResponse": _object(results={"type": "array", "items": {"type": ["number", "null"]}}),
        "ModelStatus": _object(model_version_status={"type": "array", "items": version}),
        "Metadata": _object(model_spec={"type": "object"}, metadata={"type": "object"}),
        "Health": _object(
            status={"const": "ok"},
            ensemble=text,
            release={"type": "string", "description": f"A digest; people are shown {SHORT} digits of it."},
        ),
        "Document": {"type": "object", "description": "An OpenAPI document."},
        "ServingError": _object(error={"type": "string", "description": "What is wrong."}),
        "GatewayError": {
            **_object(message={"type": "string", "description": "Why API Gateway did not hand the request on."}),
            "additionalProperties": False,
        },
        "Refusal": {"oneOf": [_ref("Failure"), _ref("GatewayError")]},
        "ServingRefusal": {"oneOf": [_ref("ServingError"), _ref("GatewayError")]},
        "Failure": {
            "type": "object",
            "required": ["error", "message"],
            "properties": {
                "error": {"type": "string", "description": "The error's name."},
                "message": {"type": "string", "description": "What is wrong, for a person."},
                "problems": {"type": "array", "items": _ref("Problem")},
                "prediction_id": {"type": "string", "description": "Under which the record is kept."},
            },
        },
    }


def _responses(schema: str, failure: str, *statuses: int) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": {JSON: {"schema": _ref(schema)}}}}
    for status in (*statuses, 504):
        responses[str(status)] = {
            "description": RESPONSES[status],
            "content": {JSON: {"schema": _ref(failure)}},
            **({"headers": {"Retry-After": {"schema": {"type": "integer"}}}} if status in {429, 503} else {}),
        }
    return responses


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
