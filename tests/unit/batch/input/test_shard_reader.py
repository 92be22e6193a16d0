from __future__ import annotations

import csv
import io
import json
import random
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lake import A, B, gzip_bytes, make_bucket, numbers, plan_for, read_all, reasons, shard_all, values
from stepensemble.batch.documents import Options, Shard
from stepensemble.batch.input.shard_reader import MAX_CHARACTERS, read_shard
from stepensemble.core.errors import DatasetChanged, DatasetRefused, InvalidPayload, ShardUnreadable
from stepensemble.core.schema.manifest import TensorFeature
from stepensemble.core.strict_json import read_json

SMALL = Options(shard_size=1024)
LARGE = Options(shard_size=10**9)

cells = st.text('ab," \n\r;üé', max_size=12)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)


def read_values(files: dict[str, Any], column: str = "a", **options: Any) -> list[Any]:
    return values(read_all(files, [column], **options), column)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=400), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_shards_together_are_the_csv_as_python_reads_it(table: list[tuple[str, str]], end: str, ended: bool) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *table])
    body = text.getvalue() if ended else text.getvalue().removesuffix(end)
    raws = read_all({"a.csv": body}, ["b", "a"], SMALL)
    expected = list(csv.DictReader(io.StringIO(body, newline="")))
    for column in ("a", "b"):
        assert values(raws, column) == [row[column] or None for row in expected]
    assert numbers(raws) == list(range(1, len(table) + 1))
    assert reasons(raws) == []


@pytest.mark.slow
def test_a_large_csv_is_read_as_python_reads_it() -> None:
    """Some megabytes, so that polars also splits them for its threads."""
    generator = random.Random(7)  # noqa: S311 no secret
    text = io.StringIO()
    words = ["", "plain", 'a "quoted" word', "two\nlines", "three\r\nlines,and a comma", "ü"]
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["a", "b", "c"])
    writer.writerows([generator.choice(words), number, generator.choice(words)] for number in range(150_000))
    _, *rows = csv.reader(io.StringIO(text.getvalue(), newline=""))
    expected = [tuple(cell or None for cell in row) for row in rows]
    for options in (LARGE, Options(shard_size=500_000)):
        raws = read_all({"a.csv": text.getvalue()}, ["a", "b", "c"], options)
        assert [list(row) for raw in raws for row in raw.frame.rows()] == [
            [cell or None for cell in row] for row in expected
        ]


@pytest.mark.parametrize("size", range(1024, 1060))
def test_a_shards_boundary_in_a_quoted_newline_is_moved_before_the_record(size: int) -> None:
    rows = [f'"{number},\n""x"""' for number in range(200)]
    raws = read_all({"a.csv": "a\n" + "\n".join(rows)}, options=Options(shard_size=size))
    assert len(raws) > 1
    assert values(raws) == [f'{number},\n"x"' for number in range(200)]


def test_empty_and_quoted_empty_fields_are_missing_and_spaces_are_not() -> None:
    assert read_values({"a.csv": 'a,b\n,1\n"",2\n ,3\n'}) == [None, None, " "]


def test_everything_in_a_csv_is_text() -> None:
    assert read_values({"a.csv": "a\n1\n1.0\n007\ntrue\nNA\nnull\n2026-01-01\n"}) == [
        "1",
        "1.0",
        "007",
        "true",
        "NA",
        "null",
        "2026-01-01",
    ]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_marks_line_ends_and_blank_lines_change_nothing(mark: bytes, end: bytes) -> None:
    body = mark + end.join([b"a,b", b"1,x", b"", b'2,"y"', b"", b"", b"3,z"])
    raws = read_all({"a.csv": body})
    assert values(raws) == ["1", "2", "3"]
    assert numbers(raws) == [1, 2, 3]


