"""moto's Step Functions engine, put right. All that this package changes in moto's engine is changed here, by `repair`.

1. CloudFormation creates state machines in a backend that does not execute them.
2. For every task the engine makes a new boto3 client, which costs more than the task. Lambda invocations go straight to
   the function pool of the execution's account; other services get one client an account and service.
3. It parses the definition anew for every execution (100 ms; see `programs`), and every JSONPath anew for every use;
   and it copies states, which are JSON, with `copy.deepcopy`, which is made for anything.
4. An execution's status changes before its output is there: who looks in between finds a success without an output.
   An output that is a string is described without its quotes, and one that is null not at all.
5. `$$.Execution.StartTime` is no text, so a state that passes it on cannot be described; and not in AWS's format.
6. It keeps every thread it ever started, and every execution with its history, in lists.
7. Items of a Map count their retries under a key that the first to fail makes up; two that fail at once make up two,
   and one of them tries once too often.
8. It looks for what a Distributed Map's ResultWriter names by path in the Map's output; AWS in its input. And the more
   items a worker of such a Map has done, the deeper it is in calls of itself: after about a thousand it fails.
9. A task that starts an execution hands its parameters on as the definition writes them, which boto3 does not take, and
   its answer as boto3 writes it; and it looks every half second whether the execution has ended.
"""

from __future__ import annotations

import copy
import json
import marshal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import jsonpath_ng.ext.parser
import jsonpath_ng.parser
import moto.stepfunctions.models as plain_models
import msgspec
from botocore.exceptions import ClientError
from moto.core.config import default_user_config
from moto.stepfunctions.parser import utils as engine_utils
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.asl.component.eval_component import EvalComponent
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.itemprocessor.distributed_item_processor_worker import (  # noqa: E501 (moto's name)
    DistributedItemProcessorWorker,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.result_writer.result_writer_decl import ResultWriter
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_callback as waiting,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import (
    StateTaskServiceSfn,
)
from moto.stepfunctions.parser.asl.eval.evaluation_details import ExecutionDetails
from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded, ProgramError, ProgramRunning, ProgramTimedOut
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from stepensemble.local.emulation.asl_cache import Programs
from stepensemble.local.lambdas.pool import FunctionMissing, FunctionPool

PARALLEL_CALLS = 256
LOOK_SECONDS = 0.05
FORGET_EVERY = 50
"""Executions that are started between two looks at what can be let go of."""

IMMUTABLE = frozenset({str, int, float, bool, type(None)})
ATOMS = (bytes, datetime)
"""What boto3 answers besides JSON."""


@dataclass(frozen=True)
class Home:
    """What executions of one account call."""

    account: str
    endpoint: str
    pool: FunctionPool
    programs: Programs
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)


HOMES: dict[str, Home] = {}
"""By account, the stacks of this process: moto's engine serves all of them, and knows of nothing but the account."""


@contextmanager
def serve_executions(home: Home) -> Iterator[None]:
    """Have the executions of an account call this pool and this endpoint while the block lasts."""
    repair()
    HOMES[home.account] = home
    try:
        yield
    finally:
        del HOMES[home.account]


@lru_cache
def repair() -> None:
    """Change moto's engine as the module says; once a process."""
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    worker: Any = ExecutionWorker
    components: Any = EvalComponent
    communication: Any = BaseExecutionWorkerCommunication
    execution: Any = Execution
    models: Any = plain_models
    models.stepfunctions_backends = stepfunctions_parser_backends
    _replace("boto_client_for", boto_client.boto_client_for, _client_for)
    for parse in (jsonpath_ng.parser.parse, jsonpath_ng.ext.parser.parse):
        _replace("parse", parse, lru_cache(maxsize=4096)(parse))
    _replace("copy", copy, SimpleNamespace(copy=copy.copy, deepcopy=copy_json))
    worker._get_evaluation_entrypoint = _find_program
    communication.terminated = _terminated
    execution.get_start_execution_details = _execution_details
    components.heap_key = property(id)
    result_writer: Any = ResultWriter
    result_writer._eval_body = _write_results
    distributed: Any = DistributedItemProcessorWorker
    distributed._eval_pool = _do_items
    starting: Any = StateTaskServiceSfn
    starting._normalise_parameters = _name_as_boto
    starting._normalise_response = _name_as_states
    waits: Any = waiting
    waits._DELAY_SECONDS_SYNC_CONDITION_CHECK = LOOK_SECONDS


