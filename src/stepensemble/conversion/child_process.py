"""Runs jobs on untrusted files in a child process; a crash of the child becomes a result, and does not end the parent.

The child is `python -m stepensemble.conversion.child_main`, and `confinement` restricts what it may do. It reads its
jobs from standard input and writes each result as soon as it has it, so that a crash loses no earlier result. Nothing
is pickled: a child that a file took over can return wrong values, and cannot make this process run code.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TypeVar, cast

import msgspec
from msgspec import Struct

from stepensemble.conversion.confinement import GIBIBYTE, choose_environment
from stepensemble.core import errors
from stepensemble.core.errors import EnsembleError
from stepensemble.runtimes.tensorflow import SETTINGS

LENGTH = 8
"""Bytes of the length that precedes a result."""
CHUNK = 1024 * 1024
MAX_BYTES = 6 * GIBIBYTE
"""Maximum bytes of a result: a SavedModel and a LiteRT file, each of 2 GiB at most, and rows."""
GRACE = 10.0
"""Seconds that a child has to end after it has closed its output."""

T = TypeVar("T")


class ChildError(Struct, frozen=True):
    """An error in the child, by its class name in the error tree."""

    type: str
    message: str


class ChildResult(Struct, frozen=True):
    """What the child writes for a job: a result or an error. The result is encoded: only the caller knows its type."""

    result: bytes | None = None
    error: ChildError | None = None


@dataclass(frozen=True, slots=True)
class Crash:
    """The child ended, or was killed, during a job; `reason` completes a sentence: "… it crashed (SIGSEGV)"."""

    reason: str


def run_in_child(jobs: Sequence[Struct], result_type: type[T], seconds: float) -> list[T | EnsembleError | Crash]:
    """Run jobs in a child process, one after the other; return each job's result, error or crash.

    If a job ends the child or takes too long, the jobs after it run in another child.

    Args:
        jobs: of the kinds that `child_main` decodes.
        result_type: the type of their results.
        seconds: for each job; the first job of a child includes the child's start.
    """
    results: list[T | EnsembleError | Crash] = []
    while len(results) < len(jobs):
        remaining = jobs[len(results) :]
        bodies, reason = _run_child(remaining, seconds)
        results += [_decode_result(body, result_type) for body in bodies]
        if len(bodies) < len(remaining):
            results.append(Crash(reason))
    return results


def _run_child(jobs: Sequence[Struct], seconds: float) -> tuple[list[bytes], str]:
    """Return the results that the child wrote before it ended, and how it ended."""
    processors = os.cpu_count() or 1
    command = [sys.executable, "-P", "-m", "stepensemble.conversion.child_main"]
    with (
        tempfile.TemporaryDirectory(prefix="stepensemble-") as folder,
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603 - this Python, our own module
            [*command, folder, str(math.ceil(seconds * len(jobs) * processors))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=choose_environment(os.environ, folder) | SETTINGS,
            start_new_session=True,
        ) as child,
    ):
        feeder = threading.Thread(target=_feed, args=(child.stdin, msgspec.msgpack.encode(jobs)))
        feeder.start()
        try:
            bodies, stopped = _collect(cast(IO[bytes], child.stdout), len(jobs), seconds)
            if stopped is not None:
                return bodies, stopped
            if len(bodies) < len(jobs):
                return bodies, f"it crashed ({_describe_end(child)}){_find_last_error(log)}"
            return bodies, "it ran all jobs"
        finally:
            # The whole process group, with what the child has started; it exists until the child is waited for, below.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            feeder.join()


def _feed(pipe: IO[bytes], jobs: bytes) -> None:
    """Write the jobs to the child; jobs that it does not read, because it has ended, are dropped."""
    with suppress(BrokenPipeError):
        pipe.write(jobs)
    with suppress(BrokenPipeError):
        pipe.close()


def _collect(pipe: IO[bytes], count: int, seconds: float) -> tuple[list[bytes], str | None]:
    """Return the complete results, at most `count`, and why the child must be killed before the next one, if so."""
    bodies: list[bytes] = []
    received = bytearray()
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(bodies) < count:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not selector.select(remaining):
                return bodies, f"it took more than {seconds:g} seconds"
            read = os.read(pipe.fileno(), CHUNK)
            if not read:
                break
            received += read
            while len(received) >= (end := LENGTH + int.from_bytes(received[:LENGTH])) and len(received) >= LENGTH:
                bodies.append(bytes(received[LENGTH:end]))
                del received[:end]
                deadline = time.monotonic() + seconds
            if max(len(received), int.from_bytes(received[:LENGTH]) if len(received) >= LENGTH else 0) > MAX_BYTES:
                return bodies, f"it returned more than {MAX_BYTES // GIBIBYTE} GiB"
    return bodies, None


def _decode_result(body: bytes, result_type: type[T]) -> T | EnsembleError | Crash:
    try:
        written = msgspec.msgpack.decode(body, type=ChildResult)
        if written.error is None and written.result is not None:
            return msgspec.msgpack.decode(written.result, type=result_type)
    except msgspec.MsgspecError as error:
        return Crash(f"it returned an invalid result: {error}")
    if written.error is None:
        return Crash("it returned neither a result nor an error")
    kind = getattr(errors, written.error.type, None)
    if isinstance(kind, type) and issubclass(kind, EnsembleError):
        return kind(written.error.message)
    return Crash(f"it failed ({written.error.type}: {written.error.message})")


def _describe_end(child: subprocess.Popen[bytes]) -> str:
    """Describe how a child ended that has closed its end of the pipe."""
    try:
        code = child.wait(GRACE)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        return "it closed its output, and does not end"


def _find_last_error(log: IO[bytes]) -> str:
    """Return the last line of the child's log, if it is about an error."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - CHUNK))
    lines = [line.strip() for line in log.read(CHUNK).decode(errors="replace").splitlines() if line.strip()]
    return "" if not lines or lines[-1].startswith(("INFO", "WARNING", "W0", "I0")) else f": {lines[-1][:300]}"
