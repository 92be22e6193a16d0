"""A full or read-only disk, or a damaged state, is reported in a sentence, and nothing is removed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from driving import make_client
from stepensemble.local import stack as stacks
from stepensemble.local.errors import StateUnreadable, StateUnwritable
from stepensemble.local.lambdas.process import FunctionProcess, ProcessSettings
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.local.state_database import StateDatabase, StoredItem

LARGE = 4 * 1024 * 1024
UNLIMITED = 1_000_000


class SmallDatabase(StateDatabase):
    """A database whose size is limited, as by a full disk."""

    opened: SmallDatabase

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        SmallDatabase.opened = self

    def limit(self, pages: int) -> None:
        self._db.execute(f"PRAGMA max_page_count={pages}")


def test_a_change_that_a_full_disk_rejects_is_undone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "StateDatabase", SmallDatabase)
    with LocalStack.start(project) as stack:
        things, scraps, facts = (stack.outputs[name] for name in ("Things", "Scraps", "Facts"))
        objects, items, logs = (make_client(stack.endpoint, name) for name in ("s3", "dynamodb", "logs"))
        logs.create_log_stream(logGroupName="/aws/events/toy", logStreamName="s")

        def see() -> tuple[Any, ...]:
            versions = objects.list_object_versions(Bucket=things).get("Versions", [])
            kept = [
                (entry["Key"], objects.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
                for bucket in (things, scraps)
                for entry in objects.list_objects_v2(Bucket=bucket).get("Contents", [])
            ]
            return (
                [(one["Key"], one["VersionId"], one["IsLatest"]) for one in versions],
                kept,
                items.scan(TableName=facts)["Items"],
                logs.get_log_events(logGroupName="/aws/events/toy", logStreamName="s")["events"],
            )

        for body in (b"first", b"second"):
            objects.put_object(Bucket=things, Key="kept", Body=body)
        objects.put_object(Bucket=scraps, Key="kept", Body=b"scrap")
        items.put_item(TableName=facts, Item={"id": {"S": "kept"}, "text": {"S": "x"}})
        before = see()
        SmallDatabase.opened.limit(1)  # no more pages than there are now
        large = "x" * 300_000
        writes: list[Callable[[], Any]] = [
            lambda: objects.put_object(Bucket=things, Key="kept", Body=bytes(LARGE)),
            lambda: objects.put_object(Bucket=things, Key="new", Body=bytes(LARGE)),
            lambda: objects.put_object(Bucket=scraps, Key="kept", Body=bytes(LARGE)),
            lambda: objects.put_object(Bucket=scraps, Key="new", Body=bytes(LARGE)),
            lambda: items.put_item(TableName=facts, Item={"id": {"S": "kept"}, "text": {"S": large}}),
            lambda: items.put_item(TableName=facts, Item={"id": {"S": "new"}, "text": {"S": large}}),
            lambda: logs.put_log_events(
                logGroupName="/aws/events/toy",
                logStreamName="s",
                logEvents=[{"timestamp": int(time.time() * 1000), "message": large[:200_000]}],
            ),
        ]
        for write in writes:
            with pytest.raises(ClientError, match="no space left on device") as rejected:
                write()
            assert "fresh" not in str(rejected.value)
            response = rejected.value.response["ResponseMetadata"]
            assert (response["HTTPStatusCode"], response["RetryAttempts"]) == (507, 0)
            assert see() == before
        SmallDatabase.opened.limit(UNLIMITED)
        for write in writes:
            write()
        after = see()
        assert len(after[0]) == 4
    with LocalStack.start(project) as again:
        objects = make_client(again.endpoint, "s3")
        assert objects.get_object(Bucket=things, Key="kept")["Body"].read() == bytes(LARGE)
        assert [entry["Key"] for entry in objects.list_objects_v2(Bucket=scraps)["Contents"]] == ["kept", "new"]
        assert again.losses == []


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A database of three changes whose log was not merged, as after a kill."""
    path = tmp_path / "live" / "state.db"
    path.parent.mkdir()
    database = StateDatabase(path)
    for number in range(3):
        database.write([StoredItem("table", str(number), "", {"a": number})])
    folder = tmp_path / "state"
    folder.mkdir()
    for file in path.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    database.close()
    return folder / "state.db"


def test_everything_that_was_stored_is_there_after_a_kill(kept: Path) -> None:
    database = StateDatabase(kept)
    assert len(list(database.items())) == 3
    assert database.loss is None
    database.close()


