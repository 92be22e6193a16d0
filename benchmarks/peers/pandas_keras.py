"""Predicts a table with four Keras models in one script, with pandas, as a data scientist writes it.

    python pandas_keras.py PASSENGERS.csv MODELS OUTPUT.csv

MODELS is a folder with the four as `.keras` files. pandas reads the columns that are used, with their types named
(https://pandas.pydata.org/docs/user_guide/scale.html), and encodes them a column at a time; Keras' `predict` gets large
batches, as its documentation recommends (https://keras.io/api/models/model_training_apis/#predict-method). Prints the
seconds that it took, without the start of the process and its imports.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import pandas as pd

TYPES = {
    "Pclass": "int8",
    "Sex": "category",
    "Age": "float32",
    "SibSp": "int8",
    "Parch": "int8",
    "Fare": "float32",
    "Embarked": "category",
}
MODELS = {"linear": 11, "wide": 11, "deep": 7, "wide_and_deep": 11}
"""The four, and how many of the columns, from the left, each was trained on."""


def encode(table: pd.DataFrame) -> np.ndarray:
    """Fill, scale and one-hot encode: the columns in the order of the training."""
    encoded = pd.DataFrame(
        {
            **{f"Pclass={number}": table["Pclass"] == number for number in (1, 2, 3)},
            "Sex": table["Sex"] == "male",
            "Age": (table["Age"].fillna(29) - 30.3) / 14.39,
            "SibSp": table["SibSp"] / 8,
            "Parch": table["Parch"] / 9,
            "Fare": np.log1p(table["Fare"].fillna(14.45)),
            **{f"Embarked={port}": table["Embarked"].fillna("S") == port for port in "CQS"},
        }
    )
    return encoded.to_numpy(dtype=np.float32)


def main(passengers: str, models: str, output: str) -> None:
    """Read, encode, run the four models, average, write."""
    table = pd.read_csv(passengers, usecols=list(TYPES), dtype=TYPES)
    columns = encode(table)
    outputs = []
    for name, width in MODELS.items():
        model = keras.models.load_model(Path(models) / f"{name}.keras")
        outputs.append(model.predict(columns[:, :width], batch_size=4096, verbose=0)["probability"][:, 0])
    pd.DataFrame({"value": np.mean(outputs, axis=0)}).to_csv(output, index=False)


if __name__ == "__main__":
    started = time.perf_counter()
    main(*sys.argv[1:])
    print(time.perf_counter() - started)
