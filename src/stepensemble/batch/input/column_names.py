"""Names of columns that are nearly the same: of such a one a default takes the place, and nothing shows it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

INVISIBLE = frozenset({"Cc", "Cf"})
"""Unicode's categories of characters without a shape, blanks aside: a byte order mark is one."""

EXACTLY = "write the name exactly so, blanks and capitals too"
"""What to do about it."""


def find_similar_name(word: str, known: Iterable[str]) -> str | None:
    """Return a name that differs from a word only in capitals, blanks around it or invisible characters, if any."""
    plain = _plain(word)
    return next((name for name in known if name != word and _plain(name) == plain), None)


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFC", name)
    return "".join(mark for mark in text if unicodedata.category(mark) not in INVISIBLE).strip().casefold()
