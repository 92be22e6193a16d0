"""How long a function, an execution and the first response take on the local stack, compared with alternatives.

    cold call   process start to first response: a slot; a handler that fetches, unpacks and loads a model at each call
    warm call   the same once more, and a handler that does nothing
    execution   from StartExecution to its end, warm: the ensemble; the same state machine with handlers that do nothing
    make run    the command, from nothing running to the prediction

Everything runs under the same local runtime: the local stack's pool of processes, with Lambda's Runtime API. Nothing
was measured on AWS.

    python benchmarks/serving.py            # prints a table and writes benchmarks/results/serving.json
    python benchmarks/serving.py --json     # prints it as JSON instead

It needs TensorFlow (`make tensorflow`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import msgspec
from command import make_parser, read_count, report
from comparisons import format_comparison
from msgspec import Struct
from stacks import SLOTS, copy_project, start_stack
from timing import Comparison, Machine, Spread, compare, describe_machine, run_in_turns, show, summarize

from stepensemble.cli.stacks import Stack
from stepensemble.core.preprocessing.columns import columns_to_json
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.handlers.state import list_members
from stepensemble.local.lambdas.pool import FunctionCode
from stepensemble.local.stack import LocalStack

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).resolve().parent / "peers"
RESULT = ROOT / "benchmarks" / "results" / "serving.json"
COLD_ROUNDS, WARM_ROUNDS, COMMAND_ROUNDS = 7, 60, 5
MEMBER = "wide_and_deep"
"""The largest of the shipped members."""

OURS, TUTORIAL, EMPTY = "slot", "tutorial handler", "empty handler"
FOUR, SIXTEEN, EMPTY_FOUR = "4 members", "16 members", "4 empty handlers"
COMMAND = "ensemble run, nothing running"
FIRST_RESPONSE_SECONDS = 5.0


class Result(Struct, frozen=True):
    """The result: milliseconds, by target, of each kind of call."""

    machine: Machine
    cold: Mapping[str, Spread]
    warm: Mapping[str, Spread]
    execution: Mapping[str, Spread]
    command: Mapping[str, Spread]
    claims: list[Comparison]


def measure(cold_rounds: int, warm_rounds: int, command_rounds: int) -> Result:
    """Measure everything."""
    with TemporaryDirectory() as scratch:
        calls = _measure_calls(Path(scratch) / "calls", cold_rounds, warm_rounds)
        executions = _measure_executions(Path(scratch) / "executions", warm_rounds)
        commands = _measure_command(Path(scratch) / "command", command_rounds)
    cold, warm = calls
    claims = [
        Comparison("cold call of a slot", TUTORIAL, compare(cold[TUTORIAL], cold[OURS]), 14),
        Comparison("warm call of a slot", TUTORIAL, compare(warm[TUTORIAL], warm[OURS]), 50),
        Comparison("warm call of a slot", EMPTY, compare(warm[OURS], warm[EMPTY]), 1.3, slower=True),
        Comparison(
            "execution, 4 members", EMPTY_FOUR, compare(executions[FOUR], executions[EMPTY_FOUR]), 1.5, slower=True
        ),
        Comparison("execution, 16 members", FOUR, compare(executions[SIXTEEN], executions[FOUR]), 2, slower=True),
        Comparison(
            COMMAND,
            f"{FIRST_RESPONSE_SECONDS:g} s",
            compare(commands[COMMAND], [FIRST_RESPONSE_SECONDS] * len(commands[COMMAND])),
            1,
            slower=True,
        ),
    ]
    return Result(
        describe_machine("ai-edge-litert", "awslambdaric", "moto", "stepensemble", "tensorflow"),
        *({name: _milliseconds(taken) for name, taken in part.items()} for part in (cold, warm, executions, commands)),
        claims,
    )


def _milliseconds(seconds: Sequence[float]) -> Spread:
    return summarize([one * 1000 for one in seconds])


def _measure_calls(
    folder: Path, cold_rounds: int, warm_rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    code = {"Score5": FunctionCode(PEERS / "tutorial_handler"), "Score6": FunctionCode(PEERS / "empty_handler")}
    with start_stack(folder, code) as (local, stack):
        event, rows = _prepare_invocation(stack)
        zipped = _write_saved_model(folder)
        stack.data.write("payloads/model.zip", zipped)
        tutorial = json.dumps({"bucket": stack.data.name, "key": "payloads/model.zip", "rows": rows}).encode()
        calls = {
            OURS: (event["member"]["function"], json.dumps(event).encode()),
            TUTORIAL: (f"{stack.outputs['ScoreFunctionPrefix']}5", tutorial),
            EMPTY: (f"{stack.outputs['ScoreFunctionPrefix']}6", json.dumps(event).encode()),
        }
        call = _caller(local.endpoint)
        outputs = {name: call(*arguments)["outputs"] for name, arguments in calls.items()}
        ours, theirs = outputs[OURS][0], outputs[TUTORIAL][0][0]
        if abs(ours - theirs) > 1e-4:
            raise RuntimeError(f"not the same model: {ours} and {theirs}")
        cold = {
            name: [_time_cold(local, call, *calls[name]) for _ in range(cold_rounds)]
            for name in (OURS, TUTORIAL, EMPTY)
        }
        warm = run_in_turns({name: _calling(call, arguments) for name, arguments in calls.items()}, warm_rounds)
    return cold, warm


def _calling(call: Callable[[str, bytes], Any], arguments: tuple[str, bytes]) -> Callable[[], object]:
    return lambda: call(*arguments)


def _prepare_invocation(stack: Stack) -> tuple[dict[str, Any], list[list[float]]]:
    """Return the event that the state machine sends a slot for one passenger, and the same row as the model's input."""
    current, _ = stack.releases.read_current()
    release = stack.releases.read_release(current.release)
    member = next(
        one for one in list_members(release, current.slots, stack.outputs["ScoreFunctionPrefix"]) if one.id == MEMBER
    )
    row = json.loads((ROOT / "events" / "passenger.json").read_text())["features"]
    columns = normalize(release.features, [row])
    (names,) = member.inputs.values()
    event = {"member": msgspec.to_builtins(member), "columns": columns_to_json(columns), "rows": 1}
    return event, [[float(columns[name][0]) for name in names]]


