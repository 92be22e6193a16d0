"""Finds column names that nearly match a feature's name: a default would silently replace such a column."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

INVISIBLE = frozenset({"Cc", "Cf"})
"""Unicode categories of invisible characters other than blanks, such as a byte order mark."""

EXACTLY = "write the name exactly, including blanks and case"
"""The remedy."""


def find_similar_name(word: str, known: Iterable[str]) -> str | None:
    """Return a name that differs from a word only in case, surrounding blanks or invisible characters, if any."""
    plain = _plain(word)
    return next((name for name in known if name != word and _plain(name) == plain), None)


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFC", name)
    return (
        "".join(character for character in text if unicodedata.category(character) not in INVISIBLE).strip().casefold()
    )
