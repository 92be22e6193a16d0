"""Rows of JSON in which a key may be twice in one object: decoders keep the last of its values, unseen.

To look at each row's keys in Python takes many times as long as to decode it. So the keys of all rows are hashed
together by NumPy, and only rows in which two hashes are equal, be it of different objects, or in which a key is
written oddly, with escapes or far from its colon, are left to be looked at.
"""

from __future__ import annotations

import numpy as np

from stepensemble.batch.input.csv_records import NEWLINE, QUOTE, RETURN, SPACE, TAB
from stepensemble.core.arrays import Bytes, Flags, Hashes, Integers

BACKSLASH, COLON = b"\\:"
WORD = 8
"""Bytes that are hashed together."""

MAX_BLANKS, MAX_HASHED_BYTES = 4, 256
"""Blanks between a key and its colon, and bytes of a key, that are gone through; so no row takes long."""

PRIME = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ over the golden ratio, as Fibonacci hashing multiplies by (D. Knuth, The Art of Computer Programming, 6.4)."""

MASKS = np.array([2 ** (8 * size) - 1 for size in range(WORD + 1)], np.uint64)
"""Of a word's first bytes, by their number."""


def find_suspects(text: bytes, ends: Integers) -> Flags:
    """Say of each row whether a key may be twice in an object of it.

    Args:
        text: rows of valid JSON, one after the other, in an encoding where ASCII is its own bytes.
        ends: where each of them ends.
    """
    suspects = np.zeros(len(ends), np.bool_)
    data = np.frombuffer(text, np.uint8)
    starts, stops, odd = _find_keys(data)
    rows = np.searchsorted(ends, starts, "right")
    suspects[rows[odd]] = True
    hashes = _hash(text, starts, stops) + rows.astype(np.uint64) * PRIME
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        suspects[rows[np.isin(hashes, twice)]] = True
    return suspects


def _find_keys(data: Bytes) -> tuple[Integers, Integers, Flags]:
    """Return where each key begins and ends, and whether it is written oddly; a key is a string before a colon."""
    quotes = np.flatnonzero(data == QUOTE)
    slashes = np.flatnonzero(data == BACKSLASH)
    if len(slashes):
        quotes = np.delete(quotes, _find_escaped(data, quotes, slashes))
    opening, closing = quotes[0::2], quotes[1::2]
    after = closing + 1
    blank = np.flatnonzero(_are_blank(data[after]))
    for _ in range(MAX_BLANKS):
        after[blank] += 1
        blank = blank[_are_blank(data[after[blank]])]
    far = np.zeros(len(closing), np.bool_)
    far[blank] = True
    keys = far | (data[after] == COLON)
    starts, stops = opening[keys] + 1, closing[keys]
    escaped = np.searchsorted(slashes, starts) < np.searchsorted(slashes, stops)
    return starts, stops, escaped | far[keys]


def _find_escaped(data: Bytes, quotes: Integers, slashes: Integers) -> Integers:
    """Return which of some quotes have an odd number of backslashes before them."""
    after = np.flatnonzero(data[quotes - 1] == BACKSLASH)
    runs = slashes[np.diff(slashes, prepend=-2) > 1]  # where backslashes begin that stand together
    begin = runs[np.searchsorted(runs, quotes[after]) - 1]
    escaped: Integers = after[(quotes[after] - begin) % 2 == 1]
    return escaped


def _are_blank(data: Bytes) -> Flags:
    blank: Flags = (data == SPACE) | (data == TAB) | (data == RETURN) | (data == NEWLINE)
    return blank


def _hash(text: bytes, starts: Integers, stops: Integers) -> Hashes:
    """Hash the first `MOST_HASHED` bytes of pieces of a text, a word at a time: equal pieces have equal hashes."""
    words: Hashes = np.ndarray(len(text) + 1, np.dtype("<u8"), text + bytes(WORD), strides=(1,))
    sizes = stops - starts
    hashes = sizes.astype(np.uint64)
    left = np.flatnonzero(sizes)
    for done in range(0, min(int(sizes.max(initial=0)), MAX_HASHED_BYTES), WORD):
        taken = np.minimum(sizes[left] - done, WORD)
        word = words[starts[left] + done] & MASKS[taken]
        mixed = (hashes[left] ^ word) * PRIME
        hashes[left] = mixed ^ (mixed >> np.uint64(29))
        left = left[sizes[left] > done + WORD]
    return hashes
