"""The benchmarks run, and what they have written is of what there is. No time is asserted."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from driving import ROOT
from stepensemble.core.policy import Aggregation

BENCHMARKS = ROOT / "benchmarks"
METHODS = {str(method.__struct_config__.tag) for method in get_args(Aggregation)}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What one round prints as JSON, and the file it writes."""
    output = tmp_path_factory.mktemp("results") / "aggregation.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "aggregation.py", "--rounds", "1", "--json", "--output", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), output


def test_aggregation_is_measured_for_every_method(measured: tuple[dict[str, Any], Path]) -> None:
    printed, output = measured
    assert json.loads(output.read_text()) == printed
    assert set(printed["methods"]) == METHODS
    assert (printed["rows"], printed["members"], printed["classes"]) == (10_000, 8, 10)
    assert all(speeds.keys() == {"pooling", "answer"} for speeds in printed["methods"].values())


def test_the_kept_result_is_of_the_same_form(measured: tuple[dict[str, Any], Path]) -> None:
    printed, _ = measured
    kept = json.loads((BENCHMARKS / "results" / "aggregation.json").read_text())
    assert kept.keys() == printed.keys()
    assert kept["methods"].keys() == printed["methods"].keys()
    assert kept["machine"]["versions"].keys() == {"numpy", "stepensemble"}


def test_ratios_are_taken_turn_by_turn() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        timing = importlib.import_module("timing")
    # A turn in which the machine was busy makes both slow, and the ratio stays.
    ratio = timing.compare([2.0, 20.0, 3.0], [1.0, 10.0, 1.0])
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.5)
    assert timing.rate([0.5, 0.5], 10).median == 20.0
    turns: list[str] = []
    seconds = timing.run_in_turns({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=2)
    assert [sorted(turns[start : start + 2]) for start in (0, 2, 4)] == [["a", "b"]] * 3  # the first is not counted
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}


def test_a_swap_is_measured_and_what_is_not_is_said_to_be_so(tmp_path: Path) -> None:
    output = tmp_path / "swap.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "swap.py", "--rounds", "1", "--no-build", "--output", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (redeployment,) = [line.split() for line in done.stdout.splitlines() if "CloudFormation" in line]
    assert " ".join(redeployment) == "CloudFormation update not measured needs an AWS account"
    written, kept = (json.loads(path.read_text()) for path in (output, BENCHMARKS / "results" / "swap.json"))
    assert written["seconds"].keys() == written["times_named"].keys() == kept["seconds"].keys()
    assert {name for name, taken in written["seconds"].items() if taken is None} == {
        "sam build",
        "CloudFormation update",
    }
    assert {name for name, taken in kept["seconds"].items() if taken is None} == {"CloudFormation update"}
