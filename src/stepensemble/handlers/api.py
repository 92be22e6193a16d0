"""The HTTP API: routes, and how an error becomes a response.

Under `/v1/models` errors are TensorFlow Serving's, `{"error": text}`. Elsewhere they say more: `error` is the error's
name, `message` its text, `problems` every bad field of a payload with its remedy, and `prediction_id` under which id
the record is kept, if one is.
"""

from __future__ import annotations

import base64
import json
import re
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NoReturn

import msgspec
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from msgspec import Struct

from stepensemble.core import errors
from stepensemble.core.errors import EnsembleError, InvalidPayload
from stepensemble.core.problems import Problem
from stepensemble.handlers.door import BODY_BYTES, Answered, Door, Method, Unanswered
from stepensemble.imaging import sniff_image
from stepensemble.serving.openapi import describe_api

STATUSES: Mapping[type[EnsembleError], int] = {
    errors.InvalidPayload: 400,
    errors.LabelUnknown: 400,
    errors.RecordNotFound: 404,
    errors.ServableNotFound: 404,
    errors.PredictionConflict: 409,
    errors.ReleaseNotCurrent: 409,
    errors.AnswerTooLarge: 413,
    errors.QuorumNotMet: 422,
    errors.Throttled: 429,
    errors.NothingPublished: 503,
    errors.StillRunning: 503,
    errors.StorageUnavailable: 503,
}
"""Every other error is 500."""

RETRY_SECONDS = {429: 1, 503: 2}
"""What `Retry-After` says."""

SERVING = "/v1/models"
METHODS: tuple[Method, ...] = ("predict", "classify", "regress")
PLACES = ("", "/versions/<version>", "/labels/<label>")
VERSION = re.compile(r"\d{1,19}", flags=re.ASCII)
JSON = "application/json"
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp"})

logger = Logger()


class HttpError(Exception):
    """A request that HTTP itself has a word for: its status, the error's name and what to do."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


class Failure(Struct, frozen=True, omit_defaults=True):
    """The body of an error of our own routes."""

    error: str
    message: str
    problems: tuple[Problem, ...] = ()
    prediction_id: str | None = None


def make_api(door: Door) -> APIGatewayHttpResolver:
    """Return the resolver of API Gateway's events, payload format 2.0."""
    api = APIGatewayHttpResolver()
    routes: list[tuple[str, str, Callable[..., Response[str]]]] = [
        ("GET", "/health", lambda: _answer(door.health())),
        ("GET", "/openapi.json", lambda: _answer(describe_api())),
        ("POST", "/predict", lambda: _predict(api, door)),
        ("GET", "/predictions/<prediction_id>", lambda prediction_id: _respond(200, door.recall(prediction_id))),
    ]
    for place in PLACES:
        path = f"{SERVING}/<name>{place}"
        routes += [("POST", f"{path}:{method}", _serve(api, door, method)) for method in METHODS]
        routes += [("GET", f"{path}/metadata", _describe(door.metadata)), ("GET", path, _describe(door.status))]
    for verb, rule, answer in routes:
        api.route(rule, verb)(answer)

    @api.not_found
    def refuse_path(_: Exception) -> Response[str]:
        path, verb = api.current_event.path, api.current_event.http_method
        allowed = [known for known, rule, _ in routes if _fits(rule, path)]
        if allowed and verb not in allowed:
            error = HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"{verb} is not for {path}", {"Allow": ", ".join(allowed)})
        elif path.startswith(SERVING):
            error = HttpError(HTTPStatus.NOT_FOUND, f"Malformed request: {verb} {path}")
        else:
            error = HttpError(
                HTTPStatus.NOT_FOUND, f"there is nothing at {path}; GET /openapi.json lists what there is"
            )
        return _refuse(api, error)

    api.exception_handler(Exception)(lambda error: _refuse(api, error))
    return api


def _predict(api: APIGatewayHttpResolver, door: Door) -> Response[str]:
    kind, body = _read_body(api)
    # By its bytes as well: curl --data-binary says that a picture is a form.
    picture = kind in IMAGES or sniff_image(body)
    output = door.predict_image(body) if picture else door.predict(_read_json(body, strict=True))
    return _answer(output, {"X-Prediction-Id": output.prediction_id, "X-Release": output.release})


def _serve(api: APIGatewayHttpResolver, door: Door, method: Method) -> Callable[..., Response[str]]:
    def serve(name: str, version: str | None = None, label: str | None = None) -> Response[str]:
        _, body = _read_body(api)
        answered = door.ask(method, name, _read_version(name, version), label, _read_json(body, strict=False))
        return _answer(answered.body, _headers(answered))

    return serve


