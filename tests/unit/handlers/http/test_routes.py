"""The HTTP API's function, by API Gateway's events: which bodies are accepted, and which response an error becomes."""

from __future__ import annotations

import base64
import copy
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from stepensemble.core import errors
from stepensemble.core.errors import EnsembleError, InvalidPayload, NothingPublished, QuorumNotMet
from stepensemble.core.problems import Problem
from stepensemble.handlers.http.routes import RETRY_SECONDS, STATUSES, check_event, make_api
from stepensemble.handlers.http.service import BODY_BYTES, RESPONSE_BYTES, ServiceFailure

SERVING = "/v1/models/titanic:predict"
BODY = b'{"instances": [{"Age": 22}]}'


class StubService:
    """Keeps its calls, and always raises the same error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.requested: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        def raise_error(*arguments: Any) -> None:
            self.requested.append((name, *arguments))
            raise self.error

        return raise_error


def send_request(
    error: Exception, verb: str = "POST", path: str = "/predict", body: bytes = BODY, **headers: str
) -> tuple[int, dict[str, str], Any, list[tuple[Any, ...]]]:
    """Send one request; return status, headers, body, and the service's calls."""
    event = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": {"http": {"method": verb, "path": path}, "stage": "$default"},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    service = StubService(error)
    response: Any = make_api(service).resolve(event, None)  # type: ignore[arg-type]
    return response["statusCode"], response["headers"], json.loads(response["body"]), service.requested


def read_body(body: bytes, path: str = "/predict", **headers: str) -> Any:
    """Return the body that the service is called with; it fails because nothing is published."""
    status, _, _, requested = send_request(NothingPublished("nothing"), path=path, body=body, **headers)
    assert status == 503
    return requested[0][-1]


def rejected(body: bytes, path: str = "/predict", **headers: str) -> tuple[int, str]:
    """Return status and message of a request that does not reach the service."""
    status, _, response, requested = send_request(NothingPublished("nothing"), path=path, body=body, **headers)
    assert not requested
    return status, response["error"] if path.startswith("/v1/") else response["message"]


# --------------------------------------------------------------------------------------------------------- events


HTTP = {"method": "GET", "path": "/health"}
EVENT = {
    "version": "2.0",
    "rawPath": "/health",
    "headers": {},
    "requestContext": {"http": HTTP, "stage": "$default"},
}


def test_an_event_of_api_gateway_is_one() -> None:
    check_event(EVENT)
    check_event({**EVENT, "body": "{}", "isBase64Encoded": False, "cookies": ["a=b"]})


WHOLE_EVENT = {
    **EVENT,
    "routeKey": "$default",
    "rawQueryString": "a=b",
    "cookies": ["a=b"],
    "headers": {"content-type": "application/json", "host": "localhost"},
    "queryStringParameters": {"a": "b"},
    "pathParameters": {"proxy": "health"},
    "stageVariables": {"a": "b"},
    "requestContext": {
        "accountId": "123456789012",
        "authorizer": {},
        "http": {"method": "GET", "path": "/health", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
        "requestId": "JKJaXmPLvHcESHA=",
        "stage": "$default",
        "timeEpoch": 1583348638390,
    },
    "body": "{}",
    "isBase64Encoded": False,
}


def list_places(node: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield (*place, key)
        yield from list_places(value, (*place, key))


def test_an_event_with_a_missing_or_changed_key_gets_a_response_or_is_invalid() -> None:
    api = make_api(StubService(NothingPublished("nothing")))  # type: ignore[arg-type]
    valid, invalid = set(), set()
    for place in list_places(WHOLE_EVENT):
        for value in (None, 7, "x", [], {}, ...):
            event: Any = copy.deepcopy(WHOLE_EVENT)
            node = event
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = value
            if value is ...:
                del node[place[-1]]
            try:
                check_event(event)
            except InvalidPayload:
                invalid.add(place)
                continue
            api.resolve(event, None)  # type: ignore[arg-type]
            valid.add(place)
    assert ("requestContext", "stage") in invalid
    assert ("queryStringParameters",) in valid - invalid


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({}, "$: Object missing required field `requestContext`"),
        ({"features": {"Age": 22}}, "$: Object missing required field `requestContext`"),
        ([], "$: Expected `object`, got `array`"),
        (None, "$: Expected `object`, got `null`"),
        ({**EVENT, "version": "1.0"}, "$.version: Invalid enum value '1.0'"),
        ({**EVENT, "requestContext": {}}, "$.requestContext: Object missing required field `http`"),
        ({**EVENT, "requestContext": {"http": HTTP}}, "$.requestContext: Object missing required field `stage`"),
        ({**EVENT, "body": {"Age": 22}}, "$.body: Expected `str | null`, got `object`"),
        ({**EVENT, "headers": None}, "$.headers: Expected `object`, got `null`"),
    ],
)
def test_any_other_event_is_rejected_with_its_fault_and_a_remedy(event: Any, message: str) -> None:
    with pytest.raises(InvalidPayload) as rejected:
        check_event(event)
    (problem,) = rejected.value.problems
    assert str(problem).startswith(message)
    assert "HttpUrl" in problem.remedy
    assert "22" not in str(problem)