def copy_json(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Copy what is JSON, fast, and anything else, and whatever comes with a memo, as `copy.deepcopy` does.

    Objects are states, or what boto3 answered; lists may be histories, whose events hold members of an `Enum`.
    """
    if memo is None:
        kind = type(value)
        if kind in IMMUTABLE:
            return value
        if kind is dict:
            with suppress(TypeError):  # it holds something that is no JSON
                return msgspec.to_builtins(value, builtin_types=ATOMS)
        if kind is list:
            with suppress(ValueError):
                return marshal.loads(marshal.dumps(value))  # noqa: S302 (just written)
        if kind is ProgramRunning:  # two names, and asked for twice a state
            return copy.copy(value)
    return copy.deepcopy(value, memo)


@dataclass
class Retention:
    """How much of what has ended the engine keeps of one account.

    AWS describes an execution for 90 days after its end, and then does not know it, nor its name. Here it is known
    until so many later ones of its state machine have ended, or until their histories are so long.

    Attributes:
        executions: that have ended, a state machine.
        characters: in their histories.
    """

    account: str
    region: str
    executions: int = 1_000
    characters: int = 64 * 1024 * 1024
    _starts: int = 0

    def forget(self) -> None:
        """Let go of what goes beyond, once in a while; call it where no execution is being started."""
        self._starts += 1
        if self._starts % FORGET_EVERY:
            return
        engine_utils.TMP_THREADS[:] = [thread for thread in engine_utils.TMP_THREADS if thread.is_alive()]
        for machine in stepfunctions_parser_backends[self.account][self.region].state_machines:
            # Another list, as the old one may be read at this moment.
            machine.executions = self._choose(machine.executions)

    def _choose(self, executions: Sequence[Any]) -> list[Any]:
        """Return the executions to keep, in their order: those that run, and the latest of those that do not."""
        kept, ended, characters = [], 0, 0
        for execution in reversed(executions):
            if execution.exec_status != ExecutionStatus.RUNNING:
                ended += 1
                characters += _measure_history(execution)
                if ended > self.executions or (characters > self.characters and ended > 1):
                    continue
            kept.append(execution)
        return kept[::-1]


def _measure_history(execution: Any) -> int:
    """Return the number of characters in the texts of an execution's history, which does not change any more."""
    if not hasattr(execution, "history_characters"):
        details = [value for event in execution.to_history_output()["events"] for value in event.values()]
        texts = [text for one in details if isinstance(one, dict) for text in one.values() if isinstance(text, str)]
        execution.history_characters = sum(map(len, texts))
    return int(execution.history_characters)


def _replace(name: str, original: object, replacement: object) -> None:
    """Put a function in the place of another in every module of the engine that has imported it by name."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("moto.stepfunctions.") and vars(module).get(name) is original:
            setattr(module, name, replacement)


def _find_program(self: Any) -> Any:
    """Return the parsed definition of an execution's state machine."""
    details = self._evaluation_details
    return HOMES[details.aws_execution_details.account].programs.parse(details.state_machine_details.definition)


def _terminated(self: Any) -> None:
    """Note how an execution ended: first what came out of it, and last that it ended."""
    execution = self.execution
    environment = execution.exec_worker.env
    state = environment.program_state()
    execution.stop_date = datetime.now(UTC)
    match state:
        case ProgramEnded():
            execution.output = json.dumps(environment.states.get_input(), separators=(",", ":"), ensure_ascii=False)
            execution.exec_status = ExecutionStatus.SUCCEEDED
        case ProgramError():
            error = state.error or {}
            execution.error, execution.cause = error.get("error"), error.get("cause")
            execution.exec_status = ExecutionStatus.FAILED
        case ProgramTimedOut():
            execution.exec_status = ExecutionStatus.TIMED_OUT
        case _:
            execution.exec_status = ExecutionStatus.ABORTED


def _execution_details(self: Any) -> ExecutionDetails:
    """Describe an execution to itself, as `$$.Execution`."""
    return ExecutionDetails(
        arn=self.exec_arn,
        name=self.name,
        role_arn=self.role_arn,
        inpt=self.input_data,
        start_time=f"{self.start_date:%Y-%m-%dT%H:%M:%S}.{self.start_date.microsecond // 1000:03}Z",
    )


def _write_results(self: Any, env: Any) -> None:
    """Have a ResultWriter's parameters read the Map's input."""
    results = env.stack.pop()
    env.stack.append(env.states.get_input())
    self.parargs.eval(env=env)
    parameters = env.stack.pop()
    env.stack[-1:] = [results, parameters]
    self.resource_eval.eval_resource(env=env)


def _do_items(self: Any, job: Any, worker_frame: Any) -> None:
    """Do items of a Distributed Map, one after the other, until there are none or the Map is stopped."""
    done = None
    while job is not None:
        if done is not None:
            self._job_pool.close_job(done)
        frame = worker_frame.open_inner_frame()
        self._eval_job(env=frame, job=job)
        worker_frame.delete_frame(frame)
        done = job
        job = None if self.stopped() else self._job_pool.next_job()
    # The last item is closed after the frame: the Map goes on when all items are closed.
    self._env.delete_frame(worker_frame)
    if done is not None:
        self._job_pool.close_job(done)


def _name_as_boto(_: Any, parameters: dict[str, Any], *__: Any, **___: Any) -> None:
    """Name the parameters of `StartExecution` as boto3 does; the input becomes text."""
    for name in list(parameters):
        parameters[name[0].lower() + name[1:]] = parameters.pop(name)
    asked = parameters.get("input", {})
    parameters["input"] = asked if isinstance(asked, str) else json.dumps(asked)


def _name_as_states(_: Any, response: Any, *__: Any, **___: Any) -> None:
    """Name what boto3 answers as Step Functions does, moments as milliseconds."""
    for name in list(response):
        value = response.pop(name)
        told = int(value.timestamp() * 1000) if isinstance(value, datetime) else value
        response[name[0].upper() + name[1:]] = told


def client_of(account: str, region: str, service: str) -> Any:
    """Return a client for an account of this process; None where there is no stack of it any more."""
    home = HOMES.get(account)
    return None if home is None else _find_client(home, region, service)


def _client_for(region: str, service: str, state_credentials: Any = None) -> Any:
    """Return a client for tasks of the account that the state machine's role belongs to."""
    return _find_client(HOMES[str(state_credentials.role_arn).split(":")[4]], region, service)


def _find_client(home: Home, region: str, service: str) -> Any:
    found = home.clients.get((region, service))
    if found is None:
        made = _LambdaClient(home, region) if service == "lambda" else _make_client(home, region, service)
        found = home.clients.setdefault((region, service), made)
    return found


def _make_client(home: Home, region: str, service: str) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        parameter_validation=False,
        retries={"max_attempts": 0, "total_max_attempts": 1},
        max_pool_connections=PARALLEL_CALLS,
        read_timeout=3600,
    )
    session: Any = Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=region)  # noqa: S106
    return session.client(service, endpoint_url=home.endpoint, config=config)


