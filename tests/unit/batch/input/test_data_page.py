from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from builders import ROOT
from lake import gzip_bytes, make_bucket, read_all, reasons, shard_all
from stepensemble.batch.documents import KINDS, SHARD_BYTES, Options
from stepensemble.batch.input.csv_records import MAX_RECORD_BYTES
from stepensemble.batch.input.text_stream import WHOLE_SHARDS
from stepensemble.core.errors import DatasetRefused

PAGE = (ROOT / "docs" / "batch-data.md").read_text()


def cells(heading: str) -> Iterator[list[str]]:
    """Yield the rows of the table whose first line begins with a heading."""
    table = PAGE[PAGE.index(heading) :].split("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_the_page_names_every_ending() -> None:
    assert {ending for names, *_ in cells("| name ends with") for ending in re.findall(r"`([^`]*)`", names)} == set(
        KINDS
    )


@pytest.mark.parametrize(("format_", "record", "reason"), list(cells("| format | record")))
def test_malformed_records_are_rejected_with_the_documented_reason(format_: str, record: str, reason: str) -> None:
    body = record.strip("`").replace("\\xff", "\xff").replace("\\r", "\r").encode("latin-1") + b"\n"
    files = {"x.csv": b"a,b\n" + body} if format_ == "csv" else {"x.jsonl": b'{"a": 1}\n' + body}
    assert [found for _, found in reasons(read_all(files))] == [reason]


PARQUET = ROOT / "tests" / "data" / "parquet"
LINE = b"x" * 1023 + b"\n"
REFUSED: dict[str, Callable[[], dict[str, bytes]]] = {
    "another ending": lambda: {"a.xml": b""},
    "several formats": lambda: {"a.csv": b"a\n", "b.jsonl": b""},
    "header: a name twice": lambda: {"a.csv": b"a,a\n"},
    "header: nothing in it": lambda: {"a.csv": b"\n"},
    "header: other encoding": lambda: {"a.csv": b"\xff\n"},
    "header: lines end in CR": lambda: {"a.csv": b"a\r1\r2\r"},
    "header: lines end in CR, and more than 1 MB": lambda: {"a.csv": b"a\r" * 1_100_000},
    "header: UTF-16 without a mark": lambda: {"a.csv": "a\n1\n".encode("utf-16-le")},
    "header: a name that is nearly a feature's": lambda: {"a.csv": b"b, a\n"},
    "header: more than 1 MB": lambda: {"a.csv": b"a" * 1_100_000},
    "a line of more than 16 MB": lambda: {"a.csv": b"a\n" + b"x" * (MAX_RECORD_BYTES + 1)},
    "gzip: cut off": lambda: {"a.csv.gz": gzip_bytes("a\n1\n")[:-1]},
    "gzip: bits flipped, or no gzip": lambda: {"a.csv.gz": b"a\n1\n"},
    "gzip: a bomb, or too large": lambda: {
        "a.csv.gz": gzip_bytes(b"a\n" + (b"x" * 1023 + b"\n") * (WHOLE_SHARDS * SHARD_BYTES // 1024))
    },
    "UTF-16 and the like: invalid": lambda: {"a.csv": "a\n".encode("utf-16") + b"x"},
    "Parquet: cut off, or none": lambda: {"a.parquet": b"PAR1"},
    "Parquet: a name twice": lambda: {"a.parquet": (PARQUET / "duplicate_names.parquet").read_bytes()},
    "Parquet: an interval, a list view": lambda: {"a.parquet": (PARQUET / "interval.parquet").read_bytes()},
    "Parquet: footer": lambda: {"a.parquet": b"PAR1" + b"x" * 100 + b"PAR1"},
}


@pytest.mark.parametrize(("what", "words"), list(cells("| file or option")))
def test_datasets_are_rejected_with_the_documented_reason(what: str, words: str) -> None:
    options = {"encoding": Options(encoding="utf-88"), "separator": Options(separator="é")}.get(what, Options())
    bucket = make_bucket(REFUSED[what]() if what in REFUSED else {"a.csv": b"a\n1\n"})
    with pytest.raises(DatasetRefused) as caught:
        shard_all(bucket, options)
    (problem,) = caught.value.problems
    assert problem.message.startswith(words)
