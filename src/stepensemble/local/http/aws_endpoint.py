"""Every AWS API: invocations go to the function pool, `StartSyncExecution` to the engine, others to moto.

Changes of S3, DynamoDB and CloudWatch Logs are in the state database before the response is sent.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote
from uuid import uuid4
from xml.sax.saxutils import escape

from stepensemble.core.errors import LocalStackError
from stepensemble.local.emulation.persistence import Journal
from stepensemble.local.emulation.retention import Retention
from stepensemble.local.errors import StateUnwritable
from stepensemble.local.http.messages import Environ, HttpResponse, RequestHead, RequestRejected, run_wsgi
from stepensemble.local.http.origins import check_origin
from stepensemble.local.http.request_errors import find_request_error
from stepensemble.local.http.uploads import check_chunks, check_digests, check_length, preserve_header_names
from stepensemble.local.lambdas.pool import FunctionPool, PoolClosed, encode_status
from stepensemble.local.lambdas.runtime_api import REQUEST_BYTES

FUNCTIONS_PATH, INVOCATIONS_PATH = "/2015-03-31/functions/", "/invocations"
STATUS_PATH = "/_stack/functions"
STEP_FUNCTIONS = "AWSStepFunctions."
WRITING_TARGETS = ("DynamoDB_", "Logs_", "AWSEvents.")
"""Beginnings of the targets of services that change the stored state; EventBridge does through its rules."""

XML = '<?xml version="1.0" encoding="UTF-8"?>'
"""Without a line end: obstore's message has the first line of an error's body, and that must name the reason."""

JSON_BYTES = 16 * 1024 * 1024
"""Most bytes of a request in JSON: those of DynamoDB's BatchWriteItem; the other services allow fewer."""

OBJECT_BYTES = 512 * 1024 * 1024
"""Most bytes of an object, or a part of one, in one request. S3 allows 5 GB; here an object is in memory, and twice
while it is written. A larger object can be sent in parts."""

INPUT_BYTES = 256 * 1024
EXECUTION_NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")


class AwsEndpoint:
    """Serves every AWS API."""

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
        # moto checks a condition and then writes without a lock.
        self._writes = threading.Lock()
        self._starts = threading.Lock()

    def check_head(self, head: RequestHead) -> int:
        """Return the most bytes of a body, which depends on the service."""
        check_origin(head)
        if is_invocation(head):
            return REQUEST_BYTES
        if "x-amz-target" in head.fields:
            return JSON_BYTES
        check_length(head)
        return OBJECT_BYTES

    def respond(self, head: RequestHead, environ: Environ) -> HttpResponse:
        """Return the response to a request."""
        target = head.fields.get("x-amz-target", "")
        if is_invocation(head):
            return self._invoke(head, environ)
        if head.path == STATUS_PATH:
            return HttpResponse(200, encode_status(self._pool.describe()), (("Content-Type", "application/json"),))
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._account
        if target == STEP_FUNCTIONS + "StartSyncExecution":
            return self._run_express(environ)
        if target == STEP_FUNCTIONS + "StartExecution":
            return self._start(head, environ)
        if not target:
            body = memoryview(environ["wsgi.input"].getvalue())
            check_chunks(head.fields, body)
            check_digests(head, body)
            preserve_header_names(environ, head)
        try:
            with self._writes if _may_write(environ, target) else nullcontext(), self._journal.request():
                return self._call_moto(head, environ)
        except StateUnwritable as error:  # the change is undone; boto3's clients do not retry 507
            raise RequestRejected(507, "StateUnwritable", str(error)) from None
        except LocalStackError as error:  # it could not be stored, and is undone; clients retry it
            raise RequestRejected(500, "InternalServerError" if target else "InternalError", str(error)) from None

    def _call_moto(self, head: RequestHead, environ: Environ) -> HttpResponse:
        body = environ["wsgi.input"]
        try:
            return run_wsgi(self._moto, environ)
        except Exception as fault:
            error = find_request_error(fault, head, body.getvalue())
            if error is None:
                raise
            raise error from None

    def format_rejection(self, rejection: RequestRejected, head: RequestHead | None) -> HttpResponse:
        """Return a rejection in the format of the requested service: Lambda, a service with JSON, or S3."""
        if head is not None and is_invocation(head):
            code = (
                "RequestTooLargeException"
                if rejection.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                else rejection.code
            )
            return _lambda_error(rejection.status, code, str(rejection))
        if head is not None and "x-amz-target" in head.fields:
            body = json.dumps({"__type": rejection.code, "message": str(rejection)}).encode()
            return HttpResponse(rejection.status, body, (("Content-Type", "application/x-amz-json-1.0"),))
        body = f"{XML}<Error><Code>{rejection.code}</Code><Message>{escape(str(rejection))}</Message></Error>".encode()
        return HttpResponse(rejection.status, body, (("Content-Type", "application/xml"),))

    def _invoke(self, head: RequestHead, environ: Environ) -> HttpResponse:
        name = unquote(head.path[len(FUNCTIONS_PATH) : -len(INVOCATIONS_PATH)])
        payload = environ["wsgi.input"].read() or b"{}"
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        if not self._pool.has(name):
            return _lambda_error(404, "ResourceNotFoundException", f"Function not found: {name}")
        try:
            json.loads(payload)
        except (ValueError, RecursionError) as error:
            message = f"Could not parse request body into json: {error}"
            return _lambda_error(400, "InvalidRequestContentException", message)
        if kind == "DryRun":
            return HttpResponse(204)
        if kind == "Event":
            threading.Thread(target=self._invoke_async, args=(name, payload), daemon=True).start()
            return HttpResponse(202, headers=(("x-amzn-RequestId", str(uuid4())),))
        result = self._pool.invoke(name, payload, environ.get("HTTP_X_AMZ_CLIENT_CONTEXT"))
        headers = {
            "Content-Type": "application/json",
            "X-Amz-Executed-Version": "$LATEST",
            "x-amzn-RequestId": result.request_id,
        }
        if result.error is not None:
            headers["X-Amz-Function-Error"] = result.error
        return HttpResponse(200, result.payload, tuple(headers.items()))

    def _invoke_async(self, name: str, payload: bytes) -> None:
        with suppress(PoolClosed):
            self._pool.invoke(name, payload)

    def _start(self, head: RequestHead, environ: Environ) -> HttpResponse:
        """Start an execution in moto, which accepts any name, requires one, and checks and appends without a lock."""
        request = _read_request(environ)
        body = json.dumps(request).encode()
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        with self._starts:
            self._retention.clean_up()
            return self._call_moto(head, environ)

    def _run_express(self, environ: Environ) -> HttpResponse:
        with self._starts:
            self._retention.clean_up()
        described = self._engine.run(_read_request(environ))
        return HttpResponse(200, json.dumps(described).encode(), (("Content-Type", "application/x-amz-json-1.0"),))


