"""The OpenAPI document of the HTTP API: GET /openapi.json returns it, and docs/openapi.json is generated from it."""

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
NUMBER_OR_MORE: dict[str, Any] = {"description": "A number, a string, or nested lists of them."}
ROW: dict[str, Any] = {"type": "object", "description": "Feature name to value."}
ROWS: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": MAX_ROWS}
SIGNATURE: dict[str, Any] = {
    "type": "string",
    "enum": ["", "serving_default", "features"],
    "description": "`features`: a member takes the ensemble's features; or the name of the member's own signature.",
}

METHODS: Mapping[str, tuple[str, str]] = {
    "predict": ("Predictions", "PredictRequest"),
    "classify": ("Every class with its probability", "ExamplesRequest"),
    "regress": ("A number for each row", "ExamplesRequest"),
}

RESPONSES: Mapping[int, str] = {
    400: "The request is invalid; the response names every bad field of its body.",
    403: "This stack does not return records by HTTP.",
    404: "Nothing has that name.",
    409: "The prediction id belongs to another input, or the requested release is not served.",
    413: "The request or the response exceeds 6 MB, or the payload without its rows what an execution carries.",
    415: "The body has a media type or a compression that is not accepted.",
    422: "Too few members responded; their outputs are recorded.",
    429: "Too many requests; retry after the seconds in `Retry-After`.",
    500: "An unexpected fault; the function's log has the details.",
    503: "Not available at present; retry after the seconds in `Retry-After`.",
    504: "The function did not respond in time.",
    507: "The disk of the local stack is full, and nothing was recorded; the message names the disk.",
}


def describe_api() -> dict[str, Any]:
    """Return the document, OpenAPI 3.1."""
    _, schemas = msgspec.json.schema_components((Output, Record, Problem), ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stepensemble",
            "version": "1",
            "description": "Predict with an ensemble of models, or with one of them; TensorFlow Serving's clients work "
            "unchanged (https://www.tensorflow.org/tfx/serving/api_rest).",
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
                    "description": "AWS Signature Version 4 for the service execute-api; the default.",
                },
                "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
            "schemas": {**schemas, **_request_schemas(), **_response_schemas()},
        },
    }


def _own_paths() -> dict[str, Any]:
    payload = {
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
                "operationId": "predict",
                "summary": "Predict with the ensemble; returns every member's output too",
                "requestBody": payload,
                "responses": _responses("Output", "ErrorResponse", 400, 409, 413, 415, 422, 429, 500, 503, 507),
            }
        },
        "/predictions/{prediction_id}": {
            "get": {
                "operationId": "readRecord",
                "summary": "The record of a prediction",
                "parameters": [_parameter("prediction_id", "As in a response.")],
                "responses": _responses("Record", "ErrorResponse", 400, 403, 404, 413, 429, 500, 503),
            }
        },
        "/health": {
            "get": {
                "operationId": "health",
                "summary": "The current release",
                "responses": _responses("Health", "ErrorResponse", 429, 500, 503),
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "describe",
                "summary": "This document",
                "responses": _responses("Document", "ErrorResponse", 429, 500),
            }
        },
    }


def _serving_paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    name = _parameter("name", "Name of the ensemble or of a member.")
    version = _parameter("version", "A release: the first 13 hex digits of its digest, as a decimal number.")
    version["schema"] = {"type": "string", "pattern": r"^\d{1,19}$"}
    label = _parameter("label", "stable for the current release, canary for the canary.")
    label["schema"] = {"type": "string", "enum": ["stable", "canary"]}
    for place, suffix, parameters in (
        ("", "", [name]),
        ("/versions/{version}", "OfVersion", [name, version]),
        ("/labels/{label}", "OfLabel", [name, label]),
    ):
        path = f"/v1/models/{{name}}{place}"
        paths[path] = _get(f"status{suffix}", "The served versions", "ModelStatus", parameters)
        paths[f"{path}/metadata"] = _get(
            f"metadata{suffix}", "Names, types and shapes of inputs and outputs", "Metadata", parameters
        )
        for method, (summary, request) in METHODS.items():
            paths[f"{path}:{method}"] = {
                "post": {
                    "operationId": f"serving{method.capitalize()}{suffix}",
                    "summary": f"{summary}, in TensorFlow Serving's words",
                    "parameters": parameters,
                    "requestBody": {"required": True, "content": {JSON: {"schema": _ref(request)}}},
                    "responses": _responses(
                        f"{method.capitalize()}Response",
                        "ServingErrorResponse",
                        *(400, 404, 409, 413, 415, 422, 429, 500, 503, 507),
                    ),
                }
            }
    return paths


def _get(operation: str, summary: str, schema: str, parameters: list[Any]) -> dict[str, Any]:
    responses = _responses(schema, "ServingErrorResponse", 400, 404, 429, 500, 503)
    return {
        "get": {"operationId": operation, "summary": summary, "parameters": parameters, "responses": responses},
    }


def _request_schemas() -> dict[str, Any]:
    one_row = {"required": ["features"], "properties": {"features": ROW}}
    many_rows = {"required": ["instances"], "properties": {"instances": {**ROWS, "items": ROW}}}
    pointer = {"type": "object", "required": ["s3"], "properties": {"s3": {"type": "string"}}}
    return {
        "Payload": {
            "type": "object",
            "description": "The payload of an execution.",
            "properties": {
                "prediction_id": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
                "metadata": {"type": "object", "description": "Stored with the record."},
                "release": {
                    "type": "string",
                    "pattern": "^[0-9a-f]{8,64}$",
                    "description": "Predict only with this release.",
                },
                "quorum": {"type": "object", "description": "Fields that replace the manifest's."},
            },
            "oneOf": [
                one_row,
                many_rows,
                {"required": ["instances"], "properties": {"instances": pointer}},
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
                "context": {**ROW, "description": "Features that all examples share."},
                "examples": {**ROWS, "items": ROW},
            },
        },
    }


def _response_schemas() -> dict[str, Any]:
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
            release={"type": "string", "description": f"A digest; tables show {SHORT} digits of it."},
        ),
        "Document": {"type": "object", "description": "An OpenAPI document."},
        "ServingError": _object(error={"type": "string", "description": "The error."}),
        "GatewayError": {
            **_object(message={"type": "string", "description": "Why API Gateway did not forward the request."}),
            "additionalProperties": False,
        },
        "ErrorResponse": {"oneOf": [_ref("Failure"), _ref("GatewayError")]},
        "ServingErrorResponse": {"oneOf": [_ref("ServingError"), _ref("GatewayError")]},
        "Failure": {
            "type": "object",
            "required": ["error", "message"],
            "properties": {
                "error": {"type": "string", "description": "The error's name."},
                "message": {"type": "string", "description": "The error and its remedy, for a person."},
                "problems": {"type": "array", "items": _ref("Problem")},
                "prediction_id": {"type": "string", "description": "Id of the record."},
            },
        },
    }


def _responses(schema: str, failure: str, *statuses: int) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "The response.", "content": {JSON: {"schema": _ref(schema)}}}}
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
