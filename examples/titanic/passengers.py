"""Read the passengers, and split them into training and held-out ones."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

TABLE = Path(__file__).parent / "passengers.csv"
TARGET = "Survived"
FIELDS = ("Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked")

SEED = 1912
HELD_OUT = 0.2

Value = str | int | float | None
Row = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Passengers:
    """Some passengers; `rows` are payload instances, `survived` is 0 or 1 for each row."""

    rows: Sequence[Row]
    survived: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int]) -> Passengers:
        """Return the passengers with these row numbers."""
        return Passengers([self.rows[index] for index in indices], self.survived[list(indices)])


def read_passengers(path: Path = TABLE) -> Passengers:
    """Read the table; an empty cell is a missing value."""
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    rows: list[Row] = [{field: _read_value(line[field]) for field in FIELDS} for line in table]
    return Passengers(rows, np.array([int(line[TARGET]) for line in table], dtype=np.int64))


def split(passengers: Passengers) -> tuple[Passengers, Passengers]:
    """Return the four fifths for training and the held-out fifth, with the same share of survivors.

    The split is always the same. Nothing that is fitted or chosen may depend on the second part.
    """
    training, held_out = train_test_split(
        range(len(passengers)), test_size=HELD_OUT, stratify=passengers.survived, random_state=SEED
    )
    return passengers.take(sorted(training)), passengers.take(sorted(held_out))


def _read_value(cell: str) -> Value:
    if not cell:
        return None
    try:
        return float(cell) if "." in cell else int(cell)
    except ValueError:
        return cell
