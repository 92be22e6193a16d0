"""Definitions of state machines as moto's engine has parsed them, kept from one start to the next.

moto unpacks its grammars whenever they are imported, and parses with them slowly: most of a second at every start, for
definitions that are seldom other than they were. So a grammar is unpacked when something is first parsed by it, and a
parsed definition is kept in a file.
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

from stepensemble.local.template import write_cache

FORM = 1
"""Of the kept files; raised whenever this module keeps something else of the same definition."""


@dataclass(frozen=True)
class Programs:
    """The parsed definitions of a stack.

    Attributes:
        folder: where they are kept, a file each; what lies there is executed, as what lies in a `__pycache__` is.
    """

    folder: Path
    _held: dict[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def parse(self, definition: str) -> Any:
        """Return the program of a definition; moto's own `EvalComponent`.

        It holds nothing of an execution: what changes lies in the execution's environment. So all executions share it.
        """
        with self._lock:  # executions start side by side
            if definition not in self._held:
                kept = self.folder / f"{_name(definition)}.pickle"
                self._held[definition] = _read(kept) or _parse(definition, kept)
            return self._held[definition]


@contextmanager
def postpone_grammars() -> Iterator[None]:
    """Have the grammars that are imported in the block unpacked when something is first parsed by them."""
    deserializer: Any = ATNDeserializer
    recognizer: Any = Recognizer
    deserialize, initialize = deserializer.deserialize, recognizer.__init__

    def unpack(self: Any) -> None:
        for grammar in type(self).__mro__:
            packed = vars(grammar).get("atn")
            if isinstance(packed, _Packed):
                grammar.atn = deserialize(ATNDeserializer(), packed.data)  # type: ignore[attr-defined] # antlr's
                grammar.decisionsToDFA = [DFA(state, place) for place, state in enumerate(grammar.atn.decisionToState)]  # type: ignore[attr-defined]
        initialize(self)

    deserializer.deserialize = lambda _, data: _Packed(data)
    try:
        yield
    finally:
        deserializer.deserialize = deserialize
        recognizer.__init__ = unpack


@dataclass(frozen=True)
class _Packed:
    """A grammar's automaton as antlr writes it into the grammar's module."""

    data: list[int]
    decisionToState: tuple[()] = ()  # noqa: N815 (antlr's name)


def _name(definition: str) -> str:
    made_by = (FORM, version("moto"), version("antlr4-python3-runtime"), *sys.version_info[:2])
    return hashlib.sha256(repr((made_by, definition)).encode()).hexdigest()


def _read(kept: Path) -> Any:
    try:
        return pickle.loads(kept.read_bytes())  # noqa: S301 (our own, of the user who runs this; see `Programs`)
    except Exception:  # noqa: BLE001 (whatever is wrong with a kept file, the definition is there)
        return None


def _parse(definition: str, kept: Path) -> Any:
    from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser

    program, _ = AmazonStateLanguageParser.parse(definition)
    write_cache(kept, pickle.dumps(program))
    return program
