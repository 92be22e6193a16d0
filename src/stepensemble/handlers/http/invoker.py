"""Runs the ensemble as a synchronous execution, or invokes one member by its slot."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from msgspec import Struct, structs

from stepensemble.core import errors
from stepensemble.core.aggregation.canonical import list_entries
from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import (
    EnsembleError,
    ExecutionFailed,
    PayloadTooLarge,
    StillRunning,
    StorageUnavailable,
    Throttled,
)
from stepensemble.core.payload import Pointer
from stepensemble.core.preprocessing.columns import Columns, array_from_bytes, columns_to_bytes, columns_to_json
from stepensemble.core.problems import Problem, read_problems
from stepensemble.core.state_size import NUMBER_BYTES
from stepensemble.handlers.state import DESCRIBE, MemberToInvoke
from stepensemble.serving.servables import ModelSignature
from stepensemble.storage.keys import columns_key, execution_prefix, outputs_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.payload_pointers import store_rows

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient

CALL_BYTES = 5 * 1024 * 1024
"""Columns or outputs of more bytes go to and from a slot through S3; Lambda takes 6 MB, the envelope included."""

TOO_MANY = frozenset(
    {"ThrottlingException", "TooManyRequestsException", "ServiceQuotaExceededException", "ExecutionLimitExceeded"}
)
TOO_LARGE = frozenset({"RequestTooLargeException", "RequestEntityTooLargeException"})
TRANSIENT = frozenset(
    {
        "ConflictException",
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "RequestTimeout",
        "ResourceConflictException",
    }
)
"""Errors below 500 that are temporary: a function that is being deployed, credentials that are being renewed."""

THROTTLED_STATES = frozenset({"Lambda.TooManyRequestsException"})
TRANSIENT_STATES = frozenset(
    {"Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException", "States.Timeout", "TIMED_OUT"}
)
CRASHED = frozenset({"Runtime.ExitError", "Runtime.OutOfMemory", "Lambda.Unknown"})
"""A function's process ended. A score function has no state, so it may be invoked again."""

LATER = "try again later"


class _Raised(Struct, frozen=True):
    """The part of Lambda's report of a raised error that callers may see."""

    errorMessage: str  # noqa: N815 (Lambda's name)


