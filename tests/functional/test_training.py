"""The shipped members are what `examples/titanic` makes, and as good as its report states.

Nothing is imported from there: encoding and scores are computed here a second time, as the page describes them.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

from stepensemble.runtimes import load_model
from written import TOLERANCE, TRAINED

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "titanic"
MEMBERS = ("linear", "wide", "deep", "wide_and_deep")
WITHOUT_FARE_AND_PORT = slice(0, 7)

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed; make tensorflow installs it"
)

Row = dict[str, str]
Scores = dict[str, float]


def run_script(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(EXAMPLE / name), *map(str, arguments)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    written: dict[str, Any] = json.loads((EXAMPLE / "report.json").read_text())
    return written


@pytest.fixture(scope="module")
def parts() -> tuple[list[Row], list[Row]]:
    """The passengers of the training, and the held-out ones."""
    with (EXAMPLE / "passengers.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    survived = [row["Survived"] for row in table]
    training, held_out = train_test_split(range(len(table)), test_size=0.2, stratify=survived, random_state=1912)
    return [table[index] for index in sorted(training)], [table[index] for index in sorted(held_out)]


@pytest.fixture(scope="module")
def held_out_batch(parts: tuple[list[Row], list[Row]]) -> np.ndarray:
    return encode(*parts)


def encode(training: list[Row], rows: list[Row]) -> np.ndarray:
    """Encode rows as the manifest's eleven columns, with constants taken from the training rows."""
    ages = [float(row["Age"]) for row in training if row["Age"]]
    fares = [float(row["Fare"]) for row in training if row["Fare"]]
    age = round(statistics.median(ages), 2)
    mean, deviation = round(statistics.fmean(ages), 2), round(statistics.pstdev(ages), 2)
    fare = round(statistics.median(fares), 2)
    port = Counter(row["Embarked"] for row in training).most_common(1)[0][0]
    most_siblings = max(int(row["SibSp"]) for row in training)
    most_parents = max(int(row["Parch"]) for row in training)
    encoded = [
        [
            *(row["Pclass"] == value for value in "123"),
            row["Sex"] == "male",
            (float(row["Age"] or age) - mean) / deviation,
            int(row["SibSp"]) / most_siblings,
            int(row["Parch"]) / most_parents,
            math.log1p(float(row["Fare"] or fare)),
            *((row["Embarked"] or port) == value for value in "CQS"),
        ]
        for row in rows
    ]
    return np.array(encoded, dtype=np.float32)


def infer(file: Path, batch: np.ndarray) -> np.ndarray:
    """Invoke a committed file by the names of its signature."""
    taken = batch[:, WITHOUT_FARE_AND_PORT] if file.stem == "deep" else batch
    interpreter = Interpreter(model_content=file.read_bytes(), num_threads=1)
    outputs: np.ndarray = interpreter.get_signature_runner("serving_default")(columns=taken)["probability"]
    return outputs[:, 0]


def shipped(member: str) -> Path:
    return ROOT / "models" / "titanic" / f"{member}.tflite"


def score(rows: list[Row], probabilities: np.ndarray) -> Scores:
    survived = [int(row["Survived"]) for row in rows]
    numbers = probabilities.astype(np.float64)
    return {
        "accuracy": accuracy_score(survived, numbers >= 0.5),
        "auc": roc_auc_score(survived, numbers),
        "log_loss": log_loss(survived, numbers),
    }


def test_the_table_is_what_scikit_learn_installs(tmp_path: Path) -> None:
    again = tmp_path / "passengers.csv"
    run_script("prepare.py", "--output", again)
    assert again.read_bytes() == (EXAMPLE / "passengers.csv").read_bytes()


def test_the_table_holds_every_passenger_and_only_the_columns_in_use(parts: tuple[list[Row], list[Row]]) -> None:
    training, held_out = parts
    everybody = training + held_out
    assert len(training) == 1047
    assert len(held_out) == 262
    assert sum(row["Survived"] == "1" for row in everybody) == 500
    assert list(everybody[0]) == ["Survived", "Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked"]
    assert [sum(not row[name] for row in everybody) for name in ("Age", "Fare", "Embarked")] == [263, 1, 2]


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_takes_any_number_of_rows_and_is_a_few_kilobytes(member: str) -> None:
    (taken,) = Interpreter(model_path=str(shipped(member))).get_input_details()
    assert taken["shape_signature"].tolist() == [-1, 7 if member == "deep" else 11]
    assert taken["dtype"] is np.float32
    assert shipped(member).stat().st_size < 8_000


