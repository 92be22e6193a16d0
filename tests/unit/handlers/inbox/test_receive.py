from __future__ import annotations

import codecs
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from builders import member, sources
from memory import CountingBucket, MemoryStack
from stepensemble.batch.documents import KINDS
from stepensemble.core.errors import ObjectMissing, StorageUnavailable
from stepensemble.core.payload import MAX_ROWS
from stepensemble.core.releases.release import digest_of
from stepensemble.handlers.current_release import CurrentRelease
from stepensemble.handlers.inbox.receive import IMAGES, INPUT_BYTES, Receiver
from stepensemble.handlers.prediction.payload_objects import FILE_BYTES
from stepensemble.storage.keys import image_key

PAYLOAD = {"features": {"x": 1.5}}
PIXELS = {"name": "image", "type": "image", "size": [2, 2], "mode": "L"}
DEEP = b'{"features": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


class Versions(CountingBucket):
    """A bucket with the object versions in `kept`."""

    __slots__ = ("fails", "kept")

    def __init__(self) -> None:
        super().__init__("data")
        object.__setattr__(self, "kept", {})
        object.__setattr__(self, "fails", False)

    def read_version(self, key: str, version_id: str | None) -> bytes:
        if self.fails:
            raise StorageUnavailable("slow down")
        if version_id is None:
            return self.read(key)
        if (key, version_id) not in self.kept:
            raise ObjectMissing(key)
        body: bytes = self.kept[key, version_id]
        return body


@pytest.fixture
def stack(tmp_path: Path) -> MemoryStack:
    made = MemoryStack()
    made.data = Versions()
    made.publish(sources(tmp_path, member("half")))
    return made


@pytest.fixture
def with_images(tmp_path: Path) -> MemoryStack:
    """A stack whose ensemble has an image as its only feature."""
    made = MemoryStack()
    made.data = Versions()
    made.publish(sources(tmp_path, member("half"), features=[PIXELS]))
    return made


def receive(stack: MemoryStack, key: str, body: bytes | None = None, **more: Any) -> dict[str, Any]:
    """Put an object's version into the bucket and receive its event; without a body, the event alone."""
    size = 7 if body is None else len(body)
    detail = {"key": key, "etag": "e1", "sequencer": "0A", "version-id": "v1", "size": size, **more}
    if body is not None:
        stack.data.kept[key, detail["version-id"]] = body
    response = Receiver(CurrentRelease(stack.releases, stack.clock), stack.data)({"object": detail})
    assert response["object"]["key"] == key
    json.dumps(response, allow_nan=False)  # Lambda's runtime client must be able to write it
    return response


def receive_rejected(stack: MemoryStack, key: str, body: bytes | None = None, **more: Any) -> tuple[str, str]:
    response = receive(stack, key, body, **more)
    assert response.keys() == {"object", "kind", "failure"}
    assert response["kind"] == "refused"
    return response["failure"]["error"], response["failure"]["cause"]


def image(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [128, 3]], np.uint8)).save(file, kind)
    return file.getvalue()


# ----------------------------------------------------------------------------------------------------------- kinds


def test_json_is_a_prediction(stack: MemoryStack) -> None:
    response = receive(stack, "inbox/a.json", json.dumps(PAYLOAD).encode())
    assert (response["kind"], response["input"]) == ("prediction", PAYLOAD)
    size = len(json.dumps(PAYLOAD))
    detail = {"key": "inbox/a.json", "size": size, "etag": "e1", "sequencer": "0A", "version_id": "v1"}
    assert response["object"] == detail
    assert stack.data.written == []


@pytest.mark.parametrize("key", ["inbox/A.JSON", "inbox/a b/ü #%+?.Json", "inbox/.json"])
def test_the_kind_follows_from_the_name_in_any_case(stack: MemoryStack, key: str) -> None:
    assert receive(stack, key, json.dumps(PAYLOAD).encode())["input"] == PAYLOAD


