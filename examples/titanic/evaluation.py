"""Evaluate the served ensemble on the held-out passengers; TensorFlow is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct
from passengers import HELD_OUT, SEED, Passengers
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from stepensemble import Ensemble

HERE = Path(__file__).parent
REPORT = HERE / "report.json"
README = HERE / "README.md"
BEGIN, END = "<!-- report -->\n", "<!-- end of report -->\n"


class Scores(Struct, frozen=True):
    """The scores of some probabilities."""

    accuracy: float
    auc: float
    log_loss: float


class File(Struct, frozen=True):
    """A member's file: its size in bytes, and the largest difference of its outputs from the Keras model's."""

    size: int
    parity: float


class Report(Struct, frozen=True):
    """The content of `report.json`."""

    seed: int
    held_out: float
    held_out_rows: int
    members: Mapping[str, Scores]
    ensemble: Scores
    files: Mapping[str, File]


def score(survived: npt.NDArray[Any], probabilities: Sequence[float] | npt.NDArray[Any]) -> Scores:
    """Return scores to four decimals; a few hundred passengers do not justify more."""
    numbers = np.asarray(probabilities, dtype=np.float64)
    return Scores(
        accuracy=round(float(accuracy_score(survived, numbers >= 0.5)), 4),
        auc=round(float(roc_auc_score(survived, numbers)), 4),
        log_loss=round(float(log_loss(survived, numbers)), 4),
    )


def evaluate(ensemble: Ensemble, held_out: Passengers, files: Mapping[str, File]) -> Report:
    """Predict the held-out passengers; score the predictions of the ensemble and of every member."""
    output = ensemble.predict({"instances": held_out.rows})
    return Report(
        seed=SEED,
        held_out=HELD_OUT,
        held_out_rows=len(held_out),
        members={member["id"]: score(held_out.survived, member["outputs"]) for member in output["members"]},
        ensemble=score(held_out.survived, [prediction["value"] for prediction in output["predictions"]]),
        files=files,
    )


def format_table(report: Report) -> str:
    """Return the report as a Markdown table."""
    lines = ["| | accuracy | AUC | log loss | bytes | from Keras |", "| --- | --: | --: | --: | --: | --: |"]
    for name, file in report.files.items():
        lines.append(f"| {name} | {_cells(report.members[name])} | {file.size:,} | {file.parity:.0e} |")
    lines.append(f"| **ensemble** | {_cells(report.ensemble)} | | |")
    return "\n".join(lines) + "\n"


def _cells(scores: Scores) -> str:
    return f"{scores.accuracy:.3f} | {scores.auc:.3f} | {scores.log_loss:.3f}"


def write_report(report: Report) -> None:
    """Write `report.json`, and the table between its two markers in the README."""
    REPORT.write_text(json.dumps(msgspec.to_builtins(report), indent=2) + "\n", encoding="utf-8")
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + format_table(report) + END + after, encoding="utf-8")
