"""Parsed definitions of state machines, kept from one start to the next.

moto parses definitions slowly, and they seldom change. So a parsed definition is kept in a file. The speed-ups
parsed-definitions (`engine`) and known-definitions (`emulation.server.create_stacks`) use it.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from stepensemble.local.template import write_cache

CACHE_VERSION = 1
"""Of the cached files; raised whenever this module caches something else for the same definition."""


@dataclass(frozen=True)
class DefinitionCache:
    """The parsed definitions of a stack.

    Attributes:
        folder: one file for each definition. Its files are executed, like those of a `__pycache__`.
    """

    folder: Path
    _parsed: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def parse(self, definition: str) -> Any:
        """Return a parsed definition, moto's `EvalComponent`.

        It holds nothing of an execution: what changes is in the execution's environment. So all executions share it.
        """
        with self._lock:  # executions start at the same time
            if definition not in self._parsed:
                path = self.folder / f"{_name_file(definition)}.pickle"
                self._parsed[definition] = _read(path) or _parse(definition, path)
            return self._parsed[definition]


def _name_file(definition: str) -> str:
    made_by = (CACHE_VERSION, version("moto"), version("antlr4-python3-runtime"), *sys.version_info[:2])
    return hashlib.sha256(repr((made_by, definition)).encode()).hexdigest()


def _read(path: Path) -> Any:
    try:
        return pickle.loads(path.read_bytes())  # noqa: S301 (our own file, of the user who runs this; see the class)
    except Exception:  # noqa: BLE001 (whatever fails, the definition can be parsed)
        return None


def _parse(definition: str, path: Path) -> Any:
    from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser

    program, _ = AmazonStateLanguageParser.parse(definition)
    write_cache(path, pickle.dumps(program))
    return program
