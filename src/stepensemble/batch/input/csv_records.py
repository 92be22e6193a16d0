"""Where the records of a CSV begin and end, and how many fields each of them has; and the lines of JSON Lines.

A quote opens a quoted field only where a field begins; quotes inside are doubled; a quote that a separator or a line's
end follows closes it. Elsewhere a quote is a character like any other. A field that begins with a quote and is not
closed so within `MAX_RECORD_BYTES` of its record's begin makes that record unclosed: it ends with its line. So one
forgotten quote costs a line and not the rest of the file, and no record makes anybody read a whole file.

Where every quote is as RFC 4180 wants it, which is nearly always, a byte lies in a quoted field where the number of
quotes before it is odd, and NumPy finds all records at once, at hundreds of megabytes a second; and so it does where
no field begins with a quote. Elsewhere a regular expression goes from record to record, a hundred times slower. All
find the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from stepensemble.core.arrays import Bytes, Flags, Integers

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Longer records are not read."""

WINDOW_BYTES, SMALL_WINDOW_BYTES = 512 * 1024, 32 * 1024
"""Looked at together, the small one after a quote that is not as RFC 4180 wants it: there may be more of them."""

STEPS, MAX_STEPS = 16, 16 * 1024
"""Records gone through singly from such a quote on; twice as many each time where the next one is not far."""

BLANK, UNCLOSED = 0, -1
"""Instead of a number of fields: a line without any character; a record with a quoted field that is not closed."""

QUOTE, NEWLINE, RETURN, SPACE, TAB = b'"\n\r \t'


class RecordTooLong(Exception):
    """There is a line of more than `MAX_RECORD_BYTES`."""


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of a text, from its begin.

    Attributes:
        ends: where each of them ends, its line's end included.
        fields: how many fields each has, or `BLANK` or `UNCLOSED`.
        loose: the numbers of those with a quote in a field that is not quoted. RFC 4180 has no such records, and
            readers differ about them; `quote_fields` writes them as it wants.
    """

    ends: Integers
    fields: Integers
    loose: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Bytes of all of them."""
        return int(self.ends[-1]) if len(self.ends) else 0


def find_records(text: bytes, separator: str, *, final: bool, most: int = MAX_RECORD_BYTES) -> Records:
    """Find the whole records at the begin of a text.

    Args:
        text: begins with a record; in an encoding where the bytes of quote, separator and line ends mean nothing else.
        separator: one ASCII character.
        final: the text ends with a record, line end or not; else what follows the last whole record is left.
        most: bytes that a record may have.

    Raises:
        RecordTooLong: there is a line of more than `most` bytes.
    """
    parts: list[tuple[int, Records]] = []
    start, size, steps = 0, min(WINDOW_BYTES, most), STEPS
    while start < len(text):
        window = text[start : start + size]
        last = start + len(window) == len(text)
        part, walked = _find(window, separator, steps, final=final and last, full=len(window) == most)
        if len(part.ends):
            parts.append((start, part))
            start += part.length
            steps = min(2 * steps, MAX_STEPS) if walked else max(steps // 2, STEPS)
            size = min(SMALL_WINDOW_BYTES if walked else 2 * size, WINDOW_BYTES, most)
        elif last:
            break
        else:
            size = min(2 * size, most)
    counts = np.cumsum([0, *(len(part.ends) for _, part in parts)])
    return Records(
        np.concatenate([part.ends + start for start, part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.fields for _, part in parts] or [np.empty(0, np.int64)]),
        tuple(int(before) + n for before, (_, part) in zip(counts[:-1], parts, strict=True) for n in part.loose),
    )


def count_rows(records: Records) -> int:
    """Say how many rows records are: a blank line is none."""
    return int(np.count_nonzero(records.fields != BLANK))


def find_lines(text: bytes, *, final: bool, most: int = MAX_RECORD_BYTES) -> Records:
    """Find the whole lines at the begin of a text, as records of one field; of nothing but white space, as blank ones.

    Arguments and errors as of `find_records`.
    """
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == NEWLINE) + 1
    rest = len(text) - (int(ends[-1]) if len(ends) else 0)
    if final and rest:
        ends, rest = np.append(ends, len(text)), 0
    starts = np.concatenate([ends[:0], [0], ends[:-1]])[: len(ends)]
    if rest > most or np.any(ends - starts > most):
        raise RecordTooLong
    fields = np.ones(len(ends), np.int64)
    if np.any(data[starts] <= SPACE):
        spaces = (data == SPACE) | (data == TAB) | (data == RETURN) | (data == NEWLINE)
        fields[np.logical_and.reduceat(spaces[: ends[-1]], starts)] = BLANK
    return Records(ends, fields)