def _write_saved_model(folder: Path) -> bytes:
    """Return the member as a SavedModel in a zip, as its training exports it."""
    output = folder / "trained"
    script = ROOT / "examples" / "titanic" / "train.py"
    command = [sys.executable, str(script), "--output", str(output), "--member", MEMBER, "--saved-models"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 (our own)
    return (output / f"{MEMBER}.zip").read_bytes()


def _time_cold(local: LocalStack, call: Callable[[str, bytes], Any], name: str, payload: bytes) -> float:
    """Call a function that has no process."""
    (status,) = [one for one in local.functions if one.name == name]
    for pid in status.pids:
        os.kill(pid, signal.SIGKILL)
    while any(one.pids for one in local.functions if one.name == name):
        time.sleep(0.01)
    started = time.perf_counter()
    call(name, payload)
    return time.perf_counter() - started


def _caller(endpoint: str) -> Callable[[str, bytes], Any]:
    """Return a function that invokes another by HTTP, over one connection, without a client library's own time."""
    address = urlsplit(endpoint)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=120)

    def call(name: str, payload: bytes) -> Any:
        connection.request("POST", f"/2015-03-31/functions/{name}/invocations", payload)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200 or response.headers.get("X-Amz-Function-Error"):
            raise RuntimeError(body.decode()[:500])
        return json.loads(body)

    return call


def _measure_executions(folder: Path, rounds: int) -> dict[str, list[float]]:
    empty = {
        "NormalizeFunction": FunctionCode(PEERS / "empty_normalize"),
        "AggregateFunction": FunctionCode(PEERS / "empty_aggregate"),
        **{f"Score{slot}": FunctionCode(PEERS / "empty_handler") for slot in SLOTS.split(",")},
    }
    with ExitStack() as exits:
        _, four = exits.enter_context(start_stack(folder / "four", {}))
        _, sixteen = exits.enter_context(start_stack(folder / "sixteen", {}, members=16))
        _, nothing = exits.enter_context(start_stack(folder / "empty", empty))
        payload = json.loads((ROOT / "events" / "passenger.json").read_text())
        tasks = {
            FOUR: _running(four, payload),
            SIXTEEN: _running(sixteen, payload),
            EMPTY_FOUR: _running(nothing, {"slots": ["1", "2", "3", "4"]}),
        }
        return run_in_turns(tasks, rounds)


def _running(stack: Stack, payload: Mapping[str, Any]) -> Callable[[], object]:
    """Return a function that runs an execution synchronously to its end."""
    machine = stack.outputs["ExpressStateMachineArn"]
    text = json.dumps(payload)

    def run() -> None:
        ended = stack.step_functions.start_sync_execution(stateMachineArn=machine, input=text)
        if ended["status"] != "SUCCEEDED":
            raise RuntimeError(ended.get("cause", ended["status"]))

    return run


def _measure_command(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time the command of `make run`, in a project where it ran once before."""
    copy_project(folder)
    command = [str(Path(sys.executable).with_name("ensemble")), "run", "events/passenger.json"]

    def run() -> None:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603 (our own)

    return run_in_turns({COMMAND: run}, rounds)


def format_table(result: Result) -> str:
    """Return the result as a table."""
    lines = []
    parts = {
        "cold call": result.cold,
        "warm call": result.warm,
        "execution": result.execution,
        "make run": result.command,
    }
    for part, taken in parts.items():
        lines += [part] + [f"  {name:32}{show(spread):>30} ms" for name, spread in taken.items()]
    lines += ["", *map(format_comparison, result.claims)]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    parser.add_argument("--rounds", type=read_count, help="how often everything is timed")
    arguments = parser.parse_args()
    rounds = [arguments.rounds or default for default in (COLD_ROUNDS, WARM_ROUNDS, COMMAND_ROUNDS)]
    report(measure(*rounds), arguments, format_table)


if __name__ == "__main__":
    main()
