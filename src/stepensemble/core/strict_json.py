"""Parses JSON from callers strictly: what could mean two things is rejected."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

import msgspec

from stepensemble.core.errors import InvalidPayload
from stepensemble.core.problems import Problem, show

BYTE = re.compile(r"\(byte (\d+)\)$")
"""How msgspec reports the position of an error."""

SHOWN_REASON = 200
"""Characters of a reason that a message quotes."""


def read_json(body: bytes, *, finite: bool = True) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Args:
        body: the text.
        finite: reject NaN and infinities, which JSON does not have, though many programs write them.

    Raises:
        InvalidPayload: an object repeats a key.
        UnicodeDecodeError: it is not UTF-8.
        ValueError: it is not JSON, or holds what cannot be sent on, such as half a surrogate pair; the message is
            written for a person.
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
        raise ValueError(f"it has half a surrogate pair, {half}, which is not a character; write both halves") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(str(error)[:SHOWN_REASON]) from None
    return data


def describe_syntax(text: bytes | str, error: Exception) -> str:
    """Describe a syntax error by line and column, where msgspec counts bytes from 0.

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
    """Build an object; a repeated key is rejected, because either value could be meant."""
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
    raise ValueError(f"{numeral} is not a finite number; write null where a value is missing")
