from __future__ import annotations

import msgspec
import pytest

from stepensemble.handlers.environment import (
    AggregateEnvironment,
    NormalizeEnvironment,
    ScoreEnvironment,
    read_environment,
)

COMMON = {"STAGE": "dev", "LOG_LEVEL": "DEBUG", "ARTIFACT_BUCKET": "a", "DATA_BUCKET": "d", "PATH": "/bin"}


def test_the_environment_is_read_and_typed() -> None:
    read = read_environment(AggregateEnvironment, COMMON | {"RECORDS_TABLE": "t", "RECORD_RETENTION_DAYS": "30"})
    assert (read.stage, read.artifact_bucket, read.records_table, read.record_retention_days) == ("dev", "a", "t", 30)
    score = read_environment(ScoreEnvironment, COMMON | {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024"})
    assert (score.data_bucket, score.aws_lambda_function_memory_size) == ("d", 1024)
    assert (
        read_environment(NormalizeEnvironment, COMMON | {"SCORE_FUNCTION_PREFIX": "s-"}).score_function_prefix == "s-"
    )


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (COMMON, "RECORDS_TABLE"),
        (COMMON | {"RECORDS_TABLE": "t", "RECORD_RETENTION_DAYS": "month"}, "RECORD_RETENTION_DAYS"),
        ({key: value for key, value in COMMON.items() if key != "STAGE"}, "STAGE"),
    ],
)
def test_a_variable_that_is_missing_or_malformed_is_named(variables: dict[str, str], named: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=named):
        read_environment(AggregateEnvironment, variables)
