"""A table in memory: answered as the batch answers a shard, without files and stack.

Nothing is put aside: who has the table at hand is told of every wrong value at once, and mends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl

from stepensemble.batch.input.column_names import EXACTLY, find_lookalike
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.batch.output.result_table import ROW, predict_shard
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.aggregation.output_source import OutputSource
from stepensemble.core.arrays import Array
from stepensemble.core.errors import InvalidPayload, QuorumNotMet
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.manifest import Feature

Table = Any
"""A frame of any library, a mapping of a column's name to its values, or an array; see `encode_table`."""

REMEDY = "give a data frame, a mapping of column names to values, or an array with a column for each feature"


def encode_table(features: Sequence[Feature], table: Table) -> tuple[Columns, int]:
    """Validate, encode and scale a table's rows; return the columns that members take, and how many rows there are.

    Args:
        features: as the release has them.
        table: has a column of each feature's name, but of those that have a default; null is a missing value, and other
            columns are not looked at. It is a Polars frame; a mapping of names to sequences, arrays or series; anything
            that hands its columns out by Arrow's PyCapsule interface (`__arrow_c_stream__`), as a pandas frame does;
            a NumPy array with named fields; or one of two dimensions, whose columns are the features in their order.

    Raises:
        InvalidPayload: with every column that is missing or none, or else with every wrong value: `$.Age[3]` is that of
            the column "Age" in row 3, counted from 0.
    """
    wanted = {feature.name for feature in features}
    frame, names = _read(table, [feature.name for feature in features])
    others = [name for name in names if name not in wanted]
    problems = [
        Problem(
            f"$.{feature.name}",
            "is no column of the table",
            f'add it, or set "missing" in the manifest{suggest(feature.name, names)}',
        )
        for feature in features
        if feature.name not in frame.columns and getattr(feature, "missing", None) is None
    ]
    problems += [
        Problem(f"$.{feature.name}", f"is no column of the table, and {show(near)} nearly is", EXACTLY)
        for feature in features
        if feature.name not in frame.columns
        and getattr(feature, "missing", None) is not None
        and (near := find_lookalike(feature.name, others)) is not None
    ]
    if problems:
        raise InvalidPayload(problems)
    encoded = encode_frame(features, frame, typed=True)
    if encoded.wrong.height:
        wrong = encoded.wrong.select("index", "column", "reason", "remedy").iter_rows()
        raise InvalidPayload(
            [Problem(f"$.{column}[{index}]", reason, remedy) for index, column, reason, remedy in wrong]
        )
    return encoded.columns, frame.height


def predict_table(release: Release, rows: int, source: OutputSource) -> pl.DataFrame:
    """Return a line a row, with the columns of the batch's results.

    Args:
        release: which members there are and what their outputs mean.
        rows: how many there are.
        source: supplies each tier's results, all of them without waiting.

    Raises:
        QuorumNotMet: too few members answered, in every row.
    """
    answered = predict_shard(release, release.policy, pl.DataFrame({ROW: np.arange(1, rows + 1)}), source)
    if isinstance(answered, Undecided):
        raise TypeError("the source of a table's outputs must have the results of every tier")
    if answered.status == "FAILED":
        raise QuorumNotMet(answered.cause or next(iter(answered.unanswered.values())))
    frame = answered.frame
    frame.drop_in_place(ROW)
    return frame


def _read(table: Table, features: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """Return a frame that has those columns of a table that are features, and the names of all of them."""
    if isinstance(table, pl.DataFrame):
        return table, table.columns
    if isinstance(table, Mapping):
        return _read_columns(table, features), list(table)
    if hasattr(table, "__arrow_c_stream__"):
        with suppress(ImportError, TypeError, ValueError, pl.exceptions.PolarsError):
            frame = pl.DataFrame(table)
            return frame, frame.columns
        # pandas hands its columns out through PyArrow alone; without that they are read one by one.
        if hasattr(table, "columns"):
            names = [str(name) for name in table.columns]
            return _read_columns({name: _to_values(table[name]) for name in features if name in names}, features), names
    if hasattr(table, "__array__"):
        return _read_array(np.asarray(table), features)
    raise _refuse(f"{type(table).__module__}.{type(table).__name__} is no table")


def _to_values(series: Any) -> Any:
    """Return a series' values; None where it says that there is none."""
    values = np.asarray(series)
    if values.dtype.kind not in "Of" or not hasattr(series, "isna"):
        return values
    missing = np.asarray(series.isna()).tolist()
    return [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]


def _read_array(array: Array, features: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    if array.dtype.names is not None and array.ndim == 1:
        return _read_columns({name: array[name] for name in array.dtype.names}, features), list(array.dtype.names)
    if array.ndim != 2 or array.shape[1] != len(features):
        shape = " x ".join(map(str, array.shape))
        raise _refuse(f"an array of {shape} is no table of the {len(features)} features {enumerate_values(features)}")
    return _read_columns(dict(zip(features, array.T, strict=True)), features), list(features)


def _refuse(message: str) -> InvalidPayload:
    return InvalidPayload([Problem("$", message, REMEDY)])


def _read_columns(table: Mapping[str, Any], names: Collection[str]) -> pl.DataFrame:
    given = {name: values for name, values in table.items() if name in names}
    problems = [
        Problem(f"$.{name}", f"{show(values)} is no column", "give a list, an array or a series of values")
        for name, values in given.items()
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable)
    ]
    if problems:
        raise InvalidPayload(problems)
    columns = [_to_series(name, values) for name, values in given.items()]
    for column in columns:
        if len(column) != len(columns[0]):
            told = f"has {_count(column)}, and {show(columns[0].name)} has {len(columns[0])}"
            raise InvalidPayload([Problem(f"$.{column.name}", told, "give each row one")])
    return pl.DataFrame(columns)


def _count(column: pl.Series) -> str:
    return f"{len(column)} value{'' if len(column) == 1 else 's'}"


def _to_series(name: str, values: Any) -> pl.Series:
    try:
        return pl.Series(name, values)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):  # of several types: each value is looked at by itself
        return pl.Series(name, list(values), dtype=pl.Object)
