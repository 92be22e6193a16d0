"""Builds each function's handler from its environment; called once a process, when `functions/*/app.py` is imported."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from stepensemble.handlers.environment import (
    AggregateEnvironment,
    ApiEnvironment,
    Environment,
    NormalizeEnvironment,
    PlanEnvironment,
    ScoreEnvironment,
    SummarizeEnvironment,
    read_environment,
)
from stepensemble.storage.objects import open_bucket
from stepensemble.storage.releases import ReleaseStore

MEBIBYTE = 1024 * 1024

# Each function imports only its own module: imports are part of a cold start.
if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

    from stepensemble.handlers.batch.aggregate_shard import ShardAggregator
    from stepensemble.handlers.batch.normalize_shard import ShardNormalizer
    from stepensemble.handlers.batch.plan import Planner
    from stepensemble.handlers.batch.summarize import Summarizer
    from stepensemble.handlers.inbox.deliver import Deliverer
    from stepensemble.handlers.inbox.receive import Receiver
    from stepensemble.handlers.prediction.aggregate import Aggregator
    from stepensemble.handlers.prediction.normalize import Normalizer
    from stepensemble.handlers.prediction.score import Scorer


def wire_normalizer() -> Normalizer:
    """Build the handler of functions/normalize."""
    from stepensemble.handlers.current_release import CurrentRelease
    from stepensemble.handlers.prediction.normalize import Normalizer

    env = read_environment(NormalizeEnvironment, os.environ)
    releases = ReleaseStore(open_bucket(env.artifact_bucket))
    return Normalizer(CurrentRelease(releases, time.monotonic), open_bucket(env.data_bucket), env.score_function_prefix)


def wire_scorer() -> Scorer:
    """Build the handler of functions/score."""
    from stepensemble.handlers.prediction.model_cache import ModelCache, measure_process
    from stepensemble.handlers.prediction.score import Scorer

    env = read_environment(ScoreEnvironment, os.environ)
    releases = ReleaseStore(open_bucket(env.artifact_bucket))
    models = ModelCache(releases, env.aws_lambda_function_memory_size * MEBIBYTE, measure_process)
    return Scorer(models, open_bucket(env.data_bucket))


def wire_aggregator() -> Aggregator:
    """Build the handler of functions/aggregate."""
    import boto3

    _limit_botocore_log()

    from stepensemble.handlers.prediction.aggregate import Aggregator
    from stepensemble.storage.record_table import RecordTable

    env = read_environment(AggregateEnvironment, os.environ)
    data = open_bucket(env.data_bucket)
    records = RecordTable(boto3.client("dynamodb"), env.records_table, data, env.record_retention_days)
    return Aggregator(ReleaseStore(open_bucket(env.artifact_bucket)), records, data)


def wire_planner() -> Planner:
    """Build the handler of functions/plan."""
    import boto3

    _limit_botocore_log()

    from stepensemble.handlers.batch.plan import Planner
    from stepensemble.storage.executions import Executions

    env = read_environment(PlanEnvironment, os.environ)
    executions = Executions(boto3.client("stepfunctions"))
    releases = ReleaseStore(open_bucket(env.artifact_bucket))
    return Planner(releases, open_bucket(env.data_bucket), executions.is_running, env.batch_concurrency)


def wire_shard_normalizer() -> ShardNormalizer:
    """Build the handler of functions/normalize_shard."""
    from stepensemble.handlers.batch.normalize_shard import ShardNormalizer
    from stepensemble.handlers.batch.run_documents import Runs

    env = read_environment(NormalizeEnvironment, os.environ)
    runs = Runs(ReleaseStore(open_bucket(env.artifact_bucket)), open_bucket(env.data_bucket))
    return ShardNormalizer(runs, env.score_function_prefix)


def wire_shard_aggregator() -> ShardAggregator:
    """Build the handler of functions/aggregate_shard."""
    from stepensemble.handlers.batch.aggregate_shard import ShardAggregator
    from stepensemble.handlers.batch.run_documents import Runs

    env = read_environment(Environment, os.environ)
    return ShardAggregator(Runs(ReleaseStore(open_bucket(env.artifact_bucket)), open_bucket(env.data_bucket)))


def wire_summarizer() -> Summarizer:
    """Build the handler of functions/summarize."""
    from stepensemble.handlers.batch.run_documents import Runs
    from stepensemble.handlers.batch.summarize import Summarizer

    env = read_environment(SummarizeEnvironment, os.environ)
    memory = {
        "normalize_shard": env.batch_memory_size,
        "score": env.score_memory_size,
        "aggregate_shard": env.batch_memory_size,
    }
    runs = Runs(ReleaseStore(open_bucket(env.artifact_bucket)), open_bucket(env.data_bucket))
    return Summarizer(runs, memory)


def wire_receiver() -> Receiver:
    """Build the handler of functions/receive."""
    from stepensemble.handlers.current_release import CurrentRelease
    from stepensemble.handlers.inbox.receive import Receiver

    env = read_environment(Environment, os.environ)
    releases = ReleaseStore(open_bucket(env.artifact_bucket))
    return Receiver(CurrentRelease(releases, time.monotonic), open_bucket(env.data_bucket))


def wire_deliverer() -> Deliverer:
    """Build the handler of functions/deliver."""
    from stepensemble.handlers.inbox.deliver import Deliverer

    return Deliverer(open_bucket(read_environment(Environment, os.environ).data_bucket))


def wire_api() -> APIGatewayHttpResolver:
    """Build the handler of functions/api."""
    import boto3
    from botocore.config import Config

    _limit_botocore_log()

    from stepensemble.handlers.current_release import CurrentRelease
    from stepensemble.handlers.http.invoker import Invoker
    from stepensemble.handlers.http.routes import make_api
    from stepensemble.handlers.http.service import PredictionService
    from stepensemble.storage.record_table import RecordTable

    env = read_environment(ApiEnvironment, os.environ)
    data = open_bucket(env.data_bucket)
    # Within the 30 seconds that API Gateway waits. Retries are left to the client, by the response's `Retry-After`.
    config = Config(connect_timeout=2, read_timeout=26, retries={"total_max_attempts": 1})
    invoker = Invoker(
        boto3.client("stepfunctions", config=config),
        env.express_machine_arn,
        boto3.client("lambda", config=config),
        data,
    )
    records = RecordTable(boto3.client("dynamodb"), env.records_table, data) if env.reads_records else None
    current = CurrentRelease(ReleaseStore(open_bucket(env.artifact_bucket)), time.monotonic)
    return make_api(
        PredictionService(current, records, invoker, env.score_function_prefix, lambda: f"http-{uuid4().hex}")
    )


def _limit_botocore_log() -> None:
    # At DEBUG, which the stage dev sets, botocore logs whole requests, feature values included.
    logging.getLogger("botocore").setLevel(logging.INFO)
