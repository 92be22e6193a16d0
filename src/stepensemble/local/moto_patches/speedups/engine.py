"""Speed-ups of moto's Step Functions engine."""

from __future__ import annotations

import copy
import marshal
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import jsonpath_ng.ext.parser
import jsonpath_ng.parser
import msgspec
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_callback as waiting,
)
from moto.stepfunctions.parser.asl.eval.program_state import ProgramRunning
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker

from stepensemble.local.emulation.task_clients import TARGETS, share_task_client
from stepensemble.local.moto_patches.patch import MotoPatch, PatchKind, replace_everywhere

ENGINE = "moto.stepfunctions.parser"
POLL_SECONDS = 0.05
IMMUTABLE = frozenset({str, int, float, bool, type(None)})
ATOMS = (bytes, datetime)
"""Types that boto3 returns besides JSON."""


def copy_json(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Copy JSON fast, and copy anything else, or anything with a memo, as `copy.deepcopy` does.

    Objects are states, or responses of boto3. Lists may be histories, whose events hold members of an `Enum`.
    """
    if memo is None:
        kind = type(value)
        if kind in IMMUTABLE:
            return value
        if kind is dict:
            with suppress(TypeError):  # it holds something that is not JSON
                return msgspec.to_builtins(value, builtin_types=ATOMS)
        if kind is list:
            with suppress(ValueError):
                return marshal.loads(marshal.dumps(value))  # noqa: S302 (written in the same line)
        if kind is ProgramRunning:  # holds two names, and is copied twice for every state
            return copy.copy(value)
    return copy.deepcopy(value, memo)


def _copy_json_fast() -> None:
    replace_everywhere("copy", copy, SimpleNamespace(copy=copy.copy, deepcopy=copy_json))


def _parse_paths_once() -> None:
    for parse in (jsonpath_ng.parser.parse, jsonpath_ng.ext.parser.parse):
        replace_everywhere("parse", parse, lru_cache(maxsize=4096)(parse))


def _parse_definitions_once() -> None:
    worker: Any = ExecutionWorker
    worker._get_evaluation_entrypoint = _find_definition


def _find_definition(self: Any) -> Any:
    """Return the parsed definition of an execution's state machine."""
    details = self._evaluation_details
    account = details.aws_execution_details.account
    return TARGETS[account].definitions.parse(details.state_machine_details.definition)


def _share_clients() -> None:
    replace_everywhere("boto_client_for", boto_client.boto_client_for, share_task_client)


def _poll_often() -> None:
    polling: Any = waiting
    polling._DELAY_SECONDS_SYNC_CONDITION_CHECK = POLL_SECONDS


PATCHES = (
    MotoPatch(
        "task-clients",
        PatchKind.SPEEDUP,
        (f"{ENGINE}.asl.utils.boto_client:boto_client_for",),
        "The engine makes a new boto3 client for every task, which costs more than the task. With the patch each "
        "account has one client for each service, and Lambda invocations go to the function pool without HTTP.",
        "40 executions: 0.52 s, 5.24 s.",
        _share_clients,
    ),
    MotoPatch(
        "parsed-definitions",
        PatchKind.SPEEDUP,
        (f"{ENGINE}.backend.execution_worker:ExecutionWorker._get_evaluation_entrypoint",),
        "The engine parses the definition again for every execution. With the patch it is parsed once and kept in a "
        "file.",
        "40 executions: 0.63 s, 0.92 s.",
        _parse_definitions_once,
    ),
    MotoPatch(
        "json-paths",
        PatchKind.SPEEDUP,
        (
            "jsonpath_ng.parser:parse",
            "jsonpath_ng.ext.parser:parse",
            f"{ENGINE}.asl.component.common.path.result_path:parse",
            f"{ENGINE}.asl.utils.json_path:parse",
        ),
        "The engine parses a JSONPath again for every use.",
        "10 executions with 40 paths: 0.17 s, 0.42 s.",
        _parse_paths_once,
    ),
    MotoPatch(
        "json-copies",
        PatchKind.SPEEDUP,
        (
            f"{ENGINE}.asl.eval.program_state:ProgramRunning",
            f"{ENGINE}.asl.eval.environment:copy",
            f"{ENGINE}.asl.eval.states:copy",
        ),
        "The engine copies states, which are JSON, with `copy.deepcopy`, which is made for anything.",
        "40 executions: 0.59 s, 1.53 s.",
        _copy_json_fast,
    ),
    MotoPatch(
        "nested-polling",
        PatchKind.SPEEDUP,
        (
            f"{ENGINE}.asl.component.state.exec.state_task.service.state_task_service_callback"
            ":_DELAY_SECONDS_SYNC_CONDITION_CHECK",
        ),
        "A task that waits for a nested execution checks every half second whether it has ended; with the patch every "
        "0.05 s.",
        "4 nested executions, elapsed: 0.64 s, 2.18 s.",
        _poll_often,
    ),
)
