"""Objects that arrive in the bucket, by AWS's own client, and their responses in the outbox."""

from __future__ import annotations

import gzip
import io
import json
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from builders import member, sources
from driving import ROOT, copy_project, predict, wait
from stepensemble.cli.inbox import resume_inbox
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.core.payload import MAX_ROWS
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources

PASSENGER = {"Pclass": 3, "Sex": "male", "Age": 22, "SibSp": 1, "Parch": 0, "Fare": 7.25, "Embarked": "S"}
ROWS = [
    {**PASSENGER, "Sex": sex, "Age": age, "Fare": fare}
    for sex, age, fare in [("male", 22, 7.25), ("female", 38, 71.28), ("female", 4, 16.7), ("male", 54, 51.86)]
]
SEVEN = (ROOT / "events" / "digit-7.png").read_bytes()
AWKWARD = "a b+c%2F%#?&='\"\\{}[]~*:;,@$!()|<>^`"


@dataclass(frozen=True)
class Inbox:
    """A stack, and boto3's client for its data bucket."""

    stack: Stack
    s3: Any

    @property
    def bucket(self) -> str:
        return self.stack.data.name

    def put(self, name: str, body: bytes | str | object) -> str:
        """Put an object into the inbox, bytes as they are and others as JSON, and return its version."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return str(self.s3.put_object(Bucket=self.bucket, Key=f"inbox/{name}", Body=content)["VersionId"])

    def read(self, key: str) -> dict[str, Any] | None:
        """Return what an object holds as JSON; None where there is none."""
        try:
            found = self.s3.get_object(Bucket=self.bucket, Key=key)
        except self.s3.exceptions.NoSuchKey:
            return None
        return dict(json.loads(found["Body"].read()))

    def wait(self, name: str, version: str, ending: str = ".json", seconds: float = 60) -> dict[str, Any]:
        """Wait for the response to a version; its key must have this ending."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for found in (".json", ".error.json"):
                document = self.read(f"outbox/{name}.{version}{found}")
                if document is not None:
                    assert found == ending, document
                    described = document["object"]
                    assert (described["key"], described["version_id"]) == (f"inbox/{name}", version)
                    return document
            time.sleep(0.05)
        raise AssertionError(f"{name} has no response")

    def get_response(self, name: str, body: bytes | str | object) -> dict[str, Any]:
        return self.wait(name, self.put(name, body))

    def get_error(self, name: str, body: bytes | str | object) -> dict[str, Any]:
        return self.wait(name, self.put(name, body), ".error.json")

    def latest(self, name: str, document: dict[str, Any], ending: str = ".json", seconds: float = 60) -> None:
        """Wait until a version's response is the latest one, which is written after the version's own."""
        deadline = time.monotonic() + seconds
        while (found := self.read(f"outbox/{name}{ending}")) != document:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def executions(self, machine: str) -> list[dict[str, Any]]:
        """Return every execution of a state machine, with its input parsed as `event`."""
        client = self.stack.step_functions
        pages = client.get_paginator("list_executions").paginate(stateMachineArn=machine)
        arns = [listed["executionArn"] for page in pages for listed in page["executions"]]
        described: list[Any] = [client.describe_execution(executionArn=arn) for arn in arns]
        return [{**one, "event": json.loads(one["input"])} for one in described]

    def arrivals(self, name: str) -> list[dict[str, Any]]:
        """Return the executions of the inbox that an object started, when all of them have ended."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            executions = self.executions(self.stack.inbox_machine)
            found = [one for one in executions if one["event"]["object"]["key"] == f"inbox/{name}"]
            if all(one["status"] != "RUNNING" for one in found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{name} is still predicted")

    def results(self, document: dict[str, Any]) -> pl.DataFrame:
        """Return the results that a run's response names; its mark of success must be stored."""
        prefix = document["results"].removeprefix(f"s3://{self.bucket}/")
        keys = sorted(listed.key for listed in self.stack.data.list(prefix))
        assert f"{prefix}_SUCCESS" in keys
        return pl.concat(pl.read_parquet(self.stack.data.read(key)) for key in keys if key.endswith(".parquet"))


