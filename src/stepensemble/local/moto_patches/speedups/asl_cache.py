"""Parsed definitions of state machines, kept from one start to the next.

moto unpacks its grammars whenever they are imported, and parses with them slowly: most of a second at every start, for
definitions that seldom change. Here a grammar is unpacked when something is first parsed with it, and a parsed
definition is kept in a file.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from antlr4.atn.ATNDeserializer import ATNDeserializer
from antlr4.dfa.DFA import DFA
from antlr4.Recognizer import Recognizer

from stepensemble.local.moto_patches.patch import MotoPatch, PatchKind
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


@contextmanager
def postpone_grammars() -> Iterator[None]:
    """Have the grammars that are imported in the block unpacked when something is first parsed with them."""
    deserializer: Any = ATNDeserializer
    recognizer: Any = Recognizer
    deserialize, initialize = deserializer.deserialize, recognizer.__init__

    def unpack(self: Any) -> None:
        for grammar in type(self).__mro__:
            packed = vars(grammar).get("atn")
            if isinstance(packed, _PackedGrammar):
                grammar.atn = deserialize(ATNDeserializer(), packed.data)  # type: ignore[attr-defined] # antlr's
                grammar.decisionsToDFA = [DFA(state, place) for place, state in enumerate(grammar.atn.decisionToState)]  # type: ignore[attr-defined]
        initialize(self)

    deserializer.deserialize = lambda _, data: _PackedGrammar(data)
    try:
        yield
    finally:
        deserializer.deserialize = deserialize
        recognizer.__init__ = unpack


@dataclass(frozen=True)
class _PackedGrammar:
    """A grammar's automaton as antlr writes it into the grammar's module."""

    data: list[int]
    decisionToState: tuple[()] = ()  # noqa: N815 (antlr's name)


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


PATCHES = (
    MotoPatch(
        "postponed-grammars",
        PatchKind.SPEEDUP,
        (
            "antlr4.atn.ATNDeserializer:ATNDeserializer.deserialize",
            "antlr4.Recognizer:Recognizer.__init__",
            "antlr4.dfa.DFA:DFA",
        ),
        "moto unpacks its grammars when they are imported; with the patch when something is first parsed with them.",
        "GAIN postponed-grammars",
    ),
)
