"""The clients that tasks of executions use: each account's executions call the stack of that account.

moto's Step Functions engine serves all stacks of a process and knows no more of a stack than its account.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from stepensemble.local.lambdas.pool import FunctionMissing, FunctionPool
from stepensemble.local.moto_patches.speedups.asl_cache import DefinitionCache

PARALLEL_CALLS = 256


@dataclass(frozen=True)
class ExecutionTarget:
    """What the executions of one account call.

    Attributes:
        account: twelve digits.
        endpoint: of every AWS API of the account's stack.
        pool: runs the functions.
        definitions: the parsed definitions of the stack's state machines.
        clients: those made so far, by region and service.
    """

    account: str
    endpoint: str
    pool: FunctionPool
    definitions: DefinitionCache
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)


TARGETS: dict[str, ExecutionTarget] = {}
"""By account, for all stacks of this process."""


@contextmanager
def serve_executions(target: ExecutionTarget) -> Iterator[None]:
    """Have the executions of an account call this pool and this endpoint while the block lasts."""
    TARGETS[target.account] = target
    try:
        yield
    finally:
        del TARGETS[target.account]


def find_client(account: str, region: str, service: str) -> Any:
    """Return the shared client of an account; None if this process has no stack of the account any more."""
    target = TARGETS.get(account)
    return None if target is None else _share_client(target, region, service)


def make_task_client(region: str, service: str, state_credentials: Any = None) -> Any:
    """Return a new boto3 client for the stack of the account that the state machine's role belongs to."""
    return _make_client(_find_target(state_credentials), region, service)


def share_task_client(region: str, service: str, state_credentials: Any = None) -> Any:
    """Return the shared client; the one for Lambda calls the function pool directly."""
    return _share_client(_find_target(state_credentials), region, service)


def _find_target(state_credentials: Any) -> ExecutionTarget:
    return TARGETS[str(state_credentials.role_arn).split(":")[4]]


def _share_client(target: ExecutionTarget, region: str, service: str) -> Any:
    client = target.clients.get((region, service))
    if client is None:
        made = _PoolClient(target, region) if service == "lambda" else _make_client(target, region, service)
        client = target.clients.setdefault((region, service), made)
    return client


def _make_client(target: ExecutionTarget, region: str, service: str) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        parameter_validation=False,
        retries={"max_attempts": 0, "total_max_attempts": 1},
        max_pool_connections=PARALLEL_CALLS,
        read_timeout=3600,
    )
    session: Any = Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=region)  # noqa: S106
    return session.client(service, endpoint_url=target.endpoint, config=config)


class _PoolClient:
    """A Lambda client whose `invoke` calls the function pool; every other method is boto3's."""

    def __init__(self, target: ExecutionTarget, region: str) -> None:
        self._target = target
        self._region = region

    def invoke(self, FunctionName: str, Payload: bytes = b"{}", ClientContext: str | None = None, **_: Any) -> Any:  # noqa: N803
        metadata = {"RequestId": str(uuid4()), "HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}
        try:
            result = self._target.pool.invoke(FunctionName, Payload, ClientContext)
        except FunctionMissing:
            arn = f"arn:aws:lambda:{self._region}:{self._target.account}:function:{FunctionName}"
            error: Any = {
                "Error": {"Code": "ResourceNotFoundException", "Message": f"Function not found: {arn}"},
                "ResponseMetadata": metadata | {"HTTPStatusCode": 404},
            }
            raise ClientError(error, "Invoke") from None
        response: dict[str, Any] = {
            "ResponseMetadata": metadata,
            "StatusCode": 200,
            "ExecutedVersion": "$LATEST",
            "Payload": BytesIO(result.payload),
        }
        return response if result.error is None else response | {"FunctionError": result.error}

    def __getattr__(self, name: str) -> Any:
        clients = self._target.clients
        key = (self._region, "lambda, not for invoke")
        if key not in clients:
            clients[key] = _make_client(self._target, self._region, "lambda")
        return getattr(clients[key], name)
