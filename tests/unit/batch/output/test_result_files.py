from __future__ import annotations

import csv
import datetime
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from builders import BINARY, THREE, Supply, release, released
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.batch.input.shard_reader import MalformedRecord
from stepensemble.batch.output.result_files import REJECTED, encode_part, encode_rejected, list_rejected, widen
from stepensemble.batch.output.result_table import ShardPredictions, predict_shard
from stepensemble.core.aggregation.output_source import MemberResult
from stepensemble.core.schema.manifest import BooleanFeature, NumberFeature
from stepensemble.core.schema.task import Task


@pytest.fixture(params=[BINARY, THREE], ids=["binary", "multiclass"])
def results(request: pytest.FixtureRequest) -> pl.DataFrame:
    """Results of a hundred rows, with nulls, lists and text that must be quoted."""
    task: Task = request.param
    generator, classes = np.random.default_rng(3), len(request.param.classes)
    members = [released(id_, "probabilities") for id_ in ("one", "two-b")]
    members.append(released("trial", "label", role="shadow"))
    read = release(task, *members)
    outputs = {id_: MemberResult(id_, generator.dirichlet(np.ones(classes), 100)) for id_ in ("one", "two-b")}
    outputs["trial"] = MemberResult("trial", generator.integers(0, classes, 100))
    text = ['a "quoted", text', "two\nlines", "", None] * 25
    rows = pl.DataFrame({"file": ["a,b.csv"] * 100, "row": np.arange(100) + 1, "Name": text})
    predicted = predict_shard(read, read.policy, rows, Supply(lambda *_: outputs))
    assert isinstance(predicted, ShardPredictions)
    return predicted.frame


def test_parquet_is_read_back_by_polars_as_it_was_written(results: pl.DataFrame) -> None:
    assert_frame_equal(pl.read_parquet(io.BytesIO(encode_part(results, "parquet"))), results, check_exact=True)


def test_json_lines_are_read_back_by_polars_as_they_were_written(results: pl.DataFrame) -> None:
    body = encode_part(results, "jsonl")
    assert_frame_equal(pl.read_ndjson(io.BytesIO(body), schema=results.schema), results, check_exact=True)
    assert [json.loads(line) for line in body.splitlines()] == results.to_dicts()


def test_csv_is_read_back_by_polars_with_lists_as_json(results: pl.DataFrame) -> None:
    lists = [name for name, dtype in results.schema.items() if dtype.is_nested()]
    flat = {name: pl.String if name in lists else dtype for name, dtype in results.schema.items()}
    read = pl.read_csv(io.BytesIO(encode_part(results, "csv")), schema=flat)
    assert "probabilities" in lists
    for name in lists:
        values = [None if text is None else json.loads(text) for text in read[name].to_list()]
        assert values == results[name].to_list()
    # An empty text is written in quotes and null without, but polars reads both alike.
    plain = results.drop(lists).with_columns(pl.col("Name").replace("", None))
    assert_frame_equal(read.drop(lists).with_columns(pl.col("Name").replace("", None)), plain, check_exact=True)


HARMLESS = ["-5", "+1e3", "-.5", "a=b", "'=1", "", None, "5-3", "−1"]
FORMULAS = ["=1+1", "@SUM(A1)", "-1+cmd|' /C calc'!A0", "+a", "-", "\t=1", "\r=1", "\n=1", "=1,\n2", "＝1", "--5"]


def test_the_spreadsheet_option_escapes_formulas_and_keeps_numbers() -> None:
    text = [*HARMLESS, *FORMULAS]
    frame = pl.DataFrame({"=id": text, "score": np.arange(len(text)) - 9.5, "rank": np.arange(len(text)) - 9})
    frame = frame.with_columns(pl.Series("class", text, pl.Enum(pl.Series(text).drop_nulls().unique())))
    rows = list(csv.DictReader(io.StringIO(encode_part(frame, "csv", spreadsheet=True).decode(), newline="")))
    expected = [one or "" for one in HARMLESS] + [f"'{one}" for one in FORMULAS]
    assert [row["'=id"] for row in rows] == [row["class"] for row in rows] == expected
    assert [float(row["score"]) for row in rows] == frame["score"].to_list()
    assert [int(row["rank"]) for row in rows] == frame["rank"].to_list()
    plain = list(csv.DictReader(io.StringIO(encode_part(frame, "csv").decode(), newline="")))
    assert [row["=id"] for row in plain] == [one or "" for one in text]


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_enum_columns_are_read_back_as_text(results: pl.DataFrame, format_: Any) -> None:
    names = results.select(pl.col(pl.String)).columns
    coded = results.with_columns(results[name].cast(pl.Enum(results[name].unique().drop_nulls())) for name in names)
    written = encode_part(coded, format_)
    if format_ == "parquet":
        assert_frame_equal(pl.read_parquet(io.BytesIO(written)), results, check_exact=True)
    else:
        assert written == encode_part(results, format_)


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_a_frame_is_written_as_the_same_bytes_each_time(results: pl.DataFrame, format_: Any) -> None:
    assert encode_part(results, format_) == encode_part(results.clone(), format_)


def publish(folder: Path, results: pl.DataFrame) -> str:
    """Write results as two parts of a run, one more without rows, and return the pattern of all runs."""
    run = folder / "ensemble=titanic" / "dt=2026-03-01" / "run=0123456789abcdef"
    run.mkdir(parents=True)
    for number, part in enumerate((results[:40], results[40:], results[:0])):
        (run / f"part-{number:05}.parquet").write_bytes(encode_part(part, "parquet"))
    return str(folder / "**" / "*.parquet")


