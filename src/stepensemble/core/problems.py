"""A problem in a manifest, a payload or a dataset: where it is, what it is, and the remedy."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

SHOWN_VALUE_LENGTH = 60
"""Characters of an offending value that a message quotes."""

COUNT = re.compile(r"\d+ problems?:")
LISTED = re.compile(r"- (.+?): (.*); (.*)")
MORE = re.compile(r"\n- and (\d+) more$")


class Problem(msgspec.Struct, frozen=True):
    """One problem.

    Attributes:
        path: JSON path of the offending value, such as `$.members[2].weight`.
        message: what the problem is, quoting the value.
        remedy: what to write instead.
    """

    path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}; {self.remedy}"


class Suspicion(NamedTuple):
    """A reason to suspect that a declared or inferred meaning is wrong, and the remedy."""

    message: str
    remedy: str


def list_problems(problems: Sequence[Problem], *, max_bytes: int | None = None) -> str:
    """Render the number of problems, and each on a line of its own.

    Args:
        problems: at least one.
        max_bytes: upper bound of the UTF-8 length; lines that do not fit are counted instead of shown.
    """
    count = len(problems)
    lines = [f"{count} problem{'s' if count > 1 else ''}:"]
    size = len(lines[0])
    for shown, problem in enumerate(problems):
        written = f"- {problem}".encode(errors="backslashreplace")  # a name may hold half a surrogate pair
        line = written.decode()
        size += len(written) + 1
        if max_bytes is not None and size > max_bytes - 40:  # 40 bytes hold the closing line
            lines.append(f"- and {count - shown} more")
            break
        lines.append(line)
    return "\n".join(lines)


def read_problems(text: str) -> list[Problem]:
    """Parse what `list_problems` wrote; any other text is one problem.

    The text after a message's last semicolon is taken as the remedy.
    """
    count, *lines = text.splitlines() or [""]
    found = [LISTED.fullmatch(line) for line in lines if COUNT.fullmatch(count)]
    problems = [Problem(*match.groups()) for match in found if match is not None]
    cut = MORE.search(text)
    if cut is not None:
        problems.append(Problem("$", f"and {cut[1]} more problems", "fix these first"))
    return problems or [Problem("$", text, "fix the payload")]


def show(value: object) -> str:
    """Quote a value as JSON, cut to `SHOWN_VALUE_LENGTH` characters; invisible characters are escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = repr(value)
    except ValueError:  # such as an integer of more than 4,300 digits, which Python does not convert to text
        text = f"a {type(value).__name__} too long to write"
    except RecursionError:
        text = f"a {type(value).__name__} nested too deeply to write"
    if not text[:SHOWN_VALUE_LENGTH].isprintable():
        text = (
            "".join(mark if mark.isprintable() else json.dumps(mark)[1:-1] for mark in text[:SHOWN_VALUE_LENGTH])
            + text[SHOWN_VALUE_LENGTH:]
        )
    return text if len(text) <= SHOWN_VALUE_LENGTH else text[: SHOWN_VALUE_LENGTH - 1] + "…"


def enumerate_values(values: Iterable[object], *, most: int = 12) -> str:
    """List allowed values as JSON, the first `most` of them."""
    shown = [show(value) for value in values]
    return ", ".join(shown[:most]) + (f", … ({len(shown)} in all)" if len(shown) > most else "")


def suggest(word: object, known: Iterable[object]) -> str:
    """Return `, did you mean "…"?`, or nothing if no known word is similar."""
    if not isinstance(word, str | int | float):  # lists and objects may be nested too deeply to convert
        return ""
    by_text = {str(candidate).lower(): candidate for candidate in known}
    near = difflib.get_close_matches(str(word).lower(), by_text, n=1, cutoff=0.6)
    return f", did you mean {show(by_text[near[0]])}?" if near else ""
