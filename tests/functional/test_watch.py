"""`ensemble watch` on the local stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from driving import ENSEMBLE, run_ensemble
from stepensemble.cli import folder_watch
from stepensemble.cli.folder_watch import UPLOADS, Watch
from stepensemble.cli.stacks import Stack

PASSENGER = {"Pclass": 3, "Sex": "male", "Age": 22, "SibSp": 1, "Parch": 0, "Fare": 7.25, "Embarked": "S"}
GOOD = json.dumps({"features": PASSENGER})
CSV = pl.DataFrame([PASSENGER, {**PASSENGER, "Sex": "female"}]).write_csv()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "dropped"
    made.mkdir()
    return made


def drop(folder: Path, name: str, text: str = GOOD) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def watch(project: Path, folder: Path, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Watch a folder once, and return what is printed by the names of the files."""
    done = run_ensemble(project, "watch", str(folder), "--once", "--json", *arguments)
    assert done.returncode == code, done.stderr + done.stdout
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({line["file"] for line in lines}) == len(lines)
    return {line["file"]: line for line in lines}


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the condition does not hold in time"
        time.sleep(0.02)


def files(folder: Path) -> set[str]:
    """Return the responses in an outbox, without the note of uploads and without runs' results."""
    found = (path.relative_to(folder) for path in folder.rglob("*.json"))
    return {path.as_posix() for path in found if path.parts[0] != "results" and path.name != UPLOADS}


def list_responses(stack: Stack, name: str) -> list[str]:
    """Return the keys of the responses to an object's versions in the bucket's outbox."""
    keys = (listed.key for listed in stack.data.list("outbox/"))
    versioned = (key for key in keys if key.startswith(f"outbox/{name}.") and key.count("-") >= 4)
    return sorted(versioned)


# ------------------------------------------------------------------------------------------------------- once


def test_every_file_gets_a_response_once_and_again_when_it_changes(
    shared_project: Path, stack: Stack, folder: Path
) -> None:
    good = ["a.json", "deep/er/ü b+%#?.json"]
    for name in good:
        drop(folder, name)
    bad = drop(folder, "bad.json", "[]")
    drop(folder, "rows.csv", CSV)
    for hidden in (".hidden.json", ".git/a.json", "deep/.b.json", "a\nb.json"):
        drop(folder, hidden)
    (folder / os.fsdecode(b"\xff.json")).write_text(GOOD)
    os.utime(drop(folder, "future.json"), (2**33, 2**33))  # a modification time in the future
    outbox = folder / "outbox"

    lines = watch(shared_project, folder, code=1)
    assert lines.keys() == {*good, "bad.json", "rows.csv", "future.json"}
    expected = {f"{name}.json" for name in [*good, "rows.csv", "future.json"]}
    assert files(outbox) == expected | {"bad.json.error.json"}
    for name, line in lines.items():
        document = json.loads(Path(line["response"]).read_text())
        assert {key: line[key] for key in document} == document
        assert document["object"]["key"] == f"inbox/{name}"
    assert (lines["bad.json"]["error"], lines["a.json"]["predictions"][0]["label"]) == ("InvalidPayload", "died")
    run = lines["rows.csv"]
    (part,) = (outbox / "results").rglob("part-*.parquet")
    assert f"run={run['run']}" in part.parts
    values = pl.read_parquet(part)["value"].to_list()
    assert values[0] == pytest.approx(lines["a.json"]["predictions"][0]["value"])
    assert len(values) == run["rows_out"] == 2
    assert list((outbox / "results").rglob("report.html"))

    before = {path: path.read_bytes() for path in outbox.rglob("*") if path.is_file()}
    assert watch(shared_project, folder) == {}
    assert {path: path.read_bytes() for path in outbox.rglob("*") if path.is_file()} == before

    bad.write_text(GOOD)
    assert watch(shared_project, folder).keys() == {"bad.json"}
    assert files(outbox) == expected | {"bad.json.json"}
    bad.write_text("{")
    assert watch(shared_project, folder, code=1)["bad.json"]["error"] == "InboxObjectRefused"
    assert files(outbox) == expected | {"bad.json.error.json"}
    assert [json.loads((outbox / UPLOADS).read_text()), len(list_responses(stack, "a.json"))] == [{}, 1]


def test_an_empty_folder_is_done_at_once(shared_project: Path, stack: Stack, folder: Path) -> None:
    assert stack.local
    assert watch(shared_project, folder) == {}


def test_the_stacks_state_is_its_owners(shared_project: Path, stack: Stack) -> None:
    assert stack.local
    state = shared_project / ".stepensemble"
    assert [path.stat().st_mode & 0o077 for path in (state, state / "state.db")] == [0, 0]


