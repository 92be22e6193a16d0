"""Small parts for tests: manifests, releases, sources of outputs, models that are easy to compute by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stepensemble.core.aggregation.canonical import check_output
from stepensemble.core.aggregation.output_source import Results
from stepensemble.core.preprocessing.columns import bind_columns
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.releases.fingerprint import Fingerprint
from stepensemble.core.releases.release import FORMAT, Artifact, Release, ReleasedMember, digest_of
from stepensemble.core.schema.manifest import Feature, NumberFeature
from stepensemble.core.schema.outputs import Output
from stepensemble.core.schema.policy import Aggregation, Confidence, Mean, Policy, Quorum
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task
from stepensemble.publishing.golden import golden_rows
from stepensemble.publishing.manifest_loader import Sources, read_sources
from stepensemble.publishing.verification import make_fingerprint
from stepensemble.runtimes import load_model

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
    """Return a valid manifest as data: by default a regression on `x` by `half_plus_two`."""
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


def fingerprint(read: Sources) -> Fingerprint:
    """Return the fingerprint that the gate takes of a release, without the gate's processes."""
    rows = golden_rows(read.manifest)
    columns = normalize(read.release.features, rows)
    outputs = {}
    for one in read.release.members:
        loaded = load_model(one.runtime, read.artifacts[one.id], one.signature)
        outputs[one.id] = check_output(loaded.predict(bind_columns(columns, one.inputs), one.output.name), len(rows))
    return make_fingerprint(read.release, read.digest, outputs, rows, "2026-03-01T12:00:00.000+00:00")


def artifact(content: bytes) -> Artifact:
    """Return a model file as a release has it."""
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
            "inputs": {"": ("x",)},
            "signature": None,
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


@dataclass(frozen=True)
class Supply:
    """An `OutputSource` that calls a function with a tier and the numbers of its rows."""

    function: Callable[[int, Any], Results | None]

    def get_results(self, tier: int, rows: Any) -> Results | None:
        return self.function(tier, rows)
