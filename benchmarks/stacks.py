"""Local stacks for benchmarks, each of a copy of the project with a chosen number of members; and their datasets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.local.lambdas.pool import FunctionCode
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources

ROOT = Path(__file__).resolve().parents[1]
PASSENGERS = ROOT / "examples" / "titanic" / "passengers.csv"
PARTS = ("events", "functions", "models", "statemachine", "template.yaml")
SLOTS = ",".join(str(slot + 1) for slot in range(16))


def copy_project(folder: Path) -> None:
    """Copy the files that a stack needs into a new folder."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part)
        else:
            shutil.copy(source, folder / part)


def write_members(folder: Path, members: int) -> Path:
    """Repeat the shipped members in a copy of the project up to a number of members, and return its manifest."""
    manifest = folder / "models" / "manifest.json"
    document = json.loads(manifest.read_text())
    shipped = document["members"]
    document["members"] = [
        {**member, "id": f"{member['id']}{turn or ''}"}
        for turn in range(-(-members // len(shipped)))
        for member in shipped
    ][:members]
    document["quorum"] = {"min_members": min(2, members)}
    manifest.write_text(json.dumps(document))
    return manifest


def write_passengers(path: Path, rows: int) -> None:
    """Write a table of this many rows, which repeats the shipped passengers."""
    with PASSENGERS.open(encoding="utf-8") as passengers, path.open("w", encoding="utf-8") as table:
        table.write(next(passengers))
        table.writelines(islice(cycle(passengers), rows))


@contextmanager
def start_stack(
    folder: Path, code: Mapping[str, FunctionCode] | None = None, members: int = 4
) -> Iterator[tuple[LocalStack, Stack]]:
    """Start a local stack of a copy of the project, with so many members published.

    Args:
        folder: the copy's folder; it must not exist.
        code: functions' code by logical id, instead of the project's.
        members: up to 16.
    """
    copy_project(folder)
    manifest = write_members(folder, members)
    with LocalStack.start(
        folder, LocalStackOptions(parameters={"Slots": SLOTS}, code=code or {}, tensorflow=False)
    ) as local:
        stack = local_stack(local.name, local.endpoint)
        ensure_published(stack, read_sources(manifest), notify=lambda _: None)
        yield local, stack
