"""A threaded HTTP/1.1 server for one site, on the loopback interface.

h11 reads requests and writes replies; here are the sockets, the threads and the limits. A connection has a thread of
its own, and there is no pool of them: a call of Step Functions waits for functions, which call back, so that any fixed
number of threads could all wait for one another.

A request is answered when it has been read whole, in one write, and the connection is kept. What a client may draw out
has an end: a head has so many bytes and seconds, a body as many bytes as the site admits, and a client that sends or
takes fewer bytes than `rate`, over more than `grace` seconds, is let go (`ServerLimits`). A request that breaks off is
never answered as if it were whole.
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

from stepensemble.local.http.messages import Refused, Reply, RequestHead, Site, make_environ

PIECE = 256 * 1024
"""Bytes that are read at once."""

JOINED = 64 * 1024
"""A reply's head and body of up to so many bytes leave in one write."""

SHORTEST = 0.001
"""Seconds; a socket that is to wait for none would not wait at all, and say so by another error."""

CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")

SHORT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How long and how much a server waits for; times in seconds.

    Attributes:
        idle: for the first byte of a request, on a connection that is kept.
        head: for all of a head, from its first byte.
        head_bytes: of it.
        grace: for a body, or for a client to take a reply, beside the time that its bytes have at `rate`.
        rate: bytes a second.
        linger: for the rest of a request that was refused, so that the client reads why.
        connections: at once.
        held: bytes of all bodies that have come and are not answered yet.
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
    """Serve a site on a socket that is bound already; `close` ends every connection."""

    daemon_threads = True

    def __init__(self, bound: socket.socket, site: Site, limits: ServerLimits = LIMITS) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.site = site
        self.limits = limits
        self._open: set[socket.socket] = set()
        self._held = 0
        self._holding = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="gateway", daemon=True)
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; where the process may open no more, wait a little rather than try at once again."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in SHORT_OF_FILES:
                time.sleep(0.05)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 (socketserver names it)
        """Say whether there is room for one more connection."""
        if len(self._open) < self.limits.connections:
            return True
        reply = self.site.refuse(Refused(503, "SlowDown", "there are too many connections; close some"), None)
        with suppress(OSError):
            request.settimeout(0)
            request.send(b"".join(encode_reply(h11.Connection(h11.SERVER), reply, None, close=True)))
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, remembering it."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection and forget it."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break."""

    def hold(self, size: int) -> None:
        """Count bytes of a body that have come; with a size below zero, those that are done with.

        Raises:
            Refused: they are too many, together with those of other requests.
        """
        with self._holding:
            if size > 0 and self._held + size > self.limits.held:
                raise Refused(503, "SlowDown", "too many requests have large bodies; send fewer at once")
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
    """One connection: a request after the other."""

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
            self._let_go()

    def _let_go(self) -> None:
        """Count the body of this request no longer."""
        self.server.hold(-self._holds)
        self._holds = 0

    def _serve(self) -> bool:
        """Answer one request; return whether there may be another."""
        head: RequestHead | None = None
        try:
            head = self._read_head()
            if head is None:
                return False
            reply = self._answer(head, self._read_body(head, self.server.site.admit(head)))
        except Refused as refusal:
            self._let_go()
            self._send(self.server.site.refuse(refusal, head), head, close=True)
            self._linger()
            return False
        self._let_go()
        self._send(reply, head)
        if self._connection.our_state is not h11.DONE or self._connection.their_state is not h11.DONE:
            return False
        self._connection.start_next_cycle()
        return True

    def _read_head(self) -> RequestHead | None:
        """Read the head of a request; None where no more comes.

        Raises:
            Refused: it is malformed, too long, or takes too long.
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
        # h11 limits what is incomplete only, and a whole head may arrive at once.
        if len(received) - len(self._connection.trailing_data[0]) > self._limits.head_bytes:
            raise self._too_long(received)
        return read_head(event)

    def _read_body(self, head: RequestHead, most: int) -> bytes:
        """Read a body to its announced end.

        Raises:
            Refused: it is larger than the site admits, malformed, breaks off, or comes too slowly.
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

    def _explain(self, error: h11.RemoteProtocolError) -> Refused:
        kept, ended = self._connection.trailing_data
        if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return self._too_long(kept)
        if error.error_status_hint == HTTPStatus.NOT_IMPLEMENTED:
            return Refused(501, "NotImplemented", "Transfer-Encoding may be chunked, and nothing else")
        # What follows a colon is quoted from the request.
        reason = str(error).partition(":")[0]
        if ended:
            return Refused(400, "IncompleteBody", f"the request breaks off, and nothing was done ({reason})")
        return Refused(400, "BadRequest", f"this is no well-formed request of HTTP/1.1 ({reason})")

    def _too_long(self, received: bytes) -> Refused:
        """Return the refusal of a head, of which at least the first bytes beyond the limit were received."""
        most = self._limits.head_bytes
        if b"\n" not in received[: most + 1]:
            return Refused(414, "RequestURITooLong", f"the target has more than {most:,} bytes")
        return Refused(431, "RequestHeaderSectionTooLarge", f"the request's head has more than {most:,} bytes")

    def _receive(self, deadline: float) -> bool:
        """Take what comes, be it the end; return whether it came in time."""
        try:
            self.request.settimeout(max(deadline - time.monotonic(), SHORTEST))
            piece = self.request.recv(PIECE)
        except TimeoutError:
            return False
        except OSError:  # reset by the client
            piece = b""
        self._connection.receive_data(piece)
        return True

    def _answer(self, head: RequestHead, body: bytes) -> Reply:
        host, port = self.server.server_address[:2]
        environ = make_environ(head, body, self.client_address[:2], (str(host), int(port)))
        try:
            return self.server.site.answer(head, environ)
        except Refused as refusal:
            return self.server.site.refuse(refusal, head)
        except Exception as error:  # noqa: BLE001 (a fault of the emulator must reach its caller as an answer)
            return self.server.site.refuse(explain_fault(error), head)

    def _send(self, reply: Reply, head: RequestHead | None, *, close: bool = False) -> None:
        self._write(encode_reply(self._connection, reply, head, close=close))

    def _write(self, pieces: Iterable[bytes]) -> None:
        """Send bytes; a client that takes them more slowly than it may is let go (TimeoutError)."""
        begun, sent = time.monotonic(), 0
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                left = begun + self._limits.grace + sent / self._limits.rate - time.monotonic()
                self.request.settimeout(max(left, SHORTEST))
                size = self.request.send(rest)
                sent, rest = sent + size, rest[size:]

    def _linger(self) -> None:
        """Read on for a while, and forget it: closed at once, the client might lose the reply with its connection."""
        deadline = time.monotonic() + self._limits.linger
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.request.settimeout(left)
                if not self.request.recv(PIECE):
                    return


def read_head(request: h11.Request) -> RequestHead:
    """Return the head of a request.

    Raises:
        Refused: h11 takes it, and this server does not.
    """
    version = request.http_version.decode()
    if version not in {"1.0", "1.1"}:
        raise Refused(505, "BadRequest", f"this server speaks HTTP/1.1, and the request HTTP/{version}")
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        # Which of the two is true, somebody between may see otherwise (RFC 9112, 6.1).
        raise Refused(400, "BadRequest", "the request has Content-Length and Transfer-Encoding; give one of them")
    target = request.target.decode()
    if not (target.startswith("/") or _is_address(target)):
        raise Refused(400, "BadRequest", "the target is neither a path nor an address")
    headers = tuple((name.decode(), value.decode("latin-1")) for name, value in request.headers.raw_items())
    return RequestHead(request.method.decode(), target, headers, version)


def _is_address(target: str) -> bool:
    try:
        return urlsplit(target).scheme == "http"
    except ValueError:  # brackets that do not match
        return False


def encode_reply(connection: h11.Connection, reply: Reply, head: RequestHead | None, *, close: bool) -> list[bytes]:
    """Return a reply as bytes, an entry for each write; what is short is one.

    Args:
        connection: on which it is sent.
        reply: its length and its date are filled in; a HEAD request's reply may say a length of its own.
        head: of the request, if one could be read.
        close: say that the connection ends.
    """
    bare = (head is not None and head.method == "HEAD") or reply.status in {204, 304}
    own = {"connection", "date", "transfer-encoding"} | (set() if bare else {"content-length"})
    headers = [(name.encode(), _clean(value)) for name, value in reply.headers if name.lower() not in own]
    headers.append((b"Date", _format_date(int(time.time()))))
    if not bare:
        headers.append((b"Content-Length", str(len(reply.body)).encode()))
    if close:
        headers.append((b"Connection", b"close"))
    response = h11.Response(status_code=reply.status, headers=headers, reason=_find_phrase(reply.status))
    start = connection.send(response) or b""
    body = b"" if bare else reply.body
    if body:
        connection.send_with_data_passthrough(h11.Data(data=body))
    connection.send(h11.EndOfMessage())
    return [start + body] if len(body) <= JOINED else [start, body]


def explain_fault(error: Exception) -> Refused:
    """Return what a client gets of an unexpected fault: what and where, without a value."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Refused(500, "InternalFailure", f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}")


def _clean(value: str) -> bytes:
    """Return a header's value in which a line end, brought in by a request, ends no line."""
    try:
        encoded = value.encode("latin-1")
    except UnicodeEncodeError:
        encoded = value.encode()
    return CONTROLS.sub(b" ", encoded).strip()


@lru_cache(maxsize=1)
def _format_date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@lru_cache
def _find_phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _too_slow() -> Refused:
    return Refused(408, "RequestTimeout", "the request did not arrive in time")


def _too_large(most: int) -> Refused:
    return Refused(413, "EntityTooLarge", f"the body has more than {most:,} bytes, the most that is taken here")
