"""The child process of `child`: it confines itself, reads jobs, does them, and writes what came of each.

Its arguments are its folder and the seconds of processor time that it has.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stepensemble.conversion.confinement import confine


def main(room: Path, seconds: int) -> None:
    """Do the jobs on standard input."""
    confine(room, seconds)
    # Only now, since confinement binds the threads that are started after it.
    import msgspec

    from stepensemble.conversion.child_process import LENGTH, ChildError, ChildResult
    from stepensemble.conversion.export import Export
    from stepensemble.conversion.sandbox import Try
    from stepensemble.core.errors import EnsembleError

    # Libraries print to 1 and 2 as they like; the answers go through a pipe that only this function knows.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for job in msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Try | Export]):
        try:
            answer = ChildResult(result=msgspec.msgpack.encode(job.run()))
        except EnsembleError as error:
            answer = ChildResult(refusal=ChildError(type(error).__name__, str(error)))
        body = msgspec.msgpack.encode(answer)
        answers.write(len(body).to_bytes(LENGTH) + body)
        answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
