"""Named columns: how a member's input is stacked from them, and how they are serialized.

Inline, a column is a list of numbers, or `{"dtype": …, "values": …}` where it is not float32. By pointer, columns are
an uncompressed NumPy archive and outputs a NumPy file; neither may hold pickles.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stepensemble.core.arrays import Array
from stepensemble.core.errors import InputMismatch
from stepensemble.core.problems import enumerate_values

Columns = dict[str, Array]
"""In the manifest's order, all with the same number of rows."""

ONE = np.float32(1).view(np.uint32)
"""The bits of 1.0 as float32."""


def stack_columns(columns: Columns, names: Sequence[str]) -> Array:
    """Stack a member's columns to its input.

    Returns `(rows, len(names))` for scalar columns, float32, or float64 if one column is; a tensor that is named
    alone is returned as it is.

    Raises:
        InputMismatch: a column is missing, or a tensor is mixed with other columns.
    """
    absent = [name for name in names if name not in columns]
    if absent:
        raise InputMismatch(f"no column named {enumerate_values(absent)}; there are {enumerate_values(columns)}")
    taken = [columns[name] for name in names]
    if len(taken) == 1 and taken[0].ndim > 1:
        return taken[0]
    if any(column.ndim > 1 for column in taken):
        raise InputMismatch("a tensor cannot be stacked with other columns; let the member take it alone")
    return np.ascontiguousarray(np.array(taken).T)  # np.stack takes much longer for a few rows


def select_rows(columns: Columns, numbers: npt.NDArray[np.int64]) -> Columns:
    """Return some rows of every column; `numbers` ascend, so if they are as many as the rows, they are all rows."""
    if all(len(column) == len(numbers) for column in columns.values()):
        return columns
    return {name: column[numbers] for name, column in columns.items()}


def bind_columns(columns: Columns, inputs: Mapping[str, Sequence[str]]) -> dict[str, Array]:
    """Stack a member's columns for each of its inputs, as `stack_columns` does for one.

    Args:
        columns: all columns of the rows.
        inputs: input name to its columns, in order.

    Raises:
        InputMismatch: as `stack_columns`.
    """
    return {name: stack_columns(columns, names) for name, names in inputs.items()}


def columns_to_json(columns: Columns) -> dict[str, Any]:
    """Return columns as plain data that JSON carries exactly."""
    return {
        name: column.tolist() if column.dtype == np.float32 else {"dtype": column.dtype.name, "values": column.tolist()}
        for name, column in columns.items()
    }


def least_json_bytes(columns: Columns) -> int:
    """Return the fewest bytes of `columns_to_json` as JSON: a digit and a separator for each number."""
    return 2 * sum(column.size for column in columns.values())


def columns_from_json(data: Mapping[str, Any]) -> Columns:
    """Reverse `columns_to_json`, bit for bit."""
    return {
        name: np.array(column["values"], dtype=column["dtype"])
        if isinstance(column, Mapping)
        else np.array(column, dtype=np.float32)
        for name, column in data.items()
    }


def columns_to_bytes(columns: Columns) -> bytes:
    """Return columns as a NumPy archive (`.npz`): their names, and one array for each in that order.

    `flags` names the columns that hold only zeros and ones, as one-hot categories do: they take one byte for each row.
    """
    flags = [name for name, column in columns.items() if _is_flag(column)]
    kept = [column.astype(np.bool_) if name in flags else column for name, column in columns.items()]
    buffer = io.BytesIO()
    np.savez(buffer, *kept, names=np.array(list(columns)), flags=np.array(flags, np.str_), allow_pickle=False)
    return buffer.getvalue()


def _is_flag(column: Array) -> bool:
    """Return whether a float32 column has only 0 and 1, bit for bit: -0 is neither."""
    if column.dtype != np.float32:
        return False
    bits = np.ascontiguousarray(column).view(np.uint32)
    return bool(((bits == 0) | (bits == ONE)).all())


def columns_from_bytes(body: bytes) -> Columns:
    """Reverse `columns_to_bytes`."""
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        flags = archive["flags"].tolist() if "flags" in archive else ()  # earlier versions wrote no flags
        columns = {name: archive[f"arr_{index}"] for index, name in enumerate(archive["names"].tolist())}
    return {name: column.astype(np.float32) if name in flags else column for name, column in columns.items()}


def array_to_bytes(array: Array) -> bytes:
    """Return an array as a NumPy file (`.npy`)."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def array_from_bytes(body: bytes) -> Array:
    """Reverse `array_to_bytes`."""
    array: Array = np.load(io.BytesIO(body), allow_pickle=False)
    return array
