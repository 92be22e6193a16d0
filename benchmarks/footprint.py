"""Measure a function's size and the time of its imports against the budgets in benchmarks/budgets.toml.

A handler is imported in a new process, with the environment variables of the template, and NumPy alone beside it. The
ratio of their processor times is compared with the budget. The size is that of the output of `sam build`.

    python benchmarks/footprint.py            # prints a table and writes benchmarks/results/footprint.json
    python benchmarks/footprint.py --json     # prints it as JSON instead

It needs TensorFlow, whose size it measures, too (`make tensorflow`).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from command import add_rounds, make_parser, report
from comparisons import format_comparison
from msgspec import Struct
from stacks import start_stack
from swap import run_command
from timing import Comparison, Machine, Spread, compare, describe_machine, show, summarize

from stepensemble.local.lambdas.pool import LocalFunction

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "footprint.json"
BUDGETS = ROOT / "benchmarks" / "budgets.toml"
ROUNDS = 7
MEGABYTE = 1_000_000
SCORE = ("Score1", "CoreLayer", "RuntimeLayer")
"""The parts of a build that a score function has."""

NUMPY = "NumPy's own"
TIMED = """
import time
begun = time.process_time()
import numpy
numpy_alone = time.process_time() - begun
import app
print(numpy_alone, time.process_time() - begun)
"""


class Result(Struct, frozen=True):
    """The result: megabytes by part, milliseconds by the function's folder."""

    machine: Machine
    rounds: int
    megabytes: Mapping[str, float]
    milliseconds: Mapping[str, Spread]
    claims: list[Comparison]


def measure(rounds: int) -> Result:
    """Weigh, and time every handler's imports in turns."""
    budgets = tomllib.loads(BUDGETS.read_text(encoding="utf-8"))
    megabytes = {"a score function": weigh_score(), "TensorFlow": weigh_package("tensorflow")}
    seconds = time_imports(rounds)
    alone = [numpy for pairs in seconds.values() for numpy, _ in pairs]
    weight = summarize([megabytes["a score function"] / megabytes["TensorFlow"]])
    goal = budgets["megabytes"]["score"] / megabytes["TensorFlow"]
    claims = [
        Comparison("a score function, unzipped", "TensorFlow", weight, float(f"{goal:.4g}"), slower=True, of="size")
    ]
    for name, pairs in seconds.items():
        times = compare([whole for _, whole in pairs], [numpy for numpy, _ in pairs])
        claims.append(Comparison(f"imports of {name}", NUMPY, times, budgets["imports"][name], slower=True))
    milliseconds = {NUMPY: alone} | {name: [whole for _, whole in pairs] for name, pairs in seconds.items()}
    return Result(
        describe_machine("ai-edge-litert", "aws-lambda-powertools", "numpy", "polars", "stepensemble", "tensorflow"),
        rounds,
        {name: round(weight, 1) for name, weight in megabytes.items()},
        {name: summarize([one * 1000 for one in taken]) for name, taken in milliseconds.items()},
        claims,
    )


def weigh_score() -> float:
    """Build what Lambda gets, elsewhere; return the megabytes of a score function's files."""
    with TemporaryDirectory() as room:
        run_command(ROOT, "sam", "build", "--build-dir", room)
        files = (path for name in SCORE for path in (Path(room) / name).rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files) / MEGABYTE


def weigh_package(name: str) -> float:
    """Return the megabytes of an installed package's files, and of all that it requires."""
    found: dict[str, int] = {}
    left = [name]
    while left:
        one = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if one in found:
            continue
        try:
            installed = distribution(one)
        except PackageNotFoundError:  # for another system
            continue
        paths = (Path(str(installed.locate_file(file))) for file in installed.files or ())
        found[one] = sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")
        required = (requirement for requirement in installed.requires or () if "extra ==" not in requirement)
        left += [re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0] for requirement in required]
    return sum(found.values()) / MEGABYTE


def time_imports(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds that NumPy and all of a handler's imports took, by the function's folder, a round."""
    with TemporaryDirectory() as scratch, start_stack(Path(scratch) / "project") as (local, _):
        functions = {Path(one.code).name: one for one in local.definitions}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sorted(functions)}
    for number in range(rounds + 1):
        for name, taken in seconds.items():
            one = _import(functions[name])
            if number:  # the first finds nothing in the disk's cache
                taken.append(one)
    return seconds


def _import(function: LocalFunction) -> tuple[float, float]:
    environment = {
        "PYTHONPATH": str(ROOT / "src"),
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
    }
    done = subprocess.run(  # noqa: S603 (our own)
        [sys.executable, "-c", TIMED],
        cwd=ROOT / function.code,
        env=environment | function.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{function.code}: {done.stderr}")
    numpy, whole = (float(one) for one in done.stdout.split())
    return numpy, whole


def format_table(result: Result) -> str:
    """Return the result as a table."""
    lines = [f"{name:28}{weight:>10,.1f} MB" for name, weight in result.megabytes.items()]
    lines += ["", f"imports, median and quartiles of {result.rounds} rounds, processor time", ""]
    lines += [f"{name:28}{show(spread, 0):>28} ms" for name, spread in result.milliseconds.items()]
    lines += ["", *map(format_comparison, result.claims)]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    arguments = parser.parse_args()
    report(measure(arguments.rounds), arguments, format_table)


if __name__ == "__main__":
    main()