# --------------------------------------------------------------------------------------------------------- errors


def descendants(kind: type[EnsembleError]) -> Iterator[type[EnsembleError]]:
    for below in kind.__subclasses__():
        yield below
        yield from descendants(below)


@pytest.mark.parametrize("kind", sorted(set(descendants(EnsembleError)), key=str), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("path", ["/predict", SERVING])
def test_every_error_of_this_package_has_a_status_and_states_when_to_retry(
    kind: type[EnsembleError], path: str
) -> None:
    many = hasattr(errors, kind.__name__) and issubclass(kind, errors._WithProblems)
    error = kind([Problem("$.x", "is wrong", "fix it")]) if many else kind("the fault; the remedy")  # type: ignore[arg-type]
    status, headers, response, _ = send_request(error, path=path)
    assert status == STATUSES.get(kind, 500)
    assert headers["Content-Type"] == "application/json"
    assert headers.get("Retry-After") == (str(RETRY_SECONDS[status]) if status in {429, 503} else None)
    if path == SERVING:
        assert response == {"error": str(error)}
    else:
        assert (response["error"], response["message"]) == (kind.__name__, str(error))


@pytest.mark.parametrize("path", ["/predict", SERVING])
def test_an_unexpected_fault_reports_nothing(path: str) -> None:
    status, _, response, _ = send_request(RuntimeError("secret"), path=path)
    assert status == 500
    assert "secret" not in json.dumps(response)
    assert "Traceback" not in json.dumps(response)


@pytest.mark.parametrize("path", ["/predict", SERVING])
def test_more_problems_than_a_response_holds_are_counted(path: str) -> None:
    problems = [Problem(f"$.instances[{row}]", "é" * 40, "fix it") for row in range(100_000)]
    status, _, response, _ = send_request(InvalidPayload(problems), path=path)
    assert status == 400
    assert len(json.dumps(json.dumps(response))) < RESPONSE_BYTES
    text = response["error"] if path == SERVING else response["message"]
    first, *lines, last = text.splitlines()
    assert first == "100000 problems:"
    assert lines == [f"- {problem}" for problem in problems[: len(lines)]]
    assert last == f"- and {100_000 - len(lines)} more"
    if path == "/predict":
        *details, rest = response["problems"]
        assert details == [
            {"path": one.path, "message": one.message, "remedy": one.remedy} for one in problems[: len(details)]
        ]
        assert rest["message"] == f"and {100_000 - len(details)} more problems"


def test_a_record_is_named_where_there_is_one() -> None:
    failed = ServiceFailure(QuorumNotMet("too few"), "here")
    status, headers, response, _ = send_request(failed)
    assert (status, headers["X-Prediction-Id"], response["prediction_id"]) == (422, "here", "here")
    assert send_request(failed, path=SERVING)[2] == {"error": "too few (recorded as here)"}
    assert "prediction_id" not in send_request(ServiceFailure(NothingPublished("nothing"), None))[2]


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", SERVING),
        ("POST", "/v1/models/titanic"),
        ("POST", "/v1/models/titanic:explain"),
        ("GET", "/v1/models/titanic:explain"),
        ("POST", "/v1/models/titanic/metadata"),
        ("POST", "/v1/models/titanic/versions/x:predict"),
        ("GET", "/v1/models/titanic/versions/-1"),
        ("GET", "/v1/models/titanic/versions/1:predict"),
        ("GET", "/v1/models/titanic/labels/stable:predict"),
        ("POST", "/v1/models/a:b:predict"),
        ("POST", "/v1/models/a/b:predict"),
        ("GET", "/v1/models"),
        ("GET", "/v1/else"),
    ],
)
def test_an_unknown_path_or_method_is_malformed_as_in_tensorflow_serving(verb: str, path: str) -> None:
    status, _, response, requested = send_request(NothingPublished("nothing"), verb, path)
    assert (status, response, requested) == (400, {"error": f"Malformed request: {verb} {path}"}, [])


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5000])
def test_a_version_beyond_64_bits_is_rejected(digits: str) -> None:
    status, _, response, _ = send_request(NothingPublished("nothing"), "GET", f"/v1/models/titanic/versions/{digits}")
    assert (status, response) == (400, {"error": f"Failed to convert version: {digits[:40]} to numeric."})


