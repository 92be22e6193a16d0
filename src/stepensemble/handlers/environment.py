"""The functions' environment variables, read once and typed. The template sets these and no others, Lambda its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct


class Environment(Struct, frozen=True, rename=str.upper):
    """What every function has."""

    stage: str
    log_level: str
    artifact_bucket: str
    data_bucket: str


class NormalizeEnvironment(Environment, frozen=True, rename=str.upper):
    """What Normalize has besides: the name of every score function without its slot."""

    score_function_prefix: str


class ScoreEnvironment(Environment, frozen=True, rename=str.upper):
    """What a slot has: nothing of any model, but how many MiB Lambda gives it."""

    aws_lambda_function_memory_size: int


class PlanEnvironment(Environment, frozen=True, rename=str.upper):
    """What Plan has besides: how many shards may be at work at once."""

    batch_concurrency: int


class SummarizeEnvironment(Environment, frozen=True, rename=str.upper):
    """What Summarize has besides: how many MiB the functions have whose cost it reckons."""

    batch_memory_size: int
    score_memory_size: int


class AggregateEnvironment(Environment, frozen=True, rename=str.upper):
    """What Aggregate has besides: the records' table, and for how many days they are kept (0: for good)."""

    records_table: str
    record_retention_days: int


class ApiEnvironment(Environment, frozen=True, rename=str.upper):
    """What the HTTP function has besides: what it calls, the records, and whether clients may read them."""

    score_function_prefix: str
    express_machine_arn: str
    records_table: str
    reads_records: bool


Kind = TypeVar("Kind", bound=Environment)


def read_environment(kind: type[Kind], variables: Mapping[str, str]) -> Kind:
    """Read the variables of one function.

    Raises:
        msgspec.ValidationError: naming the variable that is missing or malformed.
    """
    return msgspec.convert(variables, kind, strict=False)