def read_fields(record: bytes, separator: str) -> list[bytes]:
    """Return the fields of a record that is not unclosed, without the quotes of those that have some."""
    return [
        quoted[1:-1].replace(b'""', b'"') if quoted else plain for quoted, plain in _split_fields(record, separator)
    ]


def has_bare_return(record: bytes, separator: str) -> bool:
    """Say whether a carriage return stands in a field that is not quoted: one that no newline follows ends no line."""
    return any(b"\r" in plain for _, plain in _split_fields(record, separator))


def quote_fields(record: bytes, separator: str) -> bytes:
    """Write a record anew with every field quoted as RFC 4180 wants it."""
    fields = (b'"' + field.replace(b'"', b'""') + b'"' for field in read_fields(record, separator))
    return separator.encode().join(fields) + b"\n"


def _find(text: bytes, separator: str, steps: int, *, final: bool, full: bool) -> tuple[Records, bool]:
    """Find records, at least one if there is one, and say whether it was one after the other.

    `full`: the text is as long as a record may be, so more of it would not help.
    """
    found, regular = _count_quotes(np.frombuffer(text, np.uint8), ord(separator), final=final)
    if len(found.ends) or (regular and not full):
        return found, False
    return _walk(text, separator, steps, final=final, full=full), True


def _count_quotes(text: Bytes, separator: int, *, final: bool) -> tuple[Records, bool]:
    """Find all records before the first quote that is not as RFC 4180 wants it; say whether there is none.

    Where no field begins with a quote, all of them are characters like any other.
    """
    quotes = text == QUOTE
    tokens = (text == separator) | (text == NEWLINE)
    first = len(text)
    loose: Integers = np.empty(0, np.int64)
    if quotes.any():
        loose = np.flatnonzero(quotes)
        before = text[loose - 1]
        opening = loose[(before == separator) | (before == NEWLINE) | (loose == 0)][:1]
        first = _find_irregular(text, loose, separator, final=final)
        if first < len(text) and (not len(opening) or first < opening[0]):
            first = int(opening[0]) if len(opening) else len(text)
            tokens = tokens[:first]
        else:
            tokens = tokens[:first] & ~_are_inside(quotes[:first])
            loose = loose[:0]
    regular = first == len(text)
    places = np.flatnonzero(tokens)
    newlines = np.flatnonzero(text[places] == NEWLINE)
    ends = places[newlines] + 1
    fields = np.diff(newlines, prepend=-1)
    if final and regular and len(text) > (ends[-1] if len(ends) else 0):  # the last line has no end
        fields = np.append(fields, len(places) - (newlines[-1] + 1 if len(newlines) else 0) + 1)
        ends = np.append(ends, len(text))
    fields[_are_blank(text, ends)] = BLANK
    holders = np.unique(np.searchsorted(ends, loose, "right"))
    return Records(ends, fields, tuple(holders[holders < len(ends)].tolist())), regular


def _are_blank(text: Bytes, ends: Integers) -> Flags:
    """Say of each record whether it is nothing but the end of a line."""
    size = np.diff(ends, prepend=0)
    newline = text[ends - 1] == NEWLINE
    size -= newline
    returned: Flags = (size > 0) & (text[ends - newline - 1] == RETURN)
    return np.equal(size, returned)


def _find_irregular(text: Bytes, places: Integers, separator: int, *, final: bool) -> int:
    """Return the place of the first quote that opens or closes where RFC 4180 does not let it, or the text's length."""
    size = len(text)
    opening, closing = places[0::2], places[1::2]
    doubled = opening[1:] == closing[: len(opening) - 1] + 1
    before = text[opening - 1]
    allowed = (before == separator) | (before == NEWLINE) | (opening == 0)
    allowed[1:] |= doubled
    after = text[np.minimum(closing + 1, size - 1)]
    beyond = text[np.minimum(closing + 2, size - 1)]
    ended = (after == separator) | (after == NEWLINE) | (closing + 1 == size)
    ended |= (after == RETURN) & ((beyond == NEWLINE) | (closing + 2 == size))
    ended[: len(doubled)] |= doubled
    never_closed = opening[len(closing) :] if final else opening[:0]
    return int(min((*opening[~allowed][:1], *closing[~ended][:1], *never_closed, size)))