@pytest.mark.parametrize("name", ["a b", "é", "名", "a%b", "a+b", "a=b", "50%"])
def test_a_name_is_used_as_api_gateway_decoded_it(name: str) -> None:
    _, _, _, requested = send_request(NothingPublished("nothing"), "GET", f"/v1/models/{name}/metadata")
    assert requested == [("metadata", name, None, None)]


# --------------------------------------------------------------------------------------------------------- bodies


def test_a_byte_order_mark_is_ignored() -> None:
    assert read_body(b"\xef\xbb\xbf" + BODY) == json.loads(BODY)


@pytest.mark.parametrize("path", ["/predict", SERVING])
def test_a_key_that_is_given_twice_is_rejected(path: str) -> None:
    status, message = rejected(b'{"instances": [{"Age": 1, "Sex": "male", "Age": 2}]}', path)
    assert status == 400
    assert '"Age" is given twice in one object; give it once' in message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b" \n", "the body is empty; send a JSON object"),
        (b"{", "the body is not JSON: Expecting property name"),
        (b"[" * 100_000, "the body is not JSON: it is nested too deeply"),
        (b'{"features": {"x": "\\udc00"}}', "the body is not JSON: it has half a surrogate pair, \\udc00, which is no"),
        ('{"Sex": "é"}'.encode("latin-1"), "the body is not text in UTF-8; send a JSON object"),
        ("{}".encode("utf-16"), "the body is not text in UTF-8; send a JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", SERVING])
def test_what_is_not_json_is_rejected(path: str, body: bytes, message: str) -> None:
    status, found = rejected(body, path)
    assert status == 400
    assert message in found


def test_a_message_explains_how_to_send_an_image() -> None:
    gif = b"GIF89a\xff"
    assert rejected(gif)[1].endswith("send a JSON object, or an image as PNG, JPEG or WebP")
    assert rejected(gif, SERVING)[1].endswith('send a JSON object, and in it a file as {"b64": …}')


@pytest.mark.parametrize("path", ["/predict", SERVING])
def test_a_compressed_body_is_accepted_as_by_tensorflow_serving(path: str) -> None:
    assert read_body(gzip.compress(BODY), path, content_encoding="gzip") == json.loads(BODY)
    assert read_body(BODY, path, content_encoding="identity") == json.loads(BODY)


def test_a_compressed_image_is_accepted() -> None:
    image = b"\x89PNG\r\n\x1a\nwhatever"
    assert read_body(gzip.compress(image), content_encoding="gzip") == image


@pytest.mark.parametrize(
    "body",
    [BODY, b"", gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"more"],
    ids=["plain", "empty", "cut", "longer"],
)
def test_a_body_that_is_not_gzip_data_is_rejected(body: bytes) -> None:
    status, message = rejected(body, content_encoding="gzip")
    assert (status, message) == (400, "1 problem:\n- $: the body is not gzip data; leave Content-Encoding out")


@pytest.mark.parametrize("size", [BODY_BYTES + 1, 100 * BODY_BYTES])
@pytest.mark.slow
def test_a_body_that_is_too_large_is_rejected_compressed_or_not(size: int) -> None:
    assert rejected(gzip.compress(b" " * size), content_encoding="gzip")[0] == 413
    if size == BODY_BYTES + 1:
        assert rejected(b" " * size)[0] == 413


def test_another_compression_is_rejected_with_the_accepted_one() -> None:
    status, headers, response, _ = send_request(NothingPublished("nothing"), content_encoding="br")
    assert (status, headers["Accept-Encoding"]) == (415, "gzip")
    assert response["message"] == 'the content coding "br" is not accepted; send gzip, or the body uncompressed'
