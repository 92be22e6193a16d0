"""`ensemble check`, and that nothing is published without the gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import MODELS
from driving import run_ensemble

CHECKS = ["digest", "artifact", "inputs", "golden rows", "output", "repetition", "column order", "memory", "time"]


def edit(project: Path, **more: Any) -> dict[str, Any]:
    """Change the shipped manifest, and return it."""
    path = project / "models" / "manifest.json"
    manifest = {**json.loads(path.read_text()), **more}
    path.write_text(json.dumps(manifest))
    return manifest


def test_explain_shows_every_check_with_its_figure(project: Path) -> None:
    done = run_ensemble(project, "check", "--explain")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["member", "check", "figure", "limit", "verdict"]
    names = [line[len("wide_and_deep  ") :].split("  ")[0] for line in lines[1:-1]]
    assert names == [*CHECKS * 4, "state", "deadline"]
    assert {line.split()[-1] for line in lines[1:-1]} == {"ok"}
    assert [line.split()[0] for line in lines[1:-1] if not line.startswith(" ")] == [
        *("linear", "wide", "deep", "wide_and_deep"),
        "ensemble",
    ]
    assert lines[-1].startswith("ok  models/manifest.json compiles to release ")


def test_json_carries_every_check(project: Path) -> None:
    document = json.loads(run_ensemble(project, "check", "--json").stdout)
    assert (document["ok"], document["warnings"], document["problems"]) == (True, [], [])
    assert [one["name"] for one in document["checks"]] == [*CHECKS * 4, "state", "deadline"]
    assert set(document["checks"][0]) == {"member", "name", "figure", "limit", "verdict", "problem"}
    assert [one["id"] for one in document["members"]] == ["linear", "wide", "deep", "wide_and_deep"]


def test_a_warning_is_shown_and_rejects_nothing(project: Path) -> None:
    # The model adds all columns, in any order.
    (project / "models" / "sum.tflite").write_bytes((MODELS / "free_width.tflite").read_bytes())
    added = {"id": "sum", "version": "1", "artifact": "sum.tflite", "output": {"kind": "logit"}}
    edit(project, members=[added, *edit(project)["members"]])
    done = run_ensemble(project, "check")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "warning $.members[0]: sum (sum.tflite): its outputs stay the same when its 11 columns"
    )
    assert "ok  models/manifest.json compiles" in done.stdout
    document = json.loads(run_ensemble(project, "check", "--json").stdout)
    assert (document["ok"], [one["path"] for one in document["warnings"]]) == (True, ["$.members[0]"])


def test_rejected_and_accepted_parts_are_explained_side_by_side(project: Path) -> None:
    members = edit(project)["members"]
    edit(project, members=[{**members[0], "columns": ["Age", "Fare"]}, *members[1:]])
    done = run_ensemble(project, "check", "--explain")
    assert done.returncode == 1
    assert sum(line.split()[-1] == "ok" for line in done.stdout.splitlines()) == 2 + 3 * len(CHECKS) + 2
    (rejected,) = [line for line in done.stdout.splitlines() if line.split()[-1] == "refused"]
    assert "inputs" in rejected
    assert "float32 [11]" in rejected
    assert "InvalidManifest 1 problem:" in done.stderr
    assert "$.members[0].columns: linear (titanic/linear.tflite): InputMismatch: " in done.stderr
    as_json = run_ensemble(project, "check", "--json")
    assert as_json.returncode == 1
    document = json.loads(as_json.stdout)
    assert (document["ok"], [one["path"] for one in document["problems"]]) == (False, ["$.members[0].columns"])


@pytest.mark.parametrize("command", [("publish",), ("publish", "--dry-run"), ("publish", "--canary", "10")])
def test_a_bad_manifest_is_rejected_before_a_stack_is_searched(project: Path, command: tuple[str, ...]) -> None:
    (project / "models" / "titanic" / "wide.tflite").write_bytes(b"not a model")
    done = run_ensemble(project, *command)
    assert done.returncode == 1
    assert "$.members[1].artifact: wide (titanic/wide.tflite): ModelRefused: " in done.stderr
    assert [path.name for path in (project / ".stepensemble").iterdir()] == ["cache"]  # which was there before


def test_run_publishes_nothing_that_the_gate_rejects(project: Path) -> None:
    (project / "models" / "titanic" / "wide.tflite").write_bytes(b"not a model")
    done = run_ensemble(project, "run", "events/passenger.json")
    assert done.returncode == 1
    assert "$.members[1].artifact: wide (titanic/wide.tflite): ModelRefused: " in done.stderr
    assert run_ensemble(project, "releases").stdout.strip() == "nothing is published yet"
