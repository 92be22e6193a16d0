"""JSON as people and clients send it, read so strictly that nothing of it has to be guessed."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

import msgspec

from stepensemble.core.errors import InvalidPayload
from stepensemble.core.problems import Problem, show

BYTE = re.compile(r"\(byte (\d+)\)$")
"""How msgspec says where an error is."""

SHOWN_REASON = 200
"""Characters of what is wrong with a text."""


def read_json(body: bytes, *, finite: bool = True) -> Any:
    """Read JSON in UTF-8, with a byte order mark or without.

    Args:
        body: the text.
        finite: refuse NaN and infinities, which are no JSON, though many write them.

    Raises:
        InvalidPayload: a key is there twice in one object.
        UnicodeDecodeError: it is not UTF-8.
        ValueError: with a reason for a person: it is no JSON, or none that could be carried on, as half a surrogate
            pair.
    """
    constants: dict[str, Any] = {"parse_constant": _refuse_number, "parse_float": _read_float} if finite else {}
    text = body.decode("utf-8-sig")
    try:
        data = json.loads(text, object_pairs_hook=_read_object, **constants)
        msgspec.json.encode(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise ValueError(f"it has half a surrogate pair, {half}, which is no character, write both halves") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(str(error)[:SHOWN_REASON]) from None
    return data


def describe_syntax(text: bytes | str, error: Exception) -> str:
    """Say what is wrong with the syntax of a text, by line and column where msgspec counts bytes from 0.

    Args:
        text: that msgspec could not decode.
        error: what it raised.
    """
    message = str(error)
    found = BYTE.search(message)
    if found is None:
        return message
    body = text.encode() if isinstance(text, str) else text
    before = body[: int(found[1])].decode("utf-8", "replace")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return f"{message[: found.start()].rstrip()}, line {line}, column {column}"


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of a key that is there twice, which of its values is meant nobody knows."""
    data = dict(pairs)
    if len(data) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidPayload([Problem("$", f"{show(name)} is given twice in one object", "give it once")])
    return data


def _read_float(numeral: str) -> float:
    number = float(numeral)
    if number in {float("inf"), float("-inf")}:
        _refuse_number(numeral)
    return number


def _refuse_number(numeral: str) -> NoReturn:
    raise ValueError(f"{numeral} is no finite number, write null where a value is missing")