def _describe(describe: Callable[[str, int | None, str | None], object]) -> Callable[..., Response[str]]:
    def answer(name: str, version: str | None = None, label: str | None = None) -> Response[str]:
        if (label or version or name).endswith(tuple(f":{method}" for method in METHODS)):
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "ask by POST", {"Allow": "POST"})
        return _answer(describe(name, _read_version(name, version), label))

    return answer


def _read_version(name: str, version: str | None) -> int | None:
    if version is None:
        return None
    if not VERSION.fullmatch(version):
        raise errors.ServableNotFound(f"Servable not found for request: Specific({name}, {version})")
    return int(version)


def _read_body(api: APIGatewayHttpResolver) -> tuple[str, bytes]:
    """Return the request's media type and its bytes.

    curl sends JSON as a form unless told otherwise, and TensorFlow Serving asks no type: what is not known to be
    something else is taken for JSON.
    """
    event = api.current_event.raw_event
    kind = str(event.get("headers", {}).get("content-type", "")).partition(";")[0].strip().lower()
    if kind.startswith(("multipart/", "audio/", "video/")) or (kind.startswith("image/") and kind not in IMAGES):
        message = f"{kind} is not taken; send application/json, or a picture as image/png, image/jpeg or image/webp"
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
    text = event.get("body") or ""
    body = base64.b64decode(text) if event.get("isBase64Encoded") else str(text).encode("utf-8", "surrogatepass")
    if len(body) > BODY_BYTES:
        message = (
            f"the body has {len(body):,} bytes, and {BODY_BYTES:,} are taken; send fewer rows, or a pointer to them"
        )
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    return kind, body


def _read_json(body: bytes, *, strict: bool) -> Any:
    """Read JSON; NaN and infinities, which TensorFlow Serving's clients may write, only where it is not strict."""
    constants: dict[str, Any] = {"parse_constant": _refuse_number, "parse_float": _read_float} if strict else {}
    try:
        data = json.loads(body.decode(), **constants)
        msgspec.json.encode(data)  # finds what no JSON can carry on: half a surrogate pair, an integer beyond 64 bits
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidPayload([Problem("$", f"the body is not JSON: {_shorten(error)}", "send a JSON object")]) from None
    return data


def _shorten(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _read_float(numeral: str) -> float:
    number = float(numeral)
    if number in {float("inf"), float("-inf")}:
        _refuse_number(numeral)
    return number


def _refuse_number(numeral: str) -> NoReturn:
    raise ValueError(f"{numeral} is no finite number, write null where a value is missing")


def _headers(answered: Answered) -> dict[str, str]:
    kept = {} if answered.prediction_id is None else {"X-Prediction-Id": answered.prediction_id}
    return {"X-Release": answered.release, **kept}


def _answer(data: object, headers: Mapping[str, str] | None = None) -> Response[str]:
    body = msgspec.json.encode(data)
    if len(body) > BODY_BYTES:
        message = f"the answer has {len(body):,} bytes, and a response holds {BODY_BYTES:,}; ask for fewer rows"
        raise errors.AnswerTooLarge(message)
    return _respond(200, body, headers)


def _respond(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response[str]:
    return Response(status_code=status, content_type=JSON, body=body.decode(), headers=dict(headers or {}))


def _refuse(api: APIGatewayHttpResolver, error: Exception) -> Response[str]:
    status, failure, headers = _explain(error)
    if status in RETRY_SECONDS:
        headers = {"Retry-After": str(RETRY_SECONDS[status]), **headers}
    if failure.prediction_id is not None:
        headers = {"X-Prediction-Id": failure.prediction_id, **headers}
    serving = api.current_event.path.startswith(SERVING)
    body: object = {"error": _tell(failure)} if serving else failure
    return _respond(status, msgspec.json.encode(body), headers)


def _explain(error: Exception) -> tuple[int, Failure, Mapping[str, str]]:
    prediction_id: str | None = None
    if isinstance(error, Unanswered):
        prediction_id = error.prediction_id
        error = error.error
    if isinstance(error, HttpError):
        return error.status, Failure(error.status.phrase.replace(" ", ""), str(error)), error.headers
    if isinstance(error, EnsembleError):
        problems = error.problems if isinstance(error, InvalidPayload) else ()
        recorded = prediction_id if isinstance(error, errors.QuorumNotMet | errors.StillRunning) else None
        status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
        return status, Failure(type(error).__name__, str(error), problems, recorded), {}
    # Of what nobody expects, the log gets where it happened, but no message: it might quote what was sent.
    logger.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return 500, Failure("InternalError", "something went wrong here; the function's log says what"), {}


def _tell(failure: Failure) -> str:
    kept = "" if failure.prediction_id is None else f" (recorded as {failure.prediction_id})"
    return failure.message + kept


def _fits(rule: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"<\w+>", "[^/:]+", rule), path) is not None
