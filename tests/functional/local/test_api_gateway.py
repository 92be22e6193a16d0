"""The local API Gateway: requests become events, and results become responses.

Expectations are of https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html.
"""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from stepensemble.local.http.api_gateway import ApiGateway, is_signed, make_event, make_response, read_path
from stepensemble.local.http.messages import HttpResponse, RequestHead, RequestRejected, make_environ
from stepensemble.local.lambdas.process import InvocationResult

SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260301/us-east-1/execute-api/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date, Signature=" + "a" * 64
)


def event(body: bytes = b"", query: str = "", path: str = "/predict", **headers: str) -> dict[str, Any]:
    environ = {
        "REQUEST_METHOD": "POST",
        "QUERY_STRING": query,
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": BytesIO(body),
    }
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_event(environ, path, named, "123456789012")


def test_a_request_is_an_event_of_payload_format_2() -> None:
    made = event(b"{}", content_type="application/json", host="here", user_agent="curl")
    assert (made["version"], made["rawPath"], made["routeKey"]) == ("2.0", "/predict", "POST /{proxy+}")
    assert made["requestContext"]["http"] == {
        "method": "POST",
        "path": "/predict",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "curl",
    }
    assert (made["requestContext"]["stage"], made["pathParameters"]) == ("$default", {"proxy": "predict"})


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/plain"])
def test_text_is_sent_as_text(kind: str) -> None:
    made = event("{é}".encode(), content_type=kind)
    assert (made["body"], made["isBase64Encoded"]) == ("{é}", False)


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded", "application/ld+json", ""])
def test_anything_else_is_sent_as_base64(kind: str) -> None:
    made = event(b"\x89PNG", content_type=kind)
    assert (base64.b64decode(made["body"]), made["isBase64Encoded"]) == (b"\x89PNG", True)


def test_without_a_body_cookies_or_a_query_there_are_no_such_keys() -> None:
    assert not {"body", "cookies", "queryStringParameters"} & set(event())


def test_cookies_leave_the_headers_and_doubled_parameters_are_joined() -> None:
    made = event(query="a=1&a=2&b=", cookie="x=1; y=2")
    assert (made["cookies"], "cookie" in made["headers"]) == (["x=1", "y=2"], False)
    assert made["queryStringParameters"] == {"a": "1,2", "b": ""}


def test_a_compressed_body_is_sent_as_base64_whatever_its_type() -> None:
    made = event(b"\x1f\x8b", content_type="application/json", content_encoding="gzip")
    assert (base64.b64decode(made["body"]), made["isBase64Encoded"]) == (b"\x1f\x8b", True)


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/plain", "/plain"),
        ("/space%20value", "/space value"),
        ("/question%3Fvalue", "/question"),
        ("/percent%25done", None),
        ("/hash%23value", "/hash#value"),
        ("/slash%2Fvalue", "/slash/value"),
        ("/unicode-%CE%BB", "/unicode-λ"),
        ("/literal%252Fvalue", "/literal/value"),
        ("/literal%253Fvalue", "/literal?value"),
        ("/literal%2525value", "/literal%value"),
        ("/titanic%3Apredict", "/titanic:predict"),
        ("/not-utf8-%E9", "/not-utf8-\ufffd"),
    ],
)
def test_a_path_is_decoded_as_by_a_deployed_http_api(sent: str, path: str | None) -> None:
    assert read_path(unquote_to_bytes(sent).decode("latin-1")) == path


def test_a_result_without_a_status_is_the_body() -> None:
    assert make_response({"a": 1}) == HttpResponse(200, b'{"a": 1}', (("Content-Type", "application/json"),))


def test_a_result_with_a_status_becomes_the_response() -> None:
    returned = {"statusCode": 404, "headers": {"X": "1"}, "cookies": ["a=b"], "body": "AAE=", "isBase64Encoded": True}
    assert make_response(returned) == HttpResponse(404, b"\x00\x01", (("X", "1"), ("Set-Cookie", "a=b")))


class FixedPool:
    """A pool whose functions always return the same result."""

    def __init__(self, result: InvocationResult) -> None:
        self.result = result

    def invoke(self, name: str, _: bytes) -> InvocationResult:
        assert name == "api"
        return self.result


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (InvocationResult("1", b'{"statusCode": 404, "body": "{}"}'), 404),
        (
            InvocationResult("1", b'{"errorType": "Sandbox.Timedout", "errorMessage": "29.00 seconds"}', "Unhandled"),
            504,
        ),
        (InvocationResult("1", b'{"errorType": "Runtime.ExitError", "errorMessage": "killed"}', "Unhandled"), 500),
        (InvocationResult("1", b"null", "Unhandled"), 500),
    ],
)
def test_a_function_that_times_out_is_a_504_and_one_that_fails_a_500(result: InvocationResult, status: int) -> None:
    gateway = ApiGateway(FixedPool(result), "api", "123456789012", auth=False)  # type: ignore[arg-type]
    head = RequestHead("GET", "/health", (("Host", "localhost"),))
    environ = make_environ(head, b"", ("127.0.0.1", 1), ("127.0.0.1", 2))
    response = gateway.respond(head, environ)
    assert response.status == status
    if status >= 500:
        assert list(json.loads(response.body)) == ["message"]


def test_an_unsigned_request_is_rejected_before_its_body_is_read() -> None:
    gateway = ApiGateway(FixedPool(InvocationResult("1", b"{}")), "api", "123456789012", auth=True)  # type: ignore[arg-type]
    with pytest.raises(RequestRejected) as rejected:
        gateway.check_head(RequestHead("POST", "/predict", (("Host", "localhost"),)))
    assert rejected.value.status == 403
    signed = (("Host", "localhost"), ("Authorization", SIGNED), ("X-Amz-Date", "20260301T000000Z"))
    assert gateway.check_head(RequestHead("POST", "/predict", signed)) == 6 * 1024 * 1024


@pytest.mark.parametrize(
    ("headers", "signed"),
    [
        ({"authorization": SIGNED, "x-amz-date": "20260301T000000Z"}, True),
        ({"authorization": SIGNED}, False),
        ({"authorization": SIGNED.replace("execute-api", "s3"), "x-amz-date": "20260301T000000Z"}, False),
        ({"authorization": SIGNED.replace("host;", ""), "x-amz-date": "20260301T000000Z"}, False),
        ({"authorization": SIGNED[:-1], "x-amz-date": "20260301T000000Z"}, False),
        ({}, False),
    ],
)
def test_a_request_has_the_form_of_a_signed_one_or_not(headers: dict[str, str], signed: bool) -> None:
    assert is_signed(headers) == signed
