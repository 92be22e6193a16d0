"""Stored changes outlive the stack, however it ends."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from driving import make_client
from stepensemble.local.errors import StateLocked, StateUnreadable
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.local.state_database import (
    RemovedItem,
    RemovedLogStream,
    StateDatabase,
    StoredItem,
    StoredLogStream,
    StoredObject,
    lock_state,
)

SERVE = """
import sys, time
from pathlib import Path
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
with LocalStack.start(Path(sys.argv[1]), LocalStackOptions(account="222222222222")) as stack:
    print(stack.endpoint, *(stack.outputs[name] for name in ("Things", "Facts")), flush=True)
    time.sleep(60)
"""


def test_objects_come_back_as_they_were(project: Path):
    with LocalStack.start(project) as stack:
        objects = make_client(stack.endpoint, "s3")
        bucket = stack.outputs["Things"]
        for body in (b"first", b"second"):
            written = objects.put_object(
                Bucket=bucket, Key="a/b c", Body=body, ContentType="text/plain", Metadata={"colour": "blue"}
            )
        objects.upload_fileobj(BytesIO(bytes(9_000_000)), bucket, "parts")
        parts = objects.head_object(Bucket=bucket, Key="parts")["ETag"]
        objects.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a/b c"})
        for key in ("deleted", "deleted with others"):
            objects.put_object(Bucket=bucket, Key=key, Body=b"x")
        objects.delete_object(Bucket=bucket, Key="deleted")
        objects.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "deleted with others"}]})
        before = objects.get_object(Bucket=bucket, Key="a/b c")

    with LocalStack.start(project) as stack:
        objects = make_client(stack.endpoint, "s3")
        assert stack.outputs["Things"] == bucket
        after = objects.get_object(Bucket=bucket, Key="a/b c")
        for name in ("ETag", "VersionId", "LastModified", "ContentType", "Metadata"):
            assert after[name] == before[name]
        assert after["Body"].read() == b"second"
        assert objects.head_object(Bucket=bucket, Key="parts")["ETag"] == parts
        listed = objects.list_objects_v2(Bucket=bucket)["Contents"]
        assert [entry["Key"] for entry in listed] == ["a/b c", "copy", "parts"]
        # Conditions hold across the restart.
        with pytest.raises(ClientError, match="PreconditionFailed"):
            objects.put_object(Bucket=bucket, Key="a/b c", Body=b"3", IfNoneMatch="*")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            objects.put_object(Bucket=bucket, Key="a/b c", Body=b"3", IfMatch='"0123"')
        objects.put_object(Bucket=bucket, Key="a/b c", Body=b"3", IfMatch=written["ETag"])


def test_items_come_back_as_they_were(project: Path):
    attributes = {
        "text": {"S": "é"},
        "list": {"L": [{"N": "1.50"}, {"M": {"deep": {"BOOL": True}}}, {"NULL": True}]},
        "set": {"SS": ["a", "b"]},
        "bytes": {"B": b"\x00\x01"},
    }
    with LocalStack.start(project) as stack:
        items = make_client(stack.endpoint, "dynamodb")
        facts, notes = stack.outputs["Facts"], stack.outputs["Notes"]
        items.put_item(TableName=facts, Item={"id": {"S": "kept"}, **attributes})
        items.put_item(TableName=facts, Item={"id": {"S": "deleted"}})
        items.delete_item(TableName=facts, Key={"id": {"S": "deleted"}})
        items.update_item(
            TableName=facts,
            Key={"id": {"S": "updated"}},
            UpdateExpression="SET hits = :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )
        items.batch_write_item(RequestItems={notes: [{"PutRequest": {"Item": note(number)}} for number in range(3)]})
        items.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": notes, "Item": note(3)}},
                {"Delete": {"TableName": notes, "Key": note(0)}},
            ]
        )
        with pytest.raises(ClientError):
            items.transact_write_items(
                TransactItems=[
                    {"Put": {"TableName": notes, "Item": note(4)}},
                    {
                        "Put": {
                            "TableName": facts,
                            "Item": {"id": {"S": "kept"}},
                            "ConditionExpression": "attribute_not_exists(id)",
                        }
                    },
                ]
            )
        items.put_item(TableName=facts, Item={"id": {"S": "stated"}})
        items.execute_statement(Statement=f"DELETE FROM \"{facts}\" WHERE id='stated'")  # noqa: S608

    with LocalStack.start(project) as stack:
        items = make_client(stack.endpoint, "dynamodb")
        found = {item["id"]["S"]: item for item in items.scan(TableName=facts)["Items"]}
        assert found == {
            "kept": {"id": {"S": "kept"}, **attributes},
            "updated": {"id": {"S": "updated"}, "hits": {"N": "1"}},
        }
        query = items.query(
            TableName=notes,
            KeyConditionExpression="author = :me",
            ExpressionAttributeValues={":me": {"S": "me"}},
        )
        assert query["Items"] == [note(1), note(2), note(3)]
        with pytest.raises(items.exceptions.ConditionalCheckFailedException):
            items.put_item(TableName=facts, Item={"id": {"S": "kept"}}, ConditionExpression="attribute_not_exists(id)")


def test_events_that_a_rule_logs_come_back_as_they_were(project: Path):
    with LocalStack.start(project) as stack:
        logs, diary = make_client(stack.endpoint, "logs"), stack.outputs["Diary"]
        for source in ("toy", "other", "toy"):
            entry = {"Source": source, "DetailType": "said", "Detail": '{"word": "é"}'}
            make_client(stack.endpoint, "events").put_events(Entries=[entry])
        logs.create_log_stream(logGroupName=diary, logStreamName="deleted")
        event = {"timestamp": int(time.time() * 1000), "message": "x"}
        logs.put_log_events(logGroupName=diary, logStreamName="deleted", logEvents=[event])
        logs.delete_log_stream(logGroupName=diary, logStreamName="deleted")
        before = [without_id(event) for event in logs.filter_log_events(logGroupName=diary)["events"]]
        streams = logs.describe_log_streams(logGroupName=diary)["logStreams"]
        assert [json.loads(event["message"])["detail"] for event in before] == [{"word": "é"}] * 2

    with LocalStack.start(project) as stack:
        logs = make_client(stack.endpoint, "logs")
        assert [without_id(event) for event in logs.filter_log_events(logGroupName=diary)["events"]] == before
        again = logs.describe_log_streams(logGroupName=diary)["logStreams"]
        for name in ("logStreamName", "firstEventTimestamp", "lastIngestionTime", "storedBytes"):
            assert [stream[name] for stream in again] == [stream[name] for stream in streams]
        logs.delete_log_group(logGroupName=diary)

    with LocalStack.start(project) as stack:
        assert make_client(stack.endpoint, "logs").filter_log_events(logGroupName=diary)["events"] == []


def without_id(event: dict[str, Any]) -> dict[str, Any]:
    """Leave out what moto counts again in every process."""
    return {key: value for key, value in event.items() if key != "eventId"}


def note(number: int) -> dict[str, Any]:
    return {"author": {"S": "me"}, "number": {"N": str(number)}}


def test_acknowledged_changes_survive_a_kill(project: Path):
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(project)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    endpoint, bucket, table = process.stdout.readline().split()
    objects, items = make_client(endpoint, "s3"), make_client(endpoint, "dynamodb")
    written = 0

    def write() -> None:
        nonlocal written
        try:
            while True:
                objects.put_object(Bucket=bucket, Key=f"{written:06}", Body=b"x" * 1000)
                items.put_item(TableName=table, Item={"id": {"S": f"{written:06}"}})
                written += 1
        except Exception:  # noqa: BLE001 (the stack was killed)
            return

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive() and written <= 100:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    thread.join()

    assert written > 100
    with LocalStack.start(project) as stack:
        kept = make_client(stack.endpoint, "dynamodb").scan(TableName=table)["Count"]
        listed = make_client(stack.endpoint, "s3").list_objects_v2(Bucket=bucket)["KeyCount"]
    assert written <= kept <= written + 1
    assert written <= listed <= written + 1


def test_fresh_starts_empty(project: Path):
    with LocalStack.start(project) as stack:
        make_client(stack.endpoint, "s3").put_object(Bucket=stack.outputs["Things"], Key="a", Body=b"x")

    with LocalStack.start(project, LocalStackOptions(fresh=True)) as stack:
        listed = make_client(stack.endpoint, "s3").list_objects_v2(Bucket=stack.outputs["Things"])
        assert listed["KeyCount"] == 0


def test_a_large_state_is_restored_completely(project: Path):
    with LocalStack.start(project) as stack:
        facts, things = stack.outputs["Facts"], stack.outputs["Things"]
        make_client(stack.endpoint, "s3").put_object(Bucket=things, Key="pattern", Body=b"x" * 2000)
    database = StateDatabase(project / ".stepensemble" / "state.db")
    (pattern,) = database.objects()
    names = [f"{number:05}" for number in range(5000)]
    body = {"text": {"S": "x" * 2000}}
    database.write(StoredItem(facts, json.dumps({"S": name}), "", {"id": {"S": name}, **body}) for name in names)
    database.write(StoredObject(things, name, pattern.attributes, pattern.body) for name in names)
    database.close()

    with LocalStack.start(project) as stack:
        assert make_client(stack.endpoint, "dynamodb").describe_table(TableName=facts)["Table"]["ItemCount"] == 5000
        pages = make_client(stack.endpoint, "s3").get_paginator("list_objects_v2").paginate(Bucket=things)
        assert [found["Key"] for page in pages for found in page["Contents"]] == [*names, "pattern"]


def test_a_damaged_database_is_named_with_the_remedy(project: Path):
    with LocalStack.start(project):
        pass
    path = project / ".stepensemble" / "state.db"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"this is no database" * 1000)

    with pytest.raises(StateUnreadable, match=rf"{path} is damaged .*mv .*aside"):
        LocalStack.start(project)
    with LocalStack.start(project, LocalStackOptions(fresh=True)):
        pass


def test_a_database_of_a_newer_version_is_not_changed(project: Path):
    with LocalStack.start(project):
        pass
    path = project / ".stepensemble" / "state.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()

    with pytest.raises(StateUnreadable, match="newer version"):
        LocalStack.start(project)


def test_a_database_of_the_first_version_is_upgraded(tmp_path: Path):
    path = tmp_path / "state.db"
    StateDatabase(path).close()
    with sqlite3.connect(path) as earlier:
        earlier.execute("DROP TABLE log_streams")
        earlier.execute("INSERT INTO items VALUES ('table', '1', '', '{}')")
        earlier.execute("PRAGMA user_version=1")
    earlier.close()

    database = StateDatabase(path)
    assert list(database.items()) == [StoredItem("table", "1", "", {})]
    stream = StoredLogStream("group", "stream", [{"message": "x"}])
    database.write([stream, StoredLogStream("group", "gone", []), RemovedLogStream("group", "gone")])
    assert list(database.log_streams()) == [stream]
    database.close()


def test_changes_are_stored_together_or_not_at_all(tmp_path: Path):
    database = StateDatabase(tmp_path / "state.db")

    def changes():
        yield StoredItem("table", "1", "", {"a": 1})
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        database.write(changes())
    assert list(database.items()) == []
    database.write(
        [StoredItem("table", "1", "", {"a": 1}), StoredItem("table", "2", "", {}), RemovedItem("table", "2", "")]
    )
    assert list(database.items()) == [StoredItem("table", "1", "", {"a": 1})]
    database.close()


def test_a_second_owner_waits_for_the_first(tmp_path: Path):
    path = tmp_path / "lock"
    messages: list[str] = []
    order: list[str] = []

    def second() -> None:
        with lock_state(path, 10, messages.append):
            order.append("second")

    with lock_state(path, 10, messages.append):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]
    assert messages == ["Waiting for another ensemble command to finish"]


def test_a_second_owner_gives_up_in_the_end(tmp_path: Path):
    path = tmp_path / "lock"
    with lock_state(path, 1, lambda _: None), pytest.raises(StateLocked, match=f"process {os.getpid()}"):  # noqa: SIM117
        with lock_state(path, 0.2, lambda _: None):
            pass
