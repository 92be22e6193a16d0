"""A stack is found while it runs, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepensemble.local.errors import PortTaken, StackRuns, StateLocked
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack, RunningStack, find_running
from stepensemble.local.state_database import lock_state

SERVE = """
import signal, sys, time
from pathlib import Path
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with LocalStack.start(Path(sys.argv[1]), LocalStackOptions(announce=True)) as stack:
    stack.prestart(["stepensemble-local-echo", "stepensemble-local-hasty"])
    while not all(status.pids for status in stack.functions if status.logical_id in ("Echo", "Hasty")):
        time.sleep(0.01)
    print(stack.endpoint, *(pid for status in stack.functions for pid in status.pids), flush=True)
    if len(sys.argv) > 2:
        raise RuntimeError("on purpose")
    time.sleep(300)
"""


def call(endpoint: str, payload: bytes, kind: str = "RequestResponse", function: str = "echo") -> Any:
    """Invoke a function without boto3, which would take longer to import."""
    connection = HTTPConnection(endpoint.removeprefix("http://"))
    path = f"/2015-03-31/functions/stepensemble-local-{function}/invocations"
    connection.request("POST", path, payload, {"X-Amz-Invocation-Type": kind})
    response = connection.getresponse().read()
    connection.close()
    return json.loads(response) if response else None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_for_the_end(pids: list[int], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if alive(pid)]
        time.sleep(0.02)


def serve(project: Path, *arguments: str) -> tuple[subprocess.Popen[str], str, list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(project), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().split()
    assert line, process.stderr and process.stderr.read()
    return process, line[0], [int(pid) for pid in line[1:]]


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "SIGKILL", "exception"])
def test_nothing_is_left_running(project: Path, way: str):
    process, endpoint, pids = serve(project, *(["raise"] if way == "exception" else []))
    assert len(pids) == 2
    # Busy functions must end as well.
    if way != "exception":
        call(endpoint, b'{"sleep": 200}', kind="Event")
        process.send_signal(getattr(signal, way))

    _, errors = process.communicate(timeout=60)

    wait_for_the_end(pids)
    running = project / ".stepensemble" / "stack.json"
    assert running.exists() == (way == "SIGKILL")
    assert find_running(project / ".stepensemble") is None
    assert process.returncode == {"SIGTERM": 143, "SIGINT": -2, "SIGKILL": -9, "exception": 1}[way]
    if way in {"SIGTERM", "SIGKILL"}:
        assert errors == ""


def test_only_the_caller_prints(project: Path):
    script = (
        "import sys, boto3; from pathlib import Path; from stepensemble.local.stack import LocalStack\n"
        "with LocalStack.start(Path(sys.argv[1])) as stack:\n"
        "    machines = boto3.client('stepfunctions', endpoint_url=stack.endpoint, region_name='us-east-1',"
        " aws_access_key_id='x', aws_secret_access_key='x')\n"
        '    for value in (\'{"sleep": 0}\', \'{"sleep": 0, "failure": {"error": "E", "cause": "C"}}\', \'{}\'):\n'
        "        machine = stack.outputs['Machine']\n"
        "        arn = machines.start_execution(stateMachineArn=machine, input=value)['executionArn']\n"
        "        while machines.describe_execution(executionArn=arn)['status'] == 'RUNNING': pass\n"
    )

    for _ in range(2):  # without and with the cached blueprint
        done = subprocess.run([sys.executable, "-c", script, str(project)], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_running_stack_is_found(project: Path):
    folder = project / ".stepensemble"
    assert find_running(folder) is None

    with LocalStack.start(project, LocalStackOptions(announce=True)) as stack:
        running = find_running(folder)
        assert running is not None
        assert (running.pid, running.endpoint, running.name) == (os.getpid(), stack.endpoint, stack.name)

    assert find_running(folder) is None


@pytest.mark.parametrize(
    "content", ["{", "{}", json.dumps({"pid": 1, "endpoint": "http://127.0.0.1:9", "name": "stack"})]
)
@pytest.mark.parametrize("owned", [True, False])
def test_an_announcement_without_ownership_of_the_state_is_ignored(tmp_path: Path, content: str, owned: bool):
    (tmp_path / "stack.json").write_text(content)

    with lock_state(tmp_path / "lock", 0, lambda _: None) if owned else nullcontext():
        assert find_running(tmp_path) is None


def test_a_second_stack_is_rejected_as_soon_as_the_first_is_announced(project: Path):
    folder = project / ".stepensemble"
    with LocalStack.start(project) as stack:
        # The first announces itself while the second waits for the state.
        (folder / "stack.json").write_bytes(msgspec.json.encode(RunningStack(os.getpid(), stack.endpoint, stack.name)))
        with pytest.raises(StackRuns, match=f"runs already at {stack.endpoint}"):
            LocalStack.start(project)


def test_a_port_can_be_chosen_and_may_be_taken(project: Path, stack: LocalStack):
    taken = int(stack.endpoint.rpartition(":")[2])

    with pytest.raises(PortTaken, match=str(taken)):
        LocalStack.start(project, LocalStackOptions(port=taken))


def test_a_state_has_one_stack(project: Path):
    messages: list[str] = []
    with LocalStack.start(project), pytest.raises(StateLocked):
        LocalStack.start(project, LocalStackOptions(wait_seconds=0.2, on_wait=messages.append))

    assert messages == ["Waiting for another ensemble command to finish"]


def test_two_stacks_of_one_process_are_apart(project: Path, stack: LocalStack):
    with LocalStack.start(project) as other:
        assert other.outputs["Things"] != stack.outputs["Things"]
        assert other.endpoint != stack.endpoint


def test_parameters_reach_functions_and_loops(project: Path):
    with LocalStack.start(project, LocalStackOptions(parameters={"Greeting": "welcome", "Names": "X"})) as stack:
        names = {status.logical_id for status in stack.functions}
        assert {"WorkerX"} == {name for name in names if name.startswith("Worker")}
        assert call(stack.endpoint, b'{"environment": true}')["environment"]["GREETING"] == "welcome"


ADD_ON = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  BaseStackName:
    Type: String
Resources:
  Boxed:
    Type: AWS::Serverless::Function
    Metadata:
      DockerContext: .
      Dockerfile: functions/commands/Dockerfile
    Properties:
      FunctionName: !Sub ${BaseStackName}-echo-boxed
      PackageType: Image
      ImageConfig:
        Command: [app.handler]
      Role: !Join [/, [!Sub "arn:aws:iam::${AWS::AccountId}:role", !ImportValue toy-role]]
      Environment:
        Variables:
          ROLE: !ImportValue toy-role
"""


