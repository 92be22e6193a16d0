from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from builders import artifact, member, sources
from memory import CountingBucket, MemoryStack
from stepensemble.core.errors import DatasetChanged, ObjectMissing
from stepensemble.storage.keys import parse_release_key, release_key
from stepensemble.storage.objects import DELETED_AT_ONCE, PIECE_BYTES, Bucket
from stepensemble.storage.releases import ReleaseStore


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 7])
def test_an_upload_is_complete_and_every_byte_is_reported_once(size: int) -> None:
    bucket, sent = Bucket("things", MemoryStore()), []
    body = (b"0123456789abcde" * (size // 15 + 1))[:size]
    bucket.upload("a", body, sent.append)
    assert bucket.read("a") == body
    assert sum(sent) == size
    assert max(sent) <= PIECE_BYTES


def test_an_upload_replaces_an_existing_object() -> None:
    bucket = Bucket("things", MemoryStore())
    for body in (b"1" * (PIECE_BYTES + 1), b"2"):
        bucket.upload("a", body)
        assert bucket.read("a") == body


def test_a_folder_lists_its_objects_and_no_others(tmp_path: Path) -> None:
    for store in (MemoryStore(), LocalStore(tmp_path)):
        bucket = Bucket("things", store)
        for key in ("a/1", "a/2", "ab/3", "4"):
            bucket.write(key, b"x")
        listed = list(bucket.list("a/"))
        assert sorted(one.key for one in listed) == ["a/1", "a/2"]
        assert all(datetime.now(UTC) - one.last_modified < timedelta(minutes=1) for one in listed)
    assert list(bucket.list("none/")) == []


def test_list_and_head_return_size_and_version(tmp_path: Path) -> None:
    for store in (MemoryStore(), LocalStore(tmp_path)):
        bucket = Bucket("things", store)
        bucket.write("a/1", b"123")
        (listed,) = bucket.list("a/")
        assert (listed.key, listed.size) == ("a/1", 3)
        assert bucket.head("a/1") == listed
        assert bucket.read_tagged("a/1")[1] == listed.version
        bucket.write("a/1", b"1234")
        assert bucket.head("a/1").version != listed.version
        with pytest.raises(ObjectMissing, match="s3://things/a/2"):
            bucket.head("a/2")


@pytest.mark.parametrize(
    ("start", "end", "bytes_"), [(0, 10, b"0123456789"), (3, 5, b"34"), (8, 99, b"89"), (4, 4, b"")]
)
def test_a_range_excludes_its_end_and_stops_at_the_end_of_the_object(start: int, end: int, bytes_: bytes) -> None:
    bucket = Bucket("things", MemoryStore())
    bucket.write("a", b"0123456789")
    assert bucket.read_range("a", start, end, bucket.head("a").version) == bytes_


def test_a_range_of_a_replaced_or_deleted_object_is_rejected() -> None:
    bucket = Bucket("things", MemoryStore())
    bucket.write("a", b"0123456789")
    version = bucket.head("a").version
    bucket.write("a", b"9876543210")
    with pytest.raises(DatasetChanged, match="s3://things/a was changed or removed"):
        bucket.read_range("a", 0, 2, version)
    bucket.delete(["a"])
    with pytest.raises(DatasetChanged, match="s3://things/a was changed or removed"):
        bucket.read_range("a", 0, 2, version)


def test_a_bucket_without_versioning_returns_no_version_id_and_reads_the_latest() -> None:
    bucket = Bucket("things", MemoryStore())
    assert bucket.add_version("a", b"1") is None
    assert bucket.add_version("a", b"2" * (PIECE_BYTES + 1)) is None
    assert bucket.add_version("a", b"2") is None
    assert bucket.read_version("a", None) == b"2"
    assert bucket.head("a", None) == bucket.head("a")
    with pytest.raises(ObjectMissing, match="s3://things/none"):
        bucket.read_version("none", None)


@pytest.mark.parametrize("key", ["a//b", "a/../b", "a\nb"])
def test_an_invalid_key_is_a_missing_object(key: str) -> None:
    bucket = Bucket("things", MemoryStore())
    with pytest.raises(ObjectMissing):
        bucket.read_version(key, None)
    with pytest.raises(ObjectMissing):
        bucket.head(key)


def test_a_copy_replaces_an_existing_object_and_keeps_its_source() -> None:
    bucket = Bucket("things", MemoryStore())
    bucket.write("a", b"new")
    bucket.write("b/a", b"old")
    bucket.copy("a", "b/a")
    assert bucket.read("a") == bucket.read("b/a") == b"new"
    with pytest.raises(ObjectMissing, match="s3://things/none"):
        bucket.copy("none", "b/a")


def test_thousands_of_objects_are_deleted_and_a_missing_one_is_ignored() -> None:
    bucket = Bucket("things", MemoryStore())
    keys = [f"a/{number}" for number in range(DELETED_AT_ONCE + 1)]
    for key in [*keys, "b"]:
        bucket.write(key, b"")
    bucket.delete([*keys, "a/none"])
    assert list(bucket.list("a/")) == []
    assert bucket.read("b") == b""
    bucket.delete([])


def test_a_list_of_thousands_is_complete() -> None:
    bucket = Bucket("things", MemoryStore())
    for number in range(1500):
        bucket.write(f"a/{number}", b"")
    assert len(list(bucket.list("a/"))) == 1500


def test_releases_are_listed_newest_first_by_their_digests(tmp_path: Path) -> None:
    stack = MemoryStack()
    digests = [stack.publish(sources(tmp_path, member(version=str(number)))).release for number in range(3)]
    assert [kept.digest for kept in stack.releases.list_releases()] == digests[::-1]
    assert parse_release_key(release_key("abc")) == "abc"


def test_an_artifact_is_read_back_after_writing() -> None:
    bucket = CountingBucket("things")
    entry = artifact(b"a model")
    assert ReleaseStore(bucket).write_artifact(entry, b"a model")
    assert bucket.calls[f"artifacts/{entry.digest}"] == 1
