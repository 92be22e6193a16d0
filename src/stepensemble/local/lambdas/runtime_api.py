"""Lambda's Runtime API, served to one process: next, response, error and init error.

Every process has an address of its own, as every environment has on Lambda, and handles one invocation at a time. See
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. Everything here runs on one event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

HOST = "127.0.0.1"
PREFIX = "/2018-06-01/runtime/"
REQUEST_BYTES = 6 * 1024 * 1024
"""Lambda's limit for the payload of an invocation."""

RESPONSE_BYTES = REQUEST_BYTES + 100
"""Lambda's limit for a function's response."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One invocation, as the Runtime API sends it."""

    request_id: str
    payload: bytes
    deadline_ms: int
    function_arn: str
    trace_id: str
    client_context: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that describe the invocation to a runtime."""
        headers = {
            "Lambda-Runtime-Aws-Request-Id": self.request_id,
            "Lambda-Runtime-Deadline-Ms": str(self.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self.function_arn,
            "Lambda-Runtime-Trace-Id": self.trace_id,
        }
        return (
            headers
            if self.client_context is None
            else {**headers, "Lambda-Runtime-Client-Context": self.client_context}
        )


class ReportKind(Enum):
    """What a process reported about an invocation."""

    RESPONSE = "response"
    ERROR = "error"
    TOO_LARGE = "too large"


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """What a process reported; a response that is too large has a `size` and no payload."""

    kind: ReportKind
    payload: bytes
    size: int


class RuntimeApi:
    """Serves one process.

    Attributes:
        init_error: the body that the process posted about a failed start.
    """

    def __init__(self, on_idle: Callable[[], None]) -> None:
        """Create the API; `on_idle` is called whenever the process requests an invocation."""
        self.init_error: bytes | None = None
        self._on_idle = on_idle
        self._work: asyncio.Queue[Invocation] = asyncio.Queue(1)
        self._current: str | None = None
        self._report: asyncio.Future[RuntimeReport] | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._polling: set[asyncio.Task[None] | None] = set()

    async def open(self) -> str:
        """Listen, and return the address for AWS_LAMBDA_RUNTIME_API."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return f"{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def drain(self, seconds: float) -> None:
        """Read what the ended process has sent last, and close."""
        if self._server is not None:
            self._server.close()
        if reading := self._connections - self._polling:
            await asyncio.wait(reading, timeout=seconds)
        for connection in list(self._connections):
            connection.cancel()

    def send(self, invocation: Invocation) -> asyncio.Future[RuntimeReport]:
        """Send an invocation to the idle process; the future is its report."""
        self._current = invocation.request_id
        self._report = asyncio.get_running_loop().create_future()
        self._work.put_nowait(invocation)
        return self._report

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            while await self._serve(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass  # the process has ended, or the caller is not a runtime
        except asyncio.CancelledError:
            pass  # the stack closes
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        length = int(headers.get("content-length", "0"))
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _read(reader, length)
        path = path.removeprefix(PREFIX)
        if (method, path) == ("GET", "invocation/next"):
            invocation = await self._next_work()
            _respond(writer, 200, invocation.payload, invocation.headers())
        elif (method, path) == ("POST", "init/error"):
            self.init_error = body
            _respond(writer, 202, b'{"status":"OK"}')
        else:
            _respond(writer, *self._take_report(method, path, body, length))
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def _next_work(self) -> Invocation:
        task = asyncio.current_task()
        self._polling |= {task}
        try:
            self._on_idle()
            return await self._work.get()
        finally:
            self._polling -= {task}

    def _take_report(self, method: str, path: str, body: bytes, length: int) -> tuple[int, bytes]:
        request_id, _, kind = path.removeprefix("invocation/").partition("/")
        if method != "POST" or kind not in {"response", "error"}:
            return 404, _error("InvalidRequest", "no such call in the Runtime API")
        if request_id != self._current or self._report is None or self._report.done():
            return 400, _error("InvalidRequestID", "Invalid request ID")
        if kind == "response" and length > RESPONSE_BYTES:
            self._report.set_result(RuntimeReport(ReportKind.TOO_LARGE, b"", length))
            message = f"Exceeded maximum allowed payload size ({RESPONSE_BYTES} bytes)."
            return 413, _error("RequestEntityTooLarge", message)
        self._report.set_result(
            RuntimeReport(ReportKind.RESPONSE if kind == "response" else ReportKind.ERROR, body, length)
        )
        return 202, b'{"status":"OK"}'


async def _read(reader: asyncio.StreamReader, length: int) -> bytes:
    """Read a body; one that is larger than the limit is read and dropped."""
    if length <= RESPONSE_BYTES:
        return await reader.readexactly(length)
    while length > 0:
        piece = await reader.read(min(length, 1 << 20))
        if not piece:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(piece)
    return b""


def _respond(writer: asyncio.StreamWriter, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    lines = [f"HTTP/1.1 {status} OK", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    # In one write: with two, head and body wait for each other's acknowledgement, 40 ms for each invocation.
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()
