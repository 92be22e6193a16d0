from __future__ import annotations

import datetime
import io
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from builders import ROOT
from lake import A, make_bucket, read_all, shard_all, values
from stepensemble.batch.documents import File, Format, Options
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.batch.input.shard_reader import RawRows
from stepensemble.batch.output.result_files import encode_part
from stepensemble.batch.output.result_table import RowNaming, name_rows
from stepensemble.core.errors import DatasetRefused
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature, Feature, NumberFeature, TensorFeature
from stepensemble.core.schema.task import BinaryTask

FILES = ROOT / "tests" / "data" / "parquet"
DAY, NOON = datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 12)
LONG = datetime.timedelta(days=1, seconds=2)
FORMATS: tuple[Format, ...] = ("parquet", "csv", "jsonl")

SINGLE: dict[str, pl.Series] = {
    "null": pl.Series([None, None], dtype=pl.Null),
    "boolean": pl.Series([True, None]),
    **{str(kind): pl.Series([1, None], dtype=kind) for kind in (pl.Int8, pl.UInt8, pl.Int64, pl.UInt64)},
    **{str(kind): pl.Series([1.5, None], dtype=kind) for kind in (pl.Float16, pl.Float32, pl.Float64)},
    "string": pl.Series(["x", None]),
    "categorical": pl.Series(["x", None], dtype=pl.Categorical),
    "enum": pl.Series(["x", None], dtype=pl.Enum(["x"])),
    "decimal": pl.Series([Decimal("1.10"), None]),
    "date": pl.Series([DAY, None]),
    "time": pl.Series([NOON.time(), None]),
    "datetime": pl.Series([NOON, None], dtype=pl.Datetime("ns")),
    "zoned": pl.Series([NOON, None], dtype=pl.Datetime("ms", "Europe/Berlin")),
    "duration": pl.Series([LONG, None], dtype=pl.Duration("ns")),
}
NESTED: dict[str, pl.Series] = {
    "list": pl.Series([[1.0], None]),
    "array": pl.Series([[1.0], None], dtype=pl.Array(pl.Float32, 1)),
    "lists": pl.Series([[["x"]], None]),
    "struct": pl.Series([{"x": 1, "y": [DAY]}, None]),
    "durations": pl.Series([[LONG], None]),
}
BYTES: dict[str, pl.Series] = {
    "binary": pl.Series([b"\xff", None]),
    "binaries": pl.Series([[b"\xff"], None]),
    "structs": pl.Series([[{"x": b"\xff"}], None]),
}


def write(column: pl.Series) -> bytes:
    file = io.BytesIO()
    pl.DataFrame([pl.Series("a", [1.0, 2.0]), column.alias("k")]).write_parquet(file)
    return file.getvalue()


def read(body: bytes, options: Options, *features: Feature) -> RawRows:
    """Read a file with a column "k", as a shard does after Plan has accepted it."""
    (raw,) = read_all({"x.parquet": body}, ["a", "k"], options, (A, *features))
    return raw


def refuse(body: bytes, options: Options = Options(), *features: Feature) -> str:  # noqa: B008 frozen
    with pytest.raises(DatasetRefused) as refused:
        shard_all(make_bucket({"x.parquet": body}), options, (A, *features))
    (problem,) = refused.value.problems
    assert problem.path == "x.parquet"
    return f"{problem.message}; {problem.remedy}"


def write_results(raw: RawRows, options: Options) -> pl.DataFrame:
    file = File("x.parquet", "x.parquet", 1, "1", "parquet")
    rows = name_rows(raw.frame, raw.numbers, RowNaming(file, options, BinaryTask(("x", "y"))))
    written = io.BytesIO(encode_part(rows, options.format))
    readers: dict[str, Any] = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}
    return readers[options.format](written)


@pytest.mark.parametrize("name", [*SINGLE, *NESTED])
def test_a_column_of_every_type_is_copied_to_results_of_every_format(name: str) -> None:
    column = {**SINGLE, **NESTED}[name]
    for format_ in FORMATS:
        options = Options(keep=("k",), format=format_)
        kept = write_results(read(write(column), options), options)["k"]
        assert kept.is_null().to_list() == column.is_null().to_list()


