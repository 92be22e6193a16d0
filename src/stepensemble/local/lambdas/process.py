"""One process of a function: started, given one invocation at a time, watched, and reported as Lambda reports."""

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

from stepensemble.local.lambdas.runtime_api import RESPONSE_BYTES, Invocation, Report, RuntimeApi, Said

INIT_SECONDS = 60.0
"""A process that has not asked for work by then is given up. Lambda gives ten, but a laptop may start many at once."""

DRAIN_SECONDS = 1.0
"""How long to wait for a dead process's last words, which lie in the kernel already."""

LAST_BYTES = 64 * 1024
"""A disk that takes no more than that is full."""

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller of a function gets.

    Attributes:
        payload: the answer or the error, JSON.
        error: as the header `X-Amz-Function-Error`; None for an answer.
    """

    request_id: str
    payload: bytes
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a process of a function.

    Attributes:
        folder: its code; current folder of the process.
        environment: all of its variables but the Runtime API's address.
        lifeline: a pipe's reading end; the process ends when the other end is closed.
        log: what it prints is appended there.
        memory_bytes: more than that, and it is killed.
    """

    handler: str
    folder: Path
    environment: Mapping[str, str]
    lifeline: int
    log: Path
    memory_bytes: int


class Doom(Enum):
    """Why the stack killed a process."""

    TIMEOUT = "timeout"
    MEMORY = "memory"


@dataclass(eq=False)
class Worker:
    """A process. `on_idle` is called whenever it asks for work, `on_end` once, after its end.

    Attributes:
        started: it has asked for work at least once.
        busy: it works on an invocation.
        ready: set once it has started, or failed to.
        free_bytes: says how many bytes a folder's disk takes.
    """

    launch: Launch
    on_idle: Callable[[Worker], None]
    on_end: Callable[[Worker], None]
    started: bool = False
    busy: bool = False
    pid: int | None = None
    exit_code: int | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    _killed: bool = False
    _doom: Doom | None = None
    _refusal: str | None = None
    _api: RuntimeApi = field(init=False)
    _report: asyncio.Future[Report] | None = None

    def __post_init__(self) -> None:
        self._api = RuntimeApi(self._become_idle)

    @property
    def alive(self) -> bool:
        """It has not ended, and nobody has killed it."""
        return self.exit_code is None and not self._killed

    async def live(self) -> None:
        """Start the process and stay until its end."""
        limit = asyncio.get_running_loop().call_later(INIT_SECONDS, self._give_up)
        try:
            process = await self._spawn(await self._api.open())
            self.pid = process.pid
            if self._killed:
                self.kill()
            code = await process.wait()
        except (OSError, ValueError) as error:  # no such folder, no more processes, no such variable
            self._refusal, code = str(error), 1
        finally:
            limit.cancel()
            await self._api.drain(DRAIN_SECONDS)
        self.exit_code = code
        self.ready.set()
        if self._report is not None and not self._report.done():
            self._report.cancel()
        self.on_end(self)

    async def answer(self, invocation: Invocation, timeout: float) -> Answer:
        """Have the idle process work on an invocation."""
        self.busy = True
        self._report = self._api.give(invocation)
        try:
            # Shielded: a cancelled future is how `live` tells that the process ended.
            report = await asyncio.wait_for(asyncio.shield(self._report), timeout)
        except TimeoutError:
            self.kill(Doom.TIMEOUT)
            return _failure(invocation.request_id, "Sandbox.Timedout", f"Task timed out after {timeout:.2f} seconds")
        except asyncio.CancelledError:
            if self._report is None or not self._report.cancelled():
                raise
            return self.explain_end(invocation.request_id)
        if report.said is Said.ANSWER:
            return Answer(invocation.request_id, report.payload)
        if report.said is Said.ERROR:
            return Answer(invocation.request_id, report.payload, "Unhandled")
        limit = f"maximum allowed payload size ({RESPONSE_BYTES} bytes)"
        message = f"Response payload size ({report.size} bytes) exceeded {limit}."
        return _failure(invocation.request_id, "Function.ResponseSizeTooLarge", message, prefix=False)

    def explain_end(self, request_id: str) -> Answer:
        """Say why the process ended, to the caller who waited for it."""
        if self._refusal is not None:
            return _failure(request_id, "Runtime.InvalidEntrypoint", self._refusal)
        if not self.started and self._api.init_error is not None:
            return Answer(request_id, self._api.init_error, "Unhandled")
        if not self.started and self._doom is Doom.TIMEOUT:
            return _failure(request_id, "Sandbox.Timedout", f"Task timed out after {INIT_SECONDS:.2f} seconds")
        if self._doom is Doom.MEMORY:
            return _failure(request_id, "Runtime.OutOfMemory", "Runtime exited with error: signal: killed")
        code = self.exit_code or 0
        if code < 0:
            # Python says "Killed" or, on a Mac, "Killed: 9"; Lambda says "killed".
            name = (signal.strsignal(-code) or str(-code)).partition(":")[0].lower()
            return _failure(request_id, "Runtime.ExitError", f"Runtime exited with error: signal: {name}")
        reason = f"with error: exit status {code}" if code else "without providing a reason"
        if code and self.free_bytes(self.launch.log.parent) < LAST_BYTES:
            # Python exits with 120 where it cannot write what was printed.
            reason += f"; no space is left for its log {self.launch.log}: free some on that disk"
        return _failure(request_id, "Runtime.ExitError", f"Runtime exited {reason}")

    def enforce_memory(self) -> None:
        """Kill the process if it holds more than its function may."""
        if self.pid is not None and self.alive and _resident_bytes(self.pid) > self.launch.memory_bytes:
            self.kill(Doom.MEMORY)

    def kill(self, doom: Doom | None = None) -> None:
        """End the process and what it started."""
        self._killed = True
        self._doom = self._doom or doom
        if self.pid is not None and self.exit_code is None:
            with suppress(ProcessLookupError):  # it was faster
                os.killpg(self.pid, signal.SIGKILL)

    def _become_idle(self) -> None:
        self.started, self.busy = True, False
        self.ready.set()
        if self.alive:
            self.on_idle(self)

    def _give_up(self) -> None:
        if not self.started:
            self.kill(Doom.TIMEOUT)

    async def _spawn(self, address: str) -> asyncio.subprocess.Process:
        with self.launch.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(WORKER),
                str(self.launch.lifeline),
                self.launch.handler,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.launch.folder,
                env={**self.launch.environment, "AWS_LAMBDA_RUNTIME_API": address},
                pass_fds=(self.launch.lifeline,),
                # Ctrl-C in the terminal is for the command, which then ends its processes.
                process_group=0,
            )


def deadline_ms(timeout: float) -> int:
    """The time, in milliseconds since 1970, at which a call begun now has timed out."""
    return int((time.time() + timeout) * 1000)


def _failure(request_id: str, kind: str, message: str, *, prefix: bool = True) -> Answer:
    text = f"RequestId: {request_id} Error: {message}" if prefix else message
    return Answer(request_id, json.dumps({"errorType": kind, "errorMessage": text}).encode(), "Unhandled")


def _resident_bytes(pid: int) -> int:
    """What a process holds in memory; 0 where the system has no /proc."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
