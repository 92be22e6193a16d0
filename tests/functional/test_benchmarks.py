"""The benchmarks run, and their kept results fit the current code. No time is asserted."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from driving import ROOT
from stepensemble.core.schema.policy import Aggregation

BENCHMARKS = ROOT / "benchmarks"
METHODS = {str(method.__struct_config__.tag) for method in get_args(Aggregation)}

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="Matplotlib is not installed; make charts installs it"
)


def load(name: str) -> ModuleType:
    """Import a benchmark, which is no package: its scripts are run in their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The JSON that one round prints, and the file it writes."""
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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--rounds", "0"), "argument --rounds: 0 is not a count: give 1 or more"),
        (("--rounds", "many"), "argument --rounds: many is not a count: give 1 or more"),
        (("--output", "nowhere/result.json"), "argument --output: there is no folder nowhere: create it first"),
    ],
)
def test_wrong_usage_is_reported_before_anything_is_measured(wrong: tuple[str, str], message: str) -> None:
    command = [sys.executable, BENCHMARKS / "aggregation.py", *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"aggregation.py: error: {message}\n")
    assert not done.stdout


def test_the_kept_result_is_of_the_same_form(measured: tuple[dict[str, Any], Path]) -> None:
    printed, _ = measured
    kept = json.loads((BENCHMARKS / "results" / "aggregation.json").read_text())
    assert kept.keys() == printed.keys()
    assert kept["methods"].keys() == printed["methods"].keys()
    assert kept["machine"]["versions"].keys() == {"numpy", "stepensemble"}


def test_ratios_are_taken_turn_by_turn() -> None:
    timing = load("timing")
    # A turn in which the machine was busy makes both slow, and the ratio stays.
    ratio = timing.compare([2.0, 20.0, 3.0], [1.0, 10.0, 1.0])
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.5)
    assert timing.rate([0.5, 0.5], 10).median == 20.0
    turns: list[str] = []
    seconds = timing.run_in_turns({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=2)
    assert [sorted(turns[start : start + 2]) for start in (0, 2, 4)] == [["a", "b"]] * 3  # the first is not counted
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}


def test_a_swap_is_measured_and_skipped_parts_are_reported(tmp_path: Path) -> None:
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


def run_benchmark(name: str, output: Path, *options: object) -> Any:
    """Run a benchmark, and return what it printed as JSON: the same that it wrote."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--json", "--output", output, *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text()) == json.loads(done.stdout)
    return json.loads(done.stdout)


def assert_same_form(printed: Any, kept: Any) -> None:
    """Assert that two results name the same things at every depth; lists and numbers may be any."""
    assert type(printed) is type(kept)
    if isinstance(printed, dict):
        assert printed.keys() == kept.keys()
        for key in printed:
            assert_same_form(printed[key], kept[key])


def read_kept(name: str) -> Any:
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())


@pytest.mark.tensorflow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorflow", "pandas")),
    reason="TensorFlow or pandas is not installed; make bench installs them",
)
def test_the_batch_a_script_and_the_limit_predict_the_same_and_are_measured(tmp_path: Path) -> None:
    printed = run_benchmark("million", tmp_path / "million.json", "--rows", 3000, "--rounds", 1)
    # The benchmark ends with an error if one of the three has other predictions.
    assert printed["rows"] == 3000
    assert {(claim["against"], claim["goal"], claim["slower"]) for claim in printed["claims"]} == {
        ("pandas and keras.predict", 3, False),
        ("polars and LiteRT", 2.5, True),
    }
    assert_same_form(printed, read_kept("million"))


@pytest.mark.tensorflow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_predictions_in_process_are_measured_against_others_that_are_equal(tmp_path: Path) -> None:
    # The benchmark ends with an error if one of them has another prediction.
    printed = run_benchmark("in_process", tmp_path / "in_process.json", "--rounds", 1)
    assert [claim["goal"] for claim in printed["claims"]] == [1000, 20, 10, 1, 1, 1]
    assert_same_form(printed, read_kept("in_process"))


@pytest.mark.tensorflow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_calls_executions_and_the_command_are_measured(tmp_path: Path) -> None:
    printed = run_benchmark("serving", tmp_path / "serving.json", "--rounds", 1)
    assert [(claim["goal"], claim["slower"]) for claim in printed["claims"]] == [
        (14, False),
        (50, False),
        (1.3, True),
        (1.5, True),
        (2, True),
        (1, True),
    ]
    assert_same_form(printed, read_kept("serving"))


