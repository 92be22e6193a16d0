from __future__ import annotations

import io
import json
from datetime import date
from functools import partial
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake import A, B, gzip_bytes, make_bucket, shard_all
from stepensemble.batch.documents import Options
from stepensemble.batch.input.csv_records import MAX_RECORD_BYTES, count_rows, find_lines, find_records
from stepensemble.batch.input.parquet_footer import Chunk, RowGroup
from stepensemble.batch.input.sharding import slice_rows, slice_text
from stepensemble.core.errors import DatasetRefused
from stepensemble.core.problems import Problem
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature, TensorFeature

find_csv = partial(find_records, separator=",")
DAY = date(2026, 1, 2)
lines = st.lists(
    st.sampled_from(["", "a", "1,2", '"x\ny"', '"forgotten', "é" * 20, 'a "b" c', "long " * 30]), max_size=60
)


def refused(files: dict[str, Any], **options: Any) -> tuple[Problem, ...]:
    with pytest.raises(DatasetRefused) as caught:
        shard_all(make_bucket(files), **options)
    return caught.value.problems


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


@given(lines, st.integers(1, 200), st.integers(1, 50), st.integers(0, 5), st.booleans())
def test_slices_do_not_depend_on_the_pieces_of_a_text(
    parts: list[str], size: int, piece: int, start: int, known: bool
) -> None:
    text = "\n".join(parts).encode()
    end = start + len(text) if known else None
    slices = list(slice_text([text], find_csv, start, size, end))
    pieces = [text[place : place + piece] for place in range(0, len(text), piece)]
    assert list(slice_text(pieces, find_csv, start, size, end)) == slices
    at_once = find_csv(text, final=True)
    assert sum(part.rows for part in slices) == count_rows(at_once)
    edges = {start, *(at_once.ends + start).tolist()}
    row = 1
    for part in slices:
        body = text[part.start - start : part.end - start]
        inside = find_csv(body, final=True)
        assert {part.start, part.end} <= edges
        assert part.end - part.start <= size or len(inside.ends) == 1
        assert count_rows(inside) == part.rows > 0
        assert part.first_row == row
        row += part.rows
    between = [text[one.end - start : two.start - start] for one, two in pairwise(slices)]
    assert b"".join(between).strip() == b""


@given(lines, st.integers(1, 200))
def test_json_lines_are_split_at_lines(parts: list[str], size: int) -> None:
    text = "\n".join(parts).encode()
    slices = list(slice_text([text], find_lines, 0, size))
    assert sum(part.rows for part in slices) == sum(bool(line.strip()) for line in text.split(b"\n"))


