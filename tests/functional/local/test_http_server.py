"""The server of both ports, byte by byte: malformed, endless, slow, incomplete and valid requests."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from stepensemble.local.http.messages import Environ, HttpResponse, RequestHead, RequestRejected
from stepensemble.local.http.server import HttpServer, ServerLimits

MOST = 1000
LIMITS = ServerLimits(idle=5, head=5, head_bytes=4096, grace=5, linger=1, connections=300)
SHORT_LIMITS = ServerLimits(idle=5, head=0.5, grace=0.5, rate=1e6, linger=0.1, connections=300)


class Echo:
    """Responds with the body of the request, and records it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def check_head(self, head: RequestHead) -> int:
        if head.path == "/forbidden":
            raise RequestRejected(403, "AccessDenied", "no")
        return MOST

    def respond(self, head: RequestHead, environ: Environ) -> HttpResponse:
        if head.path == "/broken":
            raise ValueError("a secret value")
        if head.path == "/missing":
            raise RequestRejected(404, "NoSuchKey", "it is not there")
        body = environ["wsgi.input"].read()
        self.bodies.append(body)
        return HttpResponse(
            200, body, (("X-Path", head.path), ("X-Query", head.query), ("X-Host", head.fields["host"]))
        )

    def format_rejection(self, rejection: RequestRejected, _: RequestHead | None) -> HttpResponse:
        return HttpResponse(rejection.status, f"{rejection.code}: {rejection}".encode())


@pytest.fixture
def application() -> Echo:
    return Echo()


@pytest.fixture
def port(application: Echo) -> Iterator[int]:
    yield from serve(application, LIMITS)


@pytest.fixture
def hasty_port(application: Echo) -> Iterator[int]:
    """A server with limits of half a second."""
    yield from serve(application, SHORT_LIMITS)


