"""The child process of `child_process`: it confines itself, reads jobs, runs them, and writes each result.

Its arguments are its folder and the seconds of processor time that it may use.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stepensemble.conversion.confinement import confine


def main(folder: Path, seconds: int) -> None:
    """Run the jobs on standard input."""
    confine(folder, seconds)
    # Imported only now, because confinement applies to the threads that start after it.
    import msgspec

    from stepensemble.conversion.child_process import LENGTH, ChildError, ChildResult
    from stepensemble.conversion.export import Export
    from stepensemble.conversion.sandbox import PackedRequest
    from stepensemble.core.errors import EnsembleError

    # Libraries may print to 1 and 2, so the results go through a pipe that only this function knows.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for job in msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[PackedRequest | Export]):
        try:
            result = ChildResult(result=msgspec.msgpack.encode(job.run()))
        except EnsembleError as error:
            result = ChildResult(error=ChildError(type(error).__name__, str(error)))
        body = msgspec.msgpack.encode(result)
        results.write(len(body).to_bytes(LENGTH) + body)
        results.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
