"""Corrections of moto's Step Functions engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import moto.stepfunctions.models as plain_models
from moto.core.config import default_user_config
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.asl.component.eval_component import EvalComponent
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.itemprocessor.distributed_item_processor_worker import (  # noqa: E501 (moto's name)
    DistributedItemProcessorWorker,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.result_writer.result_writer_decl import ResultWriter
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import (
    StateTaskServiceSfn,
)
from moto.stepfunctions.parser.asl.eval.evaluation_details import ExecutionDetails
from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded, ProgramError, ProgramTimedOut
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from stepensemble.local.emulation.task_clients import make_task_client
from stepensemble.local.moto_patches.patch import MotoPatch, PatchKind, replace_everywhere

ENGINE = "moto.stepfunctions.parser"
DEVELOPER_GUIDE = "https://docs.aws.amazon.com/step-functions/latest/dg"


def _execute_state_machines() -> None:
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    models: Any = plain_models
    models.stepfunctions_backends = stepfunctions_parser_backends


def _use_stack_endpoint() -> None:
    replace_everywhere("boto_client_for", boto_client.boto_client_for, make_task_client)


def _set_status_last() -> None:
    communication: Any = BaseExecutionWorkerCommunication
    communication.terminated = _record_end


def _record_end(self: Any) -> None:
    """Record how an execution ended: first its output or error, then its status."""
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


def _format_start_time() -> None:
    execution: Any = Execution
    execution.get_start_execution_details = _describe_to_itself


def _describe_to_itself(self: Any) -> ExecutionDetails:
    """Return what an execution reads as `$$.Execution`."""
    return ExecutionDetails(
        arn=self.exec_arn,
        name=self.name,
        role_arn=self.role_arn,
        inpt=self.input_data,
        start_time=f"{self.start_date:%Y-%m-%dT%H:%M:%S}.{self.start_date.microsecond // 1000:03}Z",
    )


def _count_retries_by_identity() -> None:
    components: Any = EvalComponent
    components.heap_key = property(id)


def _give_result_writer_the_input() -> None:
    result_writer: Any = ResultWriter
    result_writer._eval_body = _write_results


def _write_results(self: Any, env: Any) -> None:
    """Evaluate a ResultWriter's parameters on the Map's input, and write the Map's results."""
    results = env.stack.pop()
    env.stack.append(env.states.get_input())
    self.parargs.eval(env=env)
    parameters = env.stack.pop()
    env.stack[-1:] = [results, parameters]
    self.resource_eval.eval_resource(env=env)


def _process_items_in_a_loop() -> None:
    distributed: Any = DistributedItemProcessorWorker
    distributed._eval_pool = _process_items


def _process_items(self: Any, job: Any, worker_frame: Any) -> None:
    """Process items of a Distributed Map, one after the other, until none is left or the Map is stopped."""
    done = None
    while job is not None:
        if done is not None:
            self._job_pool.close_job(done)
        frame = worker_frame.open_inner_frame()
        self._eval_job(env=frame, job=job)
        worker_frame.delete_frame(frame)
        done = job
        job = None if self.stopped() else self._job_pool.next_job()
    # The last item is closed after the frame: the Map continues as soon as all items are closed.
    self._env.delete_frame(worker_frame)
    if done is not None:
        self._job_pool.close_job(done)


def _rename_nested_parameters() -> None:
    starting: Any = StateTaskServiceSfn
    starting._normalise_parameters = _name_as_boto
    starting._normalise_response = _name_as_states


def _name_as_boto(_: Any, parameters: dict[str, Any], *__: Any, **___: Any) -> None:
    """Give the parameters of `StartExecution` boto3's names, and make the input text."""
    for name in list(parameters):
        parameters[name[0].lower() + name[1:]] = parameters.pop(name)
    value = parameters.get("input", {})
    parameters["input"] = value if isinstance(value, str) else json.dumps(value)


def _name_as_states(_: Any, response: Any, *__: Any, **___: Any) -> None:
    """Give boto3's response the names that Step Functions uses; times become milliseconds since 1970."""
    for name in list(response):
        value = response.pop(name)
        converted = int(value.timestamp() * 1000) if isinstance(value, datetime) else value
        response[name[0].upper() + name[1:]] = converted


