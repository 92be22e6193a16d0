"""Checks a whole manifest: reports every problem of structure and meaning at once.

This module checks features, task and members; `validation.policy` checks the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from stepensemble.core.arrays import Array
from stepensemble.core.errors import InvalidManifest, InvalidPayload
from stepensemble.core.number_limits import SMALLEST
from stepensemble.core.preprocessing.encoding import Reasons, normalize, scale_numbers
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.schema.manifest import (
    CategoryFeature,
    Feature,
    ImageFeature,
    Log1p,
    Manifest,
    Member,
    MinMax,
    NumberFeature,
    Scaling,
    TensorFeature,
    column_names,
)
from stepensemble.core.schema.outputs import (
    OUTPUT_KINDS,
    Label,
    Logit,
    Logits,
    Output,
    Probabilities,
    Probability,
    Value,
    name_kind,
)
from stepensemble.core.schema.policy import Aggregation, Confidence, Mean, Quorum
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task, name_classes, name_task
from stepensemble.core.strict_json import describe_syntax
from stepensemble.core.validation.policy import (
    check_bounds,
    check_cascade_method,
    check_cascade_quorum,
    check_labelled_bounds,
    check_method,
    check_quorum,
    check_stack,
    check_support,
    check_tiers,
    check_voters,
    check_weight,
)
from stepensemble.core.validation.structure import check_structure

Check = tuple[Any, ...]
"""A function that yields problems, and the parts of the manifest that it checks."""


def parse_manifest(text: bytes | str) -> Manifest:
    """Parse and check a manifest.

    Args:
        text: the file's content, UTF-8 JSON.

    Raises:
        InvalidManifest: with every problem of structure and meaning at once. Parts that are well formed are checked
            for meaning even where others are not.
    """
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidManifest(
            [Problem("$", f"is not JSON: {describe_syntax(text, error)}", "fix the syntax")]
        ) from None
    problems = check_structure(data, Manifest)
    if isinstance(data, dict):
        problems += _check_meaning(data, broken=[problem.path for problem in problems])
    if problems:
        raise InvalidManifest(problems)
    return msgspec.convert(data, Manifest)


def _check_meaning(data: dict[str, Any], broken: Sequence[str]) -> Iterator[Problem]:
    """Check the meaning of the well-formed parts of a manifest, alone and together.

    Checks that read a malformed part, which is `UNSET` here, are skipped; all others run.
    """
    features, members = _well_formed(data, "features", Feature, broken), _well_formed(data, "members", Member, broken)
    every_feature, everyone = _all(data, "features", features), _all(data, "members", members)
    task = _part(data, "task", Task, broken, UNSET)
    aggregation = _part(data, "aggregation", Aggregation, broken, Mean())
    quorum = _part(data, "quorum", Quorum, broken, Quorum())
    review = _part(data, "review", Confidence | None, broken, None)
    cascade = _part(data, "cascade", Confidence | None, broken, None)
    checks: list[Check] = [
        *((_check_feature, feature, path) for path, feature in features),
        (_check_unique, [(f"{path}.name", feature.name) for path, feature in features], "feature"),
        (_check_task, task),
        (_check_unique, [(f"{path}.id", member.id) for path, member in members], "member"),
    ]
    for path, member in members:
        checks += [
            (_check_columns, member, every_feature, path),
            (_check_output, member.output, task, f"{path}.output"),
            (check_support, member, aggregation, task, path),
            (check_weight, member, aggregation, quorum, path),
        ]
    checks += [
        (check_voters, everyone),
        (check_method, aggregation, task),
        (check_stack, aggregation, task, everyone),
        (check_quorum, quorum, everyone, "$.quorum"),
        (check_bounds, review, "$.review"),
        (check_labelled_bounds, review, task, "$.review"),
        (check_bounds, cascade, "$.cascade"),
        (check_labelled_bounds, cascade, task, "$.cascade"),
        (check_tiers, cascade, everyone),
        (check_cascade_method, cascade, aggregation),
        (check_cascade_quorum, cascade, quorum, everyone),
    ]
    found = [
        problem for check, *parts in checks if all(part is not UNSET for part in parts) for problem in check(*parts)
    ]
    yield from found
    golden = _part(data, "golden", tuple[dict[str, Any], ...], broken, ())
    if golden and every_feature is not UNSET and not any(problem.path.startswith("$.features") for problem in found):
        yield from _check_golden(golden, every_feature)


def _well_formed(data: dict[str, Any], key: str, kind: Any, broken: Sequence[str]) -> list[tuple[str, Any]]:
    """Return the well-formed entries of a list, each with its path."""
    entries = data.get(key)
    if not isinstance(entries, list):
        return []
    paths = [f"$.{key}[{index}]" for index in range(len(entries))]
    return [
        (path, msgspec.convert(entry, kind))
        for path, entry in zip(paths, entries, strict=True)
        if not _is_broken(path, broken)
    ]


def _all(data: dict[str, Any], key: str, sound: Sequence[tuple[str, Any]]) -> Any:
    """Return the entries of a list if there are any and all of them are well formed."""
    return tuple(entry for _, entry in sound) if sound and len(sound) == len(data[key]) else UNSET


def _part(data: dict[str, Any], key: str, kind: Any, broken: Sequence[str], default: Any) -> Any:
    if _is_broken(f"$.{key}", broken):
        return UNSET
    return msgspec.convert(data[key], kind) if key in data else default


def _is_broken(path: str, broken: Sequence[str]) -> bool:
    return any(other == path or other.startswith((f"{path}.", f"{path}[")) for other in broken)


def _check_feature(feature: Feature, path: str) -> Iterator[Problem]:
    if isinstance(feature, NumberFeature):
        yield from _check_number(feature, path)
    if isinstance(feature, ImageFeature):
        yield from _check_image(feature, path)
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
        yield Problem(f"{path}.min", f"{show(low)} is above max {show(high)}", "swap them")
    elif missing is not None and ((low is not None and missing < low) or (high is not None and missing > high)):
        yield Problem(f"{path}.missing", f"{show(missing)} is outside min and max", "use a value inside")
    elif missing is not None and _has_values(scaling, low):
        column, _ = scale_numbers(feature, np.array([missing], dtype=np.float64))
        if not np.isfinite(column).all():
            scaled = " once scaled" if scaling else ""
            yield Problem(f"{path}.missing", f"{show(missing)} is too large for float32{scaled}", "use one closer to 0")
    if isinstance(scaling, MinMax) and not _has_values(scaling, low):
        yield Problem(
            f"{path}.scaling.max",
            f"{show(scaling.max)} is not above min {show(scaling.min)}",
            "use a larger max",
        )
    elif isinstance(scaling, MinMax) and scaling.max - scaling.min < SMALLEST:  # the lower bound of "std" too
        yield Problem(
            f"{path}.scaling.max",
            f"{show(scaling.max)} is above min {show(scaling.min)} by less than {SMALLEST:g}, which numbers are "
            "divided by",
            f"use a max that is at least {SMALLEST:g} above it",
        )
    if isinstance(scaling, Log1p) and not _has_values(scaling, low):
        yield Problem(f"{path}.scaling", "log1p has no value at -1 and below", 'add a "min" above -1, such as "min": 0')


def _has_values(scaling: Scaling | None, low: float | None) -> bool:
    """Return whether a scaling is defined for every number from `low` on."""
    if isinstance(scaling, MinMax):
        return scaling.min < scaling.max
    return not isinstance(scaling, Log1p) or (low is not None and low > -1)


def _check_image(feature: ImageFeature, path: str) -> Iterator[Problem]:
    channels = feature.channels
    for key, numbers in (("mean", feature.mean), ("std", feature.std)):
        if numbers is not None and len(numbers) != channels:
            remedy = f"give {channels}: one for each channel of mode {show(feature.mode)}"
            yield Problem(f"{path}.{key}", f"has {len(numbers)} numbers", remedy)
    deviations = feature.std or (1.0,)
    if max(255.0 / feature.scale, *map(abs, feature.mean or (0.0,))) / min(deviations) > np.finfo(np.float32).max / 2:
        key, divisor = min(("scale", feature.scale), ("std", min(deviations)), key=lambda one: one[1])
        yield Problem(f"{path}.{key}", f"{show(divisor)} makes samples too large for float32", "use a larger one")
    default = ImageFeature(feature.name, feature.size)
    for key in ("scale", "mean", "std") if feature.dtype == "uint8" else ():
        if getattr(feature, key) != getattr(default, key):
            yield Problem(f"{path}.{key}", "has no effect with dtype uint8", 'remove it, or use the dtype "float32"')
    if feature.layout == "HW" and feature.mode != "L":
        remedy = 'use the mode "L", or the layout "HWC", "CHW" or "flat"'
        yield Problem(f"{path}.layout", f'"HW" has no place for the {channels} channels of "{feature.mode}"', remedy)
    if feature.antialias is False and feature.filter in ("nearest", "area"):
        remedy = 'remove it, or use the filter "bilinear", "bicubic" or "lanczos"'
        yield Problem(f"{path}.antialias", f"is false with the filter {show(feature.filter)}", remedy)


def _check_task(task: Task) -> Iterator[Problem]:
    if isinstance(task, RegressionTask):
        return
    yield from _check_unique(((f"$.task.classes[{i}]", name) for i, name in enumerate(task.classes)), "class")
    if isinstance(task, BinaryTask) and len(task.classes) != 2:
        yield Problem("$.task.classes", f"has {len(task.classes)} classes", 'give two, or use the type "multiclass"')
    if isinstance(task, MulticlassTask) and task.thresholds is not None:
        path = "$.task.thresholds"
        yield from _check_classes([(f"{path}.{name}", name) for name in task.thresholds], task.classes, path)


def _check_classes(named: Sequence[tuple[str, str]], classes: Sequence[str], path: str) -> Iterator[Problem]:
    """Check that the names are exactly the task's classes, each once."""
    missing = [name for name in classes if name not in {given for _, given in named}]
    for where, name in named:
        if name not in classes:
            yield _unknown_class(where, name, classes, missing)
    yield from _check_unique(named, "class")
    for name in missing:
        yield Problem(path, f"the class {show(name)} is missing", "add it")