@pytest.mark.parametrize("gone", ["its log", "everything"])
def test_a_loss_is_reported_once_with_the_remedy(kept: Path, gone: str) -> None:
    kept.with_name("state.db-wal").unlink()
    if gone == "everything":
        kept.write_bytes(b"")
    database = StateDatabase(kept)
    assert database.loss is not None
    assert database.loss.startswith("3 of 3 changes that this stack had stored are not in ")
    assert "if you have a copy" in database.loss
    database.write([StoredItem("table", "4", "", {})])
    database.close()
    database = StateDatabase(kept)
    assert database.loss is None
    database.close()


def test_a_log_without_its_database_is_not_removed(kept: Path) -> None:
    kept.write_bytes(b"")
    log = kept.with_name("state.db-wal").read_bytes()
    with pytest.raises(
        StateUnreadable, match=r"state\.db is empty or missing, and its log .* mv .*state .*state\.aside"
    ):
        StateDatabase(kept)
    assert kept.with_name("state.db-wal").read_bytes() == log


def test_the_remedy_for_a_damaged_database_is_not_to_remove_it(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database" * 100)
    with pytest.raises(StateUnreadable, match="is damaged") as rejected:
        StateDatabase(tmp_path / "state.db")
    assert "fresh" not in str(rejected.value)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("lock", Path.mkdir),
        ("tmp", Path.touch),
        ("logs", Path.touch),
        ("state.db", Path.mkdir),
        ("stack.json", Path.mkdir),
        (".", Path.touch),
    ],
)
def test_something_else_in_the_place_of_a_file_is_named(project: Path, name: str, make: Callable[[Path], None]) -> None:
    folder = project / ".stepensemble"
    if name != ".":
        folder.mkdir()
    make(folder / name if name != "." else folder)
    with pytest.raises((StateUnwritable, StateUnreadable), match="cannot be used") as rejected:
        LocalStack.start(project, LocalStackOptions(announce=True))
    assert str(folder / name if name != "." else folder) in str(rejected.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(project: Path) -> None:
    folder = project / ".stepensemble"
    folder.mkdir(mode=0o500)
    with pytest.raises(StateUnwritable, match="make its folder writable"):
        LocalStack.start(project)


def test_an_object_that_cannot_be_read_is_named_and_stays(project: Path) -> None:
    with LocalStack.start(project) as stack:
        objects, bucket = make_client(stack.endpoint, "s3"), stack.outputs["Things"]
        for key in ("damaged", "sound"):
            objects.put_object(Bucket=bucket, Key=key, Body=b"body")
    path = project / ".stepensemble" / "state.db"
    database = sqlite3.connect(path)
    database.execute("UPDATE objects SET attributes = '{}' WHERE key = 'damaged'")
    database.commit()
    database.close()
    with LocalStack.start(project) as stack:
        (loss,) = stack.losses
        assert f"s3://{bucket}/damaged is stored, but cannot be read" in loss
        listed = make_client(stack.endpoint, "s3").list_objects_v2(Bucket=bucket)["Contents"]
        assert [entry["Key"] for entry in listed] == ["sound"]
    assert "damaged" in [one.key for one in StateDatabase(path).objects()]


@pytest.mark.parametrize(("free", "named"), [(0, True), (10**9, False)])
def test_a_function_that_cannot_write_its_log_reports_it(tmp_path: Path, free: int, named: bool) -> None:
    settings = ProcessSettings("app.handler", tmp_path, {}, 0, tmp_path / "echo.log", 0)
    worker = FunctionProcess(
        settings, lambda _: None, lambda _: None, started=True, exit_code=120, free_bytes=lambda _: free
    )
    message = worker.explain_end("1").payload.decode()
    assert "exit status 120" in message
    assert ("no space is left for its log" in message) == named


def test_a_state_can_be_read_from_a_copy(project: Path) -> None:
    with LocalStack.start(project) as stack:
        bucket = stack.outputs["Things"]
        make_client(stack.endpoint, "s3").put_object(Bucket=bucket, Key="kept", Body=b"body")
    folder = project / ".stepensemble"
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with LocalStack.start_copy(project, folder) as stack:
        objects = make_client(stack.endpoint, "s3")
        assert objects.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"body"
        objects.put_object(Bucket=bucket, Key="other", Body=b"body")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
