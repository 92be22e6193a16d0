"""Small parts that tests are made of: manifests, releases, models whose answers one can work out by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stepensemble.core.manifest import Feature, NumberFeature
from stepensemble.core.outputs import Output
from stepensemble.core.policy import Aggregation, Confidence, Mean, Policy, Quorum
from stepensemble.core.release import FORMAT, Artifact, Release, ReleasedMember, digest_of
from stepensemble.core.task import BinaryTask, MulticlassTask, RegressionTask, Task
from stepensemble.publishing.sources import Sources, read_sources

ROOT = Path(__file__).resolve().parent.parent
MODELS = Path(__file__).resolve().parent / "data" / "models"
"""See `data/make_models.py` for what each of them computes."""

BINARY = BinaryTask(classes=("no", "yes"))
THREE = MulticlassTask(classes=("red", "green", "blue"))
REGRESSION = RegressionTask()

MEAN = Mean()
ANY_VOTER = Quorum(min_members=1)

X: dict[str, Any] = {"name": "x", "type": "number"}
"""A feature as a manifest has it: one number, as it is."""


def model(name: str) -> bytes:
    """Return one of the small LiteRT models."""
    return (MODELS / f"{name}.tflite").read_bytes()


def member(id_: str = "half", artifact: str = "half_plus_two", kind: str = "value", **more: Any) -> dict[str, Any]:
    """Return a member as a manifest has it."""
    return {"id": id_, "version": "1", "artifact": f"{artifact}.tflite", "output": {"kind": kind}, **more}


def manifest(*members: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a sound manifest as data: a regression on `x` by `half_plus_two`, unless something else is said."""
    data = {
        "schema_version": 1,
        "name": "halves",
        "task": {"type": "regression"},
        "features": [X],
        "members": list(members) or [member()],
        **more,
    }
    return copy.deepcopy(data)


def sources(folder: Path, *members: Mapping[str, Any], **more: Any) -> Sources:
    """Write a manifest and the models it names into a folder, and read them."""
    data = manifest(*members, **more)
    for entry in data["members"]:
        name = Path(entry["artifact"]).stem
        (folder / entry["artifact"]).write_bytes(model(name))
    path = folder / "manifest.json"
    path.write_text(json.dumps(data))
    return read_sources(path)


def artifact(content: bytes) -> Artifact:
    """Return what a release says of a model file."""
    return Artifact(digest_of(content), len(content))


def released(id_: str, output: Output | str = "value", **more: Any) -> ReleasedMember:
    """Return a member as a release has it; its output may be given by its kind's name alone."""
    return ReleasedMember(
        **{
            "id": id_,
            "version": "1",
            "artifact": artifact(id_.encode()),
            "runtime": "litert",
            "output": msgspec.convert({"kind": output}, Output) if isinstance(output, str) else output,
            "weight": 1.0,
            "role": "voter",
            "timeout": 10,
            "columns": ("x",),
            "tier": 1,
            **more,
        }
    )


def release(
    task: Task,
    *members: ReleasedMember,
    aggregation: Aggregation = MEAN,
    quorum: Quorum = ANY_VOTER,
    review: Confidence | None = None,
    cascade: Confidence | None = None,
    features: tuple[Feature, ...] = (NumberFeature("x"),),
) -> Release:
    """Return a release."""
    return Release(
        format=FORMAT,
        name="halves",
        task=task,
        features=features,
        policy=Policy(aggregation, quorum, review, cascade),
        members=members,
    )