def test_responses_go_to_the_given_outbox_and_one_line_is_printed_per_file(
    shared_project: Path, stack: Stack, folder: Path, tmp_path: Path
) -> None:
    assert stack.local
    drop(folder, "good.json")
    drop(folder, "bad.txt")
    drop(folder, "rows.csv", CSV)
    out = tmp_path / "responses"
    done = run_ensemble(shared_project, "watch", str(folder), "--once", "--outbox", str(out))
    assert done.returncode == 1, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines.keys() == {"good.json", "bad.txt", "rows.csv"}
    assert "died" in lines["good.json"]
    assert "InboxObjectRefused" in lines["bad.txt"]
    assert "2 rows" in lines["rows.csv"]
    assert files(out) == {"good.json.json", "bad.txt.error.json", "rows.csv.json"}
    assert not (folder / "outbox").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "is not a folder"),
        ((".", "--manifest", "m.json", "--stack", "s"), "leave one out"),
        ((), "Missing argument"),
    ],
)
def test_wrong_usage_exits_2(shared_project: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run_ensemble(shared_project, "watch", "--once", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())


# ------------------------------------------------------------------------------------------------ while it runs


def pass_time(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Call a function between two scans of the folder, which no clock could guarantee."""

    def sleep(seconds: float) -> None:
        happens()
        time.sleep(seconds)

    monkeypatch.setattr(folder_watch, "time", SimpleNamespace(sleep=sleep))


def test_a_file_that_is_still_written_is_sent_when_it_stops_changing(
    stack: Stack, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drop(folder, "slow.json", GOOD[:20])
    pieces = [GOOD[start : start + 20] for start in range(20, len(GOOD), 20)]
    assert len(pieces) > 2

    def write() -> None:
        if pieces:
            with path.open("a") as file:
                file.write(pieces.pop(0))

    pass_time(monkeypatch, write)
    left: list[int] = []
    watched = Watch(stack, folder, folder / "outbox")
    (response,) = watched.responses(once=True, on_upload=lambda _: left.append(len(pieces)))
    assert left == [0]
    assert not response.failed
    assert len(list_responses(stack, "slow.json")) == 1


def test_a_file_that_is_changed_while_it_is_predicted_is_sent_again(
    stack: Stack, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, started = drop(folder, "changed.json", "[]"), []

    def change() -> None:
        if started == ["changed.json"] and path.read_text() == "[]":
            path.write_text(GOOD)

    pass_time(monkeypatch, change)
    watched = Watch(stack, folder, folder / "outbox")
    # Responses are held back until the file has changed: the stack might respond before the next scan.
    monkeypatch.setattr(Watch, "_fetch", delay_fetch(Watch._fetch, lambda: path.read_text() == GOOD))
    first, second = watched.responses(once=True, on_upload=started.append)
    assert (first.failed, second.failed) == (True, False)
    assert files(folder / "outbox") == {"changed.json.json"}


def delay_fetch(fetch: Any, ready: Callable[[], bool]) -> Any:
    return lambda self, name, upload: fetch(self, name, upload) if ready() else None


def test_the_responses_to_a_killed_commands_uploads_are_awaited(stack: Stack, folder: Path) -> None:
    for name in ("killed/1.json", "killed/2.json"):
        drop(folder, name)

    def stop_at_the_second(name: str) -> None:
        if name.endswith("2.json"):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        list(Watch(stack, folder, folder / "outbox").responses(once=True, on_upload=stop_at_the_second))
    noted = json.loads((folder / "outbox" / UPLOADS).read_text())
    assert list(noted) == ["killed/1.json"]
    started: list[str] = []
    done = {
        one.name: one for one in Watch(stack, folder, folder / "outbox").responses(once=True, on_upload=started.append)
    }
    assert started == ["killed/2.json"]
    assert done["killed/1.json"].document["object"]["version_id"] == noted["killed/1.json"]["version"]
    assert [len(list_responses(stack, name)) for name in done] == [1, 1]


def test_a_damaged_note_of_uploads_is_ignored(stack: Stack, folder: Path) -> None:
    drop(folder, "noted.json")
    drop(folder, f"outbox/{UPLOADS}", '{"noted.json":')
    (response,) = Watch(stack, folder, folder / "outbox").responses(once=True)
    assert response.name == "noted.json"


def test_watch_runs_until_it_is_interrupted(shared_project: Path, stack: Stack, folder: Path) -> None:
    assert stack.local
    command = [ENSEMBLE, "watch", str(folder)]
    environment = os.environ | {"COLUMNS": "160", "NO_COLOR": "1"}
    with subprocess.Popen(
        command, cwd=shared_project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for name in ("first.json", "second.json"):
            drop(folder, name)
            assert process.stdout.readline().split()[0] == name
            assert (folder / "outbox" / f"{name}.json").exists()
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output == ""
    assert "responses go to" in err
    assert "stopping" in err


def test_killed_with_its_stack_it_sends_nothing_twice(project: Path, folder: Path) -> None:
    names = [f"{number}.json" for number in range(3)]
    for name in names:
        drop(folder, name)
    drop(folder, "rows.csv", CSV)
    notes = folder / "outbox" / UPLOADS
    command = [ENSEMBLE, "watch", str(folder), "--once", "--json"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: notes.exists() and json.loads(notes.read_text()))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    lines = watch(project, folder)
    done = {*lines, *(name.removesuffix(".json") for name in files(folder / "outbox"))}
    assert done == {*names, "rows.csv"}
    listed = json.loads(run_ensemble(project, "records", "--json").stdout)
    assert len(listed) == len(names)
    assert len({record["prediction_id"] for record in listed}) == len(names)
