"""A threaded HTTP/1.1 server for one application, on the loopback interface.

h11 parses requests and writes responses; this module has the sockets, the threads and the limits. Each connection has a
thread of its own. There is no thread pool: a request to Step Functions waits for functions, which send requests
themselves, so that any fixed number of threads could all wait for one another.

A response is sent once the request has been read completely, in one write, and the connection stays open. A client
cannot occupy the server without limit (`ServerLimits`): a head has a limit of bytes and seconds, a body a limit of
bytes, and a client that sends or receives fewer bytes than `rate`, for more than `grace` seconds, is disconnected. A
request that breaks off never gets the response of a complete one.
"""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

import h11

from stepensemble.local.http.messages import HttpApplication, HttpResponse, RequestHead, RequestRejected, make_environ

READ_BYTES = 256 * 1024
"""Bytes that are read at once."""

SINGLE_WRITE_BYTES = 64 * 1024
"""A response with a body of up to so many bytes is sent in one write."""

SHORTEST_TIMEOUT = 0.001
"""Seconds; a socket with a timeout of zero does not block, and raises another error."""

CONTROL_BYTES = re.compile(rb"[\x00-\x1f\x7f]")

OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How long and how much a server waits for; times in seconds.

    Attributes:
        idle: for the first byte of a request, on an open connection.
        head: for the whole head, from its first byte.
        head_bytes: the most bytes of a head.
        grace: for a body or a response, in addition to the time that its bytes take at `rate`.
        rate: bytes a second.
        linger: for the rest of a rejected request, so that the client reads the reason.
        connections: at the same time.
        held: bytes of all bodies that have been received and have no response yet.
    """

    idle: float = 120.0
    head: float = 30.0
    head_bytes: int = 32 * 1024
    grace: float = 60.0
    rate: float = 16 * 1024
    linger: float = 5.0
    connections: int = 1000
    held: int = 1024 * 1024 * 1024


LIMITS = ServerLimits()


class HttpServer(ThreadingTCPServer):
    """Serves an application on a bound socket; `close` ends every connection."""

    daemon_threads = True

    def __init__(self, bound: socket.socket, application: HttpApplication, limits: ServerLimits = LIMITS) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.application = application
        self.limits = limits
        self._open: set[socket.socket] = set()
        self._held = 0
        self._holding = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="gateway", daemon=True)
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; if the process cannot open more, wait a little before the next attempt."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                time.sleep(0.05)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 (socketserver names it)
        """Return whether one more connection is allowed."""
        if len(self._open) < self.limits.connections:
            return True
        response = self.application.format_rejection(
            RequestRejected(503, "SlowDown", "there are too many connections; close some"), None
        )
        with suppress(OSError):
            request.settimeout(0)
            request.send(b"".join(encode_response(h11.Connection(h11.SERVER), response, None, close=True)))
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and record it as open."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection, and record that."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that break."""

    def hold(self, size: int) -> None:
        """Add received bytes of a body to the total; a negative size removes them.

        Raises:
            RequestRejected: the total of all requests is above the limit.
        """
        with self._holding:
            if size > 0 and self._held + size > self.limits.held:
                raise RequestRejected(503, "SlowDown", "too many requests have large bodies; send fewer at once")
            self._held += size

    def close(self) -> None:
        """Stop listening and end every connection."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._open):
            with suppress(OSError):  # closed by the client meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseRequestHandler):
    """One connection, with one request after the other."""

    server: HttpServer

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._limits = self.server.limits
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        self._holds = 0
        try:
            while self._serve():
                pass
        finally:
            self._release_body()

    def _release_body(self) -> None:
        """Remove the body of this request from the total."""
        self.server.hold(-self._holds)
        self._holds = 0

    def _serve(self) -> bool:
        """Serve one request; return whether another may follow."""
        head: RequestHead | None = None
        try:
            head = self._read_head()
            if head is None:
                return False
            response = self._respond(head, self._read_body(head, self.server.application.check_head(head)))
        except RequestRejected as rejection:
            self._release_body()
            self._send(self.server.application.format_rejection(rejection, head), head, close=True)
            self._linger()
            return False
        self._release_body()
        self._send(response, head)
        if self._connection.our_state is not h11.DONE or self._connection.their_state is not h11.DONE:
            return False
        self._connection.start_next_cycle()
        return True

    def _read_head(self) -> RequestHead | None:
        """Read the head of a request; None if no more is sent.

        Raises:
            RequestRejected: it is malformed, too long, or takes too long.
        """
        deadline, begun = time.monotonic() + self._limits.idle, False
        received = self._connection.trailing_data[0]
        while (event := self._next_event()) is h11.NEED_DATA:
            if not begun and received:
                deadline, begun = time.monotonic() + self._limits.head, True
            if not self._receive(deadline):
                if begun:
                    raise _too_slow()
                return None
            received = self._connection.trailing_data[0]
        if not isinstance(event, h11.Request):
            return None
        # h11 limits incomplete heads only, and a whole head may arrive at once.
        if len(received) - len(self._connection.trailing_data[0]) > self._limits.head_bytes:
            raise self._too_long(received)
        return read_head(event)

    def _read_body(self, head: RequestHead, most: int) -> bytes:
        """Read a body to its announced end.

        Raises:
            RequestRejected: it is too large or malformed, breaks off, or arrives too slowly.
        """
        if int(head.fields.get("content-length") or 0) > most:
            raise _too_large(most)
        if self._connection.they_are_waiting_for_100_continue:
            self._write([self._connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b""])
        body = bytearray()
        begun = time.monotonic()
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                self.server.hold(len(event.data))
                self._holds += len(event.data)
                body += event.data
                if len(body) > most:
                    raise _too_large(most)
            elif not self._receive(begun + self._limits.grace + len(body) / self._limits.rate):
                raise _too_slow()
        return bytes(body)

    def _next_event(self) -> Any:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise self._explain(error) from None

    def _explain(self, error: h11.RemoteProtocolError) -> RequestRejected:
        kept, ended = self._connection.trailing_data
        if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return self._too_long(kept)
        if error.error_status_hint == HTTPStatus.NOT_IMPLEMENTED:
            return RequestRejected(501, "NotImplemented", "Transfer-Encoding may be chunked, and nothing else")
        # The part after a colon is quoted from the request.
        reason = str(error).partition(":")[0]
        if ended:
            return RequestRejected(400, "IncompleteBody", f"the request breaks off, and nothing was done ({reason})")
        return RequestRejected(400, "BadRequest", f"this is not a well-formed request of HTTP/1.1 ({reason})")

    def _too_long(self, received: bytes) -> RequestRejected:
        """Return the rejection of a head, of which the first bytes beyond the limit were received."""
        most = self._limits.head_bytes
        if b"\n" not in received[: most + 1]:
            return RequestRejected(414, "RequestURITooLong", f"the target has more than {most:,} bytes")
        return RequestRejected(431, "RequestHeaderSectionTooLarge", f"the request's head has more than {most:,} bytes")

    def _receive(self, deadline: float) -> bool:
        """Read the next bytes, or the end; return whether they arrived in time."""
        try:
            self.request.settimeout(max(deadline - time.monotonic(), SHORTEST_TIMEOUT))
            received = self.request.recv(READ_BYTES)
        except TimeoutError:
            return False
        except OSError:  # reset by the client
            received = b""
        self._connection.receive_data(received)
        return True

    def _respond(self, head: RequestHead, body: bytes) -> HttpResponse:
        host, port = self.server.server_address[:2]
        environ = make_environ(head, body, self.client_address[:2], (str(host), int(port)))
        try:
            return self.server.application.respond(head, environ)
        except RequestRejected as rejection:
            return self.server.application.format_rejection(rejection, head)
        except Exception as error:  # noqa: BLE001 (a fault of the emulator must reach the caller as a response)
            return self.server.application.format_rejection(explain_fault(error), head)

    def _send(self, response: HttpResponse, head: RequestHead | None, *, close: bool = False) -> None:
        self._write(encode_response(self._connection, response, head, close=close))

    def _write(self, pieces: Iterable[bytes]) -> None:
        """Send bytes; a client that receives them too slowly is disconnected (TimeoutError)."""
        begun, sent = time.monotonic(), 0
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                left = begun + self._limits.grace + sent / self._limits.rate - time.monotonic()
                self.request.settimeout(max(left, SHORTEST_TIMEOUT))
                size = self.request.send(rest)
                sent, rest = sent + size, rest[size:]

    def _linger(self) -> None:
        """Read and drop bytes for a while: the client might lose the response if the connection were closed at once."""
        deadline = time.monotonic() + self._limits.linger
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.request.settimeout(left)
                if not self.request.recv(READ_BYTES):
                    return


def read_head(request: h11.Request) -> RequestHead:
    """Return the head of a request.

    Raises:
        RequestRejected: h11 accepts it, but this server does not.
    """
    version = request.http_version.decode()
    if version not in {"1.0", "1.1"}:
        raise RequestRejected(505, "BadRequest", f"this server supports HTTP/1.1, not HTTP/{version}")
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        # A proxy might use the other one of the two (RFC 9112, 6.1).
        raise RequestRejected(
            400, "BadRequest", "the request has Content-Length and Transfer-Encoding; give one of them"
        )
    target = request.target.decode()
    if not (target.startswith("/") or _is_url(target)):
        raise RequestRejected(400, "BadRequest", "the target is neither a path nor a URL")
    headers = tuple((name.decode(), value.decode("latin-1")) for name, value in request.headers.raw_items())
    return RequestHead(request.method.decode(), target, headers, version)


def _is_url(target: str) -> bool:
    try:
        return urlsplit(target).scheme == "http"
    except ValueError:  # brackets that do not match
        return False


def encode_response(
    connection: h11.Connection, response: HttpResponse, head: RequestHead | None, *, close: bool
) -> list[bytes]:
    """Return a response as bytes, an entry for each write; a short one has one entry.

    Args:
        connection: on which it is sent.
        response: its length and date are filled in; a response to HEAD may have a length of its own.
        head: of the request, if one could be read.
        close: announce that the connection ends.
    """
    bare = (head is not None and head.method == "HEAD") or response.status in {204, 304}
    own = {"connection", "date", "transfer-encoding"} | (set() if bare else {"content-length"})
    headers = [(name.encode(), _clean(value)) for name, value in response.headers if name.lower() not in own]
    headers.append((b"Date", _format_date(int(time.time()))))
    if not bare:
        headers.append((b"Content-Length", str(len(response.body)).encode()))
    if close:
        headers.append((b"Connection", b"close"))
    encoded = h11.Response(status_code=response.status, headers=headers, reason=_find_phrase(response.status))
    start = connection.send(encoded) or b""
    body = b"" if bare else response.body
    if body:
        connection.send_with_data_passthrough(h11.Data(data=body))
    connection.send(h11.EndOfMessage())
    return [start + body] if len(body) <= SINGLE_WRITE_BYTES else [start, body]


def explain_fault(error: Exception) -> RequestRejected:
    """Return the response to an unexpected fault: its type and place, without a value."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return RequestRejected(
        500, "InternalFailure", f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
    )


def _clean(value: str) -> bytes:
    """Return a header's value without control bytes, so that a line end from a request cannot end the line."""
    try:
        encoded = value.encode("latin-1")
    except UnicodeEncodeError:
        encoded = value.encode()
    return CONTROL_BYTES.sub(b" ", encoded).strip()


@lru_cache(maxsize=1)
def _format_date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@lru_cache
def _find_phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _too_slow() -> RequestRejected:
    return RequestRejected(408, "RequestTimeout", "the request did not arrive in time")


def _too_large(most: int) -> RequestRejected:
    return RequestRejected(413, "EntityTooLarge", f"the body has more than {most:,} bytes, which is the limit here")