class ExpressEngine:
    """Runs synchronous executions of one account's EXPRESS state machines, which moto does not offer."""

    def __init__(self, account: str, region: str) -> None:
        from moto.stepfunctions.parser.models import stepfunctions_parser_backends

        self._account = account
        self._region = region
        self._backend = stepfunctions_parser_backends[account][region]

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run an execution to its end and return the response of `StartSyncExecution`.

        Raises:
            RequestRejected: there is no such state machine, or it is not EXPRESS.
        """
        from moto.stepfunctions.parser.backend.execution import SyncExecution

        arn = str(request.get("stateMachineArn", ""))
        machine: Any = next((machine for machine in self._backend.state_machines if machine.arn == arn), None)
        if machine is None:
            raise RequestRejected(400, "StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
        if machine.type != "EXPRESS":
            message = "This operation is not supported by this type of state machine"
            raise RequestRejected(400, "StateMachineTypeNotSupported", message)
        name = request["name"]
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


def is_invocation(head: RequestHead) -> bool:
    """Return whether a request is Lambda's Invoke."""
    return head.path.startswith(FUNCTIONS_PATH) and head.path.endswith(INVOCATIONS_PATH)


def _read_request(environ: Environ) -> dict[str, Any]:
    """Return a request to start an execution, with defaults for name and input.

    Raises:
        RequestRejected: AWS would not accept the name or the input.
    """
    try:
        request = json.loads(environ["wsgi.input"].read() or b"{}")
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise RequestRejected(400, "SerializationException", "the body is not a JSON object")
    request = {"name": str(uuid4()), "input": "{}"} | request
    for name in ("stateMachineArn", "name", "input"):
        if not isinstance(request.get(name), str):
            raise RequestRejected(400, "ValidationException", f"{name} is missing, or not text")
    if not EXECUTION_NAME.fullmatch(request["name"]):
        raise RequestRejected(400, "InvalidName", f"Invalid Name: '{request['name']}'")
    if len(request["input"].encode()) > INPUT_BYTES:
        message = (
            "1 validation error detected: Value at 'input' failed to satisfy constraint: "
            f"Member must have length less than or equal to {INPUT_BYTES}"
        )
        raise RequestRejected(400, "ValidationException", message)
    try:
        json.loads(request["input"])
    except (ValueError, RecursionError) as error:
        message = f"Invalid State Machine Execution Input: '{error}'"
        raise RequestRejected(400, "InvalidExecutionInput", message) from None
    return request


def _may_write(environ: Environ, target: str) -> bool:
    """Return whether a request may change the stored state: PUT, POST and DELETE of S3, all of the other services."""
    if target:
        return target.startswith(WRITING_TARGETS)
    return environ["REQUEST_METHOD"] in {"PUT", "POST", "DELETE"}


def _lambda_error(status: int, kind: str, message: str) -> HttpResponse:
    body = json.dumps({"Type": "User", "Message": message}).encode()
    return HttpResponse(status, body, (("Content-Type", "application/json"), ("x-amzn-ErrorType", kind)))
