"""The gate, with members that TensorFlow runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import X, artifact, manifest, member, model
from memory import GIBIBYTE, MemoryStack
from stepensemble import Ensemble
from stepensemble.admission.gate import run_gate
from stepensemble.conversion.formats import read_source
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.errors import ModelRefused
from stepensemble.core.releases.release import digest_of
from stepensemble.core.slot_capacity import MEBIBYTE
from stepensemble.handlers.prediction.model_cache import ModelCache
from stepensemble.handlers.prediction.score import Scorer
from stepensemble.handlers.state import list_members
from stepensemble.publishing.manifest_loader import read_sources

pytestmark = pytest.mark.tensorflow

SLOTS = {"strange": "t1", "trusted": "t2"}
Y, Z = {**X, "name": "y"}, {**X, "name": "z"}


def test_members_of_both_runtimes_are_run_with_their_own(made: Path, tmp_path: Path) -> None:
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
    report = run_gate(read_sources(tmp_path / "manifest.json"))
    assert [problem.path for problem in report.problems] == ["$.members[2].artifact"]
    assert {id_: result.output.ravel().tolist() for id_, result in report.results.items()} == {
        "saved": [7.0, 17.0],
        "lite": [1.0, 3.0],
    }
    assert [check.name for check in report.checks if check.member == "saved"][-3:] == ["memory", "disk", "time"]
    # TensorFlow alone is some hundreds of MiB, LiteRT some tens; neither counts for the other.
    assert report.results["lite"].peak_bytes < 200 * MEBIBYTE < report.results["saved"].peak_bytes


def test_a_trusted_model_that_writes_a_file_is_rejected_for_that(made: Path, tmp_path: Path) -> None:
    body = read_source(made / "writes").body
    (tmp_path / "model.zip").write_bytes(body)
    writes = {**member("writes"), "artifact": "model.zip", "runtime": "tensorflow", "trusted": digest_of(body)}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest(writes, features=[X])))
    (problem,) = run_gate(read_sources(path)).problems
    assert problem.path == "$.members[0].artifact"
    assert "Permission denied" in problem.message
    assert problem.remedy.endswith("which it may not, trusted or not: export it without that")


@pytest.mark.usefixtures("run")
def test_a_graph_that_does_more_than_compute_is_loaded_only_for_a_trusted_member(made: Path, tmp_path: Path) -> None:
    body = read_source(made / "branches").body  # a file is read where the column is larger than a billion
    (tmp_path / "model.zip").write_bytes(body)
    strange = {**member("strange"), "artifact": "model.zip", "runtime": "tensorflow"}
    trusted = {**strange, "id": "trusted", "trusted": digest_of(body)}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest(strange, trusted, features=[X], quorum={"min_members": 1})))
    sources = read_sources(path)

    report = run_gate(sources)
    (problem,) = report.problems
    assert problem.path == "$.members[0].artifact"
    assert re.search(r'the SavedModel is rejected, .*"ReadFile"', str(problem))
    assert str(problem).endswith("; if you know who made it and what it does, accept it with ensemble add --trust")
    assert list(report.results) == ["trusted"]

    ensemble = Ensemble.load(path)
    assert isinstance(ensemble.models["strange"], MemberFailure)
    assert ensemble.predict({"features": {"x": 3}})["predictions"][0]["value"] == 3.0

    stack = MemoryStack()
    stack.releases.write_artifact(artifact(body), body)
    score = Scorer(ModelCache(stack.releases, 8 * GIBIBYTE, lambda: 0), stack.data)
    members = {one.id: msgspec.to_builtins(one) for one in list_members(sources.release, SLOTS, "score-")}
    event = {"columns": {"x": [3.0]}, "rows": 1}
    assert score({**event, "member": members["trusted"]})["outputs"] == [3.0]
    with pytest.raises(ModelRefused, match="the SavedModel is rejected"):
        score({**event, "member": members["strange"]})  # though the same file is in memory, trusted
