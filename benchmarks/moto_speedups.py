"""Measure each speed-up of moto: the same work with all speed-ups, and with one of them switched off, in turns.

Each measurement is a process of its own. It reports processor seconds of the process that runs the local stack; for
nested-polling the elapsed seconds, since that speed-up saves waiting. The gains in docs/emulator.md and in the registry
of patches are medians of one run of this script.

    python benchmarks/moto_speedups.py                       # all speed-ups, three rounds
    python benchmarks/moto_speedups.py --rounds 5 json-paths # some of them
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from boto3.session import Session
from botocore.config import Config
from stacks import copy_project

from stepensemble.local.moto_patches.patch import SPEEDUPS_OFF
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack

TOY = Path(__file__).resolve().parents[1] / "tests" / "functional" / "local" / "toy"
MEGABYTE = 1024 * 1024
OPTIONS = LocalStackOptions(tensorflow=False)
STATE = {"sleep": 0, "rows": [{"Pclass": 3, "Sex": "male", "Fare": 7.25, "Name": f"passenger {n}"} for n in range(400)]}
PATH_STATE = {
    "Type": "Pass",
    "Parameters": {f"value{n}.$": f"$.rows[{n}].Fare" for n in range(40)},
    "ResultPath": "$.x",
}
"""A state with many paths."""

Client = Callable[[str], Any]
Workload = Callable[[Path], float]


def measure_start(folder: Path) -> float:
    """Return the processor seconds of this process until a stack of the project is ready."""
    with LocalStack.start(folder, OPTIONS):
        return time.process_time()


def run_stack(folder: Path, work: Callable[[LocalStack, Client], None], clock: Callable[[], float]) -> float:
    """Run some work once to warm up, and return the seconds of the second time."""
    with LocalStack.start(folder, OPTIONS) as stack:
        session: Any = Session("local", "local", region_name="us-east-1")
        config = Config(
            inject_host_prefix=False,
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",  # as obstore does, which the functions use
        )
        clients: dict[str, Any] = {}

        def client(service: str) -> Any:
            if service not in clients:
                clients[service] = session.client(service, endpoint_url=stack.endpoint, config=config)
            return clients[service]

        work(stack, client)
        begun = clock()
        work(stack, client)
        return clock() - begun


def send_requests(stack: LocalStack, client: Client) -> None:
    """Send 300 small requests."""
    for _ in range(300):
        client("dynamodb").get_item(TableName=stack.outputs["Facts"], Key={"id": {"S": "none"}})


def execute(stack: LocalStack, client: Client) -> None:
    """Run 40 executions of one task."""
    for _ in range(40):
        client("stepfunctions").start_sync_execution(
            stateMachineArn=stack.outputs["ExpressMachine"], input=json.dumps(STATE)
        )


def execute_paths(stack: LocalStack, client: Client) -> None:
    """Run 10 executions of a state with 40 paths."""
    machine = create_machine(stack, client, {"Paths": {**PATH_STATE, "End": True}}, "EXPRESS")
    for _ in range(10):
        wait(client, client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(STATE)))


def execute_nested(stack: LocalStack, client: Client) -> None:
    """Run 4 executions, each of which starts another and waits for it."""
    nested = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.sync:2",
        "Parameters": {"StateMachineArn": stack.outputs["Machine"], "Input": {"sleep": 0}},
        "End": True,
    }
    machine = create_machine(stack, client, {"Nested": nested}, "STANDARD")
    for _ in range(4):
        wait(client, client("stepfunctions").start_execution(stateMachineArn=machine, input="{}"))


def create_machine(stack: LocalStack, client: Client, states: dict[str, Any], kind: str) -> str:
    """Create a state machine and return its ARN."""
    created = client("stepfunctions").create_state_machine(
        name=f"machine-{time.monotonic_ns()}",
        definition=json.dumps({"StartAt": next(iter(states)), "States": states}),
        roleArn=stack.outputs["Role"],
        type=kind,
    )
    return str(created["stateMachineArn"])


def wait(client: Client, started: Any) -> None:
    """Wait for an execution's end."""
    execution = started["executionArn"]
    while client("stepfunctions").describe_execution(executionArn=execution)["status"] == "RUNNING":
        time.sleep(0.02)


def read_ranges(stack: LocalStack, client: Client) -> None:
    """Store an object of 64 MB and read 64 ranges of it."""
    bucket = stack.outputs["Scraps"]
    client("s3").put_object(Bucket=bucket, Key="large", Body=bytes(64 * MEGABYTE))
    for start in range(0, 64 * MEGABYTE, MEGABYTE):
        response = client("s3").get_object(Bucket=bucket, Key="large", Range=f"bytes={start}-{start + 1023}")
        response["Body"].read()


def upload_parts(stack: LocalStack, client: Client) -> None:
    """Upload 64 MB in 8 parts, without a checksum."""
    s3, bucket = client("s3"), stack.outputs["Scraps"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    parts = [
        {"PartNumber": n, "ETag": s3.upload_part(**part, PartNumber=n, Body=bytes(8 * MEGABYTE))["ETag"]}
        for n in range(1, 9)
    ]
    s3.complete_multipart_upload(**part, MultipartUpload={"Parts": parts})


def on_stack(work: Callable[[LocalStack, Client], None], clock: Callable[[], float] = time.process_time) -> Workload:
    """Return a workload that runs on a stack of the small project of the tests."""
    return lambda folder: run_stack(folder, work, clock)


WORKLOADS: dict[str, tuple[str, Workload]] = {
    "lazy-imports": ("a start", measure_start),
    "region-list": ("a start", measure_start),
    "json-templates": ("a start", measure_start),
    "known-definitions": ("a start", measure_start),
    "service-lookup": ("300 requests", on_stack(send_requests)),
    "task-clients": ("40 executions", on_stack(execute)),
    "parsed-definitions": ("40 executions", on_stack(execute)),
    "json-copies": ("40 executions", on_stack(execute)),
    "json-paths": ("10 executions with 40 paths", on_stack(execute_paths)),
    "nested-polling": ("4 nested executions, elapsed", on_stack(execute_nested, time.monotonic)),
    "last-object": ("64 ranges of 64 MB", on_stack(read_ranges)),
    "part-checksums": ("an upload of 64 MB in 8 parts", on_stack(upload_parts)),
}


def measure(name: str, folder: Path, off: str) -> float:
    """Measure one workload in a process of its own, with these speed-ups switched off."""
    command = [sys.executable, __file__, "--child", str(folder), name]
    done = subprocess.run(  # noqa: S603 (our own command)
        command, env={**os.environ, SPEEDUPS_OFF: off}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Print a row for each speed-up: seconds with it, seconds without it, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="speed-ups; all of them if none is given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(WORKLOADS[arguments.names[0]][1](arguments.child))
        return
    for name in arguments.names or WORKLOADS:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "project"
            what, workload = WORKLOADS[name]
            if workload is measure_start:
                copy_project(folder)
            else:
                shutil.copytree(TOY, folder)
            measure(name, folder, "")  # fills the caches
            pairs = [(measure(name, folder, ""), measure(name, folder, name)) for _ in range(arguments.rounds)]
        applied, off = median(one for one, _ in pairs), median(other for _, other in pairs)
        print(f"{name:<20} {what:<32} {applied:7.2f} s with, {off:7.2f} s without", flush=True)


if __name__ == "__main__":
    main()
