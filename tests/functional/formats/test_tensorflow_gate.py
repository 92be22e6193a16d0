"""The gate, with members that TensorFlow runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import X, manifest, member, model
from stepensemble.admission.gate import examine
from stepensemble.conversion.formats import read_source
from stepensemble.core.capacity import MEBIBYTE
from stepensemble.publishing.sources import read_sources

pytestmark = pytest.mark.tensorflow

Y, Z = {**X, "name": "y"}, {**X, "name": "z"}


def test_members_of_both_runtimes_are_tried_each_with_its_own(made: Path, tmp_path: Path) -> None:
    inputs: dict[str, Any] = {"inputs": {"a": ["x"], "b": ["y", "z"]}, "output": {"kind": "value", "name": "total"}}
    saved = {**member("saved", **inputs), "artifact": "named.zip", "runtime": "tensorflow"}
    damaged = {**saved, "id": "damaged", "artifact": "damaged.zip"}
    golden = [{"x": 1, "y": 2, "z": 4}, {"x": 3, "y": 5, "z": 9}]
    data = manifest(
        saved,
        member("lite", "named", **{**inputs, "output": {"kind": "value", "name": "first"}}),
        damaged,
        features=[X, Y, Z],
        golden=golden,
    )
    body = read_source(made / "named").body
    (tmp_path / "named.zip").write_bytes(body)
    (tmp_path / "damaged.zip").write_bytes(body[: len(body) // 2])
    (tmp_path / "named.tflite").write_bytes(model("named"))
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    report = examine(read_sources(tmp_path / "manifest.json"))
    assert [problem.path for problem in report.refused] == ["$.members[2].artifact"]
    assert {id_: answer.output.ravel().tolist() for id_, answer in report.answers.items()} == {
        "saved": [7.0, 17.0],
        "lite": [1.0, 3.0],
    }
    assert [check.name for check in report.checks if check.member == "saved"][-3:] == ["memory", "disk", "time"]
    # TensorFlow by itself is some hundreds of MiB, LiteRT some tens; neither counts for the other.
    assert report.answers["lite"].peak_bytes < 200 * MEBIBYTE < report.answers["saved"].peak_bytes
