"""The functions' environment variables, typed and read once. The template sets only these; Lambda adds its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct


class Environment(Struct, frozen=True, rename=str.upper):
    """The variables of every function."""

    stage: str
    log_level: str
    artifact_bucket: str
    data_bucket: str


class NormalizeEnvironment(Environment, frozen=True, rename=str.upper):
    """Normalize also has the name of every score function without its slot."""

    score_function_prefix: str


class ScoreEnvironment(Environment, frozen=True, rename=str.upper):
    """A slot also has its memory in MiB, which Lambda sets; it knows nothing of any model."""

    aws_lambda_function_memory_size: int


class PlanEnvironment(Environment, frozen=True, rename=str.upper):
    """Plan also has the number of shards that may be processed at the same time."""

    batch_concurrency: int


class SummarizeEnvironment(Environment, frozen=True, rename=str.upper):
    """Summarize also has the memory in MiB of the functions whose cost it estimates."""

    batch_memory_size: int
    score_memory_size: int


class AggregateEnvironment(Environment, frozen=True, rename=str.upper):
    """Aggregate also has the records' table, and how many days records are kept (0: without limit)."""

    records_table: str
    record_retention_days: int


class ApiEnvironment(Environment, frozen=True, rename=str.upper):
    """The HTTP function also has what it invokes, the records' table, and whether clients may read records."""

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
