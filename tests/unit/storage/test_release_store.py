from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import LocalStore, S3Store

from builders import BINARY, artifact, release, released
from memory import CountingBucket, MemoryStack
from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    NothingPublished,
    ObjectMissing,
    PublishConflict,
    ReleaseCorrupt,
    StorageUnavailable,
)
from stepensemble.core.record import Record
from stepensemble.core.releases.release import ReleasePointer, encode_release
from stepensemble.core.schema.policy import Policy
from stepensemble.storage.keys import CURRENT, artifact_key, execution_prefix, release_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.releases import ReleaseStore


@pytest.fixture
def bucket() -> CountingBucket:
    return CountingBucket("things")


@pytest.fixture
def store(bucket: CountingBucket) -> ReleaseStore:
    return ReleaseStore(bucket)


def test_an_object_is_read_as_written_and_its_pointer_has_bucket_and_key(bucket: Bucket) -> None:
    assert bucket.write("a/b", b"1").s3 == "s3://things/a/b"
    assert bucket.read("a/b") == b"1"


def test_a_missing_object_is_reported(bucket: Bucket) -> None:
    with pytest.raises(ObjectMissing, match="s3://things/a does not exist, or may not be read"):
        bucket.read("a")


def test_an_object_is_created_once(bucket: Bucket) -> None:
    assert bucket.create("a", b"1")
    assert not bucket.create("a", b"2")
    assert bucket.read("a") == b"1"


def test_an_object_exists_with_its_size(bucket: Bucket) -> None:
    bucket.write("a", b"123")
    assert [bucket.exists("a", 3), bucket.exists("a", 4), bucket.exists("b", 3)] == [True, False, False]


def test_an_object_is_replaced_only_with_its_current_etag(bucket: Bucket) -> None:
    bucket.replace("a", b"1", None)
    _, tag = bucket.read_tagged("a")
    bucket.replace("a", b"2", tag)
    for seen in (tag, None):
        with pytest.raises(PublishConflict, match="a was changed at the same time by another process"):
            bucket.replace("a", b"3", seen)
    assert bucket.read("a") == b"2"


def test_a_storage_that_cannot_be_reached_is_unavailable() -> None:
    store = S3Store(
        "things",
        endpoint="http://127.0.0.1:9",  # the discard port: no server listens
        region="eu-central-1",
        access_key_id="x",
        secret_access_key="x",  # noqa: S106 - no real secret
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    with pytest.raises(StorageUnavailable, match="s3://things/a: "):
        Bucket("things", store).read("a")


def test_the_same_code_works_on_any_store(tmp_path: Path) -> None:
    local = Bucket("things", LocalStore(tmp_path))
    local.write("a/b", b"1")
    assert (tmp_path / "a" / "b").read_bytes() == b"1"


def test_executions_with_unusual_names_have_valid_keys() -> None:
    prefix = execution_prefix("a b/../ä:1", "arn:1")
    assert prefix.startswith("executions/a_b_.._")
    assert prefix.count("/") == 1
    assert prefix != execution_prefix("a b/../ä:1", "arn:2")


def test_nothing_is_published_in_an_empty_bucket(store: ReleaseStore) -> None:
    with pytest.raises(NothingPublished, match="run: ensemble publish"):
        store.read_current()


def test_the_pointer_is_moved_only_with_its_current_etag(store: ReleaseStore) -> None:
    store.move_current(ReleasePointer("1", {"a": "1"}), None)
    current, tag = store.read_current()
    assert current == ReleasePointer("1", {"a": "1"})
    store.move_current(ReleasePointer("2", {}), tag)
    with pytest.raises(PublishConflict):
        store.move_current(ReleasePointer("3", {}), tag)
    assert store.read_current()[0].release == "2"


def test_an_artifact_is_written_once_and_again_if_it_is_damaged(store: ReleaseStore, bucket: Bucket) -> None:
    body = b"a model"
    entry = artifact(body)
    assert store.write_artifact(entry, body)
    assert not store.write_artifact(entry, body)
    bucket.write(artifact_key(entry.digest), b"a m0del")  # the same size
    with pytest.raises(ArtifactCorrupt, match=f"artifact {entry.digest[:12]} has the digest"):
        store.read_artifact(entry)
    assert store.write_artifact(entry, body)
    assert store.read_artifact(entry) == body


def test_a_missing_artifact_is_reported(store: ReleaseStore) -> None:
    with pytest.raises(ArtifactMissing, match="publish again"):
        store.read_artifact(artifact(b"x"))


def test_a_damaged_release_is_repaired_by_publishing_it_again(store: ReleaseStore, bucket: Bucket) -> None:
    made = release(BINARY, released("a", "probability"))
    digest, body = encode_release(made)
    with pytest.raises(ReleaseCorrupt, match="is not in the bucket; publish again"):
        store.read_release(digest)
    bucket.write(release_key(digest), b"{}")
    with pytest.raises(ReleaseCorrupt, match="publish again"):
        store.read_release(digest)
    store.write_release(digest, body)
    assert store.read_release(digest) == made


def test_the_pointer_has_one_place() -> None:
    assert CURRENT == "current.json"


def record(number: int, when: datetime) -> Record:
    output = Output(f"p{number}", "0" * 64, "COMPLETE", Policy(), {}, 0, [], [])
    return Record(f"p{number}", "0" * 64, f"arn:{number}", "", when.isoformat(), 1, "", {}, output)


def test_the_latest_records_come_first_across_days() -> None:
    stack = MemoryStack()
    today = datetime.now(UTC)
    for number, back in enumerate([0, 40, 1, 3, 0.00001]):  # days; p1 is beyond the 31 that are looked at
        stack.records.add(record(number, today - timedelta(days=back)))
    assert [one.prediction_id for one in stack.records.latest(10)] == ["p0", "p4", "p2", "p3"]
    assert [one.prediction_id for one in stack.records.latest(2)] == ["p0", "p4"]