def _unknown_class(path: str, name: str, classes: Sequence[str], candidates: Sequence[str]) -> Problem:
    remedy = f"use one of {enumerate_values(classes)}{suggest(name, candidates)}"
    return Problem(path, f"{show(name)} is not a class of the task", remedy)


def _check_output(output: Output, task: Task, path: str) -> Iterator[Problem]:
    kind, allowed, classes = name_kind(output), OUTPUT_KINDS[type(task)], name_classes(task)
    if kind not in allowed:
        yield Problem(
            f"{path}.kind",
            f"{show(kind)} does not fit a {name_task(task)} task",
            f"use one of {enumerate_values(sorted(allowed))}",
        )
        return
    match output:
        case Probability(of=name) | Logit(of=name):
            if name is not None and name not in classes:
                yield _unknown_class(f"{path}.of", name, classes, classes)
        case Probabilities(classes=order) | Logits(classes=order) | Label(classes=order):
            if order is not None:
                named = [(f"{path}.classes[{index}]", name) for index, name in enumerate(order)]
                yield from _check_classes(named, classes, f"{path}.classes")
        case Value(scale=scale):
            if scale == 0:
                yield Problem(f"{path}.scale", f"{show(scale)} makes every value the same", "use another, or remove it")


def _check_columns(member: Member, features: Sequence[Feature], path: str) -> Iterator[Problem]:
    columns = {name: feature for feature in features for name in column_names(feature)}
    if member.inputs is not None:
        if member.columns is not None:
            yield Problem(f"{path}.inputs", 'is given together with "columns"', "keep the one that fits the model")
        if not member.inputs:
            yield Problem(f"{path}.inputs", "is empty", "name the columns of each input, or remove it")
        for name, taken in member.inputs.items():
            yield from _check_input(taken, columns, f"{path}.inputs.{name}", "name at least one column")
    elif member.columns is not None:
        remedy = "name at least one column, or remove it to take all"
        yield from _check_input(member.columns, columns, f"{path}.columns", remedy)
    else:
        yield from _check_tensors(tuple(columns), columns, path)


