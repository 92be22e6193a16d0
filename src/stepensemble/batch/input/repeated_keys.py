"""Finds rows of JSON in which an object may have a key twice: decoders silently keep the last value.

Checking each row's keys in Python takes many times as long as decoding it. So NumPy hashes the keys of all rows
together. Only two kinds of rows need a closer check: those with two equal hashes, even in different objects, and those
with a key in an unusual form, with escapes or far from its colon.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stepensemble.batch.input.csv_records import NEWLINE, QUOTE, RETURN, SPACE, TAB
from stepensemble.core.arrays import Bytes, Flags, Hashes, Integers

BACKSLASH, COLON = b"\\:"
WORD = 8
"""Bytes that are hashed at a time."""

MAX_BLANKS, MAX_HASHED_BYTES = 4, 256
"""Blanks between a key and its colon, and bytes of a key, that are processed at most, to bound the time."""

PRIME = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ divided by the golden ratio, the factor of Fibonacci hashing (D. Knuth, The Art of Computer Programming, 6.4)."""

MASKS = np.array([2 ** (8 * size) - 1 for size in range(WORD + 1)], np.uint64)
"""Masks for the first bytes of a word, by their number."""


def find_suspects(text: bytes, ends: Integers) -> Flags:
    """Return for each row whether an object in it may have a key twice.

    Args:
        text: concatenated rows of valid JSON, in an encoding where ASCII characters are single bytes.
        ends: where each row ends.
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


class _Keys(NamedTuple):
    """Where each key begins and ends, and whether its form is unusual."""

    starts: Integers
    stops: Integers
    unusual: Flags


def _find_keys(data: Bytes) -> _Keys:
    """Return the keys of all objects; a key is a string before a colon."""
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
    return _Keys(starts, stops, escaped | far[keys])


def _find_escaped(data: Bytes, quotes: Integers, slashes: Integers) -> Integers:
    """Return the indexes of the quotes that have an odd number of backslashes before them."""
    after = np.flatnonzero(data[quotes - 1] == BACKSLASH)
    runs = slashes[np.diff(slashes, prepend=-2) > 1]  # where runs of backslashes begin
    begin = runs[np.searchsorted(runs, quotes[after]) - 1]
    escaped: Integers = after[(quotes[after] - begin) % 2 == 1]
    return escaped


def _are_blank(data: Bytes) -> Flags:
    blank: Flags = (data == SPACE) | (data == TAB) | (data == RETURN) | (data == NEWLINE)
    return blank


def _hash(text: bytes, starts: Integers, stops: Integers) -> Hashes:
    """Hash the first `MAX_HASHED_BYTES` bytes of pieces of a text, word by word: equal pieces have equal hashes."""
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