def test_replays_are_measured(tmp_path: Path) -> None:
    printed = run_benchmark("replay", tmp_path / "replay.json", "--rounds", 1)
    assert printed["speeds"].keys() == {"4", "8"}
    assert_same_form(printed, read_kept("replay"))


def test_growth_is_measured_over_doubled_counts(tmp_path: Path) -> None:
    options = ("--rows", 2048, "--members", 2, "--shards", 2, "--doublings", 1, "--rounds", 1)
    printed = run_benchmark("growth", tmp_path / "growth.json", *options)
    series = printed["series"]
    assert {name: one["counts"] for name, one in series.items()} == {
        "rows, in process": [1024, 2048],
        "rows, batch": [1024, 2048],
        "members, in process": [1, 2],
        "members, execution": [1, 2],
        "shards, batch": [1, 2],
    }
    assert all(len(one["seconds"]) == len(one["counts"]) for one in series.values())
    assert [(claim["ratio"], claim["goal"], claim["slower"]) for claim in printed["claims"]] == [
        (one["slope"], 1, True) for one in series.values()
    ]
    kept = read_kept("growth")
    assert_same_form(printed, kept)
    # Doubled counts are doubled in the page's table, too.
    assert all(after // before == 2 for one in kept["series"].values() for before, after in pairwise(one["counts"]))


@pytest.mark.tensorflow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_every_function_is_weighed_against_a_budget(tmp_path: Path) -> None:
    functions = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    budgets = tomllib.loads((BENCHMARKS / "budgets.toml").read_text())
    assert budgets["imports"].keys() == functions
    printed = run_benchmark("footprint", tmp_path / "footprint.json", "--rounds", 1)
    size, *imports = printed["claims"]
    assert {claim["what"]: claim["goal"] for claim in imports} == {
        f"imports of {name}": budget for name, budget in budgets["imports"].items()
    }
    ours, theirs = printed["megabytes"].values()
    assert size["ratio"]["median"] == pytest.approx(ours / theirs, rel=0.01)
    assert size["goal"] * theirs == pytest.approx(budgets["megabytes"]["score"], rel=0.001)
    assert_same_form(printed, read_kept("footprint"))


def test_a_slope_is_the_exponent_of_the_growth() -> None:
    growth = load("growth")
    counts = [1, 2, 4, 8]
    for exponent in (0.0, 0.5, 1.0, 2.0):
        assert growth.fit_slope(counts, [3 * count**exponent for count in counts]) == pytest.approx(exponent)
    # A fixed cost and a cost for each: the larger the second, the nearer the exponent is to 1, never above.
    assert 0 < growth.fit_slope(counts, [10 + count for count in counts]) < 0.5
    assert 0.9 < growth.fit_slope(counts, [0.1 + count for count in counts]) < 1


@pytest.fixture(scope="module")
def computed() -> Any:
    """Cost where every second is a round one."""
    cost = load("cost")
    measured = cost.read_measured()
    return cost, cost.Measured(slot=0.002, execution=0.1, models=0.01, batch=measured.batch)


def test_an_execution_is_counted_by_its_states(computed: Any) -> None:
    cost, _ = computed
    # Normalize, Accepted?, Score members, Score once a member, Aggregate, Next tier or events?, Succeed.
    for members in (1, 4, 16):
        assert cost.count_execution(members) == cost.Counted(steps=7, transitions=6 + members, calls=2 + members)


def test_a_million_executions_are_computed_by_hand(computed: Any) -> None:
    cost, measured = computed
    parts = cost.price_execution(measured, cost.count_execution(4), express=True)
    # 0.1 s and seven states of 0.05 s are 0.45 s, billed as 0.5 s of 64 MB.
    assert parts["state machine"] == pytest.approx(1e-6 + 0.5 / 16 * 0.06 / 3600)
    assert parts["requests"] == pytest.approx(6 * 0.2e-6)
    # One vCPU comes with 1,769 MB: a second of it is 1,769/1,024 GB-seconds, with less memory at a time as well.
    assert parts["compute"] == pytest.approx((4 * 0.002 + 0.1) * 1769 / 1024 * 0.0000166667)
    assert parts["record and pointer"] == pytest.approx(4 * 0.625e-6 + 0.4e-6)
    assert parts["logs and traces"] == pytest.approx(6 * 0.5e-6 + 5e-6)
    standard = cost.price_execution(measured, cost.count_execution(4), express=False)
    assert standard == parts | {"state machine": pytest.approx(10 * 25e-6)}


def test_the_alternatives_cost_is_computed_by_hand(computed: Any) -> None:
    cost, measured = computed
    # 2 GB have a whole vCPU and more: 0.01 s are 0.02 GB-seconds.
    assert sum(cost.price_lambda(measured).values()) == pytest.approx(0.2e-6 + 0.02 * 0.0000166667 + 0.5e-6)
    assert sum(cost.price_serverless(measured).values()) == pytest.approx(0.01 * 0.00004 + 2 * 0.016e-6)
    assert cost.price_endpoint(measured, 100)["compute"] == pytest.approx(730 * 0.056)
    # Two vCPUs serve 200 a second, 525.6 million in 730 hours.
    assert cost.price_endpoint(measured, 525.7e6)["compute"] == pytest.approx(2 * 730 * 0.056)


def test_a_batch_costs_what_its_runs_cost(computed: Any) -> None:
    cost, measured = computed
    scale = load("scale")
    shard = scale.compute_shard(measured.batch, 4)
    month = cost.price_batch(measured, 30 * shard.rows)  # one shard a day
    run = scale.compute_run(measured.batch, shard, shard.rows, 20)
    # Logs, and the run's own six state transitions and two calls, which docs/scale.md leaves out, as it states.
    assert sum(month.values()) == pytest.approx(30 * (run.dollars + 6 * 25e-6 + 2 * 0.2e-6 + 8 * 0.5e-6))
    # A shard that is begun counts as a whole one; Plan takes as long as there are rows.
    assert month | {"compute": 0} == cost.price_batch(measured, 1) | {"compute": 0}


def test_ways_break_even_where_they_cost_the_same(computed: Any) -> None:
    cost, _ = computed
    assert cost.find_break_even(lambda volume: volume * 1e-5, lambda _: 40.0) == ("below", pytest.approx(4e6, rel=0.01))
    assert cost.find_break_even(lambda _: 40.0, lambda volume: volume * 1e-5) == ("above", pytest.approx(4e6, rel=0.01))
    assert cost.find_break_even(lambda volume: volume, lambda volume: 2 * volume) == ("always", None)
    assert cost.find_break_even(lambda volume: 2 * volume, lambda volume: volume) == ("never", None)


def test_the_kept_cost_is_that_of_the_kept_measurements(tmp_path: Path) -> None:
    assert run_benchmark("cost", tmp_path / "cost.json") == read_kept("cost")


def test_every_price_of_serving_has_a_source() -> None:
    prices = load("prices")
    assert all(one.dollars > 0 and one.source.startswith("https://aws.amazon.com/") for one in prices.ONLINE_PRICES)


def test_a_goal_is_met_from_its_side() -> None:
    timing = load("timing")
    ratio = timing.Spread(2.0, 1.0, 4.0)
    assert [timing.Comparison("a", "b", ratio, goal).met for goal in (1.9, 2.0, 2.1)] == [True, True, False]
    assert [timing.Comparison("a", "b", ratio, goal, slower=True).met for goal in (1.9, 2.0, 2.1)] == [
        False,
        True,
        True,
    ]


def test_the_pages_have_the_tables_that_their_script_writes() -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "performance.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    performance = load("performance")
    text = "".join(page.read_text(encoding="utf-8") for page in performance.PAGES)
    assert [block[1] for block in performance.BLOCK.finditer(text)] == list(performance.TABLES)  # every table once


@needs_matplotlib
def test_charts_are_of_the_kept_results_and_the_same_each_time(tmp_path: Path) -> None:
    charts = load("charts")
    results, folder = BENCHMARKS / "results", ROOT / "docs" / "charts"
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\(charts/(\S+)\.svg\)", page)
    assert sorted(shown) == sorted(charts.CHARTS) == sorted(path.stem for path in folder.glob("performance-*"))
    for name, (_, sources) in charts.CHARTS.items():
        digest = charts.digest_results(results, sources)
        text = (folder / f"{name}.svg").read_text(encoding="utf-8")
        assert re.findall(r"<dc:source>(.*)</dc:source>", text) == [f"results {digest}"], "benchmarks/charts.py"
        assert "dc:date" not in text
        assert len(text) < 150_000
    for once in ("once", "again"):
        charts.write_charts(results, tmp_path / once)
    for name in charts.CHARTS:
        assert (tmp_path / "once" / f"{name}.svg").read_bytes() == (tmp_path / "again" / f"{name}.svg").read_bytes()


def test_make_bench_runs_every_benchmark_before_what_is_written_from_it() -> None:
    (listed,) = re.findall(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    order = listed.split()
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()}
    assert sorted(order) == sorted(scripts)
    assert order[-4:] == ["scale", "cost", "charts", "performance"]