@given(st.integers(1, 500), st.integers(1, 400))
def test_slices_of_a_text_with_a_known_end_have_equal_sizes(records: int, fitting: int) -> None:
    text = b"1234567\n" * records
    slices = list(slice_text([text], find_lines, 0, 8 * fitting, len(text)))
    rows = [part.rows for part in slices]
    assert sum(rows) == records
    assert len(rows) == -(-records // fitting)  # as few as can be
    assert max(rows) - min(rows) <= 1


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20)), max_size=12), st.integers(1, 4000))
def test_slices_of_row_groups_are_all_rows_in_order_and_of_the_requested_size(
    groups: list[tuple[int, int]], size: int
) -> None:
    """Every group has one column with so many bytes per value, and another one that is not read."""
    row_groups = [RowGroup(rows, (Chunk("a", 0, 1, rows * width), Chunk("b", 0, 1, 10**9))) for rows, width in groups]
    slices = list(slice_rows(row_groups, {"a": 8}, size))
    row = 0
    for part in slices:
        assert part.start == row < part.end
        assert (part.first_row, part.rows) == (row + 1, part.end - part.start)
        row = part.end
    assert row == sum(rows for rows, _ in groups)
    widest = max((max(8, width) for _, width in groups), default=8)
    assert all(part.rows <= max(1, size // 8) for part in slices)
    if len({max(8, width) for _, width in groups}) == 1:
        assert all(part.rows * widest <= max(size, widest) for part in slices)


def test_shards_are_numbered_over_files_and_rows_within_them() -> None:
    body = "a\n" + "12345678901\n" * 300  # 3,600 bytes of rows: four slices of 900
    found = shard_all(make_bucket({"1.csv": body, "2.csv": "a\n", "3.csv": body}), Options(shard_size=1024))
    assert [(file.name, file.rows) for file in found.files] == [("1.csv", 300), ("2.csv", 0), ("3.csv", 300)]
    assert [(shard.number, shard.file, shard.start, shard.first_row, shard.rows) for shard in found.shards] == [
        (0, 0, 2, 1, 75),
        (1, 0, 902, 76, 75),
        (2, 0, 1802, 151, 75),
        (3, 0, 2702, 226, 75),
        (4, 2, 2, 1, 75),
        (5, 2, 902, 76, 75),
        (6, 2, 1802, 151, 75),
        (7, 2, 2702, 226, 75),
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_a_file_without_bytes_is_an_empty_dataset(name: str) -> None:
    found = shard_all(make_bucket({name: b""}))
    assert (found.shards, found.columns, found.notes, found.files[0].rows) == ((), (), (), 0)


def test_no_file_is_an_empty_dataset() -> None:
    found = shard_all(make_bucket({"_SUCCESS": b""}))
    assert (found.files, found.shards) == ((), ())


def test_files_without_rows_do_not_reject_the_others() -> None:
    found = shard_all(make_bucket({"1.csv": b"", "2.csv": b"a\n1\n", "3.csv": b"a"}))
    assert [file.rows for file in found.files] == [0, 1, 0]


def test_blank_json_lines_are_an_empty_dataset() -> None:
    assert shard_all(make_bucket({"a.jsonl": b"\n \n"})).shards == ()


def test_columns_are_the_union_over_files() -> None:
    assert shard_all(make_bucket({"1.csv": "b,a\n1,2\n", "2.csv": "c,a\n1,2\n"})).columns == ("b", "a", "c")
    lines = shard_all(make_bucket({"1.jsonl": '{"b": 1, "a": 2}\n{"c": 1}', "2.jsonl": '{"d": 1}\n3'}))
    assert lines.columns == ("b", "a", "c", "d")
    tables = shard_all(make_bucket({"1.parquet": parquet(b=[1], a=[2]), "2.parquet": parquet(a=[1], c=["x"])}))
    assert tables.columns == ("b", "a", "c")


@pytest.mark.parametrize(
    "files",
    [
        {"1.csv": "b,A\n1,2\n"},
        {"1.csv.gz": gzip_bytes("b,A\n1,2\n")},
        {"1.jsonl": '{"b": 1, "A": 2}'},
        {"1.parquet": parquet(b=[1], A=[2])},
    ],
)
def test_missing_columns_are_refused_with_the_nearest_name(files: dict[str, Any]) -> None:
    options = Options(id="idd", label="A", keep=("bb", "b"))
    problems = refused(files, options=options, features=(A, B))
    assert [(problem.path, problem.message) for problem in problems] == [
        ("feature a", "is not a column of the dataset"),
        ("id", '"idd" is not a column of the dataset'),
        ("keep", '"bb" is not a column of the dataset'),
    ]
    assert problems[0].remedy == 'add it, or set "missing" in the manifest, did you mean "A"?'
    assert problems[1].remedy == 'use one of "b", "A"'
    assert problems[2].remedy == 'use one of "b", "A", did you mean "b"?'


@pytest.mark.parametrize(
    "files",
    [
        {"1.csv": "a,b\n", "2.csv": "a, b\n1,2\n"},
        {"2.csv.gz": gzip_bytes("a, b\n1,2\n")},
        {"2.jsonl": '{"a": 1, " b": 2}'},
        {"1.parquet": parquet(a=[1], b=[1]), "2.parquet": parquet(**{"a": [1], " b": [2]})},
    ],
)
def test_a_name_that_nearly_matches_a_column_is_rejected_even_with_a_default(files: dict[str, Any]) -> None:
    (problem,) = refused(files, features=(A, B))
    assert (problem.path[:1], problem.message) == ("2", 'column " b" nearly has the name "b"')


def test_a_column_with_another_use_is_no_near_match() -> None:
    shard_all(make_bucket({"1.csv": "a,B\n1,2\n"}), Options(keep=("B",)), (A, B))
    shard_all(make_bucket({"1.csv": "a,B\n1,2\n"}), features=(A, B, CategoryFeature("B", ("x",))))


@pytest.mark.parametrize("name", ["1.csv", "1.jsonl", "1.parquet"])
def test_a_dataset_without_any_feature_is_rejected_even_if_all_have_defaults(name: str) -> None:
    body = {"1.csv": "x;y\n1;2\n", "1.jsonl": '{"x": 1}', "1.parquet": parquet(x=[1])}[name]
    first, *_ = refused({name: body}, features=(B,))
    assert str(first) == 'features: none is a column of the dataset; name the columns "b"'


@pytest.mark.parametrize(
    ("header", "separator", "remedy"),
    [
        ("a;b", ",", 'set the separator, which may be ";"'),
        ("a\tb", ",", 'set the separator, which may be "\\t"'),
        ("a,b", ";", 'set the separator, which may be ","'),
    ],
)
def test_a_header_of_one_column_that_contains_another_separator_is_reported(
    header: str, separator: str, remedy: str
) -> None:
    missing, *problems = refused({"1.csv": f"{header}\n1\n"}, options=Options(separator=separator))
    assert missing.path == "feature a"
    assert [(problem.path, problem.remedy) for problem in problems] == [("separator", remedy)]


def test_a_missing_column_is_found_before_files_are_read() -> None:
    """The second file would be rejected when it is read, but it is not read any more."""
    too_long = "x" * (MAX_RECORD_BYTES + 1)
    assert [problem.path for problem in refused({"1.csv": "b\n1\n", "2.csv": f"b\n{too_long}"})] == ["feature a"]


def test_optional_missing_and_unused_columns_are_noted() -> None:
    found = shard_all(make_bucket({"1.csv": "a,x,y\n1,2,3\n", "2.csv": "x\n1\n"}), Options(keep=("y",)), (A, B))
    assert found.notes == (
        'not used: "x"; --keep copies a column to the results',
        '"a" is missing in "2.csv"',
        '"b" is in no file: its default in the manifest is used',
        '"y" is missing in "2.csv"',
    )


@pytest.mark.parametrize("name", ["a", "ä ö", 'quo"te'])
def test_a_key_that_occurs_late_in_json_lines_is_a_column(name: str) -> None:
    feature = CategoryFeature(name, ("x",))
    for ascii_only in (True, False):
        late = json.dumps({name: "x"}, ensure_ascii=ascii_only)
        body = '{"b": 1}\n' * 20_000 + late + '\n{"c": 1}\n' * 20_000
        assert shard_all(make_bucket({"1.jsonl": body}), features=(feature,)).columns == ("b", name)


def test_invalid_headers_are_rejected_with_their_reason() -> None:
    problems = refused(
        {
            "1.csv": "a,b,a,b,c\n",
            "2.csv": "\n1,2\n",
            "3.csv": ",,\n1,2,3\n",
            "4.csv": 'a,"b\n1,2\n',
            "5.csv": b"a,\xe9\n1,2\n",
            "6.csv": "x" * (2 * 1024 * 1024),
            "7.csv": '""\n',
        }
    )
    assert [(problem.path, problem.message) for problem in problems] == [
        ("1.csv", 'has several columns named "a", "b"'),
        ("2.csv", "has an empty header"),
        ("3.csv", "has an empty header"),
        ("4.csv", "has a header with a quoted name that is not closed"),
        ("5.csv", "has a header that is not utf-8"),
        ("6.csv", "has a header of more than 1,048,576 bytes"),
        ("7.csv", "has an empty header"),
    ]


def test_a_column_without_a_name_is_ignored() -> None:
    assert shard_all(make_bucket({"1.csv": ",a,\n0,1,2\n"})).columns == ("", "a")


def test_a_header_may_have_quotes_and_newlines() -> None:
    assert shard_all(make_bucket({"1.csv": '"a","x\n""y"""\r\n1,2\r\n'})).columns == ("a", 'x\n"y"')


def test_all_unreadable_files_are_reported_together() -> None:
    truncated = gzip_bytes("a\n" + "1\n" * 2000)[:-3]
    problems = refused({"1.csv.gz": truncated, "2.csv": "a\n1\n", "3.csv.gz": truncated})
    assert [(problem.path, problem.message) for problem in problems] == [
        ("1.csv.gz", "is truncated gzip"),
        ("3.csv.gz", "is truncated gzip"),
    ]


def test_a_decompression_bomb_is_rejected_by_the_plan() -> None:
    (problem,) = refused({"1.csv.gz": gzip_bytes("a\n" + "1\n" * 10_000)}, options=Options(shard_size=1024))
    assert problem.message == "has more than 8,192 bytes when it is decompressed, and gzip cannot be split"


@pytest.mark.parametrize("name", ["1.csv", "1.jsonl"])
def test_a_line_that_is_too_long_is_refused(name: str) -> None:
    first = b"a\n" if name == "1.csv" else b'{"a": 1}\n'
    (problem,) = refused({name: first + b"x" * (MAX_RECORD_BYTES + 1)})
    assert problem.message == "has a line of more than 16,777,216 bytes"


@pytest.mark.parametrize("body", [b"a\n1\n", b"PAR1", b"x" * 100 + b"PAR1", parquet(a=[1])[:-1], parquet(a=[1])[-100:]])
def test_a_file_that_is_not_parquet_is_rejected(body: bytes) -> None:
    (problem,) = refused({"1.parquet": body})
    assert problem.message in ("is not a Parquet file, or is truncated", "has a damaged footer")


def test_parquet_types_that_cannot_be_a_feature_are_rejected() -> None:
    columns = {
        "list": [[1.0]],
        "struct": [{"x": 1}],
        "bytes": [b"x"],
        "text": [["x"]],
        "flat": [1.0],
        "day": [DAY],
    }
    features = (
        *(BooleanFeature(name) for name in ("list", "struct", "bytes", "day")),
        *(TensorFeature(name, (1,)) for name in ("text", "flat")),
    )
    problems = refused({"1.parquet": parquet(**columns)}, features=features, options=Options(id="list", label="struct"))
    assert [problem.message for problem in problems] == [
        'column "list" is List(Float64)',
        "column \"struct\" is Struct({'x': Int64})",
        'column "bytes" is Binary',
        'column "day" is Date',
        'column "text" is List(String)',
        'column "flat" is Float64',
        'column "list" is List(Float64)',
        "column \"struct\" is Struct({'x': Int64})",
    ]


def test_parquet_types_that_can_be_a_feature_are_accepted() -> None:
    columns = {
        "a": [1],
        "text": ["x"],
        "yes": [True],
        "none": [None],
        "list": [[1.0]],
        "deep": [[[1]]],
        "day": [DAY],
    }
    features = (
        *(BooleanFeature(name) for name in ("a", "text", "yes", "none")),
        TensorFeature("list", (1,)),
        TensorFeature("deep", (1, 1)),
        CategoryFeature("day", ("2026-01-02",)),
    )
    assert len(shard_all(make_bucket({"1.parquet": parquet(**columns)}), features=features).shards) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(encoding="utf-88"), 'encoding: "utf-88" is not an encoding'),
        (Options(encoding="base64"), 'encoding: "base64" is not an encoding'),
        (Options(separator='"'), "cannot separate fields"),
        (Options(separator="\n"), "cannot separate fields"),
        (Options(separator="é"), 'separator: "é" cannot separate fields'),
    ],
)
def test_invalid_options_are_rejected(options: Options, words: str) -> None:
    (problem,) = refused({"1.csv": "a\n1\n"}, options=options)
    assert words in str(problem)
