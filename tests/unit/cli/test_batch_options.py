from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import typer
from obstore.store import MemoryStore

from stepensemble.cli.batch_options import (
    check_encoding,
    read_days,
    read_moment,
    read_separator,
    read_share,
    read_size,
)
from stepensemble.cli.local_datasets import find_local, upload_dataset
from stepensemble.storage.objects import PIECE_BYTES, Bucket

NOW = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16MB", 16 * 1024**2), ("512KB", 512 * 1024), ("512 kb", 512 * 1024), ("1g", 1024**3), ("2048", 2048)],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0), ("100 %", 1), ("1", 1)])
def test_a_share_is_a_number_or_percent(text: str, share: float) -> None:
    assert read_share(text) == share


def test_days_are_one_or_several_or_today() -> None:
    assert read_days(None, None, None, NOW) == ["2026-03-01"]
    assert read_days("2026-03-01", None, None, NOW) == ["2026-03-01"]
    assert read_days(None, "2026-02-27", "2026-03-01", NOW) == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert read_days(None, "2026-03-01", "2026-03-01", NOW) == ["2026-03-01"]


def test_a_time_without_offset_is_utc() -> None:
    assert read_moment("2026-03-01T05:00") == datetime(2026, 3, 1, 5, tzinfo=UTC)
    assert read_moment("2026-03-01T05:00+01:00") == datetime(2026, 3, 1, 5, tzinfo=timezone(timedelta(hours=1)))


def test_a_tab_may_be_written_as_a_word() -> None:
    assert [read_separator(text) for text in (";", "tab", "\\t", "\t")] == [";", "\t", "\t", "\t"]
    assert check_encoding("latin-1") == "latin-1"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: read_size("16 elephants"), "16 elephants is not a size"),
        (lambda: read_size("1000"), "1,024 bytes or more"),
        (lambda: read_share("5"), "5 is not a share; write it like 0.05 or 5%"),
        (lambda: read_share("nan"), "nan is not a share"),
        (lambda: read_days("1 March", None, None, NOW), "1 March is not a day"),
        (lambda: read_days("9999-12-31", None, None, NOW), "9999-12-31 is out of range; .* 1970 to 2199"),
        (lambda: read_days(None, "2026-03-01", None, NOW), "--from and --to belong together; give both"),
        (lambda: read_days(None, "2026-03-02", "2026-03-01", NOW), "is before"),
        (lambda: read_days("2026-03-02", "2026-03-01", "2026-03-02", NOW), "leave one out"),
        (lambda: read_moment("noon"), "noon is not a time"),
        (lambda: read_moment("9999-12-31T23:59:59-01:00"), "give a time in the years 1970 to 2199"),
        (lambda: read_moment("0001-01-01T00:00+01:00"), "give a time in the years 1970 to 2199"),
        (lambda: read_separator("::"), ":: is not a separator"),
        (lambda: read_separator('"'), "is not a separator"),
        (lambda: check_encoding("utf-9"), "utf-9 is not an encoding"),
    ],
)
def test_an_invalid_option_is_rejected_with_the_remedy(read: Callable[[], object], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        read()


def test_a_folder_is_uploaded_once_under_a_prefix_of_its_content(tmp_path: Path) -> None:
    bucket, sent = Bucket("data", MemoryStore()), list[int]()
    (tmp_path / "dt=2026-03-01").mkdir()
    (tmp_path / "dt=2026-03-01" / "b.csv").write_bytes(b"x\n2\n")
    large = bytes(range(256)) * (PIECE_BYTES // 256) + b"more than a piece"
    (tmp_path / "a.parquet").write_bytes(large)
    (tmp_path / "empty.csv").touch()
    (tmp_path / ".hidden").write_bytes(b"not this")
    dataset = find_local(tmp_path)
    assert dataset.names == ["a.parquet", "dt=2026-03-01/b.csv", "empty.csv"]
    assert upload_dataset(dataset, bucket, sent.append) == 3
    assert sum(sent) == dataset.size == len(large) + 4
    assert bucket.read(f"{dataset.key}a.parquet") == large
    assert {listed.key for listed in bucket.list(dataset.key)} == {dataset.key + name for name in dataset.names}
    assert upload_dataset(find_local(tmp_path), bucket, sent.append) == 0
    assert sum(sent) == 2 * dataset.size
    (tmp_path / "empty.csv").write_bytes(b"x\n")
    assert find_local(tmp_path).key != dataset.key


def test_a_file_keeps_its_name(tmp_path: Path) -> None:
    path = tmp_path / "passengers.csv"
    path.write_bytes(b"x\n1\n")
    dataset, bucket = find_local(path), Bucket("data", MemoryStore())
    upload_dataset(dataset, bucket, lambda _: None)
    assert dataset.key.endswith("/passengers.csv")
    assert bucket.read(dataset.key) == b"x\n1\n"
