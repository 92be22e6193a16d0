"""The first lines of a function's process: `python -P worker.py LIFELINE HANDLER`.

They end the process with the stack, and run the runtime client: AWS's own, `awslambdaric`, on Linux; elsewhere the loop
in `runtime_client.py`. The file is started by its path and imports nothing of this package, so that a function can only
import what its code and its layers contain.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def _end_with(lifeline: int) -> None:
    """Wait until the pipe's other end is closed, which happens however the stack ends; then kill this process group."""
    while os.read(lifeline, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    del sys.argv[1]
    if sys.platform == "linux" and "STEPENSEMBLE_PORTABLE_RUNTIME" not in os.environ:
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(Path(__file__).with_name("runtime_client.py")), run_name="__main__")
