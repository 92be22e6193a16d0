"""Behaves as its event commands, in all ways that tests need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any


def handler(event: dict[str, Any], context: Any) -> Any:
    """Obey the event's commands, in this order, and return a description of the process."""
    began = time.time()
    if "print" in event:
        print(event["print"])  # noqa: T201 (what is printed is what is tested)
    if "sleep" in event:
        time.sleep(event["sleep"])
    if "exit" in event:
        os._exit(event["exit"])
    if "signal" in event:
        os.kill(os.getpid(), getattr(signal, event["signal"]))
    if "allocate" in event:
        block = bytearray(event["allocate"] << 20)
        time.sleep(2)
        return len(block)
    if "spawn" in event:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid
    if "raise" in event:
        raise ValueError(event["raise"])
    if "length" in event:
        return "x" * event["length"]
    return {
        "pid": os.getpid(),
        "began": began,
        "ended": time.time(),
        "request_id": context.aws_request_id,
        "function": context.function_name,
        "arn": context.invoked_function_arn,
        "remaining": context.get_remaining_time_in_millis(),
        "environment": dict(os.environ) if event.get("environment") else None,
        "file": __file__,
        **{key: event[key] for key in ("echo", "name") if key in event},
    }