def test_invisible_characters_are_read_equally_from_every_format() -> None:
    marks = [chr(code) for code in range(0x3001) if not chr(code).isprintable() or chr(code) == " "]
    texts = [text for mark in marks for text in (f"1{mark}", f"{mark}1", f"1{mark}5")]
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([["a"], *([text] for text in texts)])
    plain = [text for text in texts if "\n" not in text and "\r" not in text]
    bodies: list[tuple[str, Any, list[str]]] = [
        ("a.csv", written.getvalue(), texts),
        ("a.csv", "a\n" + "\n".join(plain), plain),
        ("a.jsonl", "\n".join(json.dumps({"a": text}, ensure_ascii=False) for text in texts), texts),
        ("a.parquet", write_parquet(pl.DataFrame({"a": texts})), texts),
    ]
    for name, body, expected in bodies:
        assert read_values({name: body}) == expected


def test_columns_are_taken_by_name_in_every_file() -> None:
    raws = read_all({"1.csv": "a,b\n1,2\n", "2.csv": "c,b,a\n5,4,3\n", "3.csv": "b\n6\n"}, ["b", "a"], features=(A, B))
    assert values(raws) == ["1", "3", None]
    assert values(raws, "b") == ["2", "4", "6"]
    assert [raw.frame.columns for raw in raws] == [["b", "a"]] * 3
    assert [raw.numbers.tolist() for raw in raws] == [[1]] * 3


def test_a_file_without_any_required_column_still_has_its_rows() -> None:
    raws = read_all({"1.csv": "a\n1\n", "2.csv": "x\n2\n3\n", "3.csv": "x\n"})
    assert values(raws) == ["1", None, None]


@pytest.mark.parametrize(
    ("encoding", "cell"),
    [
        ("utf-8", "日本"),
        ("latin-1", "é"),
        ("cp1252", "€"),
        ("koi8-r", "ж"),
        ("utf-16", "日本"),
        ("shift_jis", "表"),
        ("utf-32-be", "é"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "jsonl.gz"])
def test_text_is_read_in_the_given_encoding(encoding: str, cell: str, ending: str) -> None:
    lines = ["a,b", *[f'"{cell}\n{number}",x' for number in range(100)]]
    if "jsonl" in ending:
        lines = [json.dumps({"a": f"{cell}\n{number}"}, ensure_ascii=False) for number in range(100)]
    body = "\n".join(lines).encode(encoding)
    files = {f"a.{ending}": gzip_bytes(body) if ending.endswith("gz") else body}
    raws = read_all(files, options=Options(encoding=encoding, shard_size=1024))
    assert values(raws) == [f"{cell}\n{number}" for number in range(100)]


def test_other_separators_separate() -> None:
    assert read_values({"a.csv": "a;b\n1,5;2\n"}, options=Options(separator=";")) == ["1,5"]
    assert read_values({"a.csv": "a\tb\n1,5\t2\n"}, options=Options(separator="\t")) == ["1,5"]
    assert read_values({"a.csv": "a1b\n51 6\n"}, options=Options(separator="1")) == ["5"]


def test_malformed_records_are_reported_with_their_reason_and_the_others_are_read() -> None:
    body = b'a,b\n1,2\n3\n\n4,5,6\n7,8\n"9,10\n\xff,11\n12,13\n'
    raws = read_all({"a.csv": body})
    assert values(raws) == ["1", "7", "12"]
    assert numbers(raws) == [1, 4, 7]
    assert [(bad.row, bad.value, bad.reason) for raw in raws for bad in raw.malformed] == [
        (2, "3", "has 1 field, but the header has 2"),
        (3, "4,5,6", "has 3 fields, but the header has 2"),
        (5, '"9,10', "has a quoted field that is not closed"),
        (6, "\ufffd,11", "is not utf-8"),
    ]
    assert {bad.kind for raw in raws for bad in raw.malformed} == {
        "has another number of fields than the header",
        "has a quoted field that is not closed",
        "is not utf-8",
    }
    assert sum(raw.rows for raw in raws) == 7


@pytest.mark.slow
def test_quotes_in_plain_fields_are_characters() -> None:
    body = "a,b\n" + "".join(f'5\'{n}" tall,x\n"q,{n}",y\n' for n in range(300))
    expected = [cell for n in range(300) for cell in (f"5'{n}\" tall", f"q,{n}")]
    assert read_values({"a.csv": body}, options=SMALL) == expected
    assert read_values({"a.csv": body.replace("tall", "é").encode("latin-1")}, options=Options(encoding="latin-1")) == [
        cell.replace("tall", "é") for cell in expected
    ]


def test_the_shown_text_of_a_malformed_record_is_cut() -> None:
    (raw,) = read_all({"a.csv": "a,b\n" + "x" * 1000 + "\n"})
    assert raw.malformed[0].value == "x" * (MAX_CHARACTERS - 1) + "…"


def test_very_many_records_of_another_encoding_are_all_found() -> None:
    body = b"a,b\n" + b"1,\xff\n" * 50_000 + b"2,\xc3\xa9\n"
    raws = read_all({"a.csv": body})
    assert values(raws) == ["2"]
    assert [row for row, _ in reasons(raws)] == list(range(1, 50_001))


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), scalars), max_size=40), st.data())
def test_json_lines_keep_the_types_of_their_values(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    ascii_only = data.draw(st.booleans())
    body = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in [{"a": 1}, *rows])
    raws = read_all({"a.jsonl": body}, ["a", "c"], options=SMALL)
    given_rows = [{"a": 1}, *rows]
    assert len(given_rows) == sum(raw.rows for raw in raws)
    for column in ("a", "c"):
        expected = [row.get(column) for row in given_rows]
        found = [value for raw in raws for value in raw.original(column, range(raw.frame.height))]  # type: ignore[misc]
        assert list(zip(map(type, found), found, strict=True)) == list(zip(map(type, expected), expected, strict=True))
        assert [value for raw in raws for value in list(raw.frame[column])] == expected


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        (["1", "2", "null"], pl.Int64),
        (["1", "2.5", "null"], pl.Float64),
        (['"1"', '"2.5"', "null"], pl.String),
        (["true", "false", "null"], pl.Boolean),
        (["null", "null"], pl.Null),
        (["1", '"2"'], pl.Object),
        (["1", "true"], pl.Object),
        (["[1, 2]", "[[true]]"], pl.Object),
        (['{"x": 1}'], pl.Object),
        ([str(2**70), "1"], pl.Object),
    ],
)
def test_a_column_of_json_lines_has_the_type_that_all_its_values_have(written: list[str], dtype: Any) -> None:
    (raw,) = read_all({"a.jsonl": "".join(f'{{"a": {value}}}\n' for value in written)})
    assert raw.frame.schema["a"] == dtype
    assert list(raw.frame["a"]) == [json.loads(value) for value in written]


