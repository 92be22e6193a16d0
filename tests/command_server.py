"""Run `ensemble` in a fork of a process that has imported what it needs.

A command imports for half a second before it does anything, and the tests run hundreds of them. `driving.py` starts
`python command_server.py SOCKET` once, and sends it a request for each command: arguments, folder and environment as
JSON, and four open files, which are standard input, output and error, and a connection. The command's process id is
written to that connection, then its exit status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import Any

PRELOADED = (
    *("stepensemble.cli.app", "stepensemble.cli.stacks", "stepensemble.local.stack"),
    *("boto3", "botocore.client", "botocore.endpoint", "botocore.signers", "numpy", "obstore.store", "polars"),
    # What moto imports. The local stack imports moto, after it has prepared the environment.
    *(
        "antlr4",
        "cryptography.x509",
        "flask",
        "flask_cors",
        "h11",
        "jinja2",
        "jsonpath_ng.ext",
        "requests",
        "responses",
    ),
    *("werkzeug.serving", "xmltodict", "yaml"),
)
"""Imported once; what else a command needs it imports as usual."""

REQUEST_BYTES = 1024 * 1024
NUMBER = struct.Struct("i")


class Ending:
    """Ends a command's process with its status, without the time that Python needs to free all that is imported."""

    status = 1

    def __call__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)


def serve(requests: socket.socket) -> None:
    """Fork for each request; return in the fork. The other end of the socket is closed at the end of the tests."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            _report_ended(running)
        if requests in ready:
            body, files, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 4)
            if not body:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for file in (woken, wake, requests.detach(), *(one.detach() for one in running.values())):
                    os.close(file)
                _become(json.loads(body), files)
                return
            for file in files[:3]:
                os.close(file)
            running[pid] = socket.socket(fileno=files[3])
            running[pid].sendall(NUMBER.pack(pid))


def _report_ended(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as connection:
            connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _become(request: dict[str, Any], files: list[int]) -> None:
    """Apply a command's arguments, folder, environment and standard files to this process."""
    for number, file in enumerate(files):
        if number < 3:
            os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"]


if __name__ == "__main__":
    ending = Ending()
    atexit.register(ending)  # first, so that it is called last
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # what is never collected is not copied into a fork
    serve(socket.socket(fileno=int(sys.argv[1])))
    from stepensemble.cli.app import main

    try:
        main()
    except SystemExit as ended:
        ending.status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
