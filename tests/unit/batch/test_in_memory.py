from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from builders import ROOT, X, member, sources
from stepensemble import Ensemble
from stepensemble.batch.in_memory import REMEDY
from stepensemble.core.errors import InvalidPayload, QuorumNotMet

Y = {"name": "y", "type": "number", "missing": 0.5}
TWO = {"type": "binary", "classes": ["no", "yes"]}
COLOURS = {"type": "multiclass", "classes": ["red", "green", "blue"]}
ROWS: list[dict[str, Any]] = [{"x": -2, "y": 1.5}, {"x": 0.25, "y": None}, {"x": 3, "y": -1}, {"x": 0, "y": 0}]


def load(folder: Path, *members: dict[str, Any], **more: Any) -> Ensemble:
    return Ensemble.load(sources(folder, *members, **more).path)


def check_same(ensemble: Ensemble, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Compare the predictions for a table with those for a payload, number by number."""
    output = ensemble.predict({"instances": rows})
    predicted = ensemble.predict_table(pl.DataFrame(rows, infer_schema_length=None))
    assert predicted.height == len(rows)
    assert "row" not in predicted.columns
    for line, prediction in zip(predicted.to_dicts(), output["predictions"], strict=True):
        shadows, missing = prediction.pop("shadows", {}), prediction.pop("missing", [])
        assert {name: line[name] for name in prediction} == prediction
        assert line["status"] == ("DEGRADED" if missing else "COMPLETE")
        for id_, view in shadows.items():
            assert {name: line.get(f"{id_}_{name}") for name in view} == view
    for one in output["members"]:
        if one["outputs"] is not None:
            outputs = predicted.filter(pl.col(f"{one['id']}_status") == "ok")[f"{one['id']}_output"]
            labels = ensemble.release.task.classes if one["id"] == "label" else None  # type: ignore[union-attr] # of classes
            given = [entry for entry in one["outputs"] if entry is not None]
            assert outputs.to_list() == (given if labels is None else [labels[place] for place in one["outputs"]])
    return predicted


def test_a_regression_with_a_member_that_fails(tmp_path: Path) -> None:
    ensemble = load(
        tmp_path,
        member("half", columns=["x"]),
        member("log", "logarithm", columns=["x"]),  # of -1 and 0 it has none
        quorum={"min_members": 1},
        features=[X, Y],
    )
    predicted = check_same(ensemble, ROWS)
    failed = [row["x"] <= 0 for row in ROWS]
    assert predicted["log_status"].to_list() == ["failed" if one else "ok" for one in failed]
    assert predicted["status"].to_list() == ["DEGRADED" if one else "COMPLETE" for one in failed]


@pytest.mark.parametrize("method", ["mean", "median", "geometric_mean", "hard_vote", "weighted_vote", "max"])
def test_two_classes(tmp_path: Path, method: str) -> None:
    ensemble = load(
        tmp_path,
        member("first", "sigmoid", "probability", columns=["x"], weight=2),
        member("second", "sigmoid", "probability", columns=["y"]),
        member("shadow", "sigmoid", "probability", columns=["x"], role="shadow"),
        task=TWO,
        features=[X, Y],
        aggregation={"method": method},
        quorum={"min_weight": 0.5},
        review={"min_margin": 0.3},
    )
    check_same(ensemble, ROWS)


def test_several_classes_and_labels(tmp_path: Path) -> None:
    ensemble = load(
        tmp_path,
        member("soft", "softmax", "probabilities"),
        member("label", "sign_label", "label", columns=["x"]),
        task=COLOURS,
        features=[X, Y],
        aggregation={"method": "hard_vote", "tie": "abstain"},
    )
    check_same(ensemble, ROWS)


def test_a_cascade(tmp_path: Path) -> None:
    ensemble = load(
        tmp_path,
        member("sure", "sigmoid", "probability", columns=["x"]),
        member("asked", "sigmoid", "probability", columns=["y"], tier=2),
        task=TWO,
        features=[X, Y],
        cascade={"min_margin": 0.5},
        quorum={"min_members": 1},
    )
    predicted = check_same(ensemble, ROWS)
    assert predicted["tier"].to_list() == [1, 2, 1, 2]


def test_the_shipped_ensemble_predicts_the_same_for_single_rows_many_rows_and_a_table() -> None:
    ensemble = Ensemble.load(ROOT / "models" / "manifest.json")
    rows = [
        {"Pclass": 1 + number % 3, "Sex": ("male", "female")[number % 2], "Age": number if number % 7 else None}
        | {"SibSp": number % 4, "Parch": number % 3, "Fare": number / 3, "Embarked": ("C", "Q", "S", None)[number % 4]}
        for number in range(50)
    ]
    check_same(ensemble, rows)
    together = ensemble.predict({"instances": rows})["predictions"]
    assert [ensemble.predict({"features": row})["predictions"][0] for row in rows] == together


def test_a_missed_quorum_raises_an_error(tmp_path: Path) -> None:
    ensemble = load(tmp_path, member("half"), member("log", "logarithm"))
    with pytest.raises(QuorumNotMet, match="1 of 2 voters responded, and the quorum is 2; missing: log"):
        ensemble.predict_table({"x": [-1]})


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.5],
        (1, 2.5),
        np.array([1, 2.5]),
        np.array([1, 2.5], np.float32),
        pl.Series([1.0, 2.5]),
        ["1", " 2.5 "],
        [1, "2.5"],
    ],
    ids=lambda values: type(values).__name__,
)
def test_a_column_is_a_sequence_an_array_or_a_series(tmp_path: Path, values: Any) -> None:
    predicted = load(tmp_path).predict_table({"x": values, "passenger": ["a", "b"]})
    assert predicted["value"].to_list() == [2.5, 3.25]  # half of it, plus two


class Frame:
    """A frame of another library that has Arrow's PyCapsule interface only."""

    def __init__(self, **columns: Any) -> None:
        self._frame = pl.DataFrame(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


class Series(list[Any]):
    """A column with `isna` that converts to an array."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(list(self), dtype=dtype or object)

    def isna(self) -> list[bool]:
        return [value is None for value in self]


class FrameWithoutArrow:
    """A frame whose Arrow interface requires a library that is not installed, such as pandas without PyArrow."""

    def __init__(self, **columns: Series) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Series:
        return self._columns[name]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise ImportError("pyarrow")


@pytest.mark.parametrize(
    "table",
    [
        Frame(y=[4.0, None], x=[1.0, 2.5], passenger=["a", "b"]),
        FrameWithoutArrow(x=Series([1, 2.5]), y=Series([4, None]), passenger=Series(["a", "b"])),
        np.array([(1.0, 4.0), (2.5, 0.5)], dtype=[("x", "f4"), ("y", "f8")]),
        np.array([[1.0, 4.0], [2.5, 0.5]]),
        np.array([[1, 4.0], [2.5, None]], dtype=object),
    ],
    ids=["arrow", "columns", "named fields", "two dimensions", "objects"],
)
def test_a_table_of_any_library_is_read_by_protocol(tmp_path: Path, table: Any) -> None:
    ensemble = load(tmp_path, member("a", columns=["x"]), member("b", columns=["y"]), features=[X, Y])
    # Half of x plus two, and the mean of both members. A missing y is 0.5.
    assert ensemble.predict_table(table)["value"].to_list() == [(2.5 + 4.0) / 2, (3.25 + 2.25) / 2]


def test_a_table_without_rows_has_no_predictions(tmp_path: Path) -> None:
    ensemble = load(tmp_path)
    predicted = ensemble.predict_table({"x": []})
    assert (predicted.height, predicted.schema) == (0, ensemble.predict_table({"x": [1]}).schema)


def test_every_wrong_value_is_reported_by_column_and_row(tmp_path: Path) -> None:
    ensemble = load(tmp_path, features=[X, {"name": "y", "type": "number", "max": 5}], quorum={"min_members": 1})
    with pytest.raises(InvalidPayload) as raised:
        ensemble.predict_table({"x": [1, None, 3], "y": [1, 2, "six"]})
    assert [str(problem) for problem in raised.value.problems] == [
        '$.x[1]: is missing; give a number, or set "missing" in the manifest',
        '$.y[2]: "six" is not a number; write a number, without unit or words',
    ]
    with pytest.raises(InvalidPayload, match=r"\$\.y\[1\]: 6.5 is out of range; use a number at most 5"):
        ensemble.predict_table(pl.DataFrame({"x": [1.0, 2.0], "y": [5.0, 6.5]}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"X": [1]}, '$.x: is not a column of the table; add it, or set "missing" in the manifest, did you mean "X"?'),
        (
            {"x": [1], " Y": [1]},
            '$.y: is not a column of the table, but " Y" is; write the name exactly, including blanks and case',
        ),
        ({"x": 1}, "$.x: 1 is not a column; pass a list, an array or a series of values"),
        ({"x": "one"}, '$.x: "one" is not a column; pass a list, an array or a series of values'),
        ({"x": [1, 2], "y": [1]}, '$.y: has 1 value, and "x" has 2; pass one value for each row'),
        ([{"x": 1}], f"$: builtins.list is not a table; {REMEDY}"),
        (np.zeros((3, 3)), f'$: an array of 3 x 3 does not have the 2 features "x", "y"; {REMEDY}'),
    ],
)
def test_an_invalid_table_is_rejected(tmp_path: Path, table: Any, message: str) -> None:
    with pytest.raises(InvalidPayload) as raised:
        load(tmp_path, features=[X, Y]).predict_table(table)
    assert [str(problem) for problem in raised.value.problems] == [message]
