"""Drive the project as a person or a client does: the command line, and executions through boto3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepensemble.cli.stacks import Stack

ROOT = Path(__file__).resolve().parent.parent
PROJECT_PARTS = ("template.yaml", "template-tensorflow.yaml", "statemachine", "functions", "models", "events")
ENSEMBLE = str(Path(sys.executable).with_name("ensemble"))


def copy_project(folder: Path) -> Path:
    """Copy what the local stack needs, so that its state and edits to the manifest stay in the test."""
    for part in PROJECT_PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part)
        else:
            shutil.copy(source, folder / part)
    return folder


def run_ensemble(folder: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does, in a wide terminal without colours."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return subprocess.run(
        [ENSEMBLE, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment | {"COLUMNS": "160", "NO_COLOR": "1"},
    )


def start(stack: Stack, payload: object, name: str | None = None, machine: str | None = None) -> str:
    """Start an execution as any client would, and return its ARN."""
    arguments = {} if name is None else {"name": name}
    started = stack.step_functions.start_execution(
        stateMachineArn=machine or stack.state_machine, input=json.dumps(payload), **arguments
    )
    return started["executionArn"]


def wait(stack: Stack, execution: str, seconds: float = 60) -> Mapping[str, Any]:
    """Wait for an execution's end and return its description."""
    deadline = time.monotonic() + seconds
    while True:
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            return described
        assert time.monotonic() < deadline, f"{execution} runs for more than {seconds} s"
        time.sleep(0.05)


def ask(stack: Stack, payload: object, name: str | None = None) -> dict[str, Any]:
    """Run an execution to its success and return its output."""
    described = wait(stack, start(stack, payload, name))
    assert described["status"] == "SUCCEEDED", described.get("cause")
    return json.loads(described["output"])
