"""`ensemble batch` over whole datasets: the command line, the real state machine and handlers."""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from builders import X, manifest, member, model
from driving import ENSEMBLE, predict, run_ensemble
from stepensemble.batch.documents import Options, Request
from stepensemble.batch.report.summary import Summary
from stepensemble.batch.run_lock import list_finished
from stepensemble.cli.batch_runs import Progress, follow_run, start_run
from stepensemble.cli.stacks import Stack, local_stack
from stepensemble.core.aggregation.output import Output
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.local.stack import find_running
from stepensemble.local.state_database import StateDatabase
from stepensemble.publishing.golden import draw_rows
from stepensemble.storage.keys import BATCH, reports_folder
from stepensemble.storage.payload_pointers import follow_pointers

Row = dict[str, Any]
SMALL = ("--shard-size", "1KB")


@pytest.fixture(scope="module")
def rows(shared_project: Path) -> list[Row]:
    """Passengers; some of them are of an unknown age."""
    features = parse_manifest((shared_project / "models" / "manifest.json").read_bytes()).features
    drawn = draw_rows(features, 300)
    for row in drawn[::7]:
        row["Age"] = None
    return drawn


def write_jsonl(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def batch(project: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = run_ensemble(project, "batch", *arguments, "--json")
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def read_results(run: Mapping[str, Any], project: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(part) for part in sorted((project / run["folder"]).glob("part-*.parquet")))


def read_summary(run: Mapping[str, Any], project: Path) -> Summary:
    return msgspec.json.decode((project / run["folder"] / "summary.json").read_bytes(), type=Summary)


def read_rejected(run: Mapping[str, Any], project: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(part) for part in sorted((project / run["folder"]).glob("rejected-*.parquet")))


def test_the_same_rows_get_the_same_predictions_from_a_batch_and_an_execution(
    shared_project: Path, stack: Stack, rows: list[Row]
) -> None:
    run = batch(shared_project, str(write_jsonl(shared_project / "in" / "alike.jsonl", rows)), "--shard-size", "16KB")
    assert (run["status"], run["rows_in"], run["rows_out"], run["rows_rejected"]) == ("SUCCEEDED", 300, 300, 0)
    output = follow_pointers(stack.data, msgspec.convert(predict(stack, {"instances": rows}), Output))
    predictions: list[Row] = msgspec.to_builtins(output.predictions)
    results = read_results(run, shared_project)
    assert results["row"].to_list() == list(range(1, 301))
    for name in predictions[0]:
        assert results[name].to_list() == [prediction[name] for prediction in predictions], name
    for one in output.members:
        outputs = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in one.outputs or ()]
        assert results[f"{one.id}_output"].to_list() == outputs, one.id
    summary = read_summary(run, shared_project)
    assert summary.shards > 1
    assert [one.rows for one in summary.members] == [300] * len(output.members)
    for one, scored in zip(summary.members, output.members, strict=True):
        assert one.mean == pytest.approx(results[f"{scored.id}_value"].mean(), abs=1e-12)
    assert summary.labels == dict(results["label"].value_counts().iter_rows())
    assert summary.needs_review == output.needs_review


def test_every_format_is_read_and_written_alike(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    assert stack.local
    folder = shared_project / "in" / "formats"
    some = rows[:100]
    jsonl, text = write_jsonl(folder / "rows.jsonl", some), write_csv(folder / "rows.csv", some)
    pl.DataFrame(some, infer_schema_length=None).write_parquet(folder / "rows.parquet")
    for path in (jsonl, text):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    runs = [batch(shared_project, str(path), "--shard-size", "4KB") for path in sorted(folder.iterdir())]
    marked = folder / "marked.csv"  # with a byte order mark
    marked.write_bytes(b"\xef\xbb\xbf" + text.read_text().replace(",", ";").encode())
    runs.append(batch(shared_project, str(marked), "--separator", ";"))
    first, *others = (read_results(run, shared_project).drop("file") for run in runs)
    for other in others:
        assert other.equals(first)
    written = batch(shared_project, str(jsonl), "--format", "jsonl")
    part = (shared_project / written["folder"] / "part-00000.jsonl").read_text()
    assert [json.loads(line)["value"] for line in part.splitlines()] == first["value"].to_list()
    written = batch(shared_project, str(jsonl), "--format", "csv")
    part = (shared_project / written["folder"] / "part-00000.csv").read_text()
    assert [float(line["value"]) for line in csv.DictReader(io.StringIO(part))] == first["value"].to_list()


def test_rejections_have_the_messages_of_an_execution(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    assert stack.local
    wrong: list[Row] = [
        {**rows[0], "Age": "twenty-two"},
        {**rows[1], "Sex": "unknown", "Pclass": 4},
        {**rows[2], "Fare": -1},
        {key: value for key, value in rows[3].items() if key != "SibSp"},
        {**rows[4], "Parch": True},
    ]
    run = batch(shared_project, str(write_jsonl(shared_project / "in" / "wrong.jsonl", [*rows[:20], *wrong])))
    assert (run["rows_in"], run["rows_out"], run["rows_rejected"]) == (25, 20, 5)
    rejected = read_rejected(run, shared_project)
    assert rejected["row"].to_list() == [21, 22, 22, 23, 24, 25]
    done = run_ensemble(shared_project, "run", "-", stdin=json.dumps({"instances": wrong}))
    lines = [line.partition(": ")[2] for line in done.stderr.splitlines()[1:]]
    assert sorted(f"{reason}; {remedy}" for reason, remedy in rejected["reason", "remedy"].iter_rows()) == sorted(lines)
    assert read_summary(run, shared_project).rows_rejected == 5


def test_invalid_records_are_rejected_too(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    assert stack.local
    path = write_csv(shared_project / "in" / "records.csv", rows[:10])
    with path.open("ab") as file:
        file.write(b"1,female\n" + b'1,"never closed\n' + b"\xff" * 3 + b"\n")
    run = batch(shared_project, str(path))
    assert (run["rows_in"], run["rows_out"], run["rows_rejected"]) == (13, 10, 3)
    assert read_rejected(run, shared_project)["row"].to_list() == [11, 12, 13]


def test_a_quoted_newline_is_part_of_its_row_wherever_shards_are_cut(
    shared_project: Path, stack: Stack, rows: list[Row]
) -> None:
    assert stack.local
    note = 'line 1\nline 2, "quoted"\r\n'
    noted = [{**row, "note": f"{number}: " + note * (number % 5)} for number, row in enumerate(rows[:150])]
    path = write_csv(shared_project / "in" / "noted.csv", noted)
    small = batch(shared_project, str(path), "--keep", "note", *SMALL)
    whole = batch(shared_project, str(path), "--keep", "note")
    assert read_summary(small, shared_project).shards > 10
    assert read_summary(whole, shared_project).shards == 1
    assert small["run"] != whole["run"]
    results = read_results(small, shared_project)
    assert results.equals(read_results(whole, shared_project))
    assert results["note"].to_list() == [row["note"] for row in noted]


def test_id_and_label_columns_are_in_the_results(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    assert stack.local
    labelled = [{"PassengerId": f"p-{n}", **row, "Survived": n % 2} for n, row in enumerate(rows)]
    path = write_csv(shared_project / "in" / "labelled.csv", labelled)
    run = batch(shared_project, str(path), "--id", "PassengerId", "--label", "Survived", "--shard-size", "4KB")
    results, summary = read_results(run, shared_project), read_summary(run, shared_project)
    assert results["id"].to_list() == [row["PassengerId"] for row in labelled]
    right = (results["label"] == results["truth"]).mean()
    brier = ((results["value"] - (results["truth"] == "survived")) ** 2).mean()
    assert summary.calibration is not None
    ensemble = summary.calibration.ensemble
    assert (ensemble.rows, ensemble.accuracy) == (300, right)
    assert ensemble.brier_score == pytest.approx(brier, abs=1e-12)


def test_a_repeated_request_is_one_run(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    assert stack.local
    path = write_jsonl(shared_project / "in" / "again.jsonl", rows)
    first, second = (batch(shared_project, str(path), "--date", "2026-03-01") for _ in range(2))
    assert (first["mode"], second["mode"]) == ("new", "returned")
    assert {key: first[key] for key in ("run", "results", "summary", "rows_out")} == {
        key: second[key] for key in ("run", "results", "summary", "rows_out")
    }
    other = batch(shared_project, str(path), "--date", "2026-03-02")
    assert (other["mode"], other["run"] == first["run"]) == ("new", False)
    assert not [key for key in (listed.key for listed in stack.data.list(f"{BATCH}{first['run']}/")) if "/part/" in key]


def test_two_concurrent_requests_have_one_result(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    path = write_jsonl(shared_project / "in" / "twice.jsonl", rows[:100])
    command = [ENSEMBLE, "batch", str(path), *SMALL, "--date", "2026-03-01", "--json"]
    both = [subprocess.Popen(command, cwd=shared_project, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    runs = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert len({run["run"] for run in runs}) == 1
    assert sorted(run["mode"] for run in runs) in (["joined", "new"], ["new", "returned"])
    assert [run["rows_out"] for run in runs] == [100, 100]
    results = [listed.key for listed in stack.data.list("results/") if f"run={runs[0]['run']}/" in listed.key]
    assert len(results) == read_summary(runs[0], shared_project).shards + 1  # and _SUCCESS


def test_a_run_continues_when_the_command_is_interrupted(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    path = write_jsonl(shared_project / "in" / "interrupted.jsonl", rows[::-1])
    others = {listed.key.split("/")[1] for listed in stack.data.list(BATCH)}
    command = [ENSEMBLE, "batch", str(path), *SMALL, "--date", "2026-03-01", "--json"]
    with subprocess.Popen(command, cwd=shared_project, stderr=subprocess.PIPE, text=True) as process:
        run = wait_for_reports(stack, others, 1)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run continues; the same command joins it" in output
    again = batch(shared_project, str(path), *SMALL, "--date", "2026-03-01")
    assert again["run"] == run
    assert again["mode"] in {"joined", "returned"}


def test_several_days_are_a_run_each_and_compared_with_the_day_before(
    shared_project: Path, stack: Stack, rows: list[Row]
) -> None:
    assert stack.local
    days = ["2027-05-01", "2027-05-02", "2027-05-03"]
    for number, day in enumerate(days):
        write_jsonl(shared_project / "in" / "days" / f"dt={day}" / "a.jsonl", rows[100 * number : 100 * number + 100])
    done = batch(shared_project, "in/days", "--from", days[0], "--to", days[-1])
    assert [run["date"] for run in done["runs"]] == days
    assert [run["rows_out"] for run in done["runs"]] == [100] * 3
    last = read_summary(done["runs"][-1], shared_project)
    assert last.previous_summary is not None
    assert f"dt={days[1]}/" in last.previous_summary
    assert last.drift is not None
    assert last.drift.features.keys() >= {"Age", "Fare", "Sex"}
    assert all(index is not None and index < 1 for index in (last.drift.prediction, *last.drift.features.values()))
    named = batch(shared_project, "in/days/dt={date}/a.jsonl", "--date", days[1])
    assert named["rows_out"] == 100


def test_an_empty_dataset_is_a_run_of_no_rows_and_a_missing_one_is_an_error(
    shared_project: Path, stack: Stack, rows: list[Row]
) -> None:
    header = ",".join(rows[0]) + "\n"
    (shared_project / "in" / "empty.csv").write_text(header)
    run = batch(shared_project, "in/empty.csv")
    assert (run["status"], run["rows_in"], run["rows_out"]) == ("SUCCEEDED", 0, 0)
    missing = batch(shared_project, f"s3://{stack.data.name}/inbox/nothing.csv", code=1)
    assert (missing["status"], missing["error"]) == ("FAILED", "DatasetMissing")
    assert "inbox/nothing.csv does not exist" in missing["cause"]
    unlike = batch(shared_project, str(write_csv(shared_project / "in" / "unlike.csv", [{"Klass": 1}])), code=1)
    assert unlike["error"] == "DatasetRefused"
    assert "Sex" in unlike["cause"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "nowhere.csv does not exist"),
        (["events", "--from", "2026-03-01", "--to", "2026-03-02"], "give every day a dataset of its own"),
        (["nothing"], "nothing has no files"),
        (["events", "--shard-size", "tiny"], "tiny is not a size"),
        (["events", "--max-rejected", "120%"], "is not a share"),
        (["events", "--release", "abc", "--manifest", "models/manifest.json"], "leave one out"),
    ],
)
def test_wrong_usage_is_reported_before_anything_starts(
    shared_project: Path, arguments: list[str], message: str
) -> None:
    (shared_project / "nothing").mkdir(exist_ok=True)
    done = run_ensemble(shared_project, "batch", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_too_many_rejected_rows_fail_the_run_and_are_shown(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    assert stack.local
    half = [{**row, "Age": "old"} if number % 2 else row for number, row in enumerate(rows[:100])]
    path = write_jsonl(shared_project / "in" / "half.jsonl", half)
    done = run_ensemble(shared_project, "batch", str(path), "--max-rejected", "10%")
    assert done.returncode == 1
    assert "BatchFailed 50 of 100 rows were rejected (50.0%), and max_rejected is 10.0%" in done.stderr
    run = batch(shared_project, str(path), "--max-rejected", "10%", code=1)
    folder = shared_project / run["folder"]
    assert folder.name.endswith(".failed")
    counted = {name: run[f"rows_{name}"] for name in ("in", "out", "rejected", "failed")}
    assert counted == {"in": 100, "out": 50, "rejected": 50, "failed": 0}
    assert (run["status"], run["results"]) == ("FAILED", None)
    assert read_rejected(run, shared_project)["row"].to_list() == list(range(2, 101, 2))
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not list(folder.glob("part-*"))
    assert batch(shared_project, str(path), "--max-rejected", "0.5")["rows_out"] == 50


def test_a_member_without_output_for_one_row_is_missing_in_that_row_only(
    shared_project: Path, stack: Stack, tmp_path: Path
) -> None:
    assert stack.local
    # ln x and x / 2 + 2; a negative number has no logarithm.
    members = member("half"), member("log", "logarithm")
    data = manifest(*members, features=[X], quorum={"min_members": 1}, golden=[{"x": 1}])
    for name in ("half_plus_two", "logarithm"):
        (tmp_path / f"{name}.tflite").write_bytes(model(name))
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"x": 1.0}, {"x": 2.0}])
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"x": -1.0}, {"x": 2.0}])
    try:
        run = batch(shared_project, str(tmp_path / "in"), "--manifest", str(tmp_path / "manifest.json"))
    finally:  # other tests use the stack, too
        assert run_ensemble(shared_project, "publish", "--replace").returncode == 0
    results, summary = read_results(run, shared_project), read_summary(run, shared_project)
    assert results["status"].to_list() == ["COMPLETE", "COMPLETE", "DEGRADED", "COMPLETE"]
    assert results["log_status"].to_list() == ["ok", "ok", "failed", "ok"]
    assert results["value"].to_list()[2:] == pytest.approx([1.5, (3 + math.log(2)) / 2])
    assert summary.statuses == {"COMPLETE": 3, "DEGRADED": 1}
    half, log = summary.members
    assert (half.rows, half.unusable, half.failures) == (4, 0, {})
    assert (log.rows, log.unusable, log.failures) == (3, 1, {})


def test_the_printed_text_is_complete(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    assert stack.local
    path = write_jsonl(shared_project / "in" / "seen.jsonl", [*rows[:50], {**rows[50], "Age": "old"}])
    done = run_ensemble(shared_project, "batch", str(path), "--output", "mine")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "rows 51 in, 50 predicted" in lines
    assert any(line.startswith("rejected 1: Age ") for line in lines)
    assert any(line.startswith("status SUCCEEDED run ") for line in lines)
    (report,) = (shared_project / "mine").rglob("report.html")
    assert any(line.startswith("report ") and line.endswith("/report.html") for line in lines)
    assert report.stat().st_size > 0


def test_plans_notes_on_columns_are_reported_while_the_shards_run(
    shared_project: Path, stack: Stack, rows: list[Row]
) -> None:
    noted = [{key: value for key, value in row.items() if key != "Embarked"} | {"Cabin": "C85"} for row in rows[:150]]
    path = write_csv(shared_project / "in" / "noted-columns.csv", noted)
    unused = 'not used: "Cabin"; --keep copies a column to the results'
    missing = '"Embarked" is in no file: its default in the manifest is used'
    seen = run_ensemble(shared_project, "batch", str(path), *SMALL, "--date", "2026-03-01")
    assert seen.stderr.splitlines() == [f"note {unused}", f"note {missing}"]
    returned = batch(shared_project, str(path), *SMALL, "--date", "2026-03-01")
    assert (returned["mode"], returned["notes"]) == ("returned", [unused, missing])
    page = (shared_project / returned["folder"] / "report.html").read_text()
    assert html.escape(unused) in page
    assert html.escape(missing) in page
    request = Request(
        dataset=stack.data.pointer(f"inbox/{path.name}").s3, date="2026-03-02", options=Options(shard_size=1024)
    )
    stack.data.write(f"inbox/{path.name}", path.read_bytes())
    messages: list[str | Progress] = []
    follow_run(stack, start_run(stack, request), messages.append, messages.append)
    assert messages[:2] == [unused, missing]
    assert any(isinstance(one, Progress) and one.finished < one.shards for one in messages[2:])


def test_the_transitions_that_are_counted_are_those_of_the_history(
    shared_project: Path, stack: Stack, rows: list[Row]
) -> None:
    run = batch(shared_project, str(write_jsonl(shared_project / "in" / "counted.jsonl", rows)), "--shard-size", "8KB")
    summary = read_summary(run, shared_project)
    client = stack.step_functions

    def count(execution: str) -> int:
        pages = client.get_paginator("get_execution_history").paginate(executionArn=execution)
        return sum("stateEnteredEventDetails" in event for page in pages for event in page["events"])

    # A child of the Distributed Map has no separate history here: the shards' share is from the formula only.
    assert count(run["execution"]) == summary.cost.state_transitions - (4 + 3 + 4) * summary.shards


def test_the_schedule_starts_the_days_run(shared_project: Path, stack: Stack, rows: list[Row]) -> None:
    shown = json.loads(run_ensemble(shared_project, "schedule", "--json").stdout)
    assert shown["state"] == "DISABLED"
    assert len(shown["next"]) == 5
    assert shown["target"] == stack.batch_machine
    place = shown["input"]["dataset"].replace("{date}", "2026-03-01").removeprefix(f"s3://{stack.data.name}/")
    stack.data.write(f"{place}passengers.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    fired = run_ensemble(shared_project, "schedule", "fire", "--at", "2026-03-01T05:00:00Z", "--json")
    assert fired.returncode == 0, fired.stderr
    run = json.loads(fired.stdout)
    assert (run["status"], run["date"], run["rows_out"], run["mode"]) == ("SUCCEEDED", "2026-03-01", 300, "new")
    late = run_ensemble(shared_project, "schedule", "fire", "--at", "2026-03-01T23:00:00Z", "--json")
    again = json.loads(late.stdout)
    assert (again["run"], again["mode"]) == (run["run"], "returned")
    missing = run_ensemble(shared_project, "schedule", "fire", "--at", "2026-03-02T05:00:00Z")
    assert missing.returncode == 1
    assert "DatasetMissing" in missing.stderr
    lines = run_ensemble(shared_project, "schedule").stdout.splitlines()
    assert lines[1].split() == ["state", "disabled"]


@pytest.fixture
def detached(project: Path) -> Iterator[Path]:
    """A project whose local stack runs in another process."""
    assert run_ensemble(project, "local", "--detach").returncode == 0
    yield project
    run_ensemble(project, "local", "stop")


def test_a_run_that_was_killed_is_resumed_without_the_shards_that_were_finished(
    detached: Path, rows: list[Row]
) -> None:
    opened, pid = find_stack(detached)
    path = write_jsonl(detached / "in" / "killed.jsonl", rows[:150])
    expected = batch(detached, str(path), "--date", "2026-03-01", *SMALL)
    command = [ENSEMBLE, "batch", str(path), "--date", "2026-03-02", *SMALL, "--json"]
    with subprocess.Popen(command, cwd=detached, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        run = wait_for_reports(opened, {expected["run"]}, 3)
        children = list_children(pid)
        for each in (children[0], pid, *children[1:]):
            os.kill(each, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == 1
    finished = count_kept(detached, reports_folder(run))
    assert run_ensemble(detached, "local", "--detach").returncode == 0
    again = batch(detached, str(path), "--date", "2026-03-02", *SMALL)
    assert (again["run"], again["mode"]) == (run, "resumed")
    assert read_results(again, detached).equals(read_results(expected, detached))
    summary = read_summary(again, detached)
    assert (summary.attempt, summary.rows_out) == (2, 150)
    started = count_items(find_stack(detached)[0], again["execution"])
    assert 0 < started == summary.shards - finished


def find_stack(project: Path) -> tuple[Stack, int]:
    """Return the local stack of a project, and its process."""
    running = find_running(project / ".stepensemble")
    assert running is not None
    return local_stack(running.name, running.endpoint), running.pid


def wait_for_reports(stack: Stack, others: set[str], many: int) -> str:
    """Wait until so many shards of a run are finished; return its name."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for run in {listed.key.split("/")[1] for listed in stack.data.list(BATCH)} - others:
            if len(list_finished(stack.data, run)) >= many:
                return run
        time.sleep(0.02)
    raise AssertionError("no shard is finished")


def count_kept(project: Path, folder: str) -> int:
    """Return how many objects under a folder are stored after the stack has ended."""
    database = StateDatabase(project / ".stepensemble" / "state.db")
    try:
        return sum(kept.key.startswith(folder) for kept in database.objects())
    finally:
        database.close()


def list_children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    listed = subprocess.run(["ps", "-ax", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607 (ps is on every PATH)
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


def count_items(stack: Stack, execution: str) -> int:
    """Return how many shards an execution processed."""
    (run,) = stack.step_functions.list_map_runs(executionArn=execution)["mapRuns"]
    return stack.step_functions.describe_map_run(mapRunArn=run["mapRunArn"])["itemCounts"]["total"]
