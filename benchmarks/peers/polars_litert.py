"""The limit: a table through four LiteRT models with nothing around it. No checks, no records, one number a row.

    python polars_litert.py PASSENGERS.csv MODELS OUTPUT.parquet

MODELS is a folder with the four as `.tflite` files. polars reads, encodes and writes, on all cores
(https://docs.pola.rs/user-guide/io/csv/); LiteRT's interpreter gets as many rows at a time as it predicts
fastest (https://ai.google.dev/edge/litert/inference#run-python): 2,048, 65,536 or all, two threads or the models beside
each other took longer. Prints the seconds that it took, without the start of the process
and its imports.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from ai_edge_litert.interpreter import Interpreter

CHUNK = 8192
TYPES = {
    "Pclass": pl.Int8,
    "Sex": pl.String,
    "Age": pl.Float32,
    "SibSp": pl.Int8,
    "Parch": pl.Int8,
    "Fare": pl.Float32,
    "Embarked": pl.String,
}
COLUMNS = (
    *(pl.col("Pclass").eq(number).alias(f"Pclass={number}") for number in (1, 2, 3)),
    pl.col("Sex").eq("male"),
    (pl.col("Age").fill_null(29) - 30.3) / 14.39,
    pl.col("SibSp") / 8,
    pl.col("Parch") / 9,
    pl.col("Fare").fill_null(14.45).log1p(),
    *(pl.col("Embarked").fill_null("S").eq(port).alias(f"Embarked={port}") for port in "CQS"),
)
MODELS = {"linear": 11, "wide": 11, "deep": 7, "wide_and_deep": 11}
"""The four, and how many of the columns, from the left, each takes."""


def predict(path: Path, columns: np.ndarray) -> np.ndarray:
    """Return a model's probability of every row."""
    interpreter = Interpreter(str(path))
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    predictions = np.empty(len(columns), np.float32)
    size = 0
    for start in range(0, len(columns), CHUNK):
        chunk = columns[start : start + CHUNK]
        if len(chunk) != size:
            size = len(chunk)
            interpreter.resize_tensor_input(given["index"], chunk.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], chunk)
        interpreter.invoke()
        predictions[start : start + size] = interpreter.get_tensor(output["index"])[:, 0]
    return predictions


def main(passengers: str, models: str, output: str) -> None:
    """Read, encode, run the four models, average, write."""
    table = pl.scan_csv(passengers, schema_overrides=TYPES).select(COLUMNS).select(pl.all().cast(pl.Float32)).collect()
    columns = table.to_numpy(order="c")
    outputs = [
        predict(Path(models) / f"{name}.tflite", np.ascontiguousarray(columns[:, :width]))
        for name, width in MODELS.items()
    ]
    pl.DataFrame({"value": np.mean(outputs, axis=0)}).write_parquet(output)


if __name__ == "__main__":
    started = time.perf_counter()
    main(*sys.argv[1:])
    print(time.perf_counter() - started)