def _are_inside(quotes: Flags) -> Flags:
    """Say of each byte whether an odd number of quotes stands up to and with it.

    64 bytes at a time: the exclusive or of a word's bits with those before is six shifts.
    """
    words = np.zeros(-(-len(quotes) // 64), np.uint64)
    packed = np.packbits(quotes, bitorder="little")
    words.view(np.uint8)[: len(packed)] = packed
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    odd = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.uint64(0) - odd[:-1]
    bits = np.unpackbits(words.view(np.uint8), count=len(quotes), bitorder="little")
    return bits.astype(np.bool_, copy=False)


def _walk(text: bytes, separator: str, steps: int, *, final: bool, full: bool) -> Records:
    """Find some records one after the other, up to the first whose quoted field goes on at the end of the text."""
    patterns = _compile(separator)
    ends: list[int] = []
    fields: list[int] = []
    loose: list[int] = []
    start = 0
    opened = False
    while start < len(text) and len(ends) < steps and not opened:
        alone = full and start == 0  # there will never be more of it to look at
        found = _match(patterns.record, text, start)
        opened = found.lastindex is not None
        if opened and not (final or alone):
            break
        end = (_match(patterns.line, text, start) if opened else found).end()
        if text[end - 1] != NEWLINE and not final:
            if alone:
                raise RecordTooLong
            break
        number, is_loose = _count_fields(text[start:end], separator)
        if is_loose:
            loose.append(len(ends))
        ends.append(end)
        fields.append(number)
        start = end
    return Records(np.array(ends, np.int64), np.array(fields, np.int64), tuple(loose))


def _match(pattern: re.Pattern[bytes], text: bytes, start: int) -> re.Match[bytes]:
    found = pattern.match(text, start)
    assert found is not None, "a record may be empty"  # noqa: S101 tells the type
    return found


def _count_fields(record: bytes, separator: str) -> tuple[int, bool]:
    """Return a record's number of fields, and whether it is loose."""
    if b'"' not in record:
        return (
            record.count(separator.encode()) + 1 if record.removesuffix(b"\n").removesuffix(b"\r") else BLANK
        ), False
    fields = _split_fields(record, separator)
    if any(plain.startswith(b'"') for _, plain in fields):
        return UNCLOSED, False
    return len(fields), any(b'"' in plain for _, plain in fields)


def _split_fields(record: bytes, separator: str) -> list[tuple[bytes, bytes]]:
    """Return each field as it is written: quoted, or else plain."""
    *fields, (quoted, plain) = _compile(separator).field.findall(record)
    return [*fields, (quoted, plain.removesuffix(b"\r"))]


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Of records with one separator.

    Attributes:
        record: a record; a group matches where a quoted field goes on at the end of the text.
        line: a record in which a field that goes on so is not quoted.
        field: each field of a record: a group where it is quoted, another where it is not.
    """

    record: re.Pattern[bytes]
    line: re.Pattern[bytes]
    field: re.Pattern[bytes]


@cache
def _compile(separator: str) -> _Patterns:
    comma = re.escape(separator.encode())
    end = rb"\r?(?:\n|\Z)"
    inner = rb'"(?:[^"]++|"")*+'
    quoted = inner + rb'"(?=' + comma + rb"|" + end + rb")"
    opened = inner + rb"\Z"
    plain = rb"[^" + comma + rb"\n]*+"
    line = rb"(?:" + quoted + rb"|" + plain + rb")"
    field = rb"(?:" + quoted + rb"|(" + opened + rb")|" + plain + rb")"
    return _Patterns(
        record=re.compile(field + rb"(?:" + comma + field + rb")*+" + end),
        line=re.compile(line + rb"(?:" + comma + line + rb")*+" + end),
        field=re.compile(rb"(?:\A|" + comma + rb")(?:(" + quoted + rb")|(" + plain + rb"))"),
    )
