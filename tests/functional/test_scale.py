"""docs/scale.md holds what its script computes from the state machine, the template and the benchmark's results."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import msgspec
import pytest
from samcli.yamlhelper import yaml_parse

from driving import ROOT
from stepensemble.batch.report.cost import SHARD_TRANSITIONS, TIER_TRANSITIONS

BENCHMARKS = ROOT / "benchmarks"


def load(name: str) -> ModuleType:
    """Import a benchmark, which is no package: its scripts are run in their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)


scale = load("scale")
prices = load("prices")
speed = load("batch_speed")


@pytest.fixture(scope="module")
def measured() -> Any:
    """A machine on which every step takes a microsecond a row, and rows have 10 bytes."""
    kept = msgspec.json.decode(speed.RESULT.read_bytes(), type=speed.Result)
    steady = {name: msgspec.structs.replace(one, median=1e6) for name, one in kept.rows_per_second.items()}
    return msgspec.structs.replace(kept, rows=1_000, size=10_000, rows_per_second=steady)


def test_the_page_has_the_tables_that_the_script_writes() -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "scale.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_sizes_are_those_of_the_template() -> None:
    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    parameters, resources = template["Parameters"], template["Resources"]
    assert parameters["BatchMemorySize"]["Default"] == scale.SHARD_MEMORY
    assert parameters["BatchConcurrency"]["Default"] == scale.DEFAULT_CONCURRENCY
    assert parameters["BatchConcurrency"]["MaxValue"] < scale.MAX_MAP_CHILDREN
    for name in ("Plan", "NormalizeShard", "AggregateShard"):
        assert resources[f"{name}Function"]["Properties"]["MemorySize"] == {"Ref": "BatchMemorySize"}
    for name in ("Plan", "Summarize"):
        assert resources[f"{name}Function"]["Properties"]["Timeout"] == scale.MAX_FUNCTION_SECONDS
    assert resources["SummarizeFunction"]["Properties"]["MemorySize"] == scale.SUMMARIZE_MEMORY
    _, _, slots = resources["Fn::ForEach::ScoreFunctions"]
    assert slots["Score${Slot}"]["Properties"]["MemorySize"] == scale.SCORE_MEMORY


@pytest.mark.parametrize("members", [1, 4, 16])
def test_a_shard_goes_as_its_cost_is_counted(members: int) -> None:
    way = scale.read_shard_path(members)
    assert way.transitions == SHARD_TRANSITIONS + TIER_TRANSITIONS + members
    # Start and end; Normalize, Any rows?, Score members, Aggregate, Next tier?, Shard ended; an iteration and its task.
    assert way.events == 2 + (5 + 2 + 4 + 5 + 2 + 2) + members * (2 + 5)
    assert way.steps == 7


def test_a_shard_is_computed_by_hand(measured: Any) -> None:
    shard = scale.compute_shard(measured, 4)
    rows = 16 * 1024 * 1024 // 100
    assert shard.rows == rows
    core = 2048 / 1769
    columns, outputs = rows * 32 / 85e6, rows * 4 / 85e6
    parse = 16 * 1024 * 1024 / 10 * 1e-6 / core  # ten times as many bytes a row, so ten times as long a row
    normalize = 4 * 0.15 + 16 * 1024 * 1024 / 85e6 + parse + rows * 1e-6 / core + columns
    score = 2 * 0.15 + columns + outputs + rows * 1e-6 * 1769 / 1024
    aggregate = 6 * 0.15 + columns + 4 * (0.15 + outputs) + 2 * rows * 1e-6 / core + 5 * outputs
    assert shard.seconds == pytest.approx(normalize + score + aggregate + 7 * 0.05)
    assert shard.gb_seconds == pytest.approx(2 * (normalize + aggregate) + 4 * score)
    assert (shard.requests, shard.reads, shard.writes) == (6, 15, 10)
    lambda_, requests = shard.gb_seconds * 16.6667e-6, 6 * 0.2e-6
    assert shard.dollars == pytest.approx(lambda_ + requests + 11 * 25e-6 + 15 * 0.4e-6 + 10 * 5e-6)


def test_a_run_waits_for_its_waves(measured: Any) -> None:
    shard = scale.compute_shard(measured, 4)
    run = scale.compute_run(measured, shard, 21 * shard.rows, 20)
    assert (run.shards, run.at_once) == (21, 20)
    assert run.map == pytest.approx(2 * shard.seconds)
    # 10 bytes a microsecond are 10 MB/s, with a little more than one core: slower than S3.
    assert run.plan == pytest.approx(21 * shard.rows * 100 / (10e6 * 2048 / 1769))
    assert scale.compute_run(measured, shard, 10**9, 10**6).at_once == 250
    assert scale.name_first_limit(scale.compute_run(measured, shard, 10**10, 20)).startswith("Plan's 900 s")


def test_prices_have_a_date_and_a_source() -> None:
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", prices.LOOKED_UP)
    assert all(price.dollars > 0 and price.source.startswith("https://aws.amazon.com/") for price in prices.PRICES)
    assert "| state transition, STANDARD | 25 |" in prices.format_prices()


def test_every_step_of_a_shard_is_measured(tmp_path: Any) -> None:
    output = tmp_path / "batch_speed.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "batch_speed.py", "--rounds", "1", "--json", "--output", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, kept = json.loads(done.stdout), json.loads(speed.RESULT.read_text())
    assert json.loads(output.read_text()) == printed
    assert printed["rows_per_second"].keys() == kept["rows_per_second"].keys()
    assert printed["machine"]["versions"].keys() == kept["machine"]["versions"].keys()
