"""The manifest: the file a person edits to say what the ensemble is.

The structures below are its only definition. The JSON Schema beside it (`models/manifest.schema.json`) is written from
them, and `parse_manifest` reports every problem of a file at once, the ones of structure and the ones of meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from stepensemble.core.errors import InvalidManifest
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.validation import check_structure

SCHEMA_VERSION = 1

Identifier = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        description="Lower-case letters, digits, '-' and '_'; at most 64.",
    ),
]
FeatureName = Annotated[str, Meta(pattern=r"^[^=$\s][^=]{0,127}$", description="A field of the payload.")]


class Standard(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="standard"):
    """(value - mean) / std."""

    mean: float
    std: Annotated[float, Meta(gt=0)]


class MinMax(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="min_max"):
    """(value - min) / (max - min); values outside are not clipped."""

    min: float
    max: float


class Log1p(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="log1p"):
    """log(1 + value)."""


Scaling = Standard | MinMax | Log1p


class NumberFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="number"):
    """A finite number. One column, named as the feature."""

    name: FeatureName
    min: Annotated[float | None, Meta(description="Smallest value accepted.")] = None
    max: Annotated[float | None, Meta(description="Largest value accepted.")] = None
    missing: Annotated[
        float | None,
        Meta(description="Used, before scaling, where the value is absent; else that is an error."),
    ] = None
    scaling: Annotated[Scaling | None, Meta(description="How the model wants it; as it is by default.")] = None


class CategoryFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="category"):
    """One of a vocabulary. Encoded as index: one column; as one_hot: a column a value, `Embarked=C`."""

    name: FeatureName
    vocabulary: Annotated[tuple[str | int, ...], Meta(min_length=1, description="The values, in order.")]
    encoding: Literal["index", "one_hot"] = "index"
    unknown: Annotated[
        Literal["error", "other"],
        Meta(description="A value outside the vocabulary is an error, or one more category named 'other'."),
    ] = "error"
    missing: Annotated[str | int | None, Meta(description="Used where the value is absent; else that is an error.")] = (
        None
    )


class BooleanFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="boolean"):
    """true or false. One column of 1 and 0."""

    name: FeatureName
    missing: Annotated[bool | None, Meta(description="Used where the value is absent; else that is an error.")] = None


class TensorFeature(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="tensor"):
    """Nested lists of a fixed shape, for models that take more than a row of numbers. One column."""

    name: FeatureName
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=1)], ...],
        Meta(min_length=1, description="Shape of one row's tensor, without the batch dimension."),
    ]
    dtype: Literal["float32", "int32", "int64", "uint8", "int8"] = "float32"


Feature = NumberFeature | CategoryFeature | BooleanFeature | TensorFeature


class BinaryTask(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="binary"):
    """One of two classes; probabilities are those of the second."""

    classes: Annotated[tuple[str, ...], Meta(min_length=2, description="Two names; the second is what is predicted.")]
    threshold: Annotated[
        float, Meta(gt=0, lt=1, description="The second class is answered from this probability on.")
    ] = 0.5


class MulticlassTask(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="multiclass"):
    """One of several classes."""

    classes: Annotated[tuple[str, ...], Meta(min_length=2, description="Names, in the order of the outputs.")]


class RegressionTask(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="regression"):
    """A number."""


Task = BinaryTask | MulticlassTask | RegressionTask

Method = Literal["mean", "weighted_mean", "soft_vote", "hard_vote"]
WEIGHTED_METHODS = frozenset({"weighted_mean", "soft_vote"})
VOTING_METHODS = frozenset({"soft_vote", "hard_vote"})

OutputKind = Literal["probability", "probabilities", "label", "value"]
OUTPUT_KINDS: dict[type, frozenset[str]] = {
    BinaryTask: frozenset({"probability", "label"}),
    MulticlassTask: frozenset({"probabilities", "label"}),
    RegressionTask: frozenset({"value"}),
}
"""Which kinds of output can answer which task."""


class Aggregation(Struct, frozen=True, forbid_unknown_fields=True):
    """How the voters' outputs become one answer."""

    method: Annotated[
        Method,
        Meta(description="mean and hard_vote count members alike; weighted_mean and soft_vote use weights."),
    ] = "mean"


