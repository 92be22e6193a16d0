"""Encodes frames as files: the parts of a run's results and of its rejected rows.

Equal frames give equal bytes, so that a shard that is repeated writes the same file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping

import polars as pl

from stepensemble.batch.documents import Format
from stepensemble.batch.input.shard_reader import MalformedRecord
from stepensemble.batch.output.result_table import FILE, ID, ROW, to_text
from stepensemble.core.arrays import Integers

ZSTD_LEVEL = 1
"""Measured on results of four members: 95 bytes per row. Higher levels take twice the time for 3 % fewer bytes; snappy
is 1.5 times as fast and a third larger."""

REJECTED = pl.Schema(
    {
        "file": pl.String,
        "row": pl.Int64,
        "id": pl.String,
        "column": pl.String,
        "value": pl.String,
        "reason": pl.String,
        "remedy": pl.String,
        "kind": pl.String,
    }
)
"""Schema of rejected rows, one line for each wrong value; `kind` is the reason without the value, by which reasons can
be counted. For a record that is no row, and for a row without a prediction, the column is empty."""

NO_PREDICTION = "has no prediction: too few voters have a usable output"
"""The kind of a row without a quorum."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
FORMULA = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
"""The beginning of a cell that a spreadsheet may compute, with the full-width characters that some programs accept, too
(https://owasp.org/www-community/attacks/CSV_Injection)."""


def encode_part(frame: pl.DataFrame, format_: Format, *, spreadsheet: bool = False) -> bytes:
    """Encode results as a file.

    Parquet is compressed with zstd and has only types that polars, DuckDB and Athena all read: see `widen`. CSV has a
    header, an empty field for null, and lists as JSON. JSON Lines has lists as they are.

    Args:
        frame: the results.
        format_: of the file.
        spreadsheet: whether CSV gets an apostrophe before text that a spreadsheet would compute; numbers get none.
    """
    buffer = io.BytesIO()
    match format_:
        case "parquet":
            # Text as Enum is written five times as fast, to the same pages; the metadata declares it as text.
            metadata = _describe(widen(frame.clear()))
            wide = widen(frame, but=pl.Enum)
            wide.write_parquet(buffer, compression="zstd", compression_level=ZSTD_LEVEL, metadata=metadata)
        case "csv":
            flat = frame.with_columns(_write_nested(frame[name]) for name in _nested(frame))
            (_neutralize(flat) if spreadsheet else flat).write_csv(buffer)
        case "jsonl":
            frame.write_ndjson(buffer)
    return buffer.getvalue()


def _describe(frame: pl.DataFrame) -> dict[str, str]:
    """Return the metadata of a Parquet file of such a frame, which declare its types."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    buffer.seek(0)
    return pl.read_parquet_metadata(buffer)


def widen(frame: pl.DataFrame, but: type[pl.DataType] | None = None) -> pl.DataFrame:
    """Convert columns that were copied from the dataset to types that all readers support.

    Unsigned integers become wider signed ones or decimals; floats of 16 bits get 32; times get microseconds; types that
    Athena does not have become text. Columns of the type `but` are not converted.
    """
    return frame.with_columns(
        pl.col(name).cast(wider)
        for name, dtype in frame.schema.items()
        if (wider := _wider(dtype)) is not None and (but is None or not isinstance(dtype, but))
    )


def _wider(dtype: pl.DataType) -> pl.DataType | None:
    if dtype in (pl.UInt8, pl.UInt16, pl.UInt32):
        return pl.Int64()
    if dtype == pl.UInt64:
        return pl.Decimal(20, 0)
    if dtype == pl.Float16:
        return pl.Float32()
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", dtype.time_zone)
    if dtype in (pl.Null, pl.Time, pl.Categorical, pl.Enum, pl.Int128, pl.UInt128):
        return pl.String()
    return None


def _neutralize(frame: pl.DataFrame) -> pl.DataFrame:
    """Put an apostrophe before text that begins like a formula and is no number, also in names of columns."""
    texts = [name for name, dtype in frame.schema.items() if dtype in (pl.String, pl.Enum, pl.Categorical)]
    cells = [pl.col(name).cast(pl.String) for name in texts]
    computed = [cell.str.contains(FORMULA) & ~cell.str.contains(NUMBER) for cell in cells]
    written = frame.with_columns(
        pl.when(formula).then(pl.lit("'") + cell).otherwise(cell).alias(name)
        for name, cell, formula in zip(texts, cells, computed, strict=True)
    )
    return written.rename({name: f"'{name}" for name in frame.columns if re.match(r"[=+\-@\t\r\n＝＋－＠]", name)})


def _nested(frame: pl.DataFrame) -> list[str]:
    return [name for name, dtype in frame.schema.items() if dtype.is_nested()]


def _write_nested(column: pl.Series) -> pl.Series:
    """Return lists and structures as JSON; null stays null."""
    wrapped = column.alias("").to_frame().to_struct().struct.json_encode()
    written = wrapped.str.strip_prefix('{"":').str.strip_suffix("}")
    return pl.select(pl.when(column.is_not_null()).then(written).alias(column.name)).to_series()


def list_rejected(
    wrong: pl.DataFrame,
    malformed: Iterable[MalformedRecord],
    file: str,
    numbers: Integers,
    ids: pl.Series | None = None,
) -> pl.DataFrame:
    """Return a shard's rejected rows with the schema `REJECTED`, by their number in the file.

    Args:
        wrong: of `frame_encoder.EncodedRows`.
        malformed: records that are no rows.
        file: name of the file.
        numbers: of the raw frame's rows in the file.
        ids: of the raw frame's rows, if the dataset has a column of ids.
    """
    index = wrong["index"].to_numpy()
    known = wrong.select("column", "value", "reason", "remedy", "kind").with_columns(
        row=pl.Series(numbers[index], dtype=pl.Int64),
        id=pl.lit(None, pl.String) if ids is None else to_text(ids).gather(index),
    )
    records = [("", one.value, one.reason, one.remedy, one.kind, one.row, None) for one in malformed]
    return (
        pl.concat([known, pl.DataFrame(records, known.schema, orient="row")])
        .select(pl.lit(file).alias("file"), *(name for name in REJECTED if name != "file"))
        .sort("row", maintain_order=True)
    )


def list_failed_rows(rows: pl.DataFrame, failed: Mapping[int, str]) -> pl.DataFrame:
    """Return the rows without a prediction with the schema `REJECTED`; none of their values is wrong.

    Args:
        rows: the accepted rows, as `result_table.name_rows` returns them.
        failed: indexes of the rows without a prediction, and the reasons.
    """
    some = rows[list(failed)]
    return some.select(
        pl.col(FILE).alias("file"),
        pl.col(ROW).alias("row"),
        (pl.col(ID) if ID in some.columns else pl.lit(None, pl.String)).alias("id"),
        pl.lit("").alias("column"),
        pl.lit(None, pl.String).alias("value"),
        pl.Series("reason", [f"has no prediction: {reason}" for reason in failed.values()], dtype=pl.String),
        pl.lit("check the values of the row; the reason names each member without a usable output").alias("remedy"),
        pl.lit(NO_PREDICTION).alias("kind"),
    )


def encode_rejected(rejected: pl.DataFrame) -> bytes:
    """Encode rejected rows as Parquet, whatever the format of the results."""
    return encode_part(rejected, "parquet")