@pytest.mark.parametrize("name", SINGLE)
def test_a_column_of_every_single_type_is_an_id_or_a_label(name: str) -> None:
    options = Options(id="k", label="k")
    results = write_results(read(write(SINGLE[name]), options), options)
    assert results.schema["id"] == pl.String
    assert results["id"].is_null().to_list() == SINGLE[name].is_null().to_list()


@pytest.mark.parametrize("name", [*NESTED, *BYTES])
@pytest.mark.parametrize("role", ["id", "label"])
def test_a_column_of_nested_values_cannot_be_an_id_or_a_label(role: str, name: str) -> None:
    message = refuse(write({**NESTED, **BYTES}[name]), Options(**{role: "k"}))
    assert message.endswith(f"; {role} must be a column of single values: write text, numbers, or dates and times")


@pytest.mark.parametrize("name", BYTES)
def test_bytes_are_copied_to_parquet_and_rejected_for_text_formats(name: str) -> None:
    options = Options(keep=("k",))
    assert write_results(read(write(BYTES[name]), options), options)["k"].to_list() == BYTES[name].to_list()
    for format_ in ("csv", "jsonl"):
        message = refuse(write(BYTES[name]), Options(keep=("k",), format=format_))
        assert message.startswith(
            f'column "k" is {BYTES[name].dtype}; {format_} does not support bytes: write text, or '
        )


@pytest.mark.parametrize("name", [*SINGLE, *NESTED, *BYTES])
@pytest.mark.parametrize(
    "feature",
    [
        NumberFeature("k", missing=0.0),
        CategoryFeature("k", ("x", "P1DT2S"), missing="x"),
        BooleanFeature("k", missing=True),
        TensorFeature("k", (1,)),
    ],
    ids=lambda feature: type(feature).__name__,
)
def test_a_column_of_every_type_is_rejected_as_a_feature_or_its_values_are_validated(
    name: str, feature: Feature
) -> None:
    body = write({**SINGLE, **NESTED, **BYTES}[name])
    try:
        raw = read(body, Options(), feature)
    except DatasetRefused:
        assert refuse(body, Options(), feature).startswith('column "k" is ')
        return
    encoded = encode_frame([A, feature], raw.frame, typed=True)
    assert len(encoded.accepted) == 2


def test_a_duration_is_iso_8601_text() -> None:
    (raw,) = read_all({"x.parquet": write(SINGLE["duration"])}, ["k"])
    assert values([raw], "k") == ["P1DT2S", None]
    # A frame in memory has its own types.
    encoded = encode_frame(
        [CategoryFeature("k", ("x", "P1DT2S"), missing="x")], SINGLE["duration"].to_frame("k"), typed=True
    )
    assert encoded.columns["k"].tolist() == [1, 0]


def test_an_extension_of_a_type_is_read_as_that_type() -> None:
    options = Options(keep=("k",), id="k", format="csv")
    raw = read((FILES / "extension.parquet").read_bytes(), options)
    assert write_results(raw, options).select("id", "k").rows() == [('{"x": 1}', '{"x": 1}'), (None, None)]


@pytest.mark.parametrize("options", [Options(keep=("k",)), Options(id="k"), Options(label="k")])
def test_a_decimal_with_too_many_digits_is_rejected_if_it_is_required(options: Options) -> None:
    body = (FILES / "decimal256.parquet").read_bytes()
    expected = 'column "k" is Decimal(precision=50, scale=2); write decimals of at most 38 digits, or text'
    assert refuse(body, options) == expected
    assert refuse(body, Options(), NumberFeature("k")) == expected
    assert values(read_all({"x.parquet": body})) == [1.0, 2.0]


def test_two_columns_of_one_name_are_rejected() -> None:
    body = (FILES / "duplicate_names.parquet").read_bytes()
    assert refuse(body) == 'has several columns named "k"; use each name once'


@pytest.mark.parametrize("name", ["interval", "list_view"])
def test_a_file_with_an_unsupported_type_is_rejected(name: str) -> None:
    message = refuse((FILES / f"{name}.parquet").read_bytes())
    assert message.startswith("has a damaged footer, or a column of a type that is not supported; ")