@pytest.mark.parametrize("member", MEMBERS)
def test_a_row_gets_the_same_prediction_alone_and_among_others(member: str, held_out_batch: np.ndarray) -> None:
    alone = np.concatenate([infer(shipped(member), row[None]) for row in held_out_batch[:40]])
    np.testing.assert_array_equal(infer(shipped(member), held_out_batch)[:40], alone)


def test_the_report_agrees_with_the_shipped_files(
    report: dict[str, Any], parts: tuple[list[Row], list[Row]], held_out_batch: np.ndarray
) -> None:
    _, held_out = parts
    outputs = {member: infer(shipped(member), held_out_batch) for member in MEMBERS}
    assert (report["seed"], report["held_out"], report["held_out_rows"]) == (1912, 0.2, len(held_out))
    assert list(report["members"]) == list(MEMBERS)
    for member, output in outputs.items():
        assert report["members"][member] == pytest.approx(score(held_out, output), abs=1e-4)
        assert report["files"][member]["size"] == shipped(member).stat().st_size
        assert report["files"][member]["parity"] <= 1e-6
    mean = np.mean([output.astype(np.float64) for output in outputs.values()], axis=0)
    assert report["ensemble"] == pytest.approx(score(held_out, mean), abs=1e-4)


def test_the_ensemble_is_not_worse_than_its_median_member(report: dict[str, Any]) -> None:
    members = report["members"].values()
    median = {name: statistics.median(scores[name] for scores in members) for name in report["ensemble"]}
    assert report["ensemble"]["accuracy"] >= median["accuracy"]
    assert report["ensemble"]["auc"] >= median["auc"]
    assert report["ensemble"]["log_loss"] <= median["log_loss"]


def test_the_page_shows_the_report(report: dict[str, Any]) -> None:
    page = (EXAMPLE / "README.md").read_text()
    for name, scores in {**report["members"], "**ensemble**": report["ensemble"]}.items():
        assert f"| {name} | {' | '.join(f'{number:.3f}' for number in scores.values())} |" in page


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the members trained once more, and what was printed."""
    folder = tmp_path_factory.mktemp("retrained")
    return folder, run_script("train.py", "--output", folder, "--saved-models")


@needs_tensorflow
@pytest.mark.tensorflow
def test_training_again_gives_the_shipped_members(retrained: tuple[Path, str], held_out_batch: np.ndarray) -> None:
    folder, _ = retrained
    for member in MEMBERS:
        again = infer(folder / f"{member}.tflite", held_out_batch)
        np.testing.assert_allclose(again, infer(shipped(member), held_out_batch), rtol=0, atol=TRAINED)


@needs_tensorflow
@pytest.mark.tensorflow
def test_a_converted_member_predicts_as_its_keras_model(retrained: tuple[Path, str]) -> None:
    _, printed = retrained
    differences = {name: float(number) for name, number in re.findall(r"(\w+)\.tflite: .* at most (\S+) from", printed)}
    assert set(differences) == set(MEMBERS)
    assert max(differences.values()) <= TOLERANCE


@needs_tensorflow
@pytest.mark.tensorflow
@pytest.mark.parametrize("member", MEMBERS)
def test_a_shipped_member_predicts_alike_in_both_runtimes(
    member: str, retrained: tuple[Path, str], held_out_batch: np.ndarray
) -> None:
    folder, _ = retrained
    taken = held_out_batch[:, WITHOUT_FARE_AND_PORT] if member == "deep" else held_out_batch
    in_tensorflow = load_model("tensorflow", (folder / f"{member}.zip").read_bytes()).predict(taken)
    in_litert = load_model("litert", shipped(member).read_bytes()).predict(taken)
    assert in_tensorflow.dtype == in_litert.dtype == np.float32
    np.testing.assert_allclose(in_tensorflow, in_litert, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(in_tensorflow >= 0.5, in_litert >= 0.5)


@needs_tensorflow
@pytest.mark.tensorflow
def test_training_twice_gives_the_same_bytes(retrained: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = retrained
    run_script("train.py", "--member", "wide_and_deep", "--output", tmp_path)
    assert (tmp_path / "wide_and_deep.tflite").read_bytes() == (folder / "wide_and_deep.tflite").read_bytes()