class Quorum(Struct, frozen=True, forbid_unknown_fields=True):
    """What must have answered for the answer to count."""

    min_members: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Fewest voters; more than half of them by default.")
    ] = None


class Output(Struct, frozen=True, forbid_unknown_fields=True):
    """What a member's output means."""

    kind: Annotated[
        OutputKind,
        Meta(
            description="probability: of the second class; probabilities: one a class, in the task's order; "
            "label: the index of a class; value: the number of a regression."
        ),
    ]


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """One model version in the ensemble."""

    id: Identifier
    version: Annotated[str, Meta(min_length=1, max_length=64)]
    artifact: Annotated[str, Meta(min_length=1, description="Path of the model file, relative to this manifest.")]
    output: Output
    runtime: Annotated[Literal["litert"], Meta(description="What executes the artifact.")] = "litert"
    weight: Annotated[float, Meta(ge=0, description="Used by weighted methods, relative to the others.")] = 1.0
    role: Annotated[
        Literal["voter", "shadow"],
        Meta(description="A shadow is called and recorded, and never counts."),
    ] = "voter"
    timeout: Annotated[
        int, Meta(ge=1, le=50, description="Seconds a call may take before the ensemble goes on without it.")
    ] = 10
    columns: Annotated[
        tuple[str, ...] | None,
        Meta(description="The columns the model takes, in its order; all of them by default."),
    ] = None
    digest: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None,
        Meta(description="SHA-256 of the artifact, where it shall be pinned; checked before publishing."),
    ] = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """An ensemble: what it is asked, who answers, how the answers are combined."""

    schema_version: Annotated[Literal[1], Meta(description="Version of this format.")]
    name: Identifier
    task: Task
    features: Annotated[tuple[Feature, ...], Meta(min_length=1)]
    members: Annotated[tuple[Member, ...], Meta(min_length=1)]
    aggregation: Aggregation = Aggregation()
    quorum: Quorum = Quorum()
    schema: Annotated[str, Meta(description="Where editors find this schema.")] = msgspec.field(
        name="$schema", default=""
    )


