from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepensemble.batch.input.csv_records import (
    BLANK,
    UNCLOSED,
    WINDOW_BYTES,
    Records,
    RecordTooLong,
    count_rows,
    find_lines,
    find_records,
    quote_fields,
    read_fields,
)

fields = st.text('ab," \n\r;ü', max_size=6)
tables = st.lists(st.lists(fields, min_size=1, max_size=4), max_size=12)
messes = st.text('a,"\n\r', max_size=40).map(str.encode)


def write(table: list[list[str]], end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=quoting).writerows(table)  # type: ignore[arg-type]
    return text.getvalue().encode()


def cut_up(text: bytes, records: Records) -> list[bytes]:
    return [text[start:end] for start, end in zip([0, *records.ends.tolist()], records.ends.tolist(), strict=False)]


def go_through(text: bytes) -> list[tuple[int, int]]:
    """Find end and number of fields of every record, byte by byte, by the rules in the module's docstring."""
    found = []
    place = 0
    while place < len(text):
        start, number, closed = place, 0, True
        while True:
            number += 1
            if text[place : place + 1] == b'"' and (behind := close_quoted(text, place)):
                place = behind
            else:
                closed = closed and text[place : place + 1] != b'"'
                while place < len(text) and text[place : place + 1] not in b",\n":
                    place += 1
            if text[place : place + 1] != b",":
                break
            place += 1
        if text[place : place + 2] == b"\r\n" or text[place:] == b"\r":
            place += 1
        if place < len(text):
            place += 1
        blank = not text[start:place].removesuffix(b"\n").removesuffix(b"\r")
        found.append((place, BLANK if blank else number if closed else UNCLOSED))
    return found


def close_quoted(text: bytes, start: int) -> int:
    place = start + 1
    while place < len(text):
        if text[place : place + 2] == b'""':
            place += 2
        elif text[place : place + 1] == b'"':
            rest = text[place + 1 : place + 3]
            return place + 1 if rest[:1] in (b"", b",", b"\n") or rest in (b"\r", b"\r\n") else 0
        else:
            place += 1
    return 0


@given(tables, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.booleans())
def test_records_written_by_pythons_csv_are_found(table: list[list[str]], end: str, quoting: int, ended: bool) -> None:
    if end == "\n" and quoting == csv.QUOTE_MINIMAL:  # Python leaves a return unquoted then: a line's end here
        table = [[field.replace("\r", "") for field in row] for row in table]
    text = write(table, end, quoting)
    text = text if ended else text.removesuffix(end.encode())
    records = find_records(text, ",", final=True)
    assert records.fields.tolist() == [len(row) for row in table]
    assert records.length == len(text)
    read = [[field.decode() for field in read_fields(record, ",")] for record in cut_up(text, records)]
    assert read == table
    assert count_rows(records) == len(table)
    assert not records.loose


@given(messes)
def test_any_text_is_split_according_to_the_rules(text: bytes) -> None:
    records = find_records(text, ",", final=True)
    assert list(zip(records.ends.tolist(), records.fields.tolist(), strict=True)) == go_through(text)


@given(messes, st.data())
def test_records_do_not_depend_on_the_pieces_of_a_text(text: bytes, data: st.DataObject) -> None:
    at_once = find_records(text, ",", final=True)
    ends: list[int] = []
    numbers: list[int] = []
    start = stop = 0
    while start < len(text):
        stop = data.draw(st.integers(min(stop + 1, len(text)), len(text)))
        some = find_records(text[start:stop], ",", final=stop == len(text))
        ends += (some.ends + start).tolist()
        numbers += some.fields.tolist()
        start += some.length
        if stop == len(text):
            break
    assert (ends, numbers) == (at_once.ends.tolist(), at_once.fields.tolist())


@pytest.mark.parametrize("row", [b'1,"a\nb""c",3\n', b"5'10\",x,y\n", b'"open,x,y\n'])
@pytest.mark.slow
def test_records_do_not_depend_on_windows(row: bytes) -> None:
    """Rows, of which one is irregular, fill several windows, shifted by a first row."""
    plain = b'1,"two\nlines",3\n'
    for shift in (0, 13):
        text = b"x" * shift + b",y,z\n" + plain * (WINDOW_BYTES // len(plain)) + row + plain * 2_000
        # An open quote lasts to the end of its line: no quote closes it that a separator follows.
        assert find_records(text, ",", final=True).ends.tolist() == [end for end, _ in go_through(text)]


@given(messes)
def test_loose_records_are_quoted_so_that_all_readers_agree(text: bytes) -> None:
    records = find_records(text, ",", final=True)
    parts = cut_up(text, records)
    for number in records.loose:
        wanted = [field.decode() for field in read_fields(parts[number], ",")]
        again = quote_fields(parts[number], ",")
        assert next(csv.reader(io.StringIO(again.decode(), newline=""))) == wanted
        assert not find_records(again, ",", final=True).loose


def test_a_forgotten_quote_costs_a_line() -> None:
    text = b'a,b\n"1,2\n3,4\n5,6\n'
    assert find_records(text, ",", final=True).fields.tolist() == [2, UNCLOSED, 2, 2]


def test_a_forgotten_quote_costs_a_line_even_if_the_text_is_longer_than_a_record() -> None:
    text = b'"1,2\n' + b"3,4\n" * 100
    records = find_records(text, ",", final=False, most=64)
    assert records.fields[:3].tolist() == [UNCLOSED, 2, 2]


def test_a_line_that_is_too_long_is_reported() -> None:
    with pytest.raises(RecordTooLong):
        find_records(b"x" * 200, ",", final=False, most=64)
    with pytest.raises(RecordTooLong):
        find_lines(b"x" * 200 + b"\n", final=False, most=64)
    with pytest.raises(RecordTooLong):
        find_lines(b"x" * 200, final=False, most=64)


def test_an_incomplete_record_is_left_for_the_next_piece() -> None:
    assert find_records(b'1,2\n3,"4\n', ",", final=False).ends.tolist() == [4]
    assert find_records(b'1,2\n3,"4"', ",", final=False).ends.tolist() == [4]
    assert find_lines(b"{}\n{", final=False).ends.tolist() == [3]


def test_other_separators_separate() -> None:
    assert find_records(b'1;"2;3";4,5\n', ";", final=True).fields.tolist() == [3]
    assert read_fields(b"1|2\n", "|") == [b"1", b"2"]
    assert find_records(b"a.b\n", ".", final=True).fields.tolist() == [2]


def test_blank_lines_are_no_rows() -> None:
    records = find_records(b"a\n\n\r\nb\n\n", ",", final=True)
    assert records.fields.tolist() == [1, BLANK, BLANK, 1, BLANK]
    assert count_rows(records) == 2


@given(st.lists(st.sampled_from(["{}", "", " ", "\t\r", '{"a": 1} ', "x"]), max_size=8), st.booleans())
def test_lines_are_those_that_python_splits(lines: list[str], ended: bool) -> None:
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    expected = text.split("\n")
    if expected[-1] == "":
        expected.pop()
    records = find_lines(text.encode(), final=True)
    assert (records.fields != BLANK).tolist() == [bool(line.strip()) for line in expected]
    assert "".join(expected) == text.replace("\n", "")
    assert records.length == len(text)
