"""Drive the project as a person or a client does: the command line, and executions through boto3."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from stepensemble.cli.stacks import Stack
from written import assert_as_shown

ROOT = Path(__file__).resolve().parent.parent
PROJECT_PARTS = (
    "template.yaml",
    "template-tensorflow.yaml",
    "statemachine",
    "functions",
    "models",
    "events",
    "examples/titanic/passengers.csv",
)
ENSEMBLE = str(Path(sys.executable).with_name("ensemble"))
COMMAND_SECONDS = 120.0


def copy_project(folder: Path) -> Path:
    """Copy what the local stack needs, so that its state and edits to the manifest stay in the test.

    Templates and state machines are translated by the first stack of a test session, and cached for the others.
    """
    state = folder / ".stepensemble"
    state.mkdir(mode=0o700)
    (state / "cache").symlink_to(_make_cache().name)
    for part in PROJECT_PARTS:
        source = ROOT / part
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / part)
        else:
            shutil.copy(source, folder / part)
    return folder


@cache
def _make_cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="stepensemble-cache-")


def run_ensemble(folder: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does, in a wide terminal without colours; in a fork, which has nothing to import."""
    command, environment = [ENSEMBLE, *arguments], _terminal_environment()
    if sys.platform != "linux":  # elsewhere, libraries of the system may not be used in a fork
        return subprocess.run(
            command,
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            env=environment,
        )
    server = _start_server()
    with ExitStack() as exits:
        given, stdout, stderr = [exits.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
        given.write(stdin or "")
        given.seek(0)
        ours, theirs = socket.socketpair()
        exits.enter_context(ours)
        request = {"command": command, "folder": str(folder), "environment": environment}
        files = [given.fileno(), stdout.fileno(), stderr.fileno(), theirs.fileno()]
        with theirs:
            socket.send_fds(server, [json.dumps(request).encode()], files)
        ours.settimeout(COMMAND_SECONDS)
        pid = _read_number(ours)
        try:
            status = _read_number(ours)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, status, stdout.read(), stderr.read())


def _read_number(connection: socket.socket) -> int:
    body = connection.recv(4)
    assert body, "tests/command_server.py has ended: start it by hand to see why"
    return int(struct.unpack("i", body)[0])


def _terminal_environment() -> dict[str, str]:
    """Return the environment of commands: a wide terminal without colours, and no AWS variables."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return environment | {"COLUMNS": "160", "NO_COLOR": "1"}


@cache
def _start_server() -> socket.socket:
    """Start the process that commands are forks of; it ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("command_server.py")), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_terminal_environment(),
        )
    return ours


def make_client(endpoint: str, service: str) -> Any:
    """Make a boto3 client of a local stack, without retries."""
    session: Any = boto3.session.Session("test", "test", region_name="us-east-1")
    # boto3 would look for StartSyncExecution at "sync-127.0.0.1".
    config = Config(inject_host_prefix=False, max_pool_connections=50, retries={"total_max_attempts": 1})
    return session.client(service, endpoint_url=endpoint, config=config)


def start(stack: Stack, payload: object, name: str | None = None, machine: str | None = None) -> str:
    """Start an execution as any client would, and return its ARN."""
    arguments = {} if name is None else {"name": name}
    started = stack.step_functions.start_execution(
        stateMachineArn=machine or stack.state_machine, input=json.dumps(payload), **arguments
    )
    return started["executionArn"]


def wait(stack: Stack, execution: str, seconds: float = 300) -> Mapping[str, Any]:
    """Wait for an execution's end and return its description."""
    deadline = time.monotonic() + seconds
    while True:
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            return described
        assert time.monotonic() < deadline, f"{execution} runs for more than {seconds} s"
        time.sleep(0.05)


def predict(stack: Stack, payload: object, name: str | None = None) -> dict[str, Any]:
    """Run an execution to its success and return its output."""
    described = wait(stack, start(stack, payload, name))
    assert described["status"] == "SUCCEEDED", described.get("cause")
    return json.loads(described["output"])


def shown_commands(*blocks: str) -> list[tuple[str, str]]:
    """Return every `$ command` of console blocks with the output shown below it."""
    shown = []
    for block in blocks:
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE):
            shown.append((command, output))
    return shown


def steady(text: str) -> list[str]:
    """Replace what differs from run to run in an output: times, ids, cold or warm, spaces, bars."""
    text = re.sub(r"\d+(\.\d+)? m?s\b", "MS", text)
    text = re.sub(r"[\d.]+ GB-seconds", "GBS", text)
    text = re.sub(r"\$\d+\.\d+", "DOLLARS", text)
    text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{6}", "ID", text)
    text = re.sub(r"\b(cold|warm)\b", "COLD", text)
    text = re.sub(r"█*░+|█+", "BAR", text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def replay_session(project: Path, session: Sequence[tuple[str, str]]) -> None:
    """Run commands of the command line on one local stack; each succeeds and prints what is shown, if anything is."""
    assert run_ensemble(project, "local", "--detach").returncode == 0
    try:
        for command, output in session:
            program, *arguments = shlex.split(command)
            assert program == ".venv/bin/ensemble"
            done = run_ensemble(project, *arguments)
            assert done.returncode == 0, done.stderr
            if output:
                assert_as_shown(steady(done.stdout + done.stderr), steady(output))
    finally:
        run_ensemble(project, "local", "stop")