@dataclass(frozen=True, slots=True)
class Invoker:
    """Starts executions and invokes functions.

    Attributes:
        machine: ARN of the EXPRESS state machine.
        data: the data bucket.
    """

    step_functions: SFNClient
    machine: str
    functions: LambdaClient
    data: Bucket

    def run(self, name: str, payload: Mapping[str, Any]) -> Output:
        """Run an execution to its end and return its output, pointers included.

        Args:
            name: of the execution.
            payload: of an execution; rows too large for its input go through the data bucket.

        Raises:
            EnsembleError: the error of the execution, by its name; ExecutionFailed for any other error; Throttled,
                StorageUnavailable or StillRunning where a retry may help.
        """
        body = msgspec.json.encode(store_rows(self.data, payload)).decode()
        try:
            ended = self.step_functions.start_sync_execution(stateMachineArn=self.machine, name=name, input=body)
        except (BotoCoreError, ClientError) as error:
            raise _translate(error, "Step Functions") from None
        if ended["status"] == "SUCCEEDED":
            return msgspec.json.decode(ended["output"], type=Output)
        raise name_failure(str(ended.get("error", ended["status"])), str(ended.get("cause", "")), name)

    def score(self, name: str, member: MemberToInvoke, columns: Columns, rows: int, width: int) -> list[Any]:
        """Return a member's outputs in its model's own shape.

        Args:
            name: of this call; names its objects in the data bucket, if there are any.
            member: with the inputs that these columns are for.
            columns: all that the member takes.
            rows: their number.
            width: entries of an output for each row.

        Raises:
            MemberError: the member failed.
            EnsembleError: as `run`.
        """
        prefix = execution_prefix(name, member.function)
        carried: Any = columns_to_json(columns)
        if len(msgspec.json.encode(carried)) > CALL_BYTES:
            carried = msgspec.to_builtins(self.data.write(columns_key(prefix), columns_to_bytes(columns)))
        if rows * width * NUMBER_BYTES > CALL_BYTES:
            member = structs.replace(member, outputs_key=outputs_key(prefix, member.id))
        event = {"member": member, "columns": carried, "rows": rows, "shaped": True}
        outputs = self._invoke(name, member.function, event)["outputs"]
        if isinstance(outputs, Mapping):
            outputs = list_entries(array_from_bytes(self.data.read(msgspec.convert(outputs, Pointer).split()[1])))
        return list(outputs)

    def describe(self, name: str, member: MemberToInvoke) -> ModelSignature:
        """Return the inputs and outputs of a member's model, by the model's own names.

        Raises:
            MemberError: the model cannot be loaded.
            EnsembleError: as `run`.
        """
        signature = self._invoke(name, member.function, {DESCRIBE: True, "member": member})["signature"]
        for tensor in (*signature["inputs"], *signature["outputs"]):
            if tensor["quantization"] is not None:
                tensor["dtype"] = "float32"
        return msgspec.convert(signature, ModelSignature)

    def _invoke(self, name: str, function: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke a score function, once more if its process ended, and return its response.

        Raises:
            EnsembleError: the error that the function raised, by its name.
        """
        response, failed = self._call(function, event)
        if failed and response.get("errorType") in CRASHED:
            response, failed = self._call(function, event)
        if failed:
            raise name_failure(str(response.get("errorType", "")), str(response.get("errorMessage", "")), name)
        return response

    def _call(self, function: str, event: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return a function's response, and whether it is an error."""
        try:
            called = self.functions.invoke(FunctionName=function, Payload=msgspec.json.encode(event))
            return msgspec.json.decode(called["Payload"].read(), type=dict[str, Any]), "FunctionError" in called
        except (BotoCoreError, ClientError) as error:
            raise _translate(error, "Lambda") from None


def name_failure(error: str, cause: str, execution: str) -> EnsembleError:
    """Return the failure of an execution or a function as an error of this package.

    The messages of this package's errors are written for callers. Of any other error only the name is passed on, since
    its message may be a stack trace.
    """
    kind = getattr(errors, error, None)
    if isinstance(kind, type) and issubclass(kind, EnsembleError):
        cause = _read_message(cause)
        if issubclass(kind, errors.InvalidPayload):
            return kind(read_problems(cause))
        return ExecutionFailed(cause) if hasattr(kind, "problems") else kind(cause)
    if error in THROTTLED_STATES:
        return Throttled(f"execution {execution} was throttled; {LATER}")
    if error in TRANSIENT_STATES:
        return StorageUnavailable(f"execution {execution} ended with {error}; {LATER}")
    return ExecutionFailed(f"execution {execution} ended with {error}; its log has the reason")


def _read_message(cause: str) -> str:
    """Return the message of a cause; a raised error is JSON with a stack trace beside it."""
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(cause, type=_Raised).errorMessage
    return cause


def _translate(error: BotoCoreError | ClientError, service: str) -> EnsembleError:
    """Return the error of a failed AWS call; only a temporary one is reported as worth a retry."""
    if isinstance(error, ReadTimeoutError):
        return StillRunning("there is no response yet")
    if not isinstance(error, ClientError):
        return StorageUnavailable(f"{service} cannot be reached; {LATER}")
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code in TOO_MANY or status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled(f"{service} accepts no more requests at the moment; {LATER}")
    if code in TOO_LARGE or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        problem = Problem("$", f"exceeds what {service} takes ({code})", "shorten it, or send fewer rows")
        return PayloadTooLarge([problem])
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and code not in TRANSIENT:
        # A retry would fail in the same way, until the stack is repaired or deployed again.
        return ExecutionFailed(f"{service} refuses the call ({code}); check the stack and its permissions")
    return StorageUnavailable(f"{service} returned {code}; {LATER}")