def serve(application: Echo, limits: ServerLimits) -> Iterator[int]:
    bound = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = HttpServer(bound, application, limits)
    yield bound.getsockname()[1]
    server.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def exchange(port: int, sent: bytes, *, end: bool = False) -> bytes:
    """Send bytes, and return all bytes until the server closes; `end` closes the sending side."""
    with connect(port) as connection:
        connection.sendall(sent)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def statuses(received: bytes) -> list[int]:
    """Return the status of each response."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


HEAD = b"POST /here HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "one word": (b"GET\r\n\r\n", 400),
    "version 0.9": (b"GET /\r\n\r\n", 400),
    "version 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "version 3": (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    "a blank in a name": (HEAD + b"Content Length: 1\r\n\r\n", 400),
    "a blank before the colon": (HEAD + b"Content-Length : 1\r\n\r\n", 400),
    "no colon": (HEAD + b"Content-Length\r\n\r\n", 400),
    "a zero byte": (HEAD + b"X: a\x00b\r\n\r\n", 400),
    "no such target": (b"GET here HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "an address with half a bracket": (b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "an address of TLS": (b"GET https://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a tunnel": (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "length below zero": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "length with a sign": (HEAD + b"Content-Length: +1\r\n\r\nx", 400),
    "length in words": (HEAD + b"Content-Length: abc\r\n\r\n", 400),
    "length that is empty": (HEAD + b"Content-Length:\r\n\r\n", 400),
    "length in hex": (HEAD + b"Content-Length: 0x1\r\n\r\nx", 400),
    "length of 30 digits": (HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    "two lengths in one": (HEAD + b"Content-Length: 1, 2\r\n\r\nxx", 400),
    "length and chunks": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "identity": (HEAD + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "gzip": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunked twice": (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    "chunk size in words": (CHUNKED + b"xyz\r\n", 400),
    "chunk size below zero": (CHUNKED + b"-1\r\n", 400),
    "chunk size of 30 digits": (CHUNKED + b"f" * 30 + b"\r\n", 400),
    "chunk longer than its size": (CHUNKED + b"1\r\nxx\r\n", 400),
    "a body too large": (HEAD + b"Content-Length: 1001\r\n\r\n", 413),
    "chunks too large": (CHUNKED + b"3e9\r\n" + b"x" * 1001, 413),
    "a long target": (b"GET /" + b"x" * 5000, 414),
    "a long header": (HEAD + b"X: " + b"x" * 5000, 431),
    "many headers": (HEAD + b"X: y\r\n" * 1000, 431),
    "a long target in a whole head": (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "a long header in a whole head": (HEAD + b"X: " + b"x" * 5000 + b"\r\n\r\n", 431),
    "a byte too many in a whole head": (HEAD + b"X: " + b"x" * (4097 - len(HEAD) - 7) + b"\r\n\r\n", 431),
    "endless trailers": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 1000, 431),
    "rejected by its head": (b"POST /forbidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", 403),
}
"""Requests, and the status of each response; then the server closes, without waiting for the client."""


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_its_status_and_the_connection_ends(application: Echo, port: int, name: str) -> None:
    sent, status = MALFORMED[name]
    received = exchange(port, sent)
    assert statuses(received) == [status]
    assert b"\r\nConnection: close\r\n" in received
    assert application.bodies == []


BROKEN_OFF: dict[str, bytes] = {
    "in the head": HEAD,
    "before the body": HEAD + b"Content-Length: 10\r\n\r\n",
    "in the body": HEAD + b"Content-Length: 10\r\n\r\n123456789",
    "before the chunks": CHUNKED,
    "in a chunk": CHUNKED + b"5\r\nabc",
    "in an endless chunk": CHUNKED + b"ffffffffffffffff\r\nabc",
    "before the last chunk": CHUNKED + b"5\r\nabcde\r\n",
    "in the last chunk": CHUNKED + b"5\r\nabcde\r\n0\r\n",
}


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_a_request_that_breaks_off_is_not_served(application: Echo, port: int, name: str) -> None:
    received = exchange(port, BROKEN_OFF[name], end=True)
    assert statuses(received) == [400]
    assert b"IncompleteBody: " in received
    assert application.bodies == []


def test_no_beginning_of_a_request_is_served_as_the_whole_request(application: Echo, port: int) -> None:
    for whole in (
        HEAD + b"Content-Length: 3\r\n\r\nabc",
        CHUNKED + b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nTrailer: 1\r\n\r\n",
    ):
        for end in range(1, len(whole)):
            assert set(statuses(exchange(port, whole[:end], end=True))) <= {400}
        assert application.bodies == []
        exchange(port, whole, end=True)
        assert application.bodies == [b"abc"]
        application.bodies.clear()


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"GET /here HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
        (b"GET http://localhost/here?a=b HTTP/1.1\r\nHost: elsewhere\r\n\r\n", b""),
        (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (HEAD + b"content-length: 3\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (CHUNKED + b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nTrailer: 1\r\n\r\n", b"abc"),
        (HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * MOST, b"x" * MOST),
        (HEAD + b"X: " + b"x" * (4096 - len(HEAD) - 7) + b"\r\n\r\n", b""),  # the longest head
    ],
)
def test_a_complete_request_is_served_and_the_connection_stays_open(
    application: Echo, port: int, sent: bytes, body: bytes
) -> None:
    received = exchange(port, sent * 2, end=True)
    assert [status for status in statuses(received) if status != 100] == [200, 200]
    assert received.count(b"X-Path: /here\r\n") == received.count(b"X-Host: localhost\r\n") == 2
    assert application.bodies == [body, body]


def test_a_client_that_waits_may_send_only_an_accepted_body(port: int) -> None:
    waiting = b"Host: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert statuses(exchange(port, b"POST /forbidden HTTP/1.1\r\n" + waiting % 3)) == [403]
    assert statuses(exchange(port, b"POST /here HTTP/1.1\r\n" + waiting % 1001)) == [413]
    with connect(port) as connection:
        connection.sendall(b"POST /here HTTP/1.1\r\n" + waiting % 3)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")


def test_a_head_request_has_the_headers_alone(port: int) -> None:
    received = exchange(port, b"HEAD /here HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", end=True)
    assert statuses(received) == [200]
    assert received.endswith(b"\r\n\r\n")


def test_a_client_of_http_1_0_gets_one_response(port: int) -> None:
    assert statuses(exchange(port, b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")) == [200]


def test_the_response_to_a_fault_has_no_value_and_the_connection_stays_open(port: int) -> None:
    received = exchange(port, b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2, end=True)
    assert statuses(received) == [500, 500]
    assert b"ValueError in test_http_server.py, line " in received
    assert b"secret" not in received


def test_a_rejection_of_a_complete_request_leaves_the_connection_open(port: int) -> None:
    assert statuses(exchange(port, b"GET /missing HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2, end=True)) == [404, 404]


def test_a_line_end_from_a_request_does_not_end_a_header(port: int) -> None:
    received = exchange(port, b"GET /a%0d%0aX-Evil:%20b HTTP/1.1\r\nHost: localhost\r\n\r\n", end=True)
    assert statuses(received) == [200]
    assert b"X-Path: /a  X-Evil: b\r\n" in received


def test_two_hundred_slow_clients_are_disconnected_and_do_not_block_others(hasty_port: int) -> None:
    with ExitStack() as opened:
        slow = [opened.enter_context(connect(hasty_port)) for _ in range(200)]
        for number, connection in enumerate(slow):
            connection.sendall((HEAD, HEAD + b"Content-Length: 5\r\n\r\na")[number % 2])
        response = exchange(hasty_port, HEAD + b"Connection: close\r\n\r\n")
        assert statuses(response) == [200]
        assert {tuple(statuses(read_all(connection))) for connection in slow} == {(408,)}


def test_a_client_that_reads_no_responses_is_disconnected(application: Echo, hasty_port: int) -> None:
    with connect(hasty_port) as connection:
        with suppress(OSError):  # reset or broken pipe, depending on the system
            while True:
                connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * MOST)
        assert application.bodies


def test_all_bodies_together_have_a_limit_until_their_responses_are_sent(application: Echo) -> None:
    for port in serve(application, ServerLimits(held=1500, grace=5, linger=0.1)):
        whole = HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * MOST
        with connect(port) as first:
            first.sendall(whole[:-1])
            for _ in range(100):  # until the server has read the bytes
                if 503 in statuses(exchange(port, whole, end=True)):
                    break
            else:
                pytest.fail("a second body was taken beside the first")
            first.sendall(whole[-1:])
            assert first.recv(12) == b"HTTP/1.1 200"
        assert statuses(exchange(port, whole * 3, end=True)) == [200] * 3


def test_connections_beyond_the_limit_are_rejected(application: Echo) -> None:
    for port in serve(application, ServerLimits(connections=2, linger=0.1)):
        with connect(port) as first, connect(port) as second:
            for connection in (first, second):
                connection.sendall(HEAD + b"\r\n")
                assert connection.recv(9) == b"HTTP/1.1 "
            assert statuses(exchange(port, b"")) == [503]