def open_inbox(stack: Stack) -> Inbox:
    return Inbox(stack, stack.session.client("s3", endpoint_url=stack.endpoint))


@pytest.fixture(scope="module")
def inbox(stack: Stack) -> Inbox:
    """The inbox of the shipped ensemble."""
    return open_inbox(stack)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    """The inbox of the shipped ensemble whose only feature is an image."""
    project = copy_project(tmp_path_factory.mktemp("digits"))
    read = read_sources(project / "models" / "digits" / "manifest.json")
    with LocalStack.start(project, LocalStackOptions(account="666666666666", tensorflow=False)) as started:
        opened = local_stack(started.name, started.endpoint)
        ensure_published(opened, read, notify=lambda _: None)
        yield open_inbox(opened)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    """The inbox of x / 2 + 2.

    A logarithm is a voter of weight 0: it counts for a quorum, and has no output for negative numbers.
    """
    project = copy_project(tmp_path_factory.mktemp("halves"))
    members = member("half_plus_two"), member("logarithm", "logarithm", weight=0)
    read = sources(
        tmp_path_factory.mktemp("models"), *members, aggregation={"method": "weighted_mean"}, golden=[{"x": 1.0}]
    )
    with LocalStack.start(project, LocalStackOptions(account="555555555555", tensorflow=False)) as started:
        opened = local_stack(started.name, started.endpoint)
        ensure_published(opened, read, notify=lambda _: None)
        yield open_inbox(opened)


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    return pl.DataFrame(rows).write_csv().encode()


