"""One process of a function: handles one invocation at a time, and reports failures as Lambda does."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from stepensemble.local.lambdas.runtime_api import RESPONSE_BYTES, Invocation, ReportKind, RuntimeApi, RuntimeReport

INIT_SECONDS = 60.0
"""A process that has not requested an invocation by then is killed. Lambda's limit is ten seconds, but a laptop may
start many processes at once."""

DRAIN_SECONDS = 1.0
"""How long to wait for the last bytes that an ended process has sent, which the kernel holds already."""

FULL_DISK_BYTES = 64 * 1024
"""A disk with less free space counts as full."""

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """What the caller of a function receives.

    Attributes:
        payload: the function's response or the error, JSON.
        error: the value of the header `X-Amz-Function-Error`; None for a response.
    """

    request_id: str
    payload: bytes
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """How to start a process of a function.

    Attributes:
        folder: its code; the working directory of the process.
        environment: all of its variables except the Runtime API's address.
        lifeline: the reading end of a pipe; the process ends when the other end is closed.
        log: file to which its output is appended.
        memory_bytes: it is killed if it uses more.
    """

    handler: str
    folder: Path
    environment: Mapping[str, str]
    lifeline: int
    log: Path
    memory_bytes: int


class KillReason(Enum):
    """Why the stack killed a process."""

    TIMEOUT = "timeout"
    MEMORY = "memory"


@dataclass(eq=False)
class FunctionProcess:
    """A process. `on_idle` is called whenever it requests an invocation, `on_end` once, after its end.

    Attributes:
        started: it has requested an invocation at least once.
        busy: it handles an invocation.
        ready: set once it has started, or failed to start.
        free_bytes: returns the free bytes of a folder's disk.
    """

    settings: ProcessSettings
    on_idle: Callable[[FunctionProcess], None]
    on_end: Callable[[FunctionProcess], None]
    started: bool = False
    busy: bool = False
    pid: int | None = None
    exit_code: int | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    _killed: bool = False
    _kill_reason: KillReason | None = None
    _start_error: str | None = None
    _api: RuntimeApi = field(init=False)
    _report: asyncio.Future[RuntimeReport] | None = None

    def __post_init__(self) -> None:
        self._api = RuntimeApi(self._become_idle)

    @property
    def alive(self) -> bool:
        """It has neither ended nor been killed."""
        return self.exit_code is None and not self._killed

    async def live(self) -> None:
        """Start the process and stay until its end."""
        limit = asyncio.get_running_loop().call_later(INIT_SECONDS, self._kill_if_not_started)
        try:
            process = await self._spawn(await self._api.open())
            self.pid = process.pid
            if self._killed:
                self.kill()
            code = await process.wait()
        except (OSError, ValueError) as error:  # no such folder, no more processes, no such variable
            self._start_error, code = str(error), 1
        finally:
            limit.cancel()
            await self._api.drain(DRAIN_SECONDS)
        self.exit_code = code
        self.ready.set()
        if self._report is not None and not self._report.done():
            self._report.cancel()
        self.on_end(self)

    async def handle(self, invocation: Invocation, timeout: float) -> InvocationResult:
        """Have the idle process handle an invocation; return the result."""
        self.busy = True
        self._report = self._api.send(invocation)
        try:
            # Shielded: `live` cancels the future when the process has ended.
            report = await asyncio.wait_for(asyncio.shield(self._report), timeout)
        except TimeoutError:
            self.kill(KillReason.TIMEOUT)
            return _failure(invocation.request_id, "Sandbox.Timedout", f"Task timed out after {timeout:.2f} seconds")
        except asyncio.CancelledError:
            if self._report is None or not self._report.cancelled():
                raise
            return self.explain_end(invocation.request_id)
        if report.kind is ReportKind.RESPONSE:
            return InvocationResult(invocation.request_id, report.payload)
        if report.kind is ReportKind.ERROR:
            return InvocationResult(invocation.request_id, report.payload, "Unhandled")
        limit = f"maximum allowed payload size ({RESPONSE_BYTES} bytes)"
        message = f"Response payload size ({report.size} bytes) exceeded {limit}."
        return _failure(invocation.request_id, "Function.ResponseSizeTooLarge", message, prefix=False)

    def explain_end(self, request_id: str) -> InvocationResult:
        """Return why the process ended, as the result of the invocation that waited for it."""
        if self._start_error is not None:
            return _failure(request_id, "Runtime.InvalidEntrypoint", self._start_error)
        if not self.started and self._api.init_error is not None:
            return InvocationResult(request_id, self._api.init_error, "Unhandled")
        if not self.started and self._kill_reason is KillReason.TIMEOUT:
            return _failure(request_id, "Sandbox.Timedout", f"Task timed out after {INIT_SECONDS:.2f} seconds")
        if self._kill_reason is KillReason.MEMORY:
            return _failure(request_id, "Runtime.OutOfMemory", "Runtime exited with error: signal: killed")
        code = self.exit_code or 0
        if code < 0:
            # Python has "Killed" or, on a Mac, "Killed: 9"; Lambda has "killed".
            name = (signal.strsignal(-code) or str(-code)).partition(":")[0].lower()
            return _failure(request_id, "Runtime.ExitError", f"Runtime exited with error: signal: {name}")
        reason = f"with error: exit status {code}" if code else "without providing a reason"
        if code and self.free_bytes(self.settings.log.parent) < FULL_DISK_BYTES:
            # Python exits with 120 where it cannot write what was printed.
            reason += f"; no space is left for its log {self.settings.log}: free some on that disk"
        return _failure(request_id, "Runtime.ExitError", f"Runtime exited {reason}")

    def enforce_memory(self) -> None:
        """Kill the process if it uses more memory than its function has."""
        if self.pid is not None and self.alive and _resident_bytes(self.pid) > self.settings.memory_bytes:
            self.kill(KillReason.MEMORY)

    def kill(self, reason: KillReason | None = None) -> None:
        """Kill the process and its children."""
        self._killed = True
        self._kill_reason = self._kill_reason or reason
        if self.pid is not None and self.exit_code is None:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(self.pid, signal.SIGKILL)

    def _become_idle(self) -> None:
        self.started, self.busy = True, False
        self.ready.set()
        if self.alive:
            self.on_idle(self)

    def _kill_if_not_started(self) -> None:
        if not self.started:
            self.kill(KillReason.TIMEOUT)

    async def _spawn(self, address: str) -> asyncio.subprocess.Process:
        with self.settings.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(WORKER),
                str(self.settings.lifeline),
                self.settings.handler,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.settings.folder,
                env={**self.settings.environment, "AWS_LAMBDA_RUNTIME_API": address},
                pass_fds=(self.settings.lifeline,),
                # Ctrl-C in the terminal is for the command, which then ends its processes.
                process_group=0,
            )


def deadline_ms(timeout: float) -> int:
    """Return the time, in milliseconds since 1970, at which an invocation that begins now times out."""
    return int((time.time() + timeout) * 1000)


def _failure(request_id: str, kind: str, message: str, *, prefix: bool = True) -> InvocationResult:
    text = f"RequestId: {request_id} Error: {message}" if prefix else message
    return InvocationResult(request_id, json.dumps({"errorType": kind, "errorMessage": text}).encode(), "Unhandled")


def _resident_bytes(pid: int) -> int:
    """Return the memory that a process uses; 0 where the system has no /proc."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
