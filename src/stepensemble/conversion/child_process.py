"""Work on files of strangers in a process of its own: whatever ends that process is an answer here, not the end.

The child is `python -m stepensemble.conversion.child_main`, and `confinement` says what it may do. It reads its jobs
from
standard input and writes an answer for each as soon as it has one, so that what was answered before a crash is kept.
Nothing is pickled: a child that a file took over can say something wrong, and cannot make this process do anything.
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
"""Bytes that say how long an answer is."""
CHUNK = 1024 * 1024
MOST = 6 * GIBIBYTE
"""Bytes of an answer: a SavedModel and a LiteRT file, each of 2 GiB at most, and rows."""
GRACE = 10.0
"""Seconds for a child to end that has nothing more to say."""

T = TypeVar("T")


class ChildError(Struct, frozen=True):
    """An error in the child, by its name in the error tree."""

    error: str
    message: str


class ChildResult(Struct, frozen=True):
    """What the child writes for a job: one of the two. The result is encoded by itself: its type is the caller's."""

    result: bytes | None = None
    refusal: ChildError | None = None


@dataclass(frozen=True, slots=True)
class Crash:
    """The child ended, or was ended, at a job; `reason` completes a sentence: "… it crashed (SIGSEGV)"."""

    reason: str


def run_apart(jobs: Sequence[Struct], answer: type[T], seconds: float) -> list[T | EnsembleError | Crash]:
    """Have jobs done in a child process, one after the other; return what became of each.

    A job that ends the child, or takes too long, does not take the later ones with it: they get another child.

    Args:
        jobs: of the kinds that `work` knows.
        answer: what they answer.
        seconds: for each job; the start of the child is part of its first one.
    """
    done: list[T | EnsembleError | Crash] = []
    while len(done) < len(jobs):
        left = jobs[len(done) :]
        answers, reason = _run_child(left, seconds)
        done += [_result(body, answer) for body in answers]
        if len(answers) < len(left):
            done.append(Crash(reason))
    return done


def _run_child(jobs: Sequence[Struct], seconds: float) -> tuple[list[bytes], str]:
    """Return what the child answered before it ended, and how it ended."""
    processors = os.cpu_count() or 1
    command = [sys.executable, "-P", "-m", "stepensemble.conversion.child_main"]
    with (
        tempfile.TemporaryDirectory(prefix="stepensemble-") as room,
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603 - this Python, our own module
            [*command, room, str(math.ceil(seconds * len(jobs) * processors))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=room,
            env=choose_environment(os.environ, room) | SETTINGS,
            start_new_session=True,
        ) as child,
    ):
        feeder = threading.Thread(target=_feed, args=(child.stdin, msgspec.msgpack.encode(jobs)))
        feeder.start()
        try:
            answers, stopped = _collect(cast(IO[bytes], child.stdout), len(jobs), seconds)
            if stopped is not None:
                return answers, stopped
            if len(answers) < len(jobs):
                return answers, f"it crashed ({_ending(child)}){_last_words(log)}"
            return answers, "it did all"
        finally:
            # With what it has started. Its group is there until its end is collected, which happens after this.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            feeder.join()


def _feed(pipe: IO[bytes], jobs: bytes) -> None:
    """Give the child its jobs; what it does not read, because it has ended, nobody needs."""
    with suppress(BrokenPipeError):
        pipe.write(jobs)
    with suppress(BrokenPipeError):
        pipe.close()


def _collect(pipe: IO[bytes], count: int, seconds: float) -> tuple[list[bytes], str | None]:
    """Return the whole answers that come, at most `count`, and why the child has to be ended before the next one."""
    answers: list[bytes] = []
    waiting = bytearray()
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(answers) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return answers, f"it took more than {seconds:g} seconds"
            read = os.read(pipe.fileno(), CHUNK)
            if not read:
                break
            waiting += read
            while len(waiting) >= (end := LENGTH + int.from_bytes(waiting[:LENGTH])) and len(waiting) >= LENGTH:
                answers.append(bytes(waiting[LENGTH:end]))
                del waiting[:end]
                deadline = time.monotonic() + seconds
            if max(len(waiting), int.from_bytes(waiting[:LENGTH]) if len(waiting) >= LENGTH else 0) > MOST:
                return answers, f"it answered more than {MOST // GIBIBYTE} GiB"
    return answers, None


def _result(body: bytes, answer: type[T]) -> T | EnsembleError | Crash:
    try:
        said = msgspec.msgpack.decode(body, type=ChildResult)
        if said.refusal is None and said.result is not None:
            return msgspec.msgpack.decode(said.result, type=answer)
    except msgspec.MsgspecError as error:
        return Crash(f"it answered something that is no answer: {error}")
    if said.refusal is None:
        return Crash("it answered nothing")
    kind = getattr(errors, said.refusal.error, None)
    if isinstance(kind, type) and issubclass(kind, EnsembleError):
        return kind(said.refusal.message)
    return Crash(f"it failed ({said.refusal.error}: {said.refusal.message})")


def _ending(child: subprocess.Popen[bytes]) -> str:
    """Say how a child ended that has closed its end of the pipe."""
    try:
        code = child.wait(GRACE)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        return "it answers no more, and does not end"


def _last_words(log: IO[bytes]) -> str:
    """Return the last line that the child wrote, if it is about an error."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - CHUNK))
    said = [line.strip() for line in log.read(CHUNK).decode(errors="replace").splitlines() if line.strip()]
    return "" if not said or said[-1].startswith(("INFO", "WARNING", "W0", "I0")) else f": {said[-1][:300]}"
