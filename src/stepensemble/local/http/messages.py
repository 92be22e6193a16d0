"""HTTP messages of the local stack's two ports: the head of a request, a reply, and why a request is refused."""

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
        target: as it was sent; ASCII.
        headers: names as they were sent, and values.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    version: str = "1.1"

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """Header values by name in lower case; those of one name joined by commas."""
        joined: dict[str, str] = {}
        for name, value in self.headers:
            key = name.lower()
            joined[key] = f"{joined[key]},{value}" if key in joined else value
        # A target that is a whole address names the host, whatever the header says (RFC 9112, 3.2.2).
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
        """What follows the question mark, as it was sent."""
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a request."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of the reply.
        code: the name that S3 gives the error.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Site(Protocol):
    """What a server serves. A connection has a thread of its own; all of them use one site."""

    def admit(self, head: RequestHead) -> int:
        """Return how many bytes of body a request may have; no byte of it has been read yet.

        Raises:
            Refused: the request is not answered, whatever its body is.
        """

    def answer(self, head: RequestHead, environ: Environ) -> Reply:
        """Answer a request that was read whole.

        Raises:
            Refused: it cannot be answered.
        """

    def refuse(self, refusal: Refused, head: RequestHead | None) -> Reply:
        """Put a refusal into the site's own form; without a head where none could be read."""


def make_environ(head: RequestHead, body: bytes, client: tuple[str, int], server: tuple[str, int]) -> Environ:
    """Return a request as WSGI describes it.

    Header names with underscores are left out: WSGI has no way to keep them apart from those with hyphens.
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


def run_wsgi(application: Any, environ: Environ) -> Reply:
    """Have a WSGI application answer a request."""
    said: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Any:
        said.append((status, headers))

    body = _join(application(environ, start_response))
    status, headers = said[-1]
    return Reply(int(status.partition(" ")[0]), body, tuple(headers))


def _join(pieces: Iterable[bytes]) -> bytes:
    try:
        return b"".join(pieces)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
