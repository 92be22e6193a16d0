"""Warm-up on the local stack; docs/warm-up.md shows what happens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from builders import ROOT, member, sources
from driving import copy_project, predict, replay_session, run_ensemble, shown_commands, start, wait
from stepensemble.batch.report.cost import GB_SECOND, REQUEST
from stepensemble.cli.schedules import fire, read_schedule
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.cli.warmup import warm_up_twice
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.canary import abort_canary
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.publishing.publish import publish
from stepensemble.storage.keys import artifact_key

PAGE = (ROOT / "docs" / "warm-up.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
PASSENGER = json.loads((ROOT / "events" / "passenger.json").read_text())
AT = datetime(2026, 3, 1, 5, tzinfo=UTC)
X_ALONE = [member("half"), member("log", "logarithm", role="shadow")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder for this module."""
    return copy_project(tmp_path_factory.mktemp("warm"))


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[Stack]:
    """A stack of this module alone, where nothing was predicted before; commands in its folder use it."""
    with LocalStack.start(folder, LocalStackOptions(announce=True, account="777777777777")) as local:
        yield local_stack(local.name, local.endpoint)


@pytest.fixture
def cold(started: Stack, folder: Path) -> Stack:
    """The same with the shipped ensemble as its only release."""
    ensure_published(started, read_sources(folder / "models" / "manifest.json"), notify=lambda _: None)
    return started


def loaded(round_: dict[str, Any]) -> list[bool]:
    return [member["cold"] for member in round_["members"]]


def test_a_cold_stack_is_warmed_up_and_the_next_execution_loads_nothing(cold: Stack, folder: Path) -> None:
    done = run_ensemble(folder, "warm", "--json")
    assert done.returncode == 0, done.stderr
    warmed = json.loads(done.stdout)
    assert (loaded(warmed["first"]), loaded(warmed["second"])) == ([True] * 4, [False] * 4)
    assert [one["slot"] for one in warmed["second"]["members"]] == ["1", "2", "3", "4"]
    for one in (warmed["first"], warmed["second"]):
        trips = [member["round_trip_ms"] for member in one["members"]]
        assert None not in [*trips, one["normalize_ms"], one["aggregate_ms"], one["total_ms"]]
    assert cold.records.latest(10) == []
    assert list(cold.data.list("")) == []
    assert [one["cold"] for one in predict(cold, PASSENGER)["members"]] == [False] * 4


def test_where_nothing_is_cold_the_command_reports_it(cold: Stack, folder: Path) -> None:
    warm_up_twice(cold)
    lines = run_ensemble(folder, "warm").stdout.splitlines()
    assert sum("already loaded" in line for line in lines) == 4
    assert lines[-1].startswith("warm  no model had to be loaded, so both columns show warm slots; release ")


def test_an_express_execution_warms_up_as_the_schedule_does(cold: Stack) -> None:
    scheduled = read_schedule(cold, cold.warmup_schedule)
    assert scheduled.target == cold.outputs["ExpressStateMachineArn"]
    done = cold.step_functions.start_sync_execution(stateMachineArn=scheduled.target, input=scheduled.template)
    assert done["status"] == "SUCCEEDED", done.get("cause")
    assert len(json.loads(done["output"])["members"]) == 4


def test_the_batchs_schedule_starts_no_warm_up_and_a_warm_up_no_batch(cold: Stack) -> None:
    daily = read_schedule(cold)
    sent = json.loads(daily.fill(daily.next_times(AT, 1)[0]))
    rejected = wait(cold, start(cold, sent))
    assert (rejected["status"], rejected["error"]) == ("FAILED", "InvalidPayload")
    rejected = wait(cold, start(cold, {"warmup": True}, machine=daily.target))
    assert (rejected["status"], rejected["error"]) == ("FAILED", "InvalidPayload")
    # When fired, it starts a batch run, here of a day without a dataset.
    assert wait(cold, fire(cold, daily, AT))["error"] == "DatasetMissing"