@pytest.mark.parametrize("ending", KINDS)
def test_a_dataset_is_a_run_over_this_version_of_it_and_is_not_read(stack: MemoryStack, ending: str) -> None:
    for key in (f"inbox/a b/ü{ending}", f"inbox/A{ending.upper()}"):
        response = receive(stack, key, size=10**12)
        assert (response["kind"], response["input"]) == ("run", {"dataset": f"s3://data/{key}", "version_id": "v1"})
    assert stack.data.calls.total() == 0


def test_of_a_bucket_without_versions_the_dataset_is_the_object(stack: MemoryStack) -> None:
    response = receive(stack, "inbox/a.csv", **{"version-id": "null"})
    assert response["input"] == {"dataset": "s3://data/inbox/a.csv"}


def test_each_version_is_read_separately(stack: MemoryStack) -> None:
    stack.data.kept["inbox/a.json", "v2"] = json.dumps({"features": {"x": 2}}).encode()
    first = receive(stack, "inbox/a.json", json.dumps(PAYLOAD).encode())
    second = receive(stack, "inbox/a.json", size=20, **{"version-id": "v2"})
    assert (first["input"], second["input"]) == (PAYLOAD, {"features": {"x": 2}})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.webp", "a.scan", "a"])
def test_an_image_is_known_by_its_bytes_and_copied_under_its_digest(
    with_images: MemoryStack, kind: str, name: str
) -> None:
    body = image(kind)
    response = receive(with_images, f"inbox/{name}", body)
    key = image_key(body)
    assert response["kind"] == "prediction"
    assert response["input"] == {"features": {"image": {"s3": f"s3://data/{key}"}}}
    assert digest_of(body) in key
    assert with_images.data.read(key) == body


def test_a_truncated_image_is_left_to_the_ensemble_to_reject(with_images: MemoryStack) -> None:
    assert receive(with_images, "inbox/a.png", image()[:20])["kind"] == "prediction"


def test_a_folders_marker_starts_nothing(stack: MemoryStack) -> None:
    for key in ("inbox/", "inbox/a/", "inbox/a.json/", "inbox//"):
        response = receive(stack, key, b"")
        assert response.keys() == {"object", "kind"}
        assert response["kind"] == "nothing"


# ----------------------------------------------------------------------------------------------------------- names


def test_a_version_has_one_name_and_other_versions_have_others(stack: MemoryStack) -> None:
    def name(key: str = "inbox/a.csv", **more: Any) -> str:
        return str(receive(stack, key, **more)["name"])

    plain = {"version-id": None}
    names = [
        name(),
        name("inbox/b.csv"),
        name(**{"version-id": "v2"}),
        name(**plain),
        name(**plain, sequencer="0B"),
        name(**plain, etag="e2"),
    ]
    assert len(set(names)) == len(names)
    assert name() == name(sequencer="0F", etag="e9", size=9) == names[0]  # the same version in another event
    for one in names:  # the role may start executions with this prefix; a name has at most 80 characters
        assert one.startswith("inbox-")
        assert set(one.removeprefix("inbox-")) <= set("0123456789abcdef")
        assert len(one) == len("inbox-") + 32


# ------------------------------------------------------------------------------------------------------------ rows


def test_rows_above_4_kb_stay_in_s3_and_those_below_travel(stack: MemoryStack) -> None:
    def rows(many: int) -> dict[str, Any]:
        return {"instances": [{"x": 1}] * many, "metadata": {"from": "here"}, "prediction_id": "p"}

    most = next(many for many in range(1, 10_000) if len(msgspec.json.encode(rows(many + 1))) > INPUT_BYTES)
    body = json.dumps(rows(most), indent=4).encode()  # the size of the parsed rows counts, not of the text
    assert len(body) > INPUT_BYTES
    assert receive(stack, "inbox/a.json", body)["input"] == rows(most)
    input_ = receive(stack, "inbox/a.json", json.dumps(rows(most + 1)).encode())["input"]
    pointer = input_.pop("instances")["s3"]
    assert input_ == {"metadata": {"from": "here"}, "prediction_id": "p"}
    assert json.loads(stack.data.read(pointer.removeprefix("s3://data/"))) == [{"x": 1}] * (most + 1)
    assert pointer.startswith("s3://data/payloads/")


