"""The HTTP API: maps requests to the service, and errors to responses.

Under `/v1` errors are TensorFlow Serving's, `{"error": text}`, with its status codes: an unknown path or method is a
malformed request, 400. Elsewhere an error has more: `error` is its name, `message` its text, `problems` every bad field
of a payload with its remedy, and `prediction_id` the id of the record, if one is stored.
"""

from __future__ import annotations

import base64
import re
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from itertools import accumulate, takewhile
from typing import Any, Literal, NamedTuple

import msgspec
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from msgspec import Struct

from stepensemble.core import errors
from stepensemble.core.errors import EnsembleError, InvalidPayload
from stepensemble.core.problems import Problem, list_problems, show
from stepensemble.core.strict_json import read_json
from stepensemble.handlers.failures import Failure
from stepensemble.handlers.http.service import (
    BODY_BYTES,
    Method,
    PredictionService,
    ServiceFailure,
    ServiceResponse,
    within_a_response,
)
from stepensemble.imaging import sniff_image
from stepensemble.serving.openapi import describe_api

STATUSES: Mapping[type[EnsembleError], int] = {
    errors.InvalidPayload: 400,
    errors.LabelUnknown: 400,
    errors.RecordsClosed: 403,
    errors.RecordNotFound: 404,
    errors.ServableNotFound: 404,
    errors.PredictionConflict: 409,
    errors.PayloadTooLarge: 413,
    errors.ReleaseNotCurrent: 409,
    errors.ResponseTooLarge: 413,
    errors.QuorumNotMet: 422,
    errors.Throttled: 429,
    errors.NothingPublished: 503,
    errors.StillRunning: 503,
    errors.StorageUnavailable: 503,
    errors.StorageFull: 507,
}
"""Every other error is 500."""

RETRY_SECONDS = {429: 1, 503: 2}
"""Seconds in `Retry-After`, by status."""

PROBLEM_BYTES = 512 * 1024
"""Most bytes of problems in a response, as text and as data each; a response could not hold those of every body."""

SERVING = "/v1/"
METHODS: tuple[Method, ...] = ("predict", "classify", "regress")
PLACES = ("", "/versions/<version>", "/labels/<label>")
DIGITS = re.compile(r"\d+", flags=re.ASCII)
VERSION_DIGITS = 19
"""Digits of the largest version that 64 bits hold, as in TensorFlow Serving."""

JSON = "application/json"
IMAGE = ", or an image as PNG, JPEG or WebP"
BASE64 = ', and in it a file as {"b64": …}'
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp"})

logger = Logger()


class _Http(Struct, frozen=True):
    method: str
    path: str


class _Context(Struct, frozen=True):
    http: _Http
    stage: str


class _Event(Struct, frozen=True):
    """The part of API Gateway's event that this module reads."""

    requestContext: _Context  # noqa: N815 (API Gateway's name)
    rawPath: str  # noqa: N815
    version: Literal["2.0"]
    headers: Mapping[str, str]
    body: str | None = None
    isBase64Encoded: bool = False  # noqa: N815


