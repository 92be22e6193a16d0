"""The HTTP API on this machine; does what API Gateway does between a client and the function behind it.

A request becomes an event of payload format 2.0, the function is invoked, and its result becomes the response
(https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html).

Requests need no signature. With `auth`, a request must have the form of Signature Version 4: the algorithm, a
credential scope of `execute-api`, signed headers with `host` among them, 64 hex digits, and a date. The signature, the
date's value and permissions are not checked. There is no JWT authorizer, throttling, CORS or access log. On AWS, API
Gateway does all that.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes
from uuid import uuid4

from stepensemble.local.http.messages import Environ, HttpResponse, RequestHead, RequestRejected
from stepensemble.local.http.origins import check_origin
from stepensemble.local.lambdas.pool import FunctionPool
from stepensemble.local.lambdas.runtime_api import REQUEST_BYTES

TEXT_TYPES = re.compile(r"text/.*|application/(json|javascript|xml)")
"""Bodies of these types are sent as text; bodies of other types, or of none, as base64, as was found on AWS
(https://github.com/ministackorg/ministack/pull/766).
"""

TIMED_OUT = "Sandbox.Timedout"
"""The type of Lambda's error for a function that timed out."""

LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")

SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/\s]+/\d{8}/[a-z0-9-]+/execute-api/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=[0-9a-f]{64}"
)


class ApiGateway:
    """Serves the HTTP API in front of one function."""

    def __init__(self, pool: FunctionPool, function: str, account: str, *, auth: bool) -> None:
        self._pool = pool
        self._function = function
        self._account = account
        self._auth = auth

    def check_head(self, head: RequestHead) -> int:
        """Return the most bytes of a body: Lambda's limit, although an event has room for fewer."""
        check_origin(head)
        if self._auth and not is_signed(head.fields):
            raise RequestRejected(403, "Forbidden", "Forbidden")
        return REQUEST_BYTES

    def respond(self, head: RequestHead, environ: Environ) -> HttpResponse:
        """Return the function's response to a request."""
        if head.method not in {"GET", "POST"}:
            return _make_error(404, "Not Found")  # the API has routes for these two
        path = read_path(environ["PATH_INFO"])
        if path is None:
            return _make_error(400, "Bad Request")
        event = json.dumps(make_event(environ, path, _read_headers(environ), self._account)).encode()
        if len(event) > REQUEST_BYTES:
            return _make_error(413, "Request Entity Too Large")
        result = self._pool.invoke(self._function, event)
        returned = json.loads(result.payload)
        if result.error is None:
            return make_response(returned)
        if isinstance(returned, Mapping) and returned.get("errorType") == TIMED_OUT:
            return _make_error(504, "Endpoint request timed out")
        return _make_error(500, "Internal Server Error")

    def format_rejection(self, rejection: RequestRejected, head: RequestHead | None) -> HttpResponse:  # noqa: ARG002 (the protocol's)
        """Return a rejection in API Gateway's format."""
        return _make_error(rejection.status, str(rejection))


def is_signed(headers: Mapping[str, str]) -> bool:
    """Return whether a request has the form of a signed one, by its headers in lower case; see the module."""
    found = SIGNATURE.fullmatch(headers.get("authorization", ""))
    dated = "x-amz-date" in headers or "date" in headers
    return found is not None and dated and "host" in found["headers"].split(";")


def read_path(decoded: str) -> str | None:
    """Return a path as API Gateway passes it on, or None if it rejects the request.

    It decodes twice. After the first time it drops the part behind a question mark; a path that cannot be decoded a
    second time is rejected. This was found on AWS (`vokerhttp/testdata/ingress-paths.json` in
    https://github.com/hotsock/voker).

    Args:
        decoded: the path, decoded once, as in WSGI.
    """
    path = decoded.encode("latin-1").partition(b"?")[0]
    if LONE_PERCENT.search(path):
        return None
    return unquote_to_bytes(path).decode("utf-8", "replace")


def make_event(environ: Environ, path: str, headers: Mapping[str, str], account: str) -> dict[str, Any]:
    """Return the event that API Gateway sends to a function for a request."""
    body = environ["wsgi.input"].read()
    now = datetime.now(UTC)
    cookies = [cookie.strip() for cookie in headers.get("cookie", "").split(";") if cookie.strip()]
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": f"{environ['REQUEST_METHOD']} /{{proxy+}}",
        "rawPath": path,
        "rawQueryString": environ.get("QUERY_STRING", ""),
        "headers": {name: value for name, value in headers.items() if name != "cookie"},
        "requestContext": {
            "accountId": account,
            "apiId": "local",
            "domainName": headers.get("host", ""),
            "domainPrefix": "local",
            "http": {
                "method": environ["REQUEST_METHOD"],
                "path": path,
                "protocol": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
                "sourceIp": environ.get("REMOTE_ADDR", "127.0.0.1"),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid4()),
            "routeKey": f"{environ['REQUEST_METHOD']} /{{proxy+}}",
            "stage": "$default",
            "time": f"{now:%d/%b/%Y:%H:%M:%S +0000}",
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "pathParameters": {"proxy": path.removeprefix("/")},
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    query: dict[str, str] = {}
    for name, value in parse_qsl(event["rawQueryString"], keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value
    if query:
        event["queryStringParameters"] = query
    if body:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        text = _decode(body) if TEXT_TYPES.fullmatch(kind) else None
        event |= {
            "body": base64.b64encode(body).decode() if text is None else text,
            "isBase64Encoded": text is None,
        }
    return event


def make_response(returned: Any) -> HttpResponse:
    """Return the response that a function's return value describes; without a status, the value is the body."""
    if not isinstance(returned, Mapping) or "statusCode" not in returned:
        return HttpResponse(200, json.dumps(returned).encode(), (("Content-Type", "application/json"),))
    body = str(returned.get("body") or "")
    headers = [(str(name), str(value)) for name, value in (returned.get("headers") or {}).items()]
    headers += [("Set-Cookie", str(cookie)) for cookie in returned.get("cookies") or ()]
    content = base64.b64decode(body) if returned.get("isBase64Encoded") else body.encode()
    return HttpResponse(int(returned["statusCode"]), content, tuple(headers))


def _read_headers(environ: Environ) -> dict[str, str]:
    return dict(_list_headers(environ))


def _list_headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name.removeprefix("HTTP_").replace("_", "-").lower(), str(value)
        elif name in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value:
            yield name.replace("_", "-").lower(), str(value)


def _decode(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _make_error(status: int, message: str) -> HttpResponse:
    return HttpResponse(status, json.dumps({"message": message}).encode(), (("Content-Type", "application/json"),))