def test_the_add_on_is_a_stack_beside_the_base_stack_that_reads_its_exports(project: Path):
    (project / "template-tensorflow.yaml").write_text(ADD_ON)
    base = project / "template.yaml"
    base.write_text(
        base.read_text().replace("Value: !GetAtt Role.Arn", "Value: !Ref Role\n    Export: {Name: toy-role}")
    )

    with LocalStack.start(project, LocalStackOptions(tensorflow=True)) as stack:
        assert "stepensemble-local-echo-boxed" in {status.name for status in stack.functions}
        response = call(stack.endpoint, b'{"environment": true}', function="echo-boxed")
        assert response["environment"]["ROLE"] == stack.outputs["Role"]
    with LocalStack.start(project, LocalStackOptions(tensorflow=False)) as stack:
        assert "Boxed" not in {status.logical_id for status in stack.functions}


def test_files_in_the_functions_temporary_folder_are_removed_with_the_stack(project: Path):
    with LocalStack.start(project) as stack:
        left = Path(call(stack.endpoint, b'{"environment": true}')["environment"]["TMPDIR"])
        (left / "unpacked").mkdir()
        (left / "unpacked" / "model").write_bytes(b"weights")

    assert not left.exists()


def test_functions_used_before_start_with_the_stack(project: Path):
    with LocalStack.start(project) as stack:
        call(stack.endpoint, b"{}")

    with LocalStack.start(project) as stack:
        assert [status.logical_id for status in stack.functions if status.pids] == ["Echo"]


def test_a_failed_start_leaves_nothing_behind(project: Path):
    template = project / "template.yaml"
    template.write_text(template.read_text().replace("Runtime: python3.13", "Nonsense: 1"))
    before = threading.active_count()

    with pytest.raises(Exception, match="Nonsense"):
        LocalStack.start(project)

    assert threading.active_count() == before
