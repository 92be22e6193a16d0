"""The child process of `child`: it reads jobs, does them, and writes what came of each."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress

import msgspec

from stepensemble.conversion.child import LENGTH, Answer, Refusal
from stepensemble.conversion.export import Export
from stepensemble.conversion.trial import Try
from stepensemble.core.errors import EnsembleError

MEMORY = 10 * 1024**3
"""Bytes that the child may fill: as much as the largest Lambda has, so that what needs more could not be served."""


def main() -> None:
    """Do the jobs on standard input."""
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, MEMORY)):
        with suppress(OSError, ValueError):  # not every system has every limit, or lets it be set
            resource.setrlimit(limit, (value, value))
    # Libraries print to 1 and 2 as they like; the answers go through a pipe that only this function knows.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for job in msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Try | Export]):
        try:
            answer = Answer(result=msgspec.msgpack.encode(job.run()))
        except EnsembleError as error:
            answer = Answer(refusal=Refusal(type(error).__name__, str(error)))
        body = msgspec.msgpack.encode(answer)
        answers.write(len(body).to_bytes(LENGTH) + body)
        answers.flush()


if __name__ == "__main__":
    main()