def test_the_canarys_models_are_loaded_too(cold: Stack, folder: Path, tmp_path: Path) -> None:
    current = cold.releases.read_current()[0].release
    read = sources(tmp_path, *X_ALONE)
    publish(read, cold.releases, cold.slots, canary=10)
    try:
        lines = run_ensemble(folder, "warm").stdout.splitlines()
        assert [line.split()[0] for line in lines if "(canary)" in line] == ["half", "log"]
        assert lines[-1].endswith(f"; release {current[:12]}, canary {read.digest[:12]}")
        output = predict(cold, {"features": {"x": 1}, "release": read.digest})
        assert [one["cold"] for one in output["members"]] == [False, False]
    finally:
        abort_canary(cold.releases)


def test_an_artifact_that_is_broken_is_reported_and_the_others_are_warm(
    started: Stack, folder: Path, tmp_path: Path
) -> None:
    read = sources(
        tmp_path, member("sound", "sigmoid"), member("broken", "two_inputs", inputs={"a": ["x"], "b": ["x"]})
    )
    publish(read, started.releases, started.slots)
    started.releases.bucket.write(artifact_key(read.release.members[1].artifact.digest), b"damaged")
    done = run_ensemble(folder, "warm", "--manifest", str(read.path))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("broken") and "ArtifactCorrupt" in line for line in lines)
    assert lines[-1].strip().startswith("broken failed: ")
    document = run_ensemble(folder, "warm", "--manifest", str(read.path), "--json")
    assert document.returncode == 1
    sound, broken = json.loads(document.stdout)["second"]["members"]
    assert (sound["error"], sound["cold"]) == (None, False)
    assert (broken["error"]["type"], broken["cold"]) == ("ArtifactCorrupt", None)


def test_wrong_usage_starts_nothing(folder: Path) -> None:
    both = run_ensemble(folder, "warm", "--stack", "prod", "--manifest", "models/manifest.json")
    assert both.returncode == 2
    assert "a deployed stack loads the releases that it serves" in both.stderr
    done = run_ensemble(folder, "run", "-", stdin='{"warmup": true}')
    assert done.returncode == 2
    assert "run: ensemble warm" in done.stderr


# ---------------------------------------------------------------------------------------------------------- the page


def test_the_shown_session_runs_as_shown(project: Path) -> None:
    replay_session(project, shown_commands(*CONSOLE))


def test_the_shown_input_warms_up(cold: Stack) -> None:
    (shown,) = re.findall(r"start-execution .* --input '(.*)'", PAGE)
    assert wait(cold, start(cold, json.loads(shown)))["status"] == "SUCCEEDED"


def test_the_shown_cost_adds_up_and_is_computed_by_the_prices_of_the_batch() -> None:
    rows = re.findall(r"^\| ([^|*]+) \| ([^|]+) \| \$([\d.]+)[^|]* \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 9
    for what, much, price, dollars in rows:
        amount = float(re.findall(r"[\d,.]+(?= GB-s$|$)", much)[-1].replace(",", ""))
        units = 1 if what == "logs, GB" else 1e6
        assert float(dollars) == pytest.approx(amount * float(price) / units, abs=0.5e-4), what
    prices = {what: float(price) for what, _, price, _ in rows}
    assert prices["Lambda, time"] == prices["EXPRESS, time"] == pytest.approx(GB_SECOND * 1e6)
    assert prices["Lambda, requests"] == pytest.approx(REQUEST * 1e6)
    (together,) = re.findall(r"\*\*together\*\* .* \*\*([\d.]+)\*\*", PAGE)
    assert float(together) == pytest.approx(sum(float(dollars) for *_, dollars in rows), abs=0.005)
    sums = [much for what, much, *_ in rows if " = " in much and what != "logs, GB"]  # which turns KB into GB
    assert len(sums) == 3
    for one in sums:
        left, right = re.sub(r"[A-Za-z,]|-s", "", one).replace("×", "*").split("=")
        assert eval(left) == pytest.approx(float(right))  # noqa: S307 (the page's own, digits and signs)
