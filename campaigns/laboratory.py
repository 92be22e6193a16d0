"""Start a local stack of a copy of the project for fault injection, and report a campaign's findings."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("events", "functions", "models", "statemachine", "template.yaml", "examples/titanic/passengers.csv")
ENSEMBLE = str(Path(sys.executable).with_name("ensemble"))


@dataclass
class Findings:
    """The work and the findings of a campaign.

    Attributes:
        name: the campaign's name.
        size: its arguments.
        counts: how often each event happened, and measurements.
        broken: one sentence for each broken promise.
    """

    name: str
    size: Mapping[str, Any]
    counts: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def expect(self, kept: object, violation: str) -> None:
        """Store the violation if a promise was not kept."""
        if not kept:
            self.broken.append(violation)

    def report(self) -> int:
        """Print everything as JSON, and return the exit code: 1 if a promise was broken."""
        document = {"campaign": self.name, "size": self.size, "counts": self.counts, "broken": self.broken}
        print(json.dumps(document, indent=2))
        return 1 if self.broken else 0


def read_size(description: str | None, arguments: Sequence[str] | None, **defaults: int) -> argparse.Namespace:
    """Read a campaign's size from the command line, such as `--executions 200`; `--seed` seeds it."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in {**defaults, "seed": 1}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args(arguments)


def copy_project(folder: Path) -> Path:
    """Copy the files that a stack needs into a folder."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    return folder


@contextmanager
def start_stack() -> Iterator[tuple[LocalStack, Stack, Path]]:
    """Start a stack in this process, with the shipped ensemble published; yield it with its project."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        project = copy_project(Path(folder))
        with LocalStack.start(project, LocalStackOptions(tensorflow=False)) as local:
            stack = local_stack(local.name, local.endpoint)
            ensure_published(stack, read_sources(project / "models" / "manifest.json"), notify=lambda _: None)
            yield local, stack, project


def run_ensemble(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a project."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(  # noqa: S603 (our own command)
        [ENSEMBLE, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def wait_for_end(stack: Stack, execution: str, seconds: float = 300) -> Mapping[str, Any] | None:
    """Return the description of an execution once it has ended; None if it still runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        described = stack.step_functions.describe_execution(executionArn=execution)
        if described["status"] != "RUNNING":
            return described
        time.sleep(0.1)
    return None


def resident_megabytes() -> int:
    """Return the resident memory of this process, which runs the stack; 0 if the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def choose(seed: int) -> random.Random:
    """Return a seeded random generator."""
    return random.Random(seed)  # noqa: S311 (nothing secret)
