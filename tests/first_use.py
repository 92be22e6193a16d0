"""Runs code in a new process, where only the first thread may use a type that msgspec has not used before.

Msgspec builds a type's decoder at its first use; if two threads do so at the same time, the process crashes.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

from builders import ROOT

WATCH = """
import threading, traceback
from msgspec import _utils

def watch(kind, look=_utils._get_class_annotations):
    *_, asker, _, _ = traceback.extract_stack()
    described = asker.filename.endswith("inspect.py") and asker.name == "_get_class_annotations"
    if not described and threading.current_thread() is not threading.main_thread():
        raise AssertionError(f"{kind} is met for the first time by a thread")
    return look(kind)

_utils._get_class_annotations = watch
"""


def run_watched(code: str) -> None:
    """Run code, imports and all; `msgspec.inspect` describes types again at every call, which is no first use."""
    subprocess.run([sys.executable, "-c", WATCH + textwrap.dedent(code)], check=True, cwd=ROOT)
