from __future__ import annotations

import io
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake import DATASET, make_bucket, shard_all
from stepensemble.batch.input.datasets import find_files
from stepensemble.batch.input.parquet_footer import GUESSED_BYTES, fetch_chunks, read_footer
from stepensemble.batch.input.text_stream import TextRefused
from stepensemble.core.errors import DatasetRefused


def write(frame: pl.DataFrame, **options: Any) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, **options)
    return file.getvalue()


SMALL = write(pl.DataFrame({"a": list(range(40)), "b": ["x", None] * 20}), row_group_size=10)


@pytest.mark.parametrize("groups", [1, 3, 40])
@pytest.mark.parametrize("width", [1, 60])
def test_a_footer_is_read_as_by_polars(groups: int, width: int) -> None:
    frame = pl.DataFrame({f"column {index}": list(range(groups * 5)) for index in range(width)})
    bucket = make_bucket({"a.parquet": write(frame, row_group_size=5)})
    (file,) = find_files(bucket, DATASET)
    footer = read_footer(bucket, file)
    assert footer.rows == frame.height
    assert [group.rows for group in footer.row_groups] == [5] * groups
    for group in footer.row_groups:
        assert [chunk.column for chunk in group.chunks] == frame.columns
    # Chunks follow each other from behind the magic up to the footer.
    edges = [edge for group in footer.row_groups for chunk in group.chunks for edge in (chunk.start, chunk.end)]
    assert edges == sorted(edges)
    assert edges[0] == 4
    assert edges[-1] <= file.size - len(footer.tail)
    assert (len(footer.tail) > GUESSED_BYTES) == (groups * width == 2400)


def test_only_the_requested_chunks_are_fetched() -> None:
    frame = pl.DataFrame({"a": list(range(60_000)), "b": list(range(60_000))})
    body = write(frame, row_group_size=15_000, compression="uncompressed")
    bucket = make_bucket({"a.parquet": body})
    (file,) = find_files(bucket, DATASET)
    footer = read_footer(bucket, file)
    chunks = [chunk for chunk in footer.row_groups[2].chunks if chunk.column == "a"]
    with fetch_chunks(bucket, file, footer, chunks) as path:
        local = path.read_bytes()
        read = pl.scan_parquet(path).select("a").slice(30_000, 15_000).collect()
    assert read["a"].to_list() == list(range(30_000, 45_000))
    start, end, tail = chunks[0].start, chunks[0].end, len(body) - len(footer.tail)
    assert local[:4] + local[start:end] + local[tail:] == body[:4] + body[start:end] + body[tail:]
    assert not any(local[4:start])
    assert not any(local[end:tail])


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_footer_is_reported_or_still_readable(changes: list[tuple[int, int]]) -> None:
    body = bytearray(SMALL)
    for place, byte in changes:
        body[place] = byte
    bucket = make_bucket({"a.parquet": bytes(body)})
    (file,) = find_files(bucket, DATASET)
    try:
        footer = read_footer(bucket, file)
    except TextRefused:
        return
    chunks = [chunk for group in footer.row_groups for chunk in group.chunks]
    assert all(0 <= chunk.start <= chunk.end <= file.size for chunk in chunks)


def test_every_truncation_is_reported() -> None:
    accepted = []
    for size in range(1, len(SMALL), 7):
        try:
            shard_all(make_bucket({"a.parquet": SMALL[:size]}))
        except DatasetRefused as error:
            if "is not a Parquet file, or is truncated" in str(error):
                continue
        accepted.append(size)
    assert accepted == [], f"of {len(SMALL)} bytes"
