"""A small runtime client, which runs one handler such as `app.handler`.

It uses the Runtime API as `awslambdaric` does, on systems for which that has no wheel. It is started by its path and
imports nothing of this package (see `worker`).
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from importlib import import_module
from typing import Any

PREFIX = "/2018-06-01/runtime"
Handler = Callable[[Any, "Context"], Any]


@dataclass(frozen=True)
class Context:
    """What a handler knows about its invocation, under Lambda's names."""

    aws_request_id: str
    invoked_function_arn: str
    deadline_ms: int
    client_context: Any = None
    identity: None = None

    @property
    def function_name(self) -> str:
        """The function's name."""
        return os.environ["AWS_LAMBDA_FUNCTION_NAME"]

    @property
    def function_version(self) -> str:
        """The function's version."""
        return os.environ["AWS_LAMBDA_FUNCTION_VERSION"]

    @property
    def memory_limit_in_mb(self) -> str:
        """The function's memory, as text."""
        return os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]

    @property
    def log_group_name(self) -> str:
        """The log group of the function."""
        return os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]

    @property
    def log_stream_name(self) -> str:
        """The log stream of this process."""
        return os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's timeout."""
        return max(0, self.deadline_ms - int(time.time() * 1000))


def serve(name: str, connection: HTTPConnection) -> None:
    """Handle invocations with a handler (`module.function`) until the process ends."""
    try:
        handler = _find_handler(name)
    except Exception as error:  # noqa: BLE001 (whatever a module raises while it is imported)
        _send(connection, "/init/error", _describe(error, _init_error_type(error)))
        sys.exit(1)
    while True:
        headers, event = _receive(connection)
        path = f"/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}"
        try:
            response = json.dumps(handler(json.loads(event), _context(headers))).encode()
        except Exception as error:  # noqa: BLE001 (whatever a handler raises is its result)
            _send(connection, f"{path}/error", _describe(error, type(error).__name__))
        else:
            _send(connection, f"{path}/response", response)


def _find_handler(name: str) -> Handler:
    module, _, function = name.rpartition(".")
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", str(os.getcwd())))  # noqa: PTH109
    found: Handler = getattr(import_module(module.replace("/", ".")), function)
    return found


def _init_error_type(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "Runtime.ImportModuleError"
    return "Runtime.HandlerNotFound" if isinstance(error, AttributeError) else type(error).__name__


def _receive(connection: HTTPConnection) -> tuple[HTTPMessage, bytes]:
    connection.request("GET", f"{PREFIX}/invocation/next")
    response = connection.getresponse()
    return response.headers, response.read()


def _send(connection: HTTPConnection, path: str, body: bytes) -> None:
    sys.stdout.flush()  # the log has what the handler printed before the caller has its response
    connection.request("POST", PREFIX + path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    message = response.read()
    if response.status != 202:
        raise RuntimeError(f"the Runtime API rejected the body posted to {path}: {response.status} {message.decode()}")


def _context(headers: HTTPMessage) -> Context:
    os.environ["_X_AMZN_TRACE_ID"] = headers.get("Lambda-Runtime-Trace-Id", "")
    client_context = headers.get("Lambda-Runtime-Client-Context")
    return Context(
        aws_request_id=headers["Lambda-Runtime-Aws-Request-Id"],
        invoked_function_arn=headers["Lambda-Runtime-Invoked-Function-Arn"],
        deadline_ms=int(headers["Lambda-Runtime-Deadline-Ms"]),
        client_context=json.loads(client_context) if client_context else None,
    )


def _describe(error: Exception, kind: str) -> bytes:
    frames = traceback.format_exception(error)
    sys.stderr.write("".join(frames))
    return json.dumps({"errorMessage": str(error), "errorType": kind, "stackTrace": frames[1:-1]}).encode()


if __name__ == "__main__":
    serve(sys.argv[1], HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"]))
