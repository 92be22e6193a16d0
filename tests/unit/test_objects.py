from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from builders import artifact, member, sources
from memory import CountingBucket, MemoryStack
from stepensemble.storage.keys import release_key, released_under
from stepensemble.storage.objects import PIECE_BYTES, Bucket
from stepensemble.storage.releases import ReleaseStore


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 7])
def test_an_upload_arrives_whole_and_every_byte_is_told_once(size: int) -> None:
    bucket, told = Bucket("things", MemoryStore()), []
    body = (b"0123456789abcde" * (size // 15 + 1))[:size]
    bucket.upload("a", body, told.append)
    assert bucket.read("a") == body
    assert sum(told) == size
    assert max(told) <= PIECE_BYTES


def test_an_upload_takes_the_place_of_an_older_object() -> None:
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


def test_a_list_of_thousands_is_complete() -> None:
    bucket = Bucket("things", MemoryStore())
    for number in range(1500):
        bucket.write(f"a/{number}", b"")
    assert len(list(bucket.list("a/"))) == 1500


def test_releases_are_listed_newest_first_by_their_digests(tmp_path: Path) -> None:
    stack = MemoryStack()
    digests = [stack.publish(sources(tmp_path, member(version=str(number)))).release for number in range(3)]
    assert [kept.digest for kept in stack.releases.list_releases()] == digests[::-1]
    assert released_under(release_key("abc")) == "abc"


def test_an_artifact_is_read_back_once_it_is_written() -> None:
    bucket = CountingBucket("things")
    entry = artifact(b"a model")
    assert ReleaseStore(bucket).write_artifact(entry, b"a model")
    assert bucket.calls[f"artifacts/{entry.digest}"] == 1
