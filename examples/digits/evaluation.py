"""Evaluate the served ensemble on the held-out digits; TensorFlow is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from digits import HELD_OUT, SEED, Digits
from msgspec import Struct

from stepensemble import Ensemble

HERE = Path(__file__).parent
REPORT = HERE / "report.json"
README = HERE / "README.md"
BEGIN, END = "<!-- report -->\n", "<!-- end of report -->\n"


class File(Struct, frozen=True):
    """A member's file.

    Attributes:
        size: in bytes.
        parity: the largest difference of its outputs from the Keras model's on the training digits.
    """

    size: int
    parity: float


class Report(Struct, frozen=True):
    """The content of `report.json`; `members` and `ensemble` count correct predictions of held-out digits."""

    seed: int
    held_out: float
    held_out_digits: int
    members: Mapping[str, int]
    ensemble: int
    files: Mapping[str, File]


def evaluate(ensemble: Ensemble, held_out: Digits, files: Mapping[str, File]) -> Report:
    """Predict the held-out digits; count the correct predictions of the ensemble and of every member."""
    output = ensemble.predict({"instances": held_out.rows})
    return Report(
        seed=SEED,
        held_out=HELD_OUT,
        held_out_digits=len(held_out),
        members={
            member["id"]: _count_correct(np.argmax(member["outputs"], axis=1).tolist(), held_out)
            for member in output["members"]
        },
        ensemble=_count_correct([prediction["value"] for prediction in output["predictions"]], held_out),
        files=files,
    )


def format_table(report: Report) -> str:
    """Return the report as a Markdown table."""
    lines = ["| | correct | accuracy | bytes | from Keras |", "| --- | --: | --: | --: | --: |"]
    for name, file in report.files.items():
        lines.append(f"| {name} | {_cells(report.members[name], report)} | {file.size:,} | {file.parity:.0e} |")
    lines.append(f"| **ensemble** | {_cells(report.ensemble, report)} | | |")
    return "\n".join(lines) + "\n"


def write_report(report: Report) -> None:
    """Write `report.json`, and the table between its two markers in the README."""
    REPORT.write_text(json.dumps(msgspec.to_builtins(report), indent=2) + "\n", encoding="utf-8")
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + format_table(report) + END + after, encoding="utf-8")


def _count_correct(predicted: Sequence[int], digits: Digits) -> int:
    return int(np.count_nonzero(np.asarray(predicted) == digits.numbers))


def _cells(correct: int, report: Report) -> str:
    return f"{correct} | {correct / report.held_out_digits:.3f}"