class HttpError(Exception):
    """A request that an HTTP status describes; the message has the remedy."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def check_event(event: object) -> None:
    """Check that an event is API Gateway's, in payload format 2.0; a function can be invoked with anything.

    Raises:
        InvalidPayload: it is not; the message names what is missing, and how to send a request.
    """
    try:
        msgspec.convert(event, _Event)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        remedy = "send a request to the stack's HttpUrl, or start an execution of its state machine with the payload"
        reason = f"{message}, and this function takes only events of API Gateway, payload format 2.0"
        raise InvalidPayload([Problem(place.rstrip("`") or "$", reason, remedy)]) from None


def make_api(service: PredictionService) -> APIGatewayHttpResolver:
    """Return the resolver of API Gateway's events, payload format 2.0."""
    api = APIGatewayHttpResolver()
    routes: list[tuple[str, str, Callable[..., Response[str]]]] = [
        ("GET", "/health", lambda: _respond_json(service.health())),
        ("GET", "/openapi.json", lambda: _respond_json(describe_api())),
        ("POST", "/predict", lambda: _predict(api, service)),
        (
            "GET",
            "/predictions/<prediction_id>",
            lambda prediction_id: _respond(200, service.read_record(prediction_id)),
        ),
    ]
    for place in PLACES:
        path = f"{SERVING}models/<name>{place}"
        routes += [("POST", f"{path}:{method}", _serve(api, service, method)) for method in METHODS]
        routes += [
            ("GET", f"{path}/metadata", _describe(api, service.metadata)),
            ("GET", path, _describe(api, service.status)),
        ]
    for verb, rule, handle in routes:
        api.route(rule, verb)(handle)

    @api.not_found
    def reject_path(_: Exception) -> Response[str]:
        path, verb = api.current_event.path, api.current_event.http_method
        if path.startswith(SERVING):
            return _reject(api, _malformed(api))
        allowed = [known for known, rule, _ in routes if _fits(rule, path)]
        if allowed and verb not in allowed:
            error = HttpError(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{path} does not take {verb}", {"Allow": ", ".join(allowed)}
            )
            return _reject(api, error)
        message = f"no route is {path}; GET /openapi.json lists the routes"
        return _reject(api, HttpError(HTTPStatus.NOT_FOUND, message))

    api.exception_handler(Exception)(lambda error: _reject(api, error))
    return api


def _predict(api: APIGatewayHttpResolver, service: PredictionService) -> Response[str]:
    kind, body = _read_body(api)
    # Its bytes count as well: curl --data-binary declares an image as a form.
    is_image = kind in IMAGES or sniff_image(body)
    output = service.predict_image(body) if is_image else service.predict(_read_json(body, IMAGE, strict=True))
    return _respond_json(output, {"X-Prediction-Id": output.prediction_id, "X-Release": output.release})


def _serve(api: APIGatewayHttpResolver, service: PredictionService, method: Method) -> Callable[..., Response[str]]:
    def serve(name: str, version: str | None = None, label: str | None = None) -> Response[str]:
        number = _read_version(api, name, version, label)
        _, body = _read_body(api)
        response = service.predict_servable(method, name, number, label, _read_json(body, BASE64, strict=False))
        return _respond_json(response.body, _headers(response))

    return serve


def _describe(
    api: APIGatewayHttpResolver, describe: Callable[[str, int | None, str | None], object]
) -> Callable[..., Response[str]]:
    def describe_servable(name: str, version: str | None = None, label: str | None = None) -> Response[str]:
        return _respond_json(describe(name, _read_version(api, name, version, label), label))

    return describe_servable


def _read_version(api: APIGatewayHttpResolver, name: str, version: str | None, label: str | None) -> int | None:
    # An unknown method is part of the name or label before it, and so is a method that is requested by GET.
    if ":" in f"{name}{label}" or not (version is None or DIGITS.fullmatch(version)):
        raise _malformed(api)
    if version is None:
        return None
    if len(version) > VERSION_DIGITS:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"Failed to convert version: {version[:40]} to numeric.")
    return int(version)


def _malformed(api: APIGatewayHttpResolver) -> HttpError:
    event = api.current_event
    return HttpError(HTTPStatus.BAD_REQUEST, f"Malformed request: {event.http_method} {event.path}")


def _read_body(api: APIGatewayHttpResolver) -> tuple[str, bytes]:
    """Return the request's media type and its bytes.

    curl declares JSON as a form by default, and TensorFlow Serving needs no type, so a body of any type that is not
    known to be something else is read as JSON.
    """
    event = api.current_event.raw_event
    headers = event.get("headers", {})
    kind = str(headers.get("content-type", "")).partition(";")[0].strip().lower()
    if kind.startswith(("multipart/", "audio/", "video/")) or (kind.startswith("image/") and kind not in IMAGES):
        message = f"{kind} is not accepted; send application/json, or an image as image/png, image/jpeg or image/webp"
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
    text = event.get("body") or ""
    sent = base64.b64decode(text) if event.get("isBase64Encoded") else str(text).encode("utf-8", "surrogatepass")
    body = _decompress(sent, str(headers.get("content-encoding", "")).strip().lower())
    if len(body) > BODY_BYTES:
        message = (
            f"the body has {len(body):,} bytes, and the limit is {BODY_BYTES:,}; send fewer rows, or a pointer to them"
        )
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    return kind, body