def json_schema() -> dict[str, Any]:
    """Return the published JSON Schema (draft 2020-12) of a manifest file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stepensemble manifest",
        **msgspec.json.schema(Manifest),
    }


def parse_manifest(text: bytes | str) -> Manifest:
    """Read a manifest.

    Args:
        text: the file's content, UTF-8 JSON.

    Raises:
        InvalidManifest: with every problem of structure and meaning at once. Parts that are well formed are checked
            for meaning even where others are not.
    """
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidManifest([Problem("$", f"is not JSON: {error}", "mend the syntax")]) from None
    problems = check_structure(data, Manifest)
    if isinstance(data, dict):
        problems += _check_meaning(data, broken=[problem.path for problem in problems])
    if problems:
        raise InvalidManifest(problems)
    return msgspec.convert(data, Manifest)


Part = TypeVar("Part")


def _check_meaning(data: dict[str, Any], broken: Sequence[str]) -> Iterator[Problem]:
    """Check what the well-formed parts of a manifest mean, one by one and together."""
    features = _well_formed(data, "features", Feature, broken)
    members = _well_formed(data, "members", Member, broken)
    task = _part(data, "task", Task, broken)
    aggregation = _part(data, "aggregation", Aggregation, broken) if "aggregation" in data else Aggregation()
    quorum = _part(data, "quorum", Quorum, broken) if "quorum" in data else Quorum()

    for index, feature in features:
        yield from _check_feature(feature, f"$.features[{index}]")
    yield from _check_unique(((f"$.features[{i}].name", f.name) for i, f in features), "feature")
    yield from _check_unique(((f"$.members[{i}].id", m.id) for i, m in members), "member")
    if task is not None:
        yield from _check_task(task)
    columns = {name: feature for _, feature in features for name in column_names(feature)}
    all_features = bool(features) and len(features) == len(data["features"])
    for index, member in members:
        path = f"$.members[{index}]"
        if all_features:
            yield from _check_columns(member, columns, path)
        if task is not None:
            yield from _check_output(member, task, aggregation, path)
        if aggregation is not None and member.weight != 1.0 and aggregation.method not in WEIGHTED_METHODS:
            yield Problem(
                f"{path}.weight",
                f"{show(member.weight)} has no effect under the method {show(aggregation.method)}",
                f"remove it, or use a method that weights: {enumerate_values(sorted(WEIGHTED_METHODS))}",
            )
    if task is not None and aggregation is not None:
        yield from _check_method(task, aggregation)
    if members and len(members) == len(data["members"]):
        yield from _check_voters([member for _, member in members], quorum)


def _well_formed(data: dict[str, Any], key: str, kind: Any, broken: Sequence[str]) -> list[tuple[int, Any]]:
    entries = data.get(key)
    if not isinstance(entries, list):
        return []
    return [
        (index, msgspec.convert(entry, kind))
        for index, entry in enumerate(entries)
        if not _is_broken(f"$.{key}[{index}]", broken)
    ]


def _part(data: dict[str, Any], key: str, kind: Any, broken: Sequence[str]) -> Any:
    if key not in data or _is_broken(f"$.{key}", broken):
        return None
    return msgspec.convert(data[key], kind)


def _is_broken(path: str, broken: Sequence[str]) -> bool:
    return any(other == path or other.startswith((f"{path}.", f"{path}[")) for other in broken)


def column_names(feature: Feature) -> tuple[str, ...]:
    """Name the columns a feature becomes, in order."""
    if isinstance(feature, CategoryFeature) and feature.encoding == "one_hot":
        other = ("other",) if feature.unknown == "other" else ()
        return tuple(f"{feature.name}={value}" for value in (*feature.vocabulary, *other))
    return (feature.name,)


def voters(members: Iterable[Member]) -> list[Member]:
    """Return the members that count."""
    return [member for member in members if member.role == "voter"]


def _check_feature(feature: Feature, path: str) -> Iterator[Problem]:
    if isinstance(feature, NumberFeature):
        yield from _check_number(feature, path)
    if isinstance(feature, CategoryFeature):
        yield from _check_unique(
            ((f"{path}.vocabulary[{i}]", str(v)) for i, v in enumerate(feature.vocabulary)), "value"
        )
        if feature.unknown == "other" and "other" in feature.vocabulary:
            yield Problem(f"{path}.vocabulary", '"other" is also the name for unknown values', "rename that value")
        if feature.missing is not None and not any(
            type(v) is type(feature.missing) and v == feature.missing for v in feature.vocabulary
        ):
            yield Problem(
                f"{path}.missing",
                f"{show(feature.missing)} is not in the vocabulary",
                f"use one of {enumerate_values(feature.vocabulary)}",
            )


def _check_number(feature: NumberFeature, path: str) -> Iterator[Problem]:
    low, high, missing, scaling = feature.min, feature.max, feature.missing, feature.scaling
    if low is not None and high is not None and low > high:
        yield Problem(f"{path}.min", f"{show(low)} is above max {show(high)}", "exchange them")
    elif missing is not None and ((low is not None and missing < low) or (high is not None and missing > high)):
        yield Problem(f"{path}.missing", f"{show(missing)} is outside min and max", "use a value inside")
    if isinstance(scaling, MinMax) and scaling.min >= scaling.max:
        yield Problem(
            f"{path}.scaling.max",
            f"{show(scaling.max)} is not above min {show(scaling.min)}",
            "use a greater max",
        )
    if isinstance(scaling, Log1p) and (low is None or low <= -1):
        yield Problem(f"{path}.scaling", "log1p has no value at -1 and below", 'add a "min" above -1, such as "min": 0')


def _check_task(task: Task) -> Iterator[Problem]:
    if isinstance(task, RegressionTask):
        return
    yield from _check_unique(((f"$.task.classes[{i}]", name) for i, name in enumerate(task.classes)), "class")
    if isinstance(task, BinaryTask) and len(task.classes) != 2:
        yield Problem("$.task.classes", f"has {len(task.classes)} classes", 'give two, or use the type "multiclass"')


def _check_columns(member: Member, columns: dict[str, Feature], path: str) -> Iterator[Problem]:
    if member.columns is not None:
        if not member.columns:
            yield Problem(f"{path}.columns", "is empty", "name at least one column, or remove it to take all")
        for index, name in enumerate(member.columns):
            if name not in columns:
                yield Problem(
                    f"{path}.columns[{index}]",
                    f"{show(name)} is not a column",
                    f"use one of {enumerate_values(columns)}{suggest(name, columns)}",
                )
        yield from _check_unique(((f"{path}.columns[{i}]", name) for i, name in enumerate(member.columns)), "column")
    taken = [name for name in (member.columns if member.columns is not None else columns) if name in columns]
    tensors = [name for name in taken if isinstance(columns[name], TensorFeature)]
    if tensors and len(taken) > 1:
        yield Problem(
            f"{path}.columns" if member.columns is not None else path,
            f"takes the tensor {show(tensors[0])} together with other columns",
            f'give it "columns": [{show(tensors[0])}] alone, or only columns that are no tensors',
        )


def _check_output(member: Member, task: Task, aggregation: Aggregation | None, path: str) -> Iterator[Problem]:
    allowed = OUTPUT_KINDS[type(task)]
    kind = member.output.kind
    if kind not in allowed:
        yield Problem(
            f"{path}.output.kind",
            f"{show(kind)} does not answer a {task.__struct_config__.tag} task",
            f"use one of {enumerate_values(sorted(allowed))}",
        )
    elif kind == "label" and aggregation is not None and aggregation.method != "hard_vote" and member.role == "voter":
        yield Problem(
            f"{path}.output.kind",
            f'"label" is no probability, and the method {show(aggregation.method)} averages probabilities',
            'use the method "hard_vote", or a model that gives probabilities',
        )


def _check_method(task: Task, aggregation: Aggregation) -> Iterator[Problem]:
    if isinstance(task, RegressionTask) and aggregation.method in VOTING_METHODS:
        yield Problem(
            "$.aggregation.method",
            f"{show(aggregation.method)} needs classes, and the task is a regression",
            'use "mean" or "weighted_mean"',
        )


def _check_voters(members: Sequence[Member], quorum: Quorum | None) -> Iterator[Problem]:
    counted = voters(members)
    if not counted:
        yield Problem("$.members", "has no voter", 'give at least one member the role "voter"')
    elif not any(member.weight > 0 for member in counted):
        yield Problem("$.members", "has no voter with a weight above 0", "raise one weight")
    if counted and quorum is not None and quorum.min_members is not None and quorum.min_members > len(counted):
        yield Problem(
            "$.quorum.min_members",
            f"{quorum.min_members} is more than the {len(counted)} voters",
            f"use at most {len(counted)}",
        )


def _check_unique(named: Iterable[tuple[str, str]], noun: str) -> Iterator[Problem]:
    entries = list(named)
    counts = Counter(name for _, name in entries)
    seen: set[str] = set()
    for path, name in entries:
        if counts[name] > 1 and name in seen:
            yield Problem(path, f"the {noun} {show(name)} is there already", "use another name or remove it")
        seen.add(name)