def test_one_large_row_stays_in_s3_as_a_list_of_one(stack: MemoryStack) -> None:
    row = {"x": 1, "note": "n" * INPUT_BYTES}
    input_ = receive(stack, "inbox/a.json", json.dumps({"features": row}).encode())["input"]
    assert json.loads(stack.data.read(input_["instances"]["s3"].removeprefix("s3://data/"))) == [row]
    assert "features" not in input_


def test_rows_already_in_s3_are_not_copied(stack: MemoryStack) -> None:
    payload = {"instances": {"s3": "s3://data/payloads/rows.json"}, "metadata": {"note": "n" * 3000}}
    assert receive(stack, "inbox/a.json", json.dumps(payload).encode())["input"] == payload
    assert stack.data.written == []


def test_a_byte_order_mark_is_not_a_part_of_the_json(stack: MemoryStack) -> None:
    assert receive(stack, "inbox/a.json", codecs.BOM_UTF8 + json.dumps(PAYLOAD).encode())["input"] == PAYLOAD


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "inbox/a.json is not JSON: Expecting property name"),
        (json.dumps(PAYLOAD).encode()[:-3], "inbox/a.json is not JSON"),
        (b'{"features": {"x": NaN}}', "inbox/a.json is not JSON"),
        (b'{"features": {"x": 1e999}}', "inbox/a.json is not JSON: 1e999 is not a finite number"),
        (b'{"features": {"x": ' + b"9" * 5000 + b"}}", "inbox/a.json is not JSON: Exceeds the limit"),
        (b'{"features": {"x": "\\ud800"}}', "inbox/a.json is not JSON: it has half a surrogate pair"),
        (b'{"features": {"x": "\xff"}}', "inbox/a.json is not JSON: it is not text in UTF-8; write a payload"),
        (json.dumps(PAYLOAD).encode("utf-16"), "inbox/a.json is not JSON"),
        (b"\x89PNG\r\n\x1a\n", "inbox/a.json is not JSON"),
        (DEEP, "inbox/a.json is not JSON: it is nested too deeply; write a payload of an execution"),
        (
            json.dumps({**PAYLOAD, "metadata": {"note": "n" * INPUT_BYTES}}).encode(),
            "bytes of JSON without its rows; shorten its metadata until there are at most 4,096",
        ),
    ],
)
def test_json_that_is_no_payload_is_rejected_with_its_reason(stack: MemoryStack, body: bytes, words: str) -> None:
    error, cause = receive_rejected(stack, "inbox/a.json", body)
    assert error == "InboxObjectRefused"
    assert words in cause


def test_json_with_a_key_twice_is_rejected_as_by_the_http_api(stack: MemoryStack) -> None:
    error, cause = receive_rejected(stack, "inbox/a.json", b'{"features": {"x": 1, "x": 2}}')
    assert error == "InvalidPayload"
    assert cause == '1 problem:\n- $: "x" is given twice in one object; give it once'


@pytest.mark.parametrize(
    ("payload", "paths"),
    [
        ([PAYLOAD], ["$"]),
        (None, ["$"]),
        ({}, ["$"]),
        ({"features": [1], "prediction_id": "a b", "extra": 1}, ["$.extra", "$.features", "$.prediction_id"]),
        ({"instances": []}, ["$.instances"]),
        ({"instances": [{"x": 1}] * (MAX_ROWS + 1)}, ["$.instances"]),
    ],
)
def test_a_payload_with_a_bad_structure_is_rejected_with_an_executions_message(
    stack: MemoryStack, payload: Any, paths: list[str]
) -> None:
    error, cause = receive_rejected(stack, "inbox/a.json", json.dumps(payload).encode())
    assert error == "InvalidPayload"
    assert [line[2 : line.index(": ")] for line in cause.splitlines()[1:]] == paths
    assert stack.data.written == []