def test_missing_keys_are_missing_values() -> None:
    (raw,) = read_all({"a.jsonl": '{"b": 1}\n{"a": 1}\n{"a": null}\n{}\n'}, ["a", "b"])
    assert raw.frame.rows() == [(None, 1), (1, None), (None, None), (None, None)]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('{"a": 1, "a": 2}', "a"),
        ('{"a": 1, "other": {"x": [{"y": 1, "y": 1}]}}', "y"),
        ('{"a": 1, "\\u0061": 2}', "a"),
        ('{"a" \t: 1,"a":1}', "a"),
        ('{"a": 1, "": 0, "": 0}', ""),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_a_line_with_a_key_twice_is_rejected_with_the_message_of_a_payload(line: str, name: str, encoding: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        read_json(line.encode())
    text = f'{{"a": "é"}}\n{line}\n{{"a": {{"a": {{"a": 3}}}}}}\n{{"a": "\\\\", "b": "a\\": 1"}}\n'
    (raw,) = read_all({"x.jsonl": text.encode(encoding)}, options=Options(encoding=encoding))
    assert [list(raw.frame["a"]), raw.numbers.tolist()] == [["é", {"a": {"a": 3}}, "\\"], [1, 3, 4]]
    ((bad,), (problem,)) = raw.malformed, refused.value.problems
    assert (bad.row, bad.value, bad.reason, bad.remedy) == (2, line, problem.message, problem.remedy)
    assert problem.message == f'"{name}" is given twice in one object'


def test_a_line_that_is_nested_too_deeply_is_rejected_alone() -> None:
    deep = '{"b": ' + "[" * 100_000 + "]" * 100_000 + "}"
    raws = read_all({"a.jsonl": f'{deep}\n{{"a": 1}}\n{deep}'})
    assert (values(raws), numbers(raws)) == ([1], [2])
    assert reasons(raws) == [
        (1, "is malformed JSON: it is nested too deeply"),
        (3, "is malformed JSON: it is nested too deeply"),
    ]


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_carriage_return_without_quotes_costs_its_record(ending: str) -> None:
    body = 'a,b\r\n1,x\r2,y\n3,z\r\n"4\r",w\n5,\rv\n6,u\r\r\n7,t\r'
    raws = read_all({f"a.{ending}": gzip_bytes(body) if ending.endswith("gz") else body})
    assert (values(raws), numbers(raws)) == (["3", "4\r", "7"], [2, 3, 6])
    reason = "has a carriage return (CR) in a field without quotes"
    assert reasons(raws) == [(1, reason), (4, reason), (5, reason)]


ODD = [*'a1,"{}[]:\\ ', "\n", "\r", "\r\n", '""', "\0", "\x1c", "\x85", "\ufeff", "é"]
ODD_JSON = ['"a":', '{"a":1}', '{"b":1,"b":2}', "1e999", "\\ud800"]


@given(
    st.sampled_from(["csv", "jsonl"]),
    st.lists(st.sampled_from(ODD + ODD_JSON), max_size=40).map("".join),
    st.sampled_from([None, -1]),
)
@settings(deadline=None)
def test_every_row_of_any_text_is_read_or_rejected_unless_the_dataset_is(
    format_: str, text: str, stop: int | None
) -> None:
    begin = 'a,"b"\n' if format_ == "csv" else '{"a": 1}\n'
    body = (begin + text).encode()[:stop]
    try:
        together = read_all({f"x.{format_}": body})
        same = read_all({f"x.{format_}.gz": gzip_bytes(body)})
    except DatasetRefused:
        return
    for raws in (together, same):
        rows = sorted(numbers(raws) + [row for row, _ in reasons(raws)])
        assert rows == list(range(1, len(rows) + 1))
    assert (values(together), reasons(together)) == (values(same), reasons(same))


def test_json_lines_may_begin_with_a_byte_order_mark() -> None:
    raws = read_all({"a.jsonl": b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}', "b.jsonl.gz": gzip_bytes(b'\xef\xbb\xbf{"a": 3}')})
    assert values(raws) == [1, 2, 3]


def test_blank_lines_of_json_lines_are_no_rows() -> None:
    raws = read_all({"a.jsonl": '\n{"a": 1}\n  \n\t\r\n {"a": 2} \n\n{"a": 3}'})
    assert values(raws) == [1, 2, 3]
    assert numbers(raws) == [1, 2, 3]


def test_lines_that_are_no_objects_are_reported_with_their_reason_and_the_others_are_read() -> None:
    lines = ['{"a": 1}', "[1]", "3", '{"a": 2', '{"a": 3} {"a": 4}', "null", '{"a":', "5}", '{"a": 6}', '{"a": NaN}']
    raws = read_all({"a.jsonl": "\n".join(lines).encode() + b'\n{"a": "\xff"}\n{"a": 7}'})
    assert values(raws) == [1, 6, 7]
    assert numbers(raws) == [1, 9, 12]
    messages = dict(reasons(raws))
    assert {row for row, reason in messages.items() if reason == "is not a JSON object"} == {2, 3, 6, 8}
    assert all(messages[row].startswith("is malformed JSON: ") for row in (4, 5, 7, 10))
    assert messages[11] == "is not utf-8"
    assert {bad.kind for raw in raws for bad in raw.malformed} == {
        "is not a JSON object",
        "is malformed JSON",
        "is not utf-8",
    }


def test_two_objects_in_a_line_do_not_hide_one_in_two_lines() -> None:
    raws = read_all({"a.jsonl": '{"a": 1} {"a": 2}\n{"a":\n3}\n'})
    assert values(raws) == []
    assert [row for row, _ in reasons(raws)] == [1, 2, 3]


def test_one_malformed_line_among_very_many_is_rejected_alone() -> None:
    lines = [json.dumps({"a": number}) for number in range(5000)]
    lines[1500] = "oops"
    raws = read_all({"a.jsonl": "\n".join(lines)})
    assert values(raws) == [number for number in range(5000) if number != 1500]
    assert [row for row, _ in reasons(raws)] == [1501]


@pytest.mark.parametrize("ending", ["csv.gz", "jsonl.gz"])
def test_gzip_is_one_shard(ending: str) -> None:
    body = "a\n" + "1\n" * 2000 if "csv" in ending else '{"a": "1"}\n' * 700
    raws = read_all({f"a.{ending}": gzip_bytes(body)}, options=SMALL)
    assert len(raws) == 1
    assert set(values(raws)) == {"1"}


def write_parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("group", [7, 100, 1000])
@pytest.mark.slow
def test_slices_of_parquet_together_are_the_file(compression: str, group: int) -> None:
    frame = pl.DataFrame(
        {
            "a": [None if n % 5 == 0 else n / 4 for n in range(1000)],
            "s": [f"v{n % 3}" if n % 7 else None for n in range(1000)],
            "t": pl.Series([f"v{n % 3}" for n in range(1000)], dtype=pl.Categorical),
            "l": [[n, n + 1] for n in range(1000)],
            "unused": ["x" * 50] * 1000,
        }
    )
    columns = ["l", "a", "t", "s", "absent"]
    body = write_parquet(frame, compression=compression, row_group_size=group)
    raws = read_all({"a.parquet": body}, columns, SMALL, (A, TensorFeature("l", (2,))))
    assert len(raws) > 5
    read = pl.concat([raw.frame for raw in raws])
    expected = frame.with_columns(pl.col("t").cast(pl.String), pl.lit(None).alias("absent")).select(columns)
    assert read.equals(expected)
    assert numbers(raws) == list(range(1, 1001))
    assert reasons(raws) == []


def test_parquet_keeps_its_types() -> None:
    frame = pl.DataFrame(
        {"a": pl.Series([Decimal("1.10"), None]), "b": pl.Series([1, 2], dtype=pl.Int8), "c": [True, None]}
    )
    (raw,) = read_all({"a.parquet": write_parquet(frame)}, ["a", "b", "c"])
    assert raw.frame.equals(frame)


def test_parquet_without_rows_has_no_shards() -> None:
    empty = write_parquet(pl.DataFrame(schema={"a": pl.Float64}))
    assert read_all({"a.parquet": empty, "b.parquet": b""}) == []


def test_a_damaged_page_of_parquet_is_reported() -> None:
    body = bytearray(write_parquet(pl.DataFrame({"a": list(range(1000))}), compression="uncompressed"))
    body[4:200] = bytes(196)
    with pytest.raises(ShardUnreadable, match=r"a\.parquet: is damaged"):
        read_all({"a.parquet": bytes(body)})


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_was_changed_since_is_not_read(name: str) -> None:
    body = {"a.csv": b"a\n1\n", "a.jsonl": b'{"a": 1}', "a.parquet": write_parquet(pl.DataFrame({"a": [1]}))}[name]
    bucket = make_bucket({name: body})
    done = shard_all(bucket)
    bucket.write(f"day/{name}", body)
    with pytest.raises(DatasetChanged):
        read_shard(bucket, plan_for(done, Options()), done.shards[0], ["a"])


def test_rows_are_checked_against_those_that_were_counted() -> None:
    bucket = make_bucket({"a.csv": "a\n1\n2\n"})
    done = shard_all(bucket)
    plan = plan_for(done, Options())
    with pytest.raises(ShardUnreadable, match="has 2 rows, but 3 were counted"):
        read_shard(bucket, plan, replace(done.shards[0], rows=3), ["a"])
    assert read_shard(bucket, plan, Shard(0, 0, 2, 6, 1, None), ["a"]).rows == 2
