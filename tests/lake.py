"""Datasets in memory, split into shards and read to raw values."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Any

from obstore.store import MemoryStore

from stepensemble.batch.documents import Options, RunPlan
from stepensemble.batch.input.datasets import find_files
from stepensemble.batch.input.shard_reader import RawRows, read_shard
from stepensemble.batch.input.sharding import ShardedDataset, shard_dataset
from stepensemble.core.schema.manifest import Feature, NumberFeature
from stepensemble.storage.objects import Bucket

DATASET = "s3://lake/day/"
A, B = NumberFeature("a"), NumberFeature("b", missing=0.0)


def make_bucket(files: Mapping[str, bytes | str]) -> Bucket:
    """Make a bucket with these files under `day/`."""
    bucket = Bucket("lake", MemoryStore())
    for name, body in files.items():
        bucket.write(f"day/{name}", body.encode() if isinstance(body, str) else body)
    return bucket


def shard_all(bucket: Bucket, options: Options = Options(), features: Sequence[Feature] = (A,)) -> ShardedDataset:  # noqa: B008 frozen
    return shard_dataset(bucket, find_files(bucket, DATASET), options, features)


def plan_for(dataset: ShardedDataset, options: Options) -> RunPlan:
    """Make the plan of a dataset before any shard is read."""
    return RunPlan(
        run="0" * 16,
        execution="arn:aws:states:eu-west-1:123456789012:execution:batch:one",
        started_at="2026-01-02T03:04:05Z",
        ensemble="tiny",
        release="0" * 64,
        slots={},
        dataset=DATASET,
        date="2026-01-02",
        output="results",
        options=options,
        files=dataset.files,
        columns=dataset.columns,
        shards=len(dataset.shards),
    )


def read_all(
    files: Mapping[str, bytes | str],
    columns: Sequence[str] = ("a",),
    options: Options = Options(),  # noqa: B008 frozen
    features: Sequence[Feature] = (A,),
) -> list[RawRows]:
    """Read every shard of a dataset."""
    bucket = make_bucket(files)
    dataset = shard_all(bucket, options, features)
    plan = plan_for(dataset, options)
    return [read_shard(bucket, plan, shard, columns) for shard in dataset.shards]


def values(raws: Sequence[RawRows], column: str = "a") -> list[Any]:
    return [value for raw in raws for value in raw.frame[column].to_list()]


def numbers(raws: Sequence[RawRows]) -> list[int]:
    return [number for raw in raws for number in raw.numbers.tolist()]


def reasons(raws: Sequence[RawRows]) -> list[tuple[int, str]]:
    return [(row.row, row.reason) for raw in raws for row in raw.malformed]


def gzip_bytes(text: bytes | str) -> bytes:
    return gzip.compress(text.encode() if isinstance(text, str) else text, compresslevel=1, mtime=0)
