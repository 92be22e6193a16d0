"""Finds where the records of a CSV begin and end, and how many fields each has; and the lines of JSON Lines.

A quote opens a quoted field only at the beginning of a field. Quotes inside are doubled. A quote before a separator or
the end of a line closes the field. Any other quote is an ordinary character. If a field begins with a quote and is not
closed within `MAX_RECORD_BYTES` from the beginning of its record, the record is unclosed and ends with its line. So a
forgotten quote costs one line and not the rest of the file, and no record requires reading a whole file.

If all quotes follow RFC 4180, which is the usual case, a byte is in a quoted field if the number of quotes before it is
odd. NumPy then finds all records together, at hundreds of megabytes per second. The same is true if no field begins
with a quote. Otherwise a regular expression finds record after record, a hundred times slower. The results are equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from stepensemble.core.arrays import Bytes, Flags, Integers

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Bytes of a record at most; longer ones are not read."""

WINDOW_BYTES, SMALL_WINDOW_BYTES = 512 * 1024, 32 * 1024
"""Bytes that are scanned together; fewer after a quote that does not follow RFC 4180, since more of them are likely."""

STEPS, MAX_STEPS = 16, 16 * 1024
"""Records that are read one by one from such a quote on; doubled each time that the next one is near."""

BLANK, UNCLOSED = 0, -1
"""In place of a number of fields: an empty line; a record with a quoted field that is not closed."""

QUOTE, NEWLINE, RETURN, SPACE, TAB = b'"\n\r \t'


class RecordTooLong(Exception):
    """There is a line of more than `MAX_RECORD_BYTES`."""


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records from the beginning of a text.

    Attributes:
        ends: where each record ends, including the end of its line.
        fields: how many fields each has, or `BLANK` or `UNCLOSED`.
        loose: indexes of records with a quote in a field that is not quoted. RFC 4180 has no such records, and readers
            differ about them; `quote_fields` rewrites them according to RFC 4180.
    """

    ends: Integers
    fields: Integers
    loose: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """The number of bytes of all records."""
        return int(self.ends[-1]) if len(self.ends) else 0


def find_records(text: bytes, separator: str, *, final: bool, most: int = MAX_RECORD_BYTES) -> Records:
    """Find the complete records at the beginning of a text.

    Args:
        text: begins with a record; in an encoding where the bytes of quote, separator and line ends have no other
            meaning.
        separator: one ASCII character.
        final: whether the text ends with a record, with or without a line end; otherwise an incomplete record at the
            end is left out.
        most: bytes of a record at most.

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
    """Return the number of rows: blank lines do not count."""
    return int(np.count_nonzero(records.fields != BLANK))


def find_lines(text: bytes, *, final: bool, most: int = MAX_RECORD_BYTES) -> Records:
    """Find the complete lines at the beginning of a text, as records of one field; lines of white space are blank.

    Arguments and errors are those of `find_records`.
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
    """Return the fields of a closed record, without their quotes."""
    return [
        quoted[1:-1].replace(b'""', b'"') if quoted else plain for quoted, plain in _split_fields(record, separator)
    ]


def has_bare_return(record: bytes, separator: str) -> bool:
    """Return whether an unquoted field has a carriage return, which does not end a line without a newline."""
    return any(b"\r" in plain for _, plain in _split_fields(record, separator))


def quote_fields(record: bytes, separator: str) -> bytes:
    """Return a record with every field quoted according to RFC 4180."""
    fields = (b'"' + field.replace(b'"', b'""') + b'"' for field in read_fields(record, separator))
    return separator.encode().join(fields) + b"\n"


def _find(text: bytes, separator: str, steps: int, *, final: bool, full: bool) -> tuple[Records, bool]:
    """Find records, at least one if there is one; return also whether they were read one by one.

    `full`: the text is as long as a record may be, so a longer text would not help.
    """
    found, regular = _count_quotes(np.frombuffer(text, np.uint8), ord(separator), final=final)
    if len(found.ends) or (regular and not full):
        return found, False
    return _walk(text, separator, steps, final=final, full=full), True


def _count_quotes(text: Bytes, separator: int, *, final: bool) -> tuple[Records, bool]:
    """Find all records before the first quote that does not follow RFC 4180; return also whether all quotes do.

    If no field begins with a quote, all quotes are ordinary characters.
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
    """Return for each record whether it is only the end of a line."""
    size = np.diff(ends, prepend=0)
    newline = text[ends - 1] == NEWLINE
    size -= newline
    returned: Flags = (size > 0) & (text[ends - newline - 1] == RETURN)
    return np.equal(size, returned)


def _find_irregular(text: Bytes, places: Integers, separator: int, *, final: bool) -> int:
    """Return the position of the first quote that does not follow RFC 4180; the text's length if all do."""
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
    """Return for each byte whether the number of quotes up to and including it is odd.

    Works on words of 64 bits: six shifts compute the exclusive or of each bit with those before it.
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
    """Find some records one by one, up to the first with a quoted field that is open at the end of the text."""
    patterns = _compile(separator)
    ends: list[int] = []
    fields: list[int] = []
    loose: list[int] = []
    start = 0
    opened = False
    while start < len(text) and len(ends) < steps and not opened:
        is_full = full and start == 0  # a longer text would not help
        found = _match(patterns.record, text, start)
        opened = found.lastindex is not None
        if opened and not (final or is_full):
            break
        end = (_match(patterns.line, text, start) if opened else found).end()
        if text[end - 1] != NEWLINE and not final:
            if is_full:
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
    assert found is not None, "a record may be empty"  # noqa: S101 narrows the type
    return found


def _count_fields(record: bytes, separator: str) -> tuple[int, bool]:
    """Return the number of a record's fields, and whether it is loose."""
    if b'"' not in record:
        return (
            record.count(separator.encode()) + 1 if record.removesuffix(b"\n").removesuffix(b"\r") else BLANK
        ), False
    fields = _split_fields(record, separator)
    if any(plain.startswith(b'"') for _, plain in fields):
        return UNCLOSED, False
    return len(fields), any(b'"' in plain for _, plain in fields)


def _split_fields(record: bytes, separator: str) -> list[tuple[bytes, bytes]]:
    """Return each field as a pair of its quoted and its plain form, of which one is empty."""
    *fields, (quoted, plain) = _compile(separator).field.findall(record)
    return [*fields, (quoted, plain.removesuffix(b"\r"))]


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Patterns for records with one separator.

    Attributes:
        record: a record; a group matches if a quoted field is open at the end of the text.
        line: a record in which such a field counts as not quoted.
        field: each field of a record, with a group for quoted and another one for plain fields.
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