def _decompress(body: bytes, coding: str) -> bytes:
    """Decompress a body, or as much of it as shows that it is too large."""
    if coding in {"", "identity"}:
        return body
    if coding not in {"gzip", "x-gzip"}:
        message = f"the content coding {show(coding)} is not accepted; send gzip, or the body uncompressed"
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, {"Accept-Encoding": "gzip"})
    reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = reader.decompress(body, BODY_BYTES + 1)
    except zlib.error:
        plain = b""
    if len(plain) <= BODY_BYTES and (not reader.eof or reader.unused_data):
        raise InvalidPayload([Problem("$", "the body is not gzip data", "leave Content-Encoding out")])
    return plain


def _read_json(body: bytes, file: str, *, strict: bool) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Args:
        body: of the request.
        file: how this route takes a file; for the message.
        strict: reject NaN and infinities, which TensorFlow Serving's clients may send.
    """
    try:
        return read_json(body, finite=strict)
    except UnicodeDecodeError:
        raise InvalidPayload([Problem("$", "the body is not text in UTF-8", f"send a JSON object{file}")]) from None
    except ValueError as error:
        message = f"the body is not JSON: {error}" if body.strip() else "the body is empty"
        raise InvalidPayload([Problem("$", message, "send a JSON object")]) from None


def _headers(response: ServiceResponse) -> dict[str, str]:
    kept = {} if response.prediction_id is None else {"X-Prediction-Id": response.prediction_id}
    return {"X-Release": response.release, **kept}


def _respond_json(data: object, headers: Mapping[str, str] | None = None) -> Response[str]:
    return _respond(200, within_a_response(msgspec.json.encode(data), "send fewer rows"), headers)


def _respond(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response[str]:
    return Response(status_code=status, content_type=JSON, body=body.decode(), headers=dict(headers or {}))


def _reject(api: APIGatewayHttpResolver, error: Exception) -> Response[str]:
    status, failure, headers = _explain(error)
    if status in RETRY_SECONDS:
        headers = {"Retry-After": str(RETRY_SECONDS[status]), **headers}
    if failure.prediction_id is not None:
        headers = {"X-Prediction-Id": failure.prediction_id, **headers}
    serving = api.current_event.path.startswith(SERVING)
    body: object = {"error": _describe_failure(failure)} if serving else failure
    return _respond(status, msgspec.json.encode(body), headers)


class _ErrorResponse(NamedTuple):
    """What a response reports about an error."""

    status: int
    failure: Failure
    headers: Mapping[str, str] = {}


def _explain(error: Exception) -> _ErrorResponse:
    recorded: str | None = None
    if isinstance(error, ServiceFailure):
        recorded = error.recorded
        error = error.error
    if isinstance(error, HttpError):
        name = error.status.phrase.replace(" ", "")
        return _ErrorResponse(error.status, Failure(name, str(error)), error.headers)
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
    if isinstance(error, InvalidPayload):
        message = list_problems(error.problems, max_bytes=PROBLEM_BYTES)
        return _ErrorResponse(status, Failure(type(error).__name__, message, _cut_problems(error.problems)))
    if isinstance(error, EnsembleError):
        return _ErrorResponse(status, Failure(type(error).__name__, str(error), prediction_id=recorded))
    # The log of an unexpected fault has its place and no message, which might quote the request.
    logger.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    failure = Failure("InternalError", "an unexpected fault; the log of the function has the details")
    return _ErrorResponse(500, failure)


def _cut_problems(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    sizes = accumulate(len(msgspec.json.encode(problem)) + 1 for problem in problems)
    kept = sum(1 for _ in takewhile(lambda size: size <= PROBLEM_BYTES, sizes))
    if kept == len(problems):
        return tuple(problems)
    return *problems[:kept], Problem("$", f"and {len(problems) - kept} more problems", "fix these first")


def _describe_failure(failure: Failure) -> str:
    kept = "" if failure.prediction_id is None else f" (recorded as {failure.prediction_id})"
    return failure.message + kept


def _fits(rule: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"<\w+>", "[^/:]+", rule), path) is not None