def as_jsonl(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(rows).write_parquet(file)
    return file.getvalue()


# ----------------------------------------------------------------------------------------------------- predictions


def test_json_gets_the_predictions_of_an_execution(inbox: Inbox) -> None:
    payload = {"instances": ROWS, "metadata": {"from": "a bucket"}}
    document = inbox.get_response("same.json", payload)
    direct = predict(inbox.stack, payload)
    assert document["predictions"] == direct["predictions"]
    assert document.keys() == direct.keys() | {"object"}
    record = inbox.stack.records.read(document["prediction_id"])
    assert (record.rows, record.input, record.metadata) == (4, {"instances": ROWS}, payload["metadata"])
    inbox.latest("same.json", document)


@pytest.mark.parametrize(
    "name", ["deep/er/and deeper/x.json", f"{AWKWARD}.json", "ü/漢字/😀.JSON", "dt=2026-03-01/_.json"]
)
def test_whatever_a_key_is_its_response_has_the_same_name(inbox: Inbox, name: str) -> None:
    document = inbox.get_response(name, {"features": PASSENGER})
    inbox.latest(name, document)
    assert document["predictions"][0]["label"] == "died"


def test_an_upload_in_parts_and_a_copy_get_responses_too(inbox: Inbox) -> None:
    place = {"Bucket": inbox.bucket, "Key": "inbox/parts.json"}
    upload = {**place, "UploadId": inbox.s3.create_multipart_upload(**place)["UploadId"]}
    part = inbox.s3.upload_part(**upload, PartNumber=1, Body=json.dumps({"features": PASSENGER}).encode())
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    version = inbox.s3.complete_multipart_upload(**upload, MultipartUpload=parts)["VersionId"]
    whole = inbox.wait("parts.json", version)
    copied = inbox.s3.copy_object(Bucket=inbox.bucket, Key="inbox/copied.json", CopySource=place)["VersionId"]
    assert inbox.wait("copied.json", copied)["predictions"] == whole["predictions"]
    inbox.latest("parts.json", whole)
    assert [len(inbox.arrivals(name)) for name in ("parts.json", "copied.json")] == [1, 1]


def test_a_payload_of_megabytes_goes_by_s3_and_comes_back_whole(inbox: Inbox) -> None:
    rows = [ROWS[number % len(ROWS)] for number in range(MAX_ROWS)]
    body = json.dumps({"instances": rows}, indent=8).encode()
    assert len(body) > 2_000_000
    document = inbox.get_response("large.json", body)
    few = predict(inbox.stack, {"instances": ROWS})["predictions"]
    assert [one["label"] for one in document["predictions"]] == [few[n % 4]["label"] for n in range(MAX_ROWS)]
    assert [one["value"] for one in document["predictions"][-4:]] == pytest.approx([one["value"] for one in few])
    assert [len(one["outputs"]) for one in document["members"]] == [MAX_ROWS] * 4
    assert inbox.stack.records.read(document["prediction_id"]).rows == MAX_ROWS


def test_two_versions_within_a_second_each_get_their_own_response(halves: Inbox) -> None:
    versions = [halves.put("twice.json", {"features": {"x": x}}) for x in (2, 4)]
    documents = [halves.wait("twice.json", version) for version in versions]
    assert [one["predictions"][0]["value"] for one in documents] == [3, 4]  # x / 2 + 2
    assert documents[0]["prediction_id"] != documents[1]["prediction_id"]
    assert len(halves.arrivals("twice.json")) == 2
    assert halves.read("outbox/twice.json.json") == documents[1]


def test_a_failure_replaces_a_response_and_a_response_a_failure(halves: Inbox) -> None:
    latest = "outbox/changing.json.json", "outbox/changing.json.error.json"
    for body, ending in [({"features": {"x": 1}}, ".json"), ([], ".error.json"), ({"features": {"x": 3}}, ".json")]:
        document = halves.wait("changing.json", halves.put("changing.json", body), ending)
        halves.arrivals("changing.json")
        expected = (document, None) if ending == ".json" else (None, document)
        assert tuple(halves.read(key) for key in latest) == expected


@pytest.mark.parametrize(("name", "body"), [("events.json", {"features": PASSENGER}), ("events.csv", as_csv(ROWS))])
def test_an_event_that_comes_again_starts_nothing_again(inbox: Inbox, name: str, body: object) -> None:
    stack = inbox.stack
    machine = stack.state_machine if name.endswith(".json") else stack.batch_machine
    version = inbox.put(name, body)
    head = inbox.s3.head_object(Bucket=inbox.bucket, Key=f"inbox/{name}", VersionId=version)
    detail = {
        "key": f"inbox/{name}",
        "size": head["ContentLength"],
        "etag": head["ETag"].strip('"'),
        "version-id": version,
    }
    event = json.dumps({"object": {**detail, "sequencer": "0A"}})

    def repeat(_: int) -> str:
        started = stack.step_functions.start_execution(stateMachineArn=stack.inbox_machine, input=event)
        return started["executionArn"]

    with ThreadPoolExecutor(3) as pool:  # while the first is under way
        repeated = list(pool.map(repeat, range(3)))
    document = inbox.wait(name, version)
    repeated.append(repeat(0))  # and when it is done
    assert [wait(stack, arn)["status"] for arn in repeated] == ["SUCCEEDED"] * 4
    assert [one["status"] for one in inbox.arrivals(name)] == ["SUCCEEDED"] * 5
    responses = [listed.key for listed in stack.data.list("outbox/") if listed.key.startswith(f"outbox/{name}.")]
    assert sorted(responses) == sorted([f"outbox/{name}.json", f"outbox/{name}.{version}.json"])
    assert inbox.read(f"outbox/{name}.{version}.json") == document
    names = {json.loads(wait(stack, arn)["output"]).get("name") for arn in repeated} - {None}
    started = [one for one in inbox.executions(machine) if one["name"] in names]
    assert len(started) == 1
    if name.endswith(".json"):
        assert document["prediction_id"] == started[0]["name"]
        ids = [record.prediction_id for record in stack.records.latest(1000)]
        assert ids.count(document["prediction_id"]) == 1


# ------------------------------------------------------------------------------------------------------------ runs


def test_every_kind_of_dataset_is_a_run_with_results(inbox: Inbox) -> None:
    csv = as_csv(ROWS)
    bodies = {
        f"runs/{AWKWARD} ü.csv": csv,
        "runs/{date}.csv": csv,
        "runs/zipped.CSV.gz": gzip.compress(csv),
        "runs/lines.jsonl": as_jsonl(ROWS),
        "runs/columns.parquet": as_parquet(ROWS),
    }
    versions = {name: inbox.put(name, body) for name, body in bodies.items()}
    expected = [one["value"] for one in predict(inbox.stack, {"instances": ROWS})["predictions"]]
    for name, version in versions.items():
        document = inbox.wait(name, version)
        assert (document["status"], document["rows_in"], document["rows_out"]) == ("SUCCEEDED", 4, 4), name
        assert inbox.results(document)["value"].to_list() == pytest.approx(expected)
        inbox.latest(name, document)
        for place in (document["report"], document["summary"]):
            assert inbox.stack.data.head(place.removeprefix(f"s3://{inbox.bucket}/")).size > 0


def test_two_versions_of_a_dataset_are_two_runs(halves: Inbox) -> None:
    contents = b"x\n2\n4\n", b"x\n6\n"
    versions = [halves.put("twice.csv", body) for body in contents]
    documents = [halves.wait("twice.csv", version) for version in versions]
    assert [halves.results(document)["value"].to_list() for document in documents] == [[3, 4], [5]]  # x / 2 + 2
    assert documents[0]["run"] != documents[1]["run"]
    halves.arrivals("twice.csv")
    assert halves.read("outbox/twice.csv.json") == documents[1]


# ---------------------------------------------------------------------------------------------------------- images


def redraw(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(SEVEN)).convert("L").save(file, kind, **options)
    return file.getvalue()


def draw_bomb() -> bytes:
    """Return a sound PNG of a few kilobytes whose pixels are a gigabyte."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 32_768)) for _ in range(32_768)) + packer.flush()
    header = struct.pack(">IIBBBBB", 32_768, 32_768, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_images_get_responses_whatever_their_names_are(digits: Inbox) -> None:
    images = {
        "a b/ü.png": SEVEN,
        "seven.jpg": redraw("JPEG", quality=95),
        "seven.webp": redraw("WEBP", lossless=True),
        "misnamed.jpeg": SEVEN,
        "scan": SEVEN,
    }
    versions = {name: digits.put(name, body) for name, body in images.items()}
    for name, version in versions.items():
        document = digits.wait(name, version)
        (prediction,) = document["predictions"]
        assert (prediction["value"], prediction["label"]) == (7, "7"), name
        digits.latest(name, document)
    record = digits.stack.records.read(document["prediction_id"])
    pointer = record.input["features"]["image"]["s3"]
    assert digits.stack.data.read(pointer.removeprefix(f"s3://{digits.bucket}/")) == SEVEN


def test_a_file_that_is_not_a_sound_image_is_rejected(digits: Inbox) -> None:
    bomb = draw_bomb()
    assert len(bomb) < 2_000_000
    for name, body in {"cut.jpg": redraw("JPEG")[:-200], "cut.png": SEVEN[:60], "bomb.png": bomb}.items():
        rejected = digits.get_error(name, body)
        assert rejected["error"] == "InvalidPayload", name
        assert [problem["path"] for problem in rejected["problems"]] == ["$.features.image"]
    wrong = digits.get_error("no.png", b"GIF89a")
    assert wrong["error"] == "InboxObjectRefused"
    assert "does not start like a PNG, JPEG or WebP" in wrong["message"]


def test_an_ensemble_without_an_image_feature_rejects_an_image(inbox: Inbox) -> None:
    rejected = inbox.get_error("seven.png", SEVEN)
    assert rejected["error"] == "InboxObjectRefused"
    assert "send a payload as JSON" in rejected["message"]


# ------------------------------------------------------------------------------------------------------ rejections


def test_an_object_that_cannot_be_predicted_gets_the_reason(inbox: Inbox) -> None:
    zipped = gzip.compress(as_csv(ROWS * 200))
    parquet = as_parquet(ROWS)
    bodies: dict[str, tuple[object, str, str]] = {
        "bad/empty.json": (b"", "InboxObjectRefused", "is empty"),
        "bad/a.xlsx": (b"PK\x03\x04", "InboxObjectRefused", "is of no known kind"),
        "bad/a": (b"text", "InboxObjectRefused", "is of no known kind"),
        "bad/cut.json": (b'{"features": {"Age"', "InboxObjectRefused", "is not JSON"),
        "bad/deep.json": (b"[" * 100_000 + b"]" * 100_000, "InboxObjectRefused", "nested too deeply"),
        "bad/list.json": ([PASSENGER], "InvalidPayload", "is not an object"),
        "bad/many.json": ({"instances": [{}] * (MAX_ROWS + 1)}, "InvalidPayload", "10,001"),
        "bad/notes.json": (
            {"features": PASSENGER, "metadata": {"note": "n" * 300_000}},
            "InboxObjectRefused",
            "shorten its metadata",
        ),
        "bad/empty.csv": (b"", "InboxObjectRefused", "is empty"),
        "bad/empty.parquet": (b"", "InboxObjectRefused", "is empty"),
        "bad/unlike.csv": (b"Klass\n1\n", "DatasetRefused", "feature Sex: is not a column of the dataset"),
        "bad/cut.csv.gz": (zipped[: len(zipped) // 2], "DatasetRefused", "cut.csv.gz: is truncated gzip"),
        "bad/cut.parquet": (parquet[: len(parquet) // 2], "DatasetRefused", "is not a Parquet file, or is truncated"),
        "bad/no.parquet": (b"PAR1 and so on", "DatasetRefused", "is not a Parquet file, or is truncated"),
    }
    versions = {name: inbox.put(name, body) for name, (body, _, _) in bodies.items()}
    for name, version in versions.items():
        rejected = inbox.wait(name, version, ".error.json")
        _, error, words = bodies[name]
        assert (rejected["error"], words in rejected["message"]) == (error, True), rejected
        listed = [line.removeprefix("- ") for line in rejected["message"].splitlines()[1:]]
        problems = [f"{one['path']}: {one['message']}; {one['remedy']}" for one in rejected.get("problems", ())]
        assert problems == listed
        assert bool(problems) == (error != "InboxObjectRefused")
        inbox.latest(name, rejected, ".error.json")


def test_every_bad_field_is_named_and_nothing_is_recorded(inbox: Inbox) -> None:
    before = len(inbox.stack.records.latest(1000))
    rows = [{**PASSENGER, "Age": "x", "Fare": True}, {**PASSENGER, "Hat": 1}]
    rejected = inbox.get_error("fields.json", {"instances": rows})
    assert rejected["error"] == "InvalidPayload"
    assert [problem["path"] for problem in rejected["problems"]] == [
        "$.instances[0].Age",
        "$.instances[0].Fare",
        "$.instances[1].Hat",
    ]
    assert all(problem["message"] and problem["remedy"] for problem in rejected["problems"])
    assert all(problem["path"] in rejected["message"] for problem in rejected["problems"])
    assert "prediction_id" not in rejected
    assert len(inbox.stack.records.latest(1000)) == before


def test_without_a_quorum_the_record_is_named(halves: Inbox) -> None:
    rejected = halves.get_error("log.json", {"features": {"x": -4.0}, "quorum": {"min_members": 2}})
    assert rejected["error"] == "QuorumNotMet"
    record = halves.stack.records.read(rejected["prediction_id"])
    assert record.failure == rejected["message"]


# ----------------------------------------------------------------------------------------- objects without a response


def test_only_objects_in_the_inbox_are_predicted(inbox: Inbox) -> None:
    for key in (
        "inbox/marker/",
        "inbox",
        "datasets/inbox/a.json",
        "Inbox/a.json",
        "outbox/inbox/a.json",
        "inboxes/a.json",
    ):
        inbox.s3.put_object(Bucket=inbox.bucket, Key=key, Body=b"{}" if not key.endswith("/") else b"")
    inbox.s3.put_object(Bucket=inbox.stack.releases.bucket.name, Key="inbox/a.json", Body=b"{}")
    version = inbox.put("removed.json", {"features": PASSENGER})
    inbox.wait("removed.json", version)
    inbox.s3.delete_object(Bucket=inbox.bucket, Key="inbox/removed.json")
    inbox.get_response("after.json", {"features": PASSENGER})
    (marker,) = inbox.arrivals("marker/")
    assert marker["status"] == "SUCCEEDED"
    assert json.loads(marker["output"])["kind"] == "nothing"
    assert len(inbox.arrivals("removed.json")) == 1
    executions = inbox.executions(inbox.stack.inbox_machine)
    assert {one["event"]["object"]["key"].split("/")[0] for one in executions} == {"inbox"}
    assert {one["event"]["bucket"]["name"] for one in executions if "bucket" in one["event"]} == {inbox.bucket}
    assert not [listed.key for listed in inbox.stack.data.list("outbox/marker/")]


def test_a_stack_whose_inbox_is_disabled_writes_no_response(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    parameters = {"InboxState": "DISABLED"}
    with LocalStack.start(
        project, LocalStackOptions(account="444444444444", tensorflow=False, parameters=parameters)
    ) as started:
        closed = open_inbox(local_stack(started.name, started.endpoint))
        rules = closed.stack.session.client("events", endpoint_url=closed.stack.endpoint)
        rule = f"{started.name}-inbox"
        assert rules.describe_rule(Name=rule)["State"] == "DISABLED"
        closed.put("a.json", [])
        rules.enable_rule(Name=rule)
        closed.get_error("b.json", [])
        executions = closed.executions(closed.stack.inbox_machine)
        assert [one["event"]["object"]["key"] for one in executions] == ["inbox/b.json"]
        assert closed.arrivals("a.json") == []
        # As if the stack had ended before it wrote a response.
        assert resume_inbox(closed.stack) == ["inbox/a.json"]
        (arrival,) = closed.arrivals("a.json")
        version = arrival["event"]["object"]["version-id"]
        closed.latest("a.json", closed.wait("a.json", version, ".error.json"), ".error.json")
        assert resume_inbox(closed.stack) == []
        newer = closed.get_error("a.json", [[]])
        closed.latest("a.json", newer, ".error.json")


def test_no_payload_is_in_the_functions_logs(inbox: Inbox, shared_project: Path) -> None:
    odd = {**PASSENGER, "Age": 41.40625, "Fare": 93.78125}
    inbox.get_response("private.json", {"features": odd, "metadata": {"note": "xyzzy"}})
    inbox.get_response("private.csv", as_csv([odd, odd]))
    inbox.get_error("private-bad.json", {"features": {**odd, "Sex": "xyzzy"}})
    logs = list((shared_project / ".stepensemble" / "logs").rglob("*"))
    text = "".join(path.read_text() for path in logs if path.is_file())
    assert "receive" in {path.stem.rpartition("-")[2] for path in logs}
    for private in ("41.40625", "93.78125", "xyzzy"):
        assert private not in text


def test_no_execution_of_the_inbox_has_failed(inbox: Inbox) -> None:
    """Comes last: every object that could not be predicted got a response."""
    ended = inbox.executions(inbox.stack.inbox_machine)
    assert [one["event"] for one in ended if one["status"] not in {"SUCCEEDED", "RUNNING"}] == []
