"""How long a new model takes until its first prediction on the local stack, compared with a redeployment.

Each round replaces a member's file and publishes it with the commands, on a running stack. The first prediction is
either that of an execution that names the release, as `ensemble run` does, or the first of the new release in a steady
stream of executions that name none; these use a pointer that was read up to three seconds before.

Of a redeployment only the build can be measured here. What follows it, the upload, the change set and CloudFormation's
update of functions and layers, needs an AWS account, and is not estimated.

    python benchmarks/swap.py            # prints a table and writes benchmarks/results/swap.json
    python benchmarks/swap.py --json     # prints it as JSON instead
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from command import add_rounds, make_parser, report
from msgspec import Struct
from timing import Machine, Spread, compare, describe_machine, show, summarize

from stepensemble.cli.execution import run_execution
from stepensemble.cli.stacks import Stack, local_stack

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "swap.json"
PARTS = ("events", "functions", "models", "statemachine", "template.yaml")
"""Of the project, what a local stack needs."""
TOOLS = Path(sys.executable).parent

MEMBER = "linear"
ROUNDS = 9
ADDED, PUBLISHED, NAMED, STREAM, BUILT = (
    "ensemble add",
    "ensemble publish",
    "publish to first prediction, release named",
    "publish to first prediction in a stream",
    "sam build",
)
PAUSE = 0.05
"""Seconds between the executions of the stream, so that they do not slow the publisher down."""
UNKNOWN = "CloudFormation update"


class Result(Struct, frozen=True):
    """The result.

    Attributes:
        seconds: by the part that was timed; None if it cannot be timed here.
        times_named: how many times as long as `NAMED`, round by round.
    """

    machine: Machine
    rounds: int
    seconds: Mapping[str, Spread | None]
    times_named: Mapping[str, Spread | None]


@dataclass
class Swaps:
    """A copy of the project with a running stack, and the number of models added to it."""

    folder: Path
    stack: Stack
    count: int = 0

    def add(self) -> float:
        """Replace the member's model; return the seconds it took."""
        self.count += 1
        trained = self.folder / "trained.tflite"
        # Bytes after the model's end change its digest, and not its outputs.
        shipped = (ROOT / "models" / "titanic" / f"{MEMBER}.tflite").read_bytes()
        trained.write_bytes(shipped + self.count.to_bytes(16))
        started = time.perf_counter()
        run_command(self.folder, "ensemble", "add", trained.name, "--id", MEMBER, "--replace")
        return time.perf_counter() - started

    def publish(self) -> dict[str, float]:
        """Publish, then run an execution that names the release."""
        started = time.perf_counter()
        release = json.loads(run_command(self.folder, "ensemble", "publish", "--json"))["release"]
        published = time.perf_counter()
        self.run_execution(release)
        return {PUBLISHED: published - started, NAMED: time.perf_counter() - started}

    def publish_in_stream(self) -> dict[str, float]:
        """Publish while executions run one after the other."""
        before = self.run_execution(None)
        started = time.perf_counter()
        with ThreadPoolExecutor(1) as others:
            publishing = others.submit(run_command, self.folder, "ensemble", "publish")
            while self.run_execution(None) == before:
                if publishing.done():
                    publishing.result()  # raises if it failed
                time.sleep(PAUSE)
            finished = time.perf_counter()
            publishing.result()
        return {STREAM: finished - started}

    def run_execution(self, release: str | None) -> str:
        """Run an execution; return the release that served it."""
        payload = json.loads((self.folder / "events" / "passenger.json").read_text(encoding="utf-8"))
        return str(run_execution(self.stack, payload, release).to_json()["release"])


@contextmanager
def serve() -> Iterator[Swaps]:
    """Run the stack of a copy of the project."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        described = json.loads(run_command(folder, "ensemble", "local", "--detach", "--json"))
        try:
            yield Swaps(folder, local_stack(described["stack"], described["endpoint"]))
        finally:
            run_command(folder, "ensemble", "local", "stop")


def run_command(folder: Path, program: str, *arguments: str) -> str:
    """Run a command of the project's environment; return what it prints."""
    path = os.pathsep.join([str(TOOLS), str(ROOT / ".uv" / "bin"), os.environ["PATH"]])
    done = subprocess.run(  # noqa: S603 - the project's own commands
        [str(TOOLS / program), *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path, "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def time_build() -> float:
    """Build for Lambda as `make build` does, in another folder; return the seconds it took."""
    with TemporaryDirectory() as scratch:
        started = time.perf_counter()
        run_command(ROOT, "sam", "build", "--build-dir", scratch)
        return time.perf_counter() - started


def measure(rounds: int, *, build: bool) -> Result:
    """Time everything in turns, after a round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in (ADDED, PUBLISHED, NAMED, STREAM, BUILT)}
    with serve() as swaps:
        for number in range(rounds + 1):
            taken = {ADDED: swaps.add(), **swaps.publish()}
            swaps.add()
            taken |= swaps.publish_in_stream()
            if build:
                taken[BUILT] = time_build()
            if number:
                for name, one in taken.items():
                    seconds[name].append(one)
    return Result(
        describe_machine("ai-edge-litert", "aws-sam-cli", "moto", "stepensemble"),
        rounds,
        {name: summarize(taken) if taken else None for name, taken in seconds.items()} | {UNKNOWN: None},
        {name: compare(taken, seconds[NAMED]) if taken else None for name, taken in seconds.items()} | {UNKNOWN: None},
    )


def format_table(result: Result) -> str:
    """Return the result as a table; quartiles in brackets."""
    lines = [f"one model swapped; median and quartiles of {result.rounds} rounds, local stack", ""]
    lines.append(f"{'':42}{'seconds':>24}{'x release named':>24}")
    for name, taken in result.seconds.items():
        times = result.times_named[name]
        if taken is None or times is None:
            why = "needs an AWS account" if name == UNKNOWN else "left out"
            lines.append(f"  {name:40}{'not measured':>24}{why:>24}")
        else:
            lines.append(f"  {name:40}{show(taken):>24}{show(times):>24}")
    machine = result.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines += ["", f"{machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}, {versions}"]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    parser.add_argument("--no-build", action="store_true", help="leave the build out")
    arguments = parser.parse_args()
    report(measure(arguments.rounds, build=not arguments.no_build), arguments, format_table)


if __name__ == "__main__":
    main()
