"""The command line, as a person uses it in a project folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from driving import ENSEMBLE, run_ensemble
from expected_events import list_events, without_volatile
from written import assert_as_written

EARLIER_NAME = "note this command is now named reviews; run: ensemble reviews\n"
"""What `ensemble events` prints on standard error."""


@pytest.fixture(scope="module")
def served(shared_project: Path, stack: object) -> Path:
    """A project folder whose local stack is running, so that each command is fast."""
    assert stack is not None
    return shared_project


def test_run_prints_a_line_for_each_member_then_the_prediction(served: Path) -> None:
    done = run_ensemble(served, "run", "events/passenger.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for member in ("linear", "wide", "deep", "wide_and_deep"):
        line = next(line for line in lines if line.startswith(f"{member} "))
        assert line.rstrip().endswith("ok")
        assert "█" in line or "░" in line
    expected = json.loads((served / "events" / "passenger.output.json").read_text())["predictions"][0]
    prediction = next(line for line in lines if line.startswith("prediction"))
    assert expected["label"] in prediction
    assert f"{expected['value']:.3f}" in prediction
    assert any(line.startswith("status      COMPLETE") for line in lines)


@pytest.mark.parametrize("event", ["passenger", "passengers"])
def test_run_json_prints_exactly_the_output(served: Path, event: str) -> None:
    done = run_ensemble(served, "run", f"events/{event}.json", "--json")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    expected = json.loads((served / "events" / f"{event}.output.json").read_text())
    assert_as_written(without_volatile(output), expected)


def test_run_reads_standard_input(served: Path) -> None:
    text = (served / "events" / "passenger.json").read_text()
    done = run_ensemble(served, "run", "-", "--json", stdin=text)
    assert json.loads(done.stdout)["status"] == "COMPLETE"


@pytest.mark.parametrize("event", [path.name for path in list_events("bad-") if path.stem != "bad-not-json"])
def test_a_bad_event_fails_with_the_error_beside_it(served: Path, event: str) -> None:
    expected = json.loads((served / "events" / event).with_suffix(".error.json").read_text())
    done = run_ensemble(served, "run", f"events/{event}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.split() == f"{expected['error']} {expected['cause']}".split()
    as_json = run_ensemble(served, "run", f"events/{event}", "--json")
    assert as_json.returncode == 1
    document = json.loads(as_json.stdout)
    assert (document["status"], document["error"], document["cause"]) == (
        "FAILED",
        expected["error"],
        expected["cause"],
    )


def test_an_event_that_is_not_json_is_wrong_usage(served: Path) -> None:
    expected = json.loads((served / "events" / "bad-not-json.error.json").read_text())["cause"]
    done = run_ensemble(served, "run", "events/bad-not-json.json")
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e999"])
def test_an_invalid_json_number_is_not_read_as_a_missing_value(served: Path, number: str) -> None:
    text = (served / "events" / "passenger.json").read_text().replace('"Age": 22', f'"Age": {number}')
    done = run_ensemble(served, "run", "-", stdin=text)
    assert done.returncode == 2
    assert f"{number} is not a finite number" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "events/missing.json"), "cannot be read: No such file"),
        (("run", "events/passenger.json", "--manifest", "nowhere.json"), "nowhere.json does not exist"),
        (("check", "nowhere.json"), "nowhere.json does not exist"),
        (("run", "examples/titanic/passengers.csv"), "is a dataset, and `run` takes one JSON document"),
        (("batch", "examples/titanic/passengers.csv", "--label-values", "names"), "there are no labels to read"),
        (("run",), "Missing argument"),
        (("records", "--limit", "0"), "--limit"),
        (("reviews", "--limit", "0"), "--limit"),
        (("dance",), "No such command"),
    ],
)
def test_wrong_usage_exits_2_and_gives_the_reason(served: Path, arguments: tuple[str, ...], complaint: str) -> None:
    done = run_ensemble(served, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_show_reads_a_record_back_and_records_lists_it(served: Path) -> None:
    output = json.loads(run_ensemble(served, "run", "events/passengers.json", "--json").stdout)
    record = json.loads(run_ensemble(served, "show", output["prediction_id"], "--json").stdout)
    assert record["output"] == output
    event = json.loads((served / "events" / "passengers.json").read_text())
    assert record["input"] == {"instances": event["instances"]}
    assert record["metadata"] == event["metadata"]
    listed = json.loads(run_ensemble(served, "records", "--json").stdout)
    assert output["prediction_id"] in [summary["prediction_id"] for summary in listed]
    drawn = run_ensemble(served, "show", output["prediction_id"])
    assert "wide_and_deep" in drawn.stdout
    assert "COMPLETE" in drawn.stdout


def test_reviews_lists_the_predictions_of_earlier_runs_that_need_a_review(project: Path) -> None:
    path = project / "models" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "review": {"max_spread": 0}}))
    assert run_ensemble(project, "reviews").stdout.strip() == "no prediction needs a review"
    outputs = [
        json.loads(run_ensemble(project, "run", f"events/{name}.json", "--json").stdout)
        for name in ("passenger", "passengers")
    ]
    # Each of these commands started its own stack.
    assert run_ensemble(project, "local", "--detach").returncode == 0
    try:
        listed = json.loads(run_ensemble(project, "reviews", "--json").stdout)
        latest = json.loads(run_ensemble(project, "reviews", "--limit", "1", "--json").stdout)
        drawn = run_ensemble(project, "reviews").stdout.splitlines()
        recorded = json.loads(run_ensemble(project, "records", "--json").stdout)
        earlier = run_ensemble(project, "events", "--json")
    finally:
        run_ensemble(project, "local", "stop")
    expected = [(output["prediction_id"], output["needs_review"], output["release"]) for output in reversed(outputs)]
    assert [(one["prediction_id"], one["needs_review"], one["release"]) for one in listed] == expected
    assert [one["needs_review"] for one in listed] == [8, 1]  # no two members ever have the same output
    assert set(listed[0]) == {"id", "time", "prediction_id", "release", "status", "needs_review", "execution"}
    assert listed[0]["execution"].endswith(f":{outputs[1]['prediction_id']}")
    assert latest == listed[:1]
    assert [line.split()[0] for line in drawn[1:]] == [one["prediction_id"] for one in listed]
    assert (json.loads(earlier.stdout), earlier.stderr) == (listed, EARLIER_NAME)
    # The records are stored longer than the stacks run, too.
    assert [summary["prediction_id"] for summary in recorded] == [one[0] for one in expected]


def test_show_of_an_unknown_id_reports_it(served: Path) -> None:
    done = run_ensemble(served, "show", "never")
    assert done.returncode == 1
    assert 'no record is stored for "never"' in done.stderr


def test_check_lists_every_problem_at_once(project: Path) -> None:
    path = project / "models" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["members"][0]["wieght"] = manifest["members"][0].pop("weight")
    manifest["members"][1]["artifact"] = "titanic/nowhere.tflite"
    manifest["features"][0]["vocabulary"] = []
    path.write_text(json.dumps(manifest))
    done = run_ensemble(project, "check", "--json")
    assert done.returncode == 1
    problems = json.loads(done.stdout)["problems"]
    assert {problem["path"] for problem in problems} == {"$.members[0].wieght", "$.features[0].vocabulary"}
    assert 'did you mean "weight"?' in next(p["remedy"] for p in problems if p["path"].endswith("wieght"))


def test_check_loads_and_invokes_the_artifacts(project: Path) -> None:
    assert run_ensemble(project, "check").returncode == 0
    (project / "models" / "titanic" / "wide.tflite").write_bytes(b"not a model")
    done = run_ensemble(project, "check")
    assert done.returncode == 1
    assert "ModelRefused" in done.stderr
    assert "wide" in done.stderr


def test_a_model_takes_part_once_it_is_in_the_manifest(served: Path) -> None:
    path = served / "models" / "manifest.json"
    text = path.read_text()
    manifest = json.loads(text)
    fifth = {**next(member for member in manifest["members"] if member["id"] == "linear")}
    manifest["members"].append({**fifth, "id": "fifth", "artifact": "titanic/fifth.tflite"})
    before = json.loads(run_ensemble(served, "run", "events/passenger.json", "--json").stdout)
    try:
        shutil.copy(served / "models" / "titanic" / "linear.tflite", served / "models" / "titanic" / "fifth.tflite")
        path.write_text(json.dumps(manifest, indent=2))
        after = json.loads(run_ensemble(served, "run", "events/passenger.json", "--json").stdout)
    finally:
        path.write_text(text)
        assert run_ensemble(served, "publish").returncode == 0
    assert len(before["members"]) == 4
    assert [member["id"] for member in after["members"]][-1] == "fifth"
    outputs = [member["outputs"][0] for member in after["members"]]
    assert after["predictions"][0]["value"] == pytest.approx(sum(outputs) / 5, rel=1e-12)


def test_another_manifest_is_another_ensemble(served: Path) -> None:
    manifest = json.loads((served / "models" / "manifest.json").read_text())
    manifest["members"] = manifest["members"][:2]
    manifest["quorum"] = {"min_members": 1}
    other = served / "models" / "two.json"
    other.write_text(json.dumps(manifest))
    output = json.loads(run_ensemble(served, "run", "events/passenger.json", "--manifest", str(other), "--json").stdout)
    assert len(output["members"]) == 2
    again = run_ensemble(served, "run", "events/passenger.json", "--json")
    assert len(json.loads(again.stdout)["members"]) == 2  # it is current now
    assert "to make it current: ensemble publish" in again.stderr
    assert run_ensemble(served, "publish").returncode == 0
    again = run_ensemble(served, "run", "events/passenger.json", "--json")
    assert len(json.loads(again.stdout)["members"]) == 4


def test_publish_is_idempotent(served: Path) -> None:
    first = json.loads(run_ensemble(served, "publish", "--json").stdout)
    second = json.loads(run_ensemble(served, "publish", "--json").stdout)
    assert second == {**first, "previous": first["release"], "changed": False, "uploaded": []}


def test_local_detached_serves_until_stopped(project: Path) -> None:
    done = run_ensemble(project, "local", "--detach", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    description = json.loads(line)
    try:
        assert description["endpoint"].startswith("http://127.0.0.1:")
        assert description["http"].startswith("http://127.0.0.1:")
        assert set(description["state_machines"]) == {"standard", "express"}
        again = run_ensemble(project, "local", "--json")
        assert again.returncode == 1
        assert "runs already" in again.stderr
        output = json.loads(run_ensemble(project, "run", "events/passenger.json", "--json").stdout)
        assert output["release"] == description["release"]
    finally:
        stopped = run_ensemble(project, "local", "stop")
    assert stopped.stdout.strip() == "stopped"
    assert not _alive(description["pid"])
    assert run_ensemble(project, "local", "stop").stdout.strip() == "no local stack is running"


def test_no_process_is_left_and_the_next_stack_starts(project: Path) -> None:
    for ending in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [ENSEMBLE, "local", "--json"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["endpoint"]
        # So that every function has a process.
        assert run_ensemble(project, "run", "events/passenger.json").returncode == 0
        children = _descendants(process.pid)
        assert children
        process.send_signal(ending)
        process.wait(timeout=60)
        wait_for_end(children)


def test_two_commands_at_once_both_succeed(project: Path) -> None:
    processes = [
        subprocess.Popen(
            [ENSEMBLE, "run", "events/passenger.json", "--json"],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ids = set()
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        ids.add(json.loads(stdout)["prediction_id"])
    listed = json.loads(run_ensemble(project, "records", "--json").stdout)
    assert {summary["prediction_id"] for summary in listed} == ids


def test_fresh_removes_the_records_and_fixes_a_damaged_state(project: Path) -> None:
    first = json.loads(run_ensemble(project, "run", "events/passenger.json", "--json").stdout)
    (project / ".stepensemble" / "state.db").write_bytes(b"no database")
    rejected = run_ensemble(project, "records")
    assert rejected.returncode == 1
    assert "state.db is damaged" in rejected.stderr
    assert "--fresh" not in rejected.stderr  # it would remove records that can still be saved
    second = json.loads(run_ensemble(project, "run", "events/passenger.json", "--fresh", "--json").stdout)
    listed = json.loads(run_ensemble(project, "records", "--json").stdout)
    assert [summary["prediction_id"] for summary in listed] == [second["prediction_id"]] != [first["prediction_id"]]


def test_fresh_empties_neither_a_running_nor_a_deployed_stack(served: Path) -> None:
    running = run_ensemble(served, "run", "events/passenger.json", "--fresh")
    assert running.returncode == 1
    assert "ensemble local stop" in running.stderr
    assert run_ensemble(served, "run", "events/passenger.json", "--fresh", "--stack", "prod").returncode == 2


def test_outside_a_project_the_error_names_the_remedy(tmp_path: Path) -> None:
    done = run_ensemble(tmp_path, "records")
    assert done.returncode == 1
    assert "template.yaml" in done.stderr
    assert "--stack" in done.stderr


def wait_for_end(processes: list[int], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while left := [pid for pid in processes if _alive(pid)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


def _descendants(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines()[1:])}
    found = [pid]
    for child in sorted(parents):
        if parents[child] in found:
            found.append(child)
    return found[1:]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" if Path("/proc").is_dir() else True