PATCHES = (
    MotoPatch(
        "executing-engine",
        PatchKind.CORRECTION,
        (
            "moto.core.config:default_user_config",
            "moto.stepfunctions.models:stepfunctions_backends",
            f"{ENGINE}.models:stepfunctions_parser_backends",
        ),
        "CloudFormation creates state machines in a backend that does not execute them.",
        "https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html",
        _execute_state_machines,
        upstream=("https://github.com/getmoto/moto/pull/3429",),
    ),
    MotoPatch(
        "task-endpoint",
        PatchKind.CORRECTION,
        (f"{ENGINE}.asl.utils.boto_client:boto_client_for",),
        "Tasks call moto's usual port with moto's usual account. They must call the endpoint of the stack whose "
        "account the state machine's role belongs to.",
        f"{DEVELOPER_GUIDE}/procedure-create-iam-role.html",
        _use_stack_endpoint,
    ),
    MotoPatch(
        "status-after-output",
        PatchKind.CORRECTION,
        (f"{ENGINE}.backend.execution:BaseExecutionWorkerCommunication.terminated",),
        "The status of an execution changes before its output is stored, so that a client can read a success without "
        "an output. An output that is a string is described without its quotes, and null is not described at all.",
        "https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html",
        _set_status_last,
    ),
    MotoPatch(
        "execution-start-time",
        PatchKind.CORRECTION,
        (f"{ENGINE}.backend.execution:Execution.get_start_execution_details",),
        "`$$.Execution.StartTime` is not text in AWS's format, and a state that passes it on cannot be described.",
        f"{DEVELOPER_GUIDE}/input-output-contextobject.html",
        _format_start_time,
        upstream=("https://github.com/localstack/localstack/issues/9695",),
    ),
    MotoPatch(
        "retry-counts",
        PatchKind.CORRECTION,
        (f"{ENGINE}.asl.component.eval_component:EvalComponent.heap_key",),
        "Items of a Map count their retries under a key that the first failure creates. Two failures at the same time "
        "create two keys, and one item is retried once too often.",
        f"{DEVELOPER_GUIDE}/concepts-error-handling.html",
        _count_retries_by_identity,
    ),
    MotoPatch(
        "result-writer-input",
        PatchKind.CORRECTION,
        (f"{ENGINE}.asl.component.state.exec.state_map.result_writer.result_writer_decl:ResultWriter._eval_body",),
        "Paths in the parameters of a Distributed Map's ResultWriter are read from the Map's output; on AWS from its "
        "input.",
        f"{DEVELOPER_GUIDE}/input-output-resultwriter.html",
        _give_result_writer_the_input,
        upstream=("https://github.com/localstack/localstack/pull/11381",),
    ),
    MotoPatch(
        "map-worker-loop",
        PatchKind.CORRECTION,
        (
            f"{ENGINE}.asl.component.state.exec.state_map.iteration.itemprocessor.distributed_item_processor_worker"
            ":DistributedItemProcessorWorker._eval_pool",
        ),
        "A worker of a Distributed Map calls itself for every item, and fails after about a thousand items.",
        f"{DEVELOPER_GUIDE}/state-map-distributed.html",
        _process_items_in_a_loop,
    ),
    MotoPatch(
        "nested-executions",
        PatchKind.CORRECTION,
        (
            f"{ENGINE}.asl.component.state.exec.state_task.service.state_task_service_sfn"
            ":StateTaskServiceSfn._normalise_parameters",
            f"{ENGINE}.asl.component.state.exec.state_task.service.state_task_service_sfn"
            ":StateTaskServiceSfn._normalise_response",
        ),
        "A task that starts an execution passes its parameters on as the definition writes them, which boto3 does not "
        "accept, and returns the response under boto3's names.",
        f"{DEVELOPER_GUIDE}/connect-stepfunctions.html",
        _rename_nested_parameters,
        upstream=("https://github.com/localstack/localstack/issues/9853",),
    ),
)
