"""A table in memory: answered as the batch answers a shard, without files and stack.

Nothing is put aside: who has the table at hand is told of every wrong value at once, and mends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from stepensemble.batch.answering import ROW, answer_shard
from stepensemble.batch.encoding import encode_frame
from stepensemble.batch.names import EXACTLY, find_lookalike
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.answer import AskMembers
from stepensemble.core.columns import Columns
from stepensemble.core.errors import InvalidPayload, QuorumNotMet
from stepensemble.core.manifest import Feature
from stepensemble.core.problems import Problem, show, suggest
from stepensemble.core.releases.release import Release

Table = pl.DataFrame | Mapping[str, Any]
"""A frame, or a mapping of a column's name to its values: a sequence, an array or a series."""


def encode_table(features: Sequence[Feature], table: Table) -> tuple[Columns, int]:
    """Validate, encode and scale a table's rows; return the columns that members take, and how many rows there are.

    Args:
        features: as the release has them.
        table: has a column of each feature's name, but of those that have a default; null is a missing value, and other
            columns are not looked at.

    Raises:
        InvalidPayload: with every column that is missing or none, or else with every wrong value: `$.Age[3]` is that of
            the column "Age" in row 3, counted from 0.
    """
    frame = _read(table, [feature.name for feature in features])
    names = table.columns if isinstance(table, pl.DataFrame) else list(table)
    wanted = {feature.name for feature in features}
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


def answer_table(release: Release, rows: int, ask: AskMembers) -> pl.DataFrame:
    """Return a line a row, with the columns of the batch's results.

    Args:
        release: which members there are and what their outputs mean.
        rows: how many there are.
        ask: gives what came back from each tier, at once.

    Raises:
        QuorumNotMet: too few members answered, in every row.
    """
    answered = answer_shard(release, release.policy, pl.DataFrame({ROW: np.arange(1, rows + 1)}), ask)
    if isinstance(answered, Undecided):
        raise TypeError("a table's members are asked at once, tier after tier")
    if answered.status == "FAILED":
        raise QuorumNotMet(answered.cause or next(iter(answered.unanswered.values())))
    frame = answered.frame
    frame.drop_in_place(ROW)
    return frame


def _read(table: Table, names: Collection[str]) -> pl.DataFrame:
    if isinstance(table, pl.DataFrame):
        return table
    if not isinstance(table, Mapping):
        kind = f"{type(table).__module__}.{type(table).__name__}"
        remedy = "give a polars.DataFrame, or a mapping of column names to values"
        raise InvalidPayload([Problem("$", f"{kind} is no table", remedy)])
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
