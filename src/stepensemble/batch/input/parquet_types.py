"""Checks the types of Parquet columns, and converts those that JSON does not have.

Categories are read as their text, durations as ISO 8601 text (`PT1.5S`), and an extension type as its storage type.
Decimals of more than 38 digits are not supported. Bytes are supported only in columns that are copied to Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import polars as pl

from stepensemble.batch.documents import File, Options
from stepensemble.core.problems import Problem, show
from stepensemble.core.schema.manifest import CategoryFeature, Feature, TensorFeature

MAX_DIGITS = 38
"""Digits of a decimal at most."""


def to_plain_type(series: pl.Series) -> pl.Series:
    """Convert a column to a supported type; see the module."""
    if series.dtype.is_extension():
        series = series.ext.storage()
    if isinstance(series.dtype, pl.Duration):
        return series.dt.to_string("iso")
    return series.cast(pl.String) if isinstance(series.dtype, pl.Categorical | pl.Enum) else series


def type_problems(
    file: File, types: Mapping[str, pl.DataType], options: Options, features: Sequence[Feature]
) -> Iterator[Problem]:
    """Yield a problem for each column whose type does not fit its use, or is not supported.

    Args:
        file: of the dataset.
        types: of its columns.
        options: of the run.
        features: of the release.
    """
    roles = [(name, role) for role, name in (("id", options.id), ("label", options.label)) if name is not None]
    wanted = [*((feature.name, feature) for feature in features), *roles, *((name, "keep") for name in options.keep)]
    for name, use in wanted:
        if (kind := types.get(name)) is not None and (remedy := _find_remedy(_storage(kind), use, options)):
            yield Problem(file.name, f"column {show(name)} is {_storage(kind)}", remedy)


def _find_remedy(kind: pl.DataType, use: Feature | str, options: Options) -> str | None:
    """Return the remedy for a column whose type does not fit its use; None if it fits."""
    leaves = list(_list_leaves(kind))
    if any(isinstance(leaf, pl.Decimal) and leaf.precision > MAX_DIGITS for leaf in leaves):
        return f"write decimals of at most {MAX_DIGITS} digits, or text"
    if use == "keep":
        if options.format != "parquet" and any(leaf == pl.Binary for leaf in leaves):
            return f"{options.format} does not support bytes: write text, or choose --format parquet for the results"
        return None
    if isinstance(use, str):
        if kind.is_nested() or kind == pl.Binary:
            return f"{use} must be a column of single values: write text, numbers, or dates and times"
        return None
    if isinstance(use, TensorFeature):
        return None if _is_tensor(kind) else "a tensor must be a list of numbers"
    return None if _is_scalar(kind, use) else "a feature must be a number, a text, or true or false"


def _storage(kind: pl.DataType) -> pl.DataType:
    return cast("pl.DataType", kind.ext_storage()) if kind.is_extension() else kind  # type: ignore[attr-defined] # it has one


def _list_leaves(kind: pl.DataType) -> Iterator[pl.DataType]:
    """Yield the types of the single values in a column."""
    inner: Sequence[object]
    if isinstance(kind, pl.List | pl.Array):
        inner = [kind.inner]
    elif isinstance(kind, pl.Struct):
        inner = [field.dtype for field in kind.fields]
    elif isinstance(kind, pl.Map):
        inner = [kind.key, kind.value]
    else:
        yield kind
        return
    for one in inner:
        yield from _list_leaves(cast("pl.DataType", one))


def _is_scalar(kind: pl.DataType, feature: Feature) -> bool:
    if kind.is_temporal():
        return isinstance(feature, CategoryFeature)  # as its text
    return kind.is_numeric() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)


def _is_tensor(kind: pl.DataType) -> bool:
    nested = kind.is_nested()
    while isinstance(kind, pl.List | pl.Array):
        kind = cast("pl.DataType", kind.inner)
    return nested and (kind.is_numeric() or kind == pl.Null)