class _LambdaClient:
    """What of boto3's Lambda client a task uses; everything but `invoke` is boto3's."""

    def __init__(self, home: Home, region: str) -> None:
        self._home = home
        self._region = region

    def invoke(self, FunctionName: str, Payload: bytes = b"{}", ClientContext: str | None = None, **_: Any) -> Any:  # noqa: N803
        metadata = {"RequestId": str(uuid4()), "HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}
        try:
            answer = self._home.pool.invoke(FunctionName, Payload, ClientContext)
        except FunctionMissing:
            arn = f"arn:aws:lambda:{self._region}:{self._home.account}:function:{FunctionName}"
            refusal: Any = {
                "Error": {"Code": "ResourceNotFoundException", "Message": f"Function not found: {arn}"},
                "ResponseMetadata": metadata | {"HTTPStatusCode": 404},
            }
            raise ClientError(refusal, "Invoke") from None
        told: dict[str, Any] = {"ResponseMetadata": metadata, "StatusCode": 200, "ExecutedVersion": "$LATEST"}
        if answer.error is not None:
            told["FunctionError"] = answer.error
        return {**told, "Payload": BytesIO(answer.payload)}

    def __getattr__(self, name: str) -> Any:
        clients = self._home.clients
        key = (self._region, "lambda, not for invoke")
        if key not in clients:
            clients[key] = _make_client(self._home, self._region, "lambda")
        return getattr(clients[key], name)