def test_duckdb_reads_a_runs_parts_through_their_folders(tmp_path: Path, results: pl.DataFrame) -> None:
    pattern = publish(tmp_path, results)
    read = "read_parquet(?, hive_partitioning = true)"
    query = f"select ensemble, dt, count(*), sum(row), sum(len(probabilities)) from {read} group by all"  # noqa: S608 # no data
    classes = len(results["probabilities"][0])
    found = duckdb.execute(query, [pattern]).fetchall()
    assert found == [("titanic", datetime.date(2026, 3, 1), 100, 5050, 100 * classes)]
    columns = ", ".join(f'"{name}"' for name in results.columns)
    lines = duckdb.execute(f"select {columns} from {read} order by row", [pattern]).fetchall()  # noqa: S608 # our names
    assert lines == results.rows()


def test_polars_reads_a_runs_parts_through_their_folders(tmp_path: Path, results: pl.DataFrame) -> None:
    read = pl.scan_parquet(publish(tmp_path, results), hive_partitioning=True).collect().sort("row")
    assert read["ensemble"].unique().to_list() == ["titanic"]
    assert_frame_equal(read.select(results.columns), results, check_exact=True)


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_duckdb_reads_the_other_formats(tmp_path: Path, results: pl.DataFrame, format_: Any) -> None:
    path = tmp_path / f"part.{format_}"
    path.write_bytes(encode_part(results, format_))
    reader = "read_csv" if format_ == "csv" else "read_json"
    query = f"select row, value, margin, status from {reader}(?) order by row"  # noqa: S608 # no data
    expected = results.select("row", "value", "margin", "status").rows()
    assert duckdb.execute(query, [str(path)]).fetchall() == expected


def test_copied_columns_get_types_that_all_readers_support() -> None:
    now = datetime.datetime(2026, 3, 1, 12, 0, 0, 5)
    frame = pl.DataFrame(
        {
            "small": pl.Series([255], dtype=pl.UInt8),
            "large": pl.Series([2**64 - 1], dtype=pl.UInt64),
            "exact": pl.Series([now], dtype=pl.Datetime("ns")),
            "clock": [datetime.time(12)],
            "port": pl.Series(["C"], dtype=pl.Categorical),
            "none": [None],
            "day": [now.date()],
            "whole": pl.Series([-1], dtype=pl.Int8),
        }
    )
    assert widen(frame).schema == {
        "small": pl.Int64,
        "large": pl.Decimal(20, 0),
        "exact": pl.Datetime("us"),
        "clock": pl.String,
        "port": pl.String,
        "none": pl.String,
        "day": pl.Date,
        "whole": pl.Int8,
    }
    read = pl.read_parquet(io.BytesIO(encode_part(frame, "parquet")))
    assert (read["large"].item(), read["exact"].item(), read["port"].item()) == (2**64 - 1, now, "C")


def test_rejected_rows_have_file_row_and_id_and_are_sorted_by_row(tmp_path: Path) -> None:
    frame = pl.DataFrame({"key": ["k1", "k2", "k3"], "x": ["1", "many", None], "ok": ["true", "1", "false"]})
    wrong = encode_frame([NumberFeature("x"), BooleanFeature("ok")], frame, typed=False).wrong
    malformed = [MalformedRecord(5, "a,b,c,d", "has 4 fields, but the header has 3", "quote them", "has other fields")]
    rejected = list_rejected(wrong, malformed, "a.csv", np.array([2, 4, 7]), frame["key"])
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(encode_rejected(rejected))
    read = pl.read_parquet(path)
    assert read.schema == REJECTED
    number, missing = "write a number, without unit or words", 'give a number, or set "missing" in the manifest'
    boolean = ("1", '"1" is neither true nor false', "write true or false", "is neither true nor false")
    lines = [
        ("a.csv", 4, "k2", "x", "many", '"many" is not a number', number, "is not a number"),
        ("a.csv", 4, "k2", "ok", *boolean),
        ("a.csv", 5, None, "", "a,b,c,d", "has 4 fields, but the header has 3", "quote them", "has other fields"),
        ("a.csv", 7, "k3", "x", None, "is missing", missing, "is missing"),
    ]
    assert read.rows() == lines
    assert duckdb.execute('select * from read_parquet(?) order by "row"', [str(path)]).fetchall() == lines


def test_ids_of_any_type_become_text() -> None:
    wrong = encode_frame([NumberFeature("x")], pl.DataFrame({"x": [True, False]}), typed=True).wrong
    for ids in (pl.Series([7, 8]), pl.Series([7, "8"], dtype=pl.Object)):
        assert list_rejected(wrong, [], "a.jsonl", np.array([1, 2]), ids)["id"].to_list() == ["7", "8"]


def test_rejected_rows_have_no_id_if_the_dataset_has_none() -> None:
    wrong = encode_frame([NumberFeature("x")], pl.DataFrame({"x": [True]}), typed=True).wrong
    rejected = list_rejected(wrong, [], "a.parquet", np.array([1]))
    assert rejected.schema == REJECTED
    assert rejected.select("row", "id", "value", "reason").row(0) == (1, None, "true", "true is not a number")
    assert list_rejected(wrong[:0], [], "a.parquet", np.array([1])).schema == REJECTED
