"""From frames to files: the parts of a run's results and of its rejected rows.

The same frame is written as the same bytes, so that a shard that is done again writes what it wrote.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping

import polars as pl

from stepensemble.batch.documents import Format
from stepensemble.batch.input.shard_reader import Malformed
from stepensemble.batch.output.result_table import FILE, ID, ROW, as_text
from stepensemble.core.arrays import Integers

ZSTD_LEVEL = 1
"""Measured on results of four members: 95 bytes a row, and higher levels take twice the time for 3 % less; snappy is
half again as fast and a third larger."""

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
"""Of rejected rows, a line a wrong value; `kind` is the reason without the value, by which reasons can be counted. What
is no row at all has an empty column."""


UNANSWERED = "has no answer: too few voters have a usable output"
"""The kind of a row whose voters do not hold the quorum."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
FORMULA = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
"""How a cell begins that spreadsheets may compute, with the wide forms that some take for the same
(https://owasp.org/www-community/attacks/CSV_Injection)."""


def encode_part(frame: pl.DataFrame, format_: Format, *, spreadsheet: bool = False) -> bytes:
    """Write results.

    Args:
        frame: the results.
        format_: of the file.
        spreadsheet: whether CSV has an apostrophe before text that is a formula to a spreadsheet; numbers have none.

    Parquet is compressed with zstd and has only types that polars, DuckDB and Athena all read: see `widen`. CSV has a
    header, nothing where a value is null, and lists as JSON; JSON Lines has them as they are.
    """
    buffer = io.BytesIO()
    match format_:
        case "parquet":
            # As an Enum text is written five times as fast, to the same pages; the file says that it is text.
            told = _describe(widen(frame.clear()))
            wide = widen(frame, but=pl.Enum)
            wide.write_parquet(buffer, compression="zstd", compression_level=ZSTD_LEVEL, metadata=told)
        case "csv":
            flat = frame.with_columns(_write_nested(frame[name]) for name in _nested(frame))
            (_neutralize(flat) if spreadsheet else flat).write_csv(buffer)
        case "jsonl":
            frame.write_ndjson(buffer)
    return buffer.getvalue()


def _describe(frame: pl.DataFrame) -> dict[str, str]:
    """Return what a Parquet file of such a frame says of its types: what it is read with."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    buffer.seek(0)
    return pl.read_parquet_metadata(buffer)


def widen(frame: pl.DataFrame, but: type[pl.DataType] | None = None) -> pl.DataFrame:
    """Give columns that were carried through types that everybody reads.

    Integers without sign become wider ones with it, or decimals; floats of 16 bits have 32; times are in microseconds;
    what is no type of Athena's is text. Columns of the type `but` stay as they are.
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
    """Put an apostrophe before text that begins as a formula and is no number, names of columns included."""
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


def _write_nested(given: pl.Series) -> pl.Series:
    """Return lists and structures as JSON, null where there is none."""
    wrapped = given.alias("").to_frame().to_struct().struct.json_encode()
    written = wrapped.str.strip_prefix('{"":').str.strip_suffix("}")
    return pl.select(pl.when(given.is_not_null()).then(written).alias(given.name)).to_series()


def list_rejected(
    wrong: pl.DataFrame, malformed: Iterable[Malformed], file: str, numbers: Integers, ids: pl.Series | None = None
) -> pl.DataFrame:
    """Return a shard's rejected rows as `REJECTED`, by their number in the file.

    Args:
        wrong: of `encoding.Encoded`.
        malformed: records that are no rows.
        file: name of the file.
        numbers: of the raw frame's rows in the file.
        ids: of the raw frame's rows, where the dataset has some.
    """
    index = wrong["index"].to_numpy()
    known = wrong.select("column", "value", "reason", "remedy", "kind").with_columns(
        row=pl.Series(numbers[index], dtype=pl.Int64),
        id=pl.lit(None, pl.String) if ids is None else as_text(ids).gather(index),
    )
    records = [("", one.value, one.reason, one.remedy, one.kind, one.row, None) for one in malformed]
    return (
        pl.concat([known, pl.DataFrame(records, known.schema, orient="row")])
        .select(pl.lit(file).alias("file"), *(name for name in REJECTED if name != "file"))
        .sort("row", maintain_order=True)
    )


def list_failed_rows(rows: pl.DataFrame, unanswered: Mapping[int, str]) -> pl.DataFrame:
    """Return the rows that have no answer as `REJECTED`; there is no value that would be wrong.

    Args:
        rows: the accepted ones, as `answering.name_rows` returns them.
        unanswered: places of those without an answer, and why.
    """
    some = rows[list(unanswered)]
    return some.select(
        pl.col(FILE).alias("file"),
        pl.col(ROW).alias("row"),
        (pl.col(ID) if ID in some.columns else pl.lit(None, pl.String)).alias("id"),
        pl.lit("").alias("column"),
        pl.lit(None, pl.String).alias("value"),
        pl.Series("reason", [f"has no answer: {why}" for why in unanswered.values()], dtype=pl.String),
        pl.lit("look at the values of the row; a member without a usable output is named with what it gave").alias(
            "remedy"
        ),
        pl.lit(UNANSWERED).alias("kind"),
    )


def encode_rejected(rejected: pl.DataFrame) -> bytes:
    """Write rejected rows: always Parquet, whatever the format of the results."""
    return encode_part(rejected, "parquet")