@pytest.mark.parametrize("name", ["a.txt", "a.json.txt", "a", "a.gz", "a.xlsx", "a.zip", "a.csv.bz2", "a.gif", "json"])
def test_an_unknown_kind_is_rejected_with_the_known_ones(stack: MemoryStack, name: str) -> None:
    error, cause = receive_rejected(stack, f"inbox/{name}", b"GIF89a and so on")
    assert error == "InboxObjectRefused"
    assert f"inbox/{name} is of no known kind" in cause
    assert all(f'"{ending}"' in cause for ending in (".json", *IMAGES, *KINDS))


@pytest.mark.parametrize("ending", IMAGES)
def test_a_file_name_alone_makes_no_image(with_images: MemoryStack, ending: str) -> None:
    error, cause = receive_rejected(with_images, f"inbox/a{ending}", b"GIF89a and so on")
    assert error == "InboxObjectRefused"
    assert "does not start like a PNG, JPEG or WebP" in cause


def test_an_image_for_an_ensemble_without_images_is_rejected_with_its_features(stack: MemoryStack) -> None:
    error, cause = receive_rejected(stack, "inbox/a.png", image())
    assert (error, cause.split("; ")[1]) == ("InboxObjectRefused", "send a payload as JSON")
    assert 'the ensemble needs "x"' in cause
    assert stack.data.written == []


def test_before_anything_is_published_an_image_is_rejected() -> None:
    empty = MemoryStack()
    empty.data = Versions()
    assert receive_rejected(empty, "inbox/a.png", image())[0] == "NothingPublished"


@pytest.mark.parametrize("ending", [".json", ".png", "", *KINDS])
def test_an_empty_object_is_rejected_under_any_name(stack: MemoryStack, ending: str) -> None:
    error, cause = receive_rejected(stack, f"inbox/a{ending}", b"")
    assert (error, cause) == ("InboxObjectRefused", f"inbox/a{ending} is empty; upload it again")


def test_a_large_file_is_rejected_unread(stack: MemoryStack) -> None:
    error, cause = receive_rejected(stack, "inbox/a.json", size=FILE_BYTES + 1)
    assert error == "InboxObjectRefused"
    assert f"has {FILE_BYTES + 1:,} bytes; use at most {FILE_BYTES:,}, or one of *.csv" in cause
    assert stack.data.calls.total() == 0


def test_an_object_that_was_removed_meanwhile_is_rejected(stack: MemoryStack) -> None:
    error, cause = receive_rejected(stack, "inbox/a.json", size=10)
    assert (error, cause) == ("InboxObjectRefused", "inbox/a.json was removed before it was read; upload it again")


@pytest.mark.parametrize("name", ["/a.json", "a//b.csv", "./a.json", "a/../b.parquet", "a\n.json", "\x7f.csv"])
def test_a_key_that_some_clients_cannot_read_is_rejected(stack: MemoryStack, name: str) -> None:
    error, cause = receive_rejected(stack, f"inbox/{name}", size=10)
    assert error == "InboxObjectRefused"
    assert "upload it under another" in cause
    assert "\n" not in cause


def test_the_state_machine_retries_when_s3_fails(stack: MemoryStack) -> None:
    object.__setattr__(stack.data, "fails", True)
    with pytest.raises(StorageUnavailable):
        receive(stack, "inbox/a.json", b"{}")


@pytest.mark.slow
def test_a_rejection_fits_into_a_state_however_many_fields_are_bad(stack: MemoryStack) -> None:
    body = json.dumps({f"{number}" * 20: 1 for number in range(50_000)}).encode()
    error, cause = receive_rejected(stack, "inbox/a.json", body)
    assert error == "InvalidPayload"
    assert len(cause.encode()) < 32_768
