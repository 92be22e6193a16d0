"""The one door of the stack: invocations go to the processes, `StartSyncExecution` to the engine, all else to moto.

What S3, DynamoDB and CloudWatch Logs are told to change is in the state database before it is answered.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from urllib.parse import unquote
from uuid import uuid4
from xml.sax.saxutils import escape

from stepensemble.core.errors import LocalStackError
from stepensemble.local.engine import Retention
from stepensemble.local.functions import FunctionPool, PoolClosed, encode_status
from stepensemble.local.persistence import Journal
from stepensemble.local.runtime_api import REQUEST_BYTES

FUNCTIONS = "/2015-03-31/functions/"
STATUS = "/_stack/functions"
STEP_FUNCTIONS = "AWSStepFunctions."
KEEPERS = ("DynamoDB_", "Logs_", "AWSEvents.")
"""Services, by the beginning of their targets, that change what is kept; EventBridge by what its rules do."""

INPUT_BYTES = 256 * 1024
EXECUTION_NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered by the gateway itself."""

    status: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A call of Step Functions that AWS refuses, under the name that AWS gives it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Gateway:
    """The WSGI application."""

    def __init__(
        self,
        moto: Any,
        pool: FunctionPool,
        journal: Journal,
        engine: ExpressEngine,
        retention: Retention,
    ) -> None:
        self._moto = moto
        self._pool = pool
        self._journal = journal
        self._engine = engine
        self._retention = retention
        self._account = retention.account
        # moto checks a condition and then writes, without a lock of its own.
        self._writes = threading.Lock()
        self._starts = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if path.startswith(FUNCTIONS) and path.endswith("/invocations"):
            return _send(self._invoke(environ, unquote(path[len(FUNCTIONS) : -len("/invocations")])), start_response)
        if path == STATUS:
            body = encode_status(self._pool.describe())
            return _send(Response("200 OK", body, {"Content-Type": "application/json"}), start_response)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._account
        try:
            if target == STEP_FUNCTIONS + "StartSyncExecution":
                return _send(self._run(environ), start_response)
            if target == STEP_FUNCTIONS + "StartExecution":
                return self._start(environ, start_response)
        except Refusal as refusal:
            return _send(_refuse(refusal), start_response)
        try:
            with self._writes if _may_write(environ, target) else nullcontext(), self._journal.request():
                return list(self._moto(environ, start_response))
        except LocalStackError as error:  # it could not be written, and is undone
            return _send(_fail(error, target), start_response)

    def _invoke(self, environ: Environ, name: str) -> Response:
        payload = environ["wsgi.input"].read() or b"{}"
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        if not self._pool.knows(name):
            return _lambda_error("404 Not Found", "ResourceNotFoundException", f"Function not found: {name}")
        if len(payload) > REQUEST_BYTES:
            message = (
                f"{len(payload)} byte payload is too large for the {kind} invocation type (limit {REQUEST_BYTES} bytes)"
            )
            return _lambda_error("413 Payload Too Large", "RequestTooLargeException", message)
        try:
            json.loads(payload)
        except ValueError as error:
            message = f"Could not parse request body into json: {error}"
            return _lambda_error("400 Bad Request", "InvalidRequestContentException", message)
        if kind == "DryRun":
            return Response("204 No Content")
        if kind == "Event":
            threading.Thread(target=self._invoke_later, args=(name, payload), daemon=True).start()
            return Response("202 Accepted", headers={"x-amzn-RequestId": str(uuid4())})
        answer = self._pool.invoke(name, payload, environ.get("HTTP_X_AMZ_CLIENT_CONTEXT"))
        headers = {
            "Content-Type": "application/json",
            "X-Amz-Executed-Version": "$LATEST",
            "x-amzn-RequestId": answer.request_id,
        }
        if answer.error is not None:
            headers["X-Amz-Function-Error"] = answer.error
        return Response("200 OK", answer.payload, headers)

    def _invoke_later(self, name: str, payload: bytes) -> None:
        with suppress(PoolClosed):
            self._pool.invoke(name, payload)

    def _start(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Start an execution by moto, which takes any name, needs one, and looks and appends without a lock."""
        request = _read_request(environ)
        body = json.dumps(request).encode()
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        with self._starts:
            self._retention.forget()
            return list(self._moto(environ, start_response))

    def _run(self, environ: Environ) -> Response:
        with self._starts:
            self._retention.forget()
        answer = self._engine.run(_read_request(environ))
        return Response("200 OK", json.dumps(answer).encode(), {"Content-Type": "application/x-amz-json-1.0"})


class ExpressEngine:
    """Runs synchronous executions of one account's EXPRESS state machines, which moto leaves out."""

    def __init__(self, account: str, region: str) -> None:
        from moto.stepfunctions.parser.models import stepfunctions_parser_backends

        self._account = account
        self._region = region
        self._backend = stepfunctions_parser_backends[account][region]

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run an execution to its end and return what AWS returns.

        Raises:
            Refusal: there is no such state machine, or it is not an EXPRESS one.
        """
        from moto.stepfunctions.parser.backend.execution import SyncExecution

        arn = str(request.get("stateMachineArn", ""))
        machine: Any = next((machine for machine in self._backend.state_machines if machine.arn == arn), None)
        if machine is None:
            raise Refusal("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
        if machine.type != "EXPRESS":
            message = "This operation is not supported by this type of state machine"
            raise Refusal("StateMachineTypeNotSupported", message)
        name = str(request["name"])
        execution = SyncExecution(
            name=name,
            sm_type=machine.sm_type,
            role_arn=machine.roleArn,
            exec_arn=f"arn:aws:states:{self._region}:{self._account}:express:{machine.name}:{name}:{uuid4()}",
            account_id=self._account,
            region_name=self._region,
            state_machine=machine,
            start_date=datetime.now(UTC),
            cloud_watch_logging_session=None,
            activity_store={},
            input_data=request["input"],
            trace_header=request.get("traceHeader"),
        )
        execution.start()
        return _describe_sync(execution)


def _describe_sync(execution: Any) -> dict[str, Any]:
    status = str(execution.exec_status.value)
    milliseconds = (execution.stop_date - execution.start_date).total_seconds() * 1000
    described = {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "startDate": execution.start_date.timestamp(),
        "stopDate": execution.stop_date.timestamp(),
        "status": status,
        "input": execution.execution_input,
        "inputDetails": {"included": True},
        "billingDetails": {
            "billedMemoryUsedInMB": 64,
            "billedDurationInMilliseconds": max(1, math.ceil(milliseconds / 100)) * 100,
        },
    }
    if status == "SUCCEEDED":
        described |= {"output": execution.output, "outputDetails": {"included": True}}
    optional = {"error": execution.error, "cause": execution.cause, "traceHeader": execution.trace_header}
    return described | {key: value for key, value in optional.items() if value is not None}


def _read_request(environ: Environ) -> dict[str, Any]:
    """Read a request to start an execution, with name and input filled in.

    Raises:
        Refusal: the name or the input is not what AWS takes.
    """
    request: dict[str, Any] = json.loads(environ["wsgi.input"].read() or b"{}")
    request.setdefault("name", str(uuid4()))
    request.setdefault("input", "{}")
    if not EXECUTION_NAME.fullmatch(str(request["name"])):
        raise Refusal("InvalidName", f"Invalid Name: '{request['name']}'")
    if len(str(request["input"]).encode()) > INPUT_BYTES:
        message = (
            "1 validation error detected: Value at 'input' failed to satisfy constraint: "
            f"Member must have length less than or equal to {INPUT_BYTES}"
        )
        raise Refusal("ValidationException", message)
    try:
        json.loads(request["input"])
    except ValueError as error:
        message = f"Invalid State Machine Execution Input: '{error}'"
        raise Refusal("InvalidExecutionInput", message) from None
    return request


def _may_write(environ: Environ, target: str) -> bool:
    """Say whether a request may change what is kept: a PUT, POST or DELETE of S3, anything of the other services."""
    if target:
        return target.startswith(KEEPERS)
    return environ["REQUEST_METHOD"] in {"PUT", "POST", "DELETE"}


def _refuse(refusal: Refusal) -> Response:
    body = json.dumps({"__type": refusal.kind, "message": str(refusal)}).encode()
    return Response("400 Bad Request", body, {"Content-Type": "application/x-amz-json-1.0"})


def _fail(error: LocalStackError, target: str) -> Response:
    """Answer that a write failed, as S3 or, where there is a target, another service does; clients try it again."""
    if target:
        body = json.dumps({"__type": "InternalServerError", "message": str(error)}).encode()
        return Response("500 Internal Server Error", body, {"Content-Type": "application/x-amz-json-1.0"})
    text = f"<Error><Code>InternalError</Code><Message>{escape(str(error))}</Message></Error>"
    return Response("500 Internal Server Error", text.encode(), {"Content-Type": "application/xml"})


def _lambda_error(status: str, kind: str, message: str) -> Response:
    body = json.dumps({"Type": "User", "Message": message}).encode()
    return Response(status, body, {"Content-Type": "application/json", "x-amzn-ErrorType": kind})


def _send(response: Response, start_response: StartResponse) -> Iterable[bytes]:
    start_response(response.status, list(response.headers.items()))
    return [response.body]
