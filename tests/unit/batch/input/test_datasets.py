from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from lake import DATASET, make_bucket
from stepensemble.batch.documents import KINDS, Options
from stepensemble.batch.input.datasets import find_files, parse_location, required_columns
from stepensemble.core.errors import DatasetMissing, DatasetRefused, EnsembleError
from stepensemble.storage.objects import Bucket


def test_files_come_in_the_order_of_their_keys_and_are_named_without_the_prefix() -> None:
    bucket = make_bucket({"b.csv": "a\n", "a/z.csv": "a\n1\n", "B.csv": "a\n"})
    files = find_files(bucket, DATASET)
    assert [file.name for file in files] == ["B.csv", "a/z.csv", "b.csv"]
    assert [file.key for file in files] == ["day/B.csv", "day/a/z.csv", "day/b.csv"]
    assert [file.size for file in files] == [2, 4, 2]
    assert all(file.rows is None for file in files)


def test_a_version_changes_with_the_content() -> None:
    bucket = make_bucket({"a.csv": "a\n1\n"})
    before = find_files(bucket, DATASET)
    bucket.write("day/a.csv", b"a\n2\n")
    assert find_files(bucket, DATASET)[0].version != before[0].version


def test_a_dataset_may_be_one_file() -> None:
    bucket = make_bucket({"a.csv": "a\n", "b.csv": "a\n"})
    assert [file.name for file in find_files(bucket, f"{DATASET}b.csv")] == ["b.csv"]


def test_a_file_has_the_requested_version() -> None:
    bucket = make_bucket({"a.csv": "a\n"})
    (named,), (latest,) = find_files(bucket, f"{DATASET}a.csv", None, "v1"), find_files(bucket, f"{DATASET}a.csv")
    assert (named.version_id, latest.version_id) == ("v1", None)
    assert named.version == latest.version == bucket.head("day/a.csv").version


def test_a_dataset_may_be_a_whole_bucket() -> None:
    assert [file.name for file in find_files(make_bucket({"a.csv": "a\n"}), "s3://lake/")] == ["day/a.csv"]


@pytest.mark.parametrize("ending", KINDS)
def test_every_format_is_recognized_by_its_name(ending: str) -> None:
    for name in (f"x{ending}", f"x{ending.upper()}", f"x.y{ending}"):
        (file,) = find_files(make_bucket({name: b""}), DATASET)
        assert (file.format, file.compression) == KINDS[ending]


def test_hidden_files_and_markers_are_skipped() -> None:
    bucket = make_bucket(
        {"a.csv": "a\n", "_SUCCESS": "", ".a.csv.crc": "x", "_temporary/0/b.csv": "a\n", ".x/c.csv": "a\n"}
    )
    assert [file.name for file in find_files(bucket, DATASET)] == ["a.csv"]


def test_a_success_marker_is_an_empty_dataset() -> None:
    assert find_files(make_bucket({"_SUCCESS": ""}), DATASET) == ()


def test_only_the_dates_folder_is_its_dataset() -> None:
    bucket = make_bucket({"dt=2026-01-01/a.csv": "a\n", "dt=2026-01-02/a.csv": "a\n", "dt=2026-01-02/b.csv": "a\n"})
    assert [file.name for file in find_files(bucket, DATASET, "2026-01-02")] == [
        "dt=2026-01-02/a.csv",
        "dt=2026-01-02/b.csv",
    ]
    assert len(find_files(bucket, DATASET)) == 3
    assert [file.name for file in find_files(bucket, f"{DATASET}dt=2026-01-01/", "2026-01-02")] == ["a.csv"]
    with pytest.raises(DatasetMissing, match=r"there is no dt=2026-01-03/ .* the latest one is dt=2026-01-02/"):
        find_files(bucket, DATASET, "2026-01-03")


def test_files_without_a_date_are_every_dates() -> None:
    assert len(find_files(make_bucket({"a.csv": "a\n"}), DATASET, "2026-01-03")) == 1


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("s3://lake/other/", "nothing is stored under s3://lake/other/"),
        ("s3://lake/day/b.csv", "s3://lake/day/b.csv does not exist; check bucket, key and permissions"),
        ("s3://lake/day", "did you mean s3://lake/day/?"),
        ("lake/day", '"lake/day" is not a location in S3; write s3://bucket/key'),
        ("https://lake/day", "is not a location in S3"),
    ],
)
def test_a_missing_dataset_is_reported_with_its_cause(dataset: str, words: str) -> None:
    with pytest.raises(DatasetMissing) as caught:
        find_files(make_bucket({"a.csv": "a\n"}), dataset)
    assert words in str(caught.value)
    assert isinstance(caught.value, EnsembleError)


def test_a_location_has_bucket_and_key() -> None:
    assert parse_location("s3://lake/day/a=b c/ü.csv") == ("lake", "day/a=b c/ü.csv")


def test_an_empty_bucket_has_no_dataset() -> None:
    with pytest.raises(DatasetMissing):
        find_files(Bucket("lake", MemoryStore()), "s3://lake/")


def test_unknown_formats_are_rejected_with_a_list_of_known_ones() -> None:
    with pytest.raises(DatasetRefused) as caught:
        find_files(make_bucket({"a.csv": "a\n", "b.xlsx": "x", "c": "x"}), DATASET)
    assert [problem.path for problem in caught.value.problems] == ["b.xlsx", "c"]
    assert all(ending in caught.value.problems[0].remedy for ending in KINDS)


def test_several_formats_are_refused() -> None:
    with pytest.raises(DatasetRefused, match=r"several formats: a\.csv is csv and b\.jsonl is jsonl"):
        find_files(make_bucket({"a.csv": "a\n", "a2.csv.gz": b"", "b.jsonl": "{}"}), DATASET)


def test_required_columns_are_listed_once() -> None:
    options = Options(id="id", label="y", keep=("x", "id"))
    assert required_columns(options, ["x", "z"]) == ("x", "z", "id", "y")