def _check_input(taken: Sequence[str], columns: Mapping[str, Feature], path: str, filling: str) -> Iterator[Problem]:
    if not taken:
        yield Problem(path, "is empty", filling)
    for index, name in enumerate(taken):
        if name not in columns:
            remedy = f"use one of {enumerate_values(columns)}{suggest(name, columns)}"
            yield Problem(f"{path}[{index}]", f"{show(name)} is not a column", remedy)
    yield from _check_unique(((f"{path}[{index}]", name) for index, name in enumerate(taken)), "column")
    yield from _check_tensors(taken, columns, path)


def _check_tensors(taken: Sequence[str], columns: Mapping[str, Feature], path: str) -> Iterator[Problem]:
    tensors = [name for name in taken if isinstance(columns.get(name), TensorFeature | ImageFeature)]
    if tensors and len(taken) > 1:
        yield Problem(
            path,
            f"takes the tensor {show(tensors[0])} together with other columns",
            f"name what it takes: [{show(tensors[0])}] alone, or only columns that are not tensors",
        )


def _check_golden(rows: Sequence[Mapping[str, Any]], features: tuple[Feature, ...]) -> Iterator[Problem]:
    try:
        normalize(features, rows, locate="$.golden[{}]".format, images=_accept_images)
    except InvalidPayload as error:
        yield from error.problems


def _accept_images(feature: ImageFeature, values: Sequence[Any]) -> tuple[Array, Reasons]:
    """Accept every image: the gate decodes it later."""
    return np.zeros((len(values), *feature.size, feature.channels), np.uint8), {}


def _check_unique(named: Iterable[tuple[str, str]], noun: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for path, name in named:
        if name in seen:
            yield Problem(path, f"the {noun} {show(name)} is given twice", "use another name or remove it")
        seen.add(name)
