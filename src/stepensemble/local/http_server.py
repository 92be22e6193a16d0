"""A threaded HTTP/1.1 server for one WSGI application, on the loopback interface.

werkzeug's own development server closes every connection after one request and waits 10 ms for stragglers before that.
This one reads each request whole, answers in one write and keeps the connection.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from http.server import ThreadingHTTPServer
from io import BytesIO
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler


class _Handler(MotoRequestHandler):
    """One connection. moto's handler makes the WSGI environment."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()  # the client waits for it before it sends the body
        return True

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        chunked = environ.pop("HTTP_TRANSFER_ENCODING", None) is not None
        body = environ["wsgi.input"].read() if chunked else self.rfile.read(int(environ.get("CONTENT_LENGTH") or 0))
        environ |= {"wsgi.input": BytesIO(body), "wsgi.input_terminated": True, "CONTENT_LENGTH": str(len(body))}
        said: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None, /) -> Any:
            said.append((status, headers))

        try:
            payload = _join(self.server.app(environ, start_response))
        except Exception as error:  # noqa: BLE001 (a fault of the emulator must reach its caller as an answer)
            said.append(("500 Internal Server Error", [("Content-Type", "application/json")]))
            payload = json.dumps({"__type": "InternalFailure", "message": repr(error)}).encode()
        self._answer(*said[-1], payload)

    def _answer(self, status: str, headers: list[tuple[str, str]], payload: bytes) -> None:
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        head = self.command == "HEAD"
        sized = head and any(name.lower() == "content-length" for name, _ in headers)
        for name, value in headers:
            if sized or name.lower() not in {"content-length", "connection"}:
                self.send_header(name, value)
        if not sized and int(code) not in {204, 304}:
            self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if not head:
            self.wfile.write(payload)
        self.wfile.flush()

    def log_request(self, *_: Any) -> None:
        """Say nothing."""


def _join(pieces: Iterable[bytes]) -> bytes:
    try:
        return b"".join(pieces)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


class HttpServer(ThreadingHTTPServer):
    """Serve an application on a socket that is bound already; `close` ends every connection."""

    daemon_threads = True
    # What werkzeug's handler asks of its server:
    multithread = True
    multiprocess = False
    ssl_context = None
    _server_version = "stepensemble"

    def __init__(self, bound: socket.socket, app: Any) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.app = app
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="gateway", daemon=True)
        self._thread.start()

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

    def close(self) -> None:
        """Stop listening and end every connection."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._open):
            with suppress(OSError):  # closed by the client meanwhile
                connection.shutdown(socket.SHUT_RDWR)
