"""HTTP messages of the local stack's two ports: the head of a request, a response, and why a request is rejected."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

Environ = dict[str, Any]
"""A request as WSGI describes it (PEP 3333)."""


@dataclass(frozen=True)
class RequestHead:
    """A request without its body.

    Attributes:
        target: as sent; ASCII.
        headers: names as sent, and values.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    version: str = "1.1"

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """Header values by name in lower case; values of the same name are joined by commas."""
        joined: dict[str, str] = {}
        for name, value in self.headers:
            key = name.lower()
            joined[key] = f"{joined[key]},{value}" if key in joined else value
        # A target that is a whole URL names the host, whatever the header contains (RFC 9112, 3.2.2).
        return joined if self.target.startswith("/") else joined | {"host": urlsplit(self.target).netloc}

    @cached_property
    def path(self) -> str:
        """The path, decoded, one character for each byte, as WSGI has it."""
        path = self.target.partition("?")[0]
        if not path.startswith("/"):
            path = urlsplit(path).path or "/"
        return unquote_to_bytes(path).decode("latin-1")

    @property
    def query(self) -> str:
        """The part after the question mark, as sent."""
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response to a request."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class RequestRejected(Exception):
    """A request is rejected.

    Attributes:
        status: of the response.
        code: S3's name of the error.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class HttpApplication(Protocol):
    """What a server serves. Each connection has a thread of its own; all of them use one application."""

    def check_head(self, head: RequestHead) -> int:
        """Return the most bytes that the body may have; none of them has been read yet.

        Raises:
            RequestRejected: because of its head, whatever its body is.
        """

    def respond(self, head: RequestHead, environ: Environ) -> HttpResponse:
        """Return the response to a request that was read completely.

        Raises:
            RequestRejected: there is no other response to it.
        """

    def format_rejection(self, rejection: RequestRejected, head: RequestHead | None) -> HttpResponse:
        """Return a rejection in the application's own format; the head is None if none could be read."""


def make_environ(head: RequestHead, body: bytes, client: tuple[str, int], server: tuple[str, int]) -> Environ:
    """Return a request as WSGI describes it.

    Header names with underscores are left out: WSGI cannot distinguish them from those with hyphens.
    """
    environ: Environ = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": head.path,
        "QUERY_STRING": head.query,
        "RAW_URI": head.target,
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": client[1],
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{head.version}",
    }
    for name, value in head.fields.items():
        if "_" not in name and name != "transfer-encoding":
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ | {"CONTENT_LENGTH": str(len(body))}


def run_wsgi(application: Any, environ: Environ) -> HttpResponse:
    """Return a WSGI application's response to a request."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Any:
        started.append((status, headers))

    body = _join(application(environ, start_response))
    status, headers = started[-1]
    return HttpResponse(int(status.partition(" ")[0]), body, tuple(headers))


def _join(pieces: Iterable[bytes]) -> bytes:
    try:
        return b"".join(pieces)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
