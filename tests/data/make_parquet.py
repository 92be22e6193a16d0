"""Write the Parquet files in `parquet/` that Polars cannot write. Needs an environment with pyarrow and DuckDB."""

from __future__ import annotations

import decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).with_name("parquet")


def main() -> None:
    """Write them all: a column "a" of numbers, and a column "k"."""
    columns = {
        "decimal256": pa.array([decimal.Decimal("1.10"), None], pa.decimal256(50, 2)),
        "extension": pa.array(['{"x": 1}', None], pa.json_()),
        "list_view": pa.array([[1.0], None], pa.list_view(pa.float64())),
    }
    numbers = pa.array([1.0, 2.0])
    for name, column in columns.items():
        pq.write_table(pa.table({"a": numbers, "k": column}), FOLDER / f"{name}.parquet")
    twins = pa.Table.from_arrays([numbers, numbers, numbers], names=["a", "k", "k"])
    pq.write_table(twins, FOLDER / "duplicate_names.parquet")
    query = "select 1.0::double as a, interval '1 month 2 days' as k"
    duckdb.sql(f"copy ({query}) to '{FOLDER / 'interval.parquet'}'")


if __name__ == "__main__":
    main()
