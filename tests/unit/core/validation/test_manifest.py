from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from builders import X, manifest, member
from stepensemble.core.errors import InvalidManifest, InvalidPayload
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.schema.manifest import Manifest, NumberFeature, json_schema
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.core.validation.structure import check_structure

SCHEMA = Draft202012Validator(json_schema())

RICH: dict[str, Any] = {
    "$schema": "manifest.schema.json",
    "schema_version": 1,
    "name": "rich",
    "task": {"type": "binary", "classes": ["no", "yes"], "threshold": 0.4},
    "features": [
        {"name": "age", "type": "number", "min": 0, "max": 99, "missing": 1, "scaling": {"type": "log1p"}},
        {"name": "size", "type": "number", "scaling": {"type": "standard", "mean": 1, "std": 2.5}},
        {"name": "fare", "type": "number", "scaling": {"type": "min_max", "min": 0, "max": 1}},
        {"name": "port", "type": "category", "vocabulary": ["C", 7], "encoding": "one_hot", "unknown": "other"},
        {"name": "sex", "type": "category", "vocabulary": ["f", "m"], "missing": "f"},
        {"name": "alone", "type": "boolean", "missing": False},
        {"name": "image", "type": "tensor", "shape": [2, 2], "dtype": "uint8"},
    ],
    "aggregation": {"method": "weighted_mean", "tie": "highest_mean"},
    "quorum": {"min_members": 1, "min_weight": 0.5, "required": ["a"]},
    "review": {"min_agreement": 1, "max_spread": 0.2, "min_margin": 0.1},
    "cascade": {"min_margin": 0.9},
    "members": [
        member("a", kind="probability", weight=2.5, columns=["age", "port=C", "port=7", "port=other", "sex"]),
        member("b", kind="logit", columns=["image"], digest="ab" * 32, timeout=50, tier=2),
        member("c", kind="label", role="shadow", columns=["alone"], runtime="litert"),
        member(
            "d",
            role="shadow",
            runtime="tensorflow",
            signature="serving_default",
            inputs={"picture": ["image"], "person": ["age", "alone"]},
            output={"kind": "probability", "name": "survival"},
        ),
    ],
    "golden": [
        {"age": 30, "size": 1, "fare": 0.5, "port": 7, "sex": "m", "alone": True, "image": [[0, 255], [7, 9]]},
        {"size": "1", "fare": 2, "port": "elsewhere", "image": [[1, 1], [1, 1]]},
    ],
}

THREE_TASK = {"type": "multiclass", "classes": ["a", "b", "c"]}
THREE_KINDS = manifest(
    member("p", output={"kind": "probabilities", "classes": ["c", "a", "b"], "temperature": 2, "tolerance": 0.1}),
    member("l", output={"kind": "logits", "classes": ["b", "c", "a"], "temperature": 0.5}),
    member("n", output={"kind": "label", "classes": ["a", "c", "b"], "one_hot": True}),
    task={**THREE_TASK, "thresholds": {"c": 0.2, "a": 0.5, "b": 0.9}},
    aggregation={"method": "trimmed_mean", "trim": 0.4, "tie": "abstain"},
)
TWO_KINDS = manifest(
    member("p", output={"kind": "probability", "of": "no", "temperature": 3, "tolerance": 0.01}),
    member("l", output={"kind": "logit", "of": "yes", "temperature": 3}),
    member("q", output={"kind": "probabilities", "classes": ["yes", "no"]}),
    task={"type": "binary", "classes": ["no", "yes"]},
    aggregation={
        "method": "stack",
        "coefficients": {"p": 1.5, "l": -1, "q": 0},
        "intercept": -0.5,
        "missing": "mean",
    },
)
STACKED = manifest(
    member(kind="logits"),
    task=THREE_TASK,
    aggregation={
        "method": "stack",
        "coefficients": {"half": [[1, 0, 0], [0, 1, 0], [0, 0, 1.5]]},
        "intercept": [0, 0.5, -1],
        "missing": "refuse",
    },
)
SOUND: dict[str, dict[str, Any]] = {
    "smallest": manifest(),
    "rich": RICH,
    "three kinds": THREE_KINDS,
    "two kinds": TWO_KINDS,
    "stacked": STACKED,
    "scaled": manifest(member(output={"kind": "value", "scale": -2, "offset": 1}), aggregation={"method": "median"}),
    "soft vote": manifest(member(kind="probabilities"), task=THREE_TASK, aggregation={"method": "soft_vote"}),
    "labels": manifest(member(kind="label"), task=THREE_TASK, aggregation={"method": "hard_vote"}),
    "absent policy": manifest(review=None, cascade=None),
}


def problems_of(data: object) -> list[str]:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(json.dumps(data))
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_manifest_is_accepted_by_parser_and_schema(name: str) -> None:
    assert parse_manifest(json.dumps(SOUND[name])).name == SOUND[name]["name"]
    SCHEMA.validate(SOUND[name])


Edit = Callable[[dict[str, Any]], None]


def put(path: str, value: Any) -> Edit:
    """Return an edit that puts a value at a dotted path, list entries by number."""

    def edit(data: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = data
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value

    return edit


def drop(path: str) -> Edit:
    """Return an edit that removes what is at a dotted path."""

    def edit(data: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = data
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        del place[last]

    return edit


def stack(**more: Any) -> dict[str, Any]:
    """Return a stack as a manifest has it."""
    return {"method": "stack", "coefficients": {"a": 1, "b": 2}, "missing": "mean", **more}


STRUCTURE: list[tuple[Edit, str]] = [
    (drop("schema_version"), '$: "schema_version" is missing; add "schema_version" (one of 1)'),
    (put("schema_version", 2), "$.schema_version: 2 is not allowed; use one of 1"),
    (put("schema_version", True), "$.schema_version: true is not allowed; use one of 1"),
    (put("name", "Rich Men"), '$.name: "Rich Men" is out of bounds; use a string that matches'),
    (put("name", 7), "$.name: 7 is not a string; write a string"),
    (drop("task"), '$: "task" is missing; add "task" (an object)'),
    (put("task", "binary"), '$.task: "binary" is not an object; write an object'),
    (put("task", {}), '$.task: "type" is missing; add "type" with one of "binary", "multiclass", "regression"'),
    (put("task.type", "binray"), '$.task.type: "binray" is not allowed; use one of "binary", "multiclass", "regression"'
        ', did you mean "binary"?'),
    (put("task.threshold", 1), "$.task.threshold: 1 is out of bounds; use a number less than 1"),
    (put("task.threshold", "half"), '$.task.threshold: "half" is not a number; write a number'),
    (put("task.thresholds", {}), '$.task.thresholds: "thresholds" is not a known key; remove it'),
    (put("task", {**THREE_TASK, "thresholds": {"a": 1}}), "$.task.thresholds.a: 1 is out of bounds; use a number"),
    (put("task", {**THREE_TASK, "thresholds": [1]}), "$.task.thresholds: [1] is not an object; write an object"),
    (put("task", {**THREE_TASK, "threshold": 0.5}), '$.task.threshold: "threshold" is not a known key; remove it, did '
        'you mean "thresholds"?'),
    (put("task.classes", ["yes"]), "$.task.classes: has 1 entries; give at least 2"),
    (put("task.classes", ["no", 1]), "$.task.classes[1]: 1 is not a string; write a string"),
    (put("features", []), "$.features: has 0 entries; give at least 1"),
    (put("features", {}), "$.features: {} is not a list; write a list"),
    (put("features.0.type", "numbre"), '$.features[0].type: "numbre" is not allowed; use one of "number", "category", '
        '"boolean", "tensor", "image", did you mean "number"?'),
    (put("features.0.name", "a=b"), '$.features[0].name: "a=b" is out of bounds'),
    (put("features.0.mim", 3), '$.features[0].mim: "mim" is not a known key; remove it'),
    (put("features.1.scaling.type", "zscore"), '$.features[1].scaling.type: "zscore" is not allowed; '
        'use one of "standard", "min_max", "log1p"'),
    (put("features.1.scaling.std", 0), "$.features[1].scaling.std: 0 is out of bounds; use a number of at least 1e-50"),
    (drop("features.1.scaling.mean"), '$.features[1].scaling: "mean" is missing; add "mean" (a number)'),
    (put("features.3.vocabulary", []), "$.features[3].vocabulary: has 0 entries; give at least 1"),
    (put("features.3.vocabulary.1", 1.5), "$.features[3].vocabulary[1]: 1.5 is not a string or a whole number; "),
    (put("features.3.vocabulary.1", True), "$.features[3].vocabulary[1]: true is not a string or a whole number; "),
    (put("features.3.encoding", "onehot"), '$.features[3].encoding: "onehot" is not allowed; '
        'use one of "index", "one_hot", did you mean "one_hot"?'),
    (put("features.5.missing", 0), "$.features[5].missing: 0 is not true or false; write true or false"),
    (put("features.6.shape", [2, 0]), "$.features[6].shape[1]: 0 is out of bounds; use a whole number of at least 1"),
    (put("features.6.dtype", "float"), '$.features[6].dtype: "float" is not allowed; use one of "float32", '),
    (put("aggregation.method", "medain"), '$.aggregation.method: "medain" is not allowed; use one of "mean", '
        '"weighted_mean", "median", "trimmed_mean", "geometric_mean", "min", "max", "soft_vote", "hard_vote", '
        '"weighted_vote", "stack", did you mean "median"?'),
    (put("aggregation", {}), '$.aggregation: "method" is missing; add "method" with one of "mean", "weighted_mean", '),
    (put("aggregation", "mean"), '$.aggregation: "mean" is not an object; write an object'),
    (put("aggregation", None), "$.aggregation: null is not an object; write an object"),
    (put("aggregation.tie", "last"), '$.aggregation.tie: "last" is not allowed; use one of "abstain", "first", '),
    (put("aggregation.trim", 0.1), '$.aggregation.trim: "trim" is not a known key; remove it'),
    (put("aggregation", {"method": "trimmed_mean", "trim": 0.5}), "$.aggregation.trim: 0.5 is out of bounds; use a "
        "number less than 0.5"),
    (put("aggregation", {"method": "stack", "missing": "mean"}), '$.aggregation: "coefficients" is missing; add '
        '"coefficients" (an object)'),
    (put("aggregation", {"method": "stack", "coefficients": {}}), '$.aggregation: "missing" is missing; add '
        '"missing" (one of "mean", "refuse")'),
    (put("aggregation", stack(coefficients=[1])), "$.aggregation.coefficients: [1] is not an object; write an object"),
    (put("aggregation", stack(coefficients={"a": "1"})), '$.aggregation.coefficients.a: "1" is not a number or a list; '
        "write a number or a list"),
    (put("aggregation", stack(coefficients={"a": [[0, 1], 1]})), "$.aggregation.coefficients.a[1]: 1 is not a list; "),
    (put("aggregation", stack(coefficients={"a": [[0, None]]})), "$.aggregation.coefficients.a[0][1]: null is not a "
        "number; write a number"),
    (put("aggregation", stack(intercept=["0"])), '$.aggregation.intercept[0]: "0" is not a number; write a number'),
    (put("quorum.min_members", 0), "$.quorum.min_members: 0 is out of bounds; use a whole number of at least 1"),
    (put("quorum.min_weight", 0), "$.quorum.min_weight: 0 is out of bounds; use a number greater than 0"),
    (put("quorum.min_weight", 1.5), "$.quorum.min_weight: 1.5 is out of bounds; use a number of at most 1"),
    (put("quorum.min_weight", "1"), '$.quorum.min_weight: "1" is not a number; write a number'),
    (put("quorum.required", "a"), '$.quorum.required: "a" is not a list; write a list'),
    (put("quorum.required", [1]), "$.quorum.required[0]: 1 is not a string; write a string"),
    (put("quorum.minmembers", 1), '$.quorum.minmembers: "minmembers" is not a known key; remove it'),
    (put("review", []), "$.review: [] is not an object; write an object"),
    (put("review.min_agreement", 1.01), "$.review.min_agreement: 1.01 is out of bounds; use a number of at most 1"),
    (put("review.max_spread", -1), "$.review.max_spread: -1 is out of bounds; use a number of at least 0"),
    (put("review.min_margin", 0), "$.review.min_margin: 0 is out of bounds; use a number greater than 0"),
    (put("cascade.min_spread", 0), '$.cascade.min_spread: "min_spread" is not a known key; remove it, did you mean '
        '"max_spread"?'),
    (put("members", []), "$.members: has 0 entries; give at least 1"),
    (drop("members.0.artifact"), '$.members[0]: "artifact" is missing; add "artifact" (a string)'),
    (put("members.0.wieght", 1), '$.members[0].wieght: "wieght" is not a known key; remove it'),
    (put("members.0.weight", -1), "$.members[0].weight: -1 is out of bounds; use a number of at least 0"),
    (put("members.0.role", "judge"), '$.members[0].role: "judge" is not allowed; use one of "shadow", "voter"'),
    (put("members.0.tier", 0), "$.members[0].tier: 0 is out of bounds; use a whole number of at least 1"),
    (put("members.0.timeout", 51), "$.members[0].timeout: 51 is out of bounds; use a whole number of at most 50"),
    (put("members.0.timeout", 1.5), "$.members[0].timeout: 1.5 is not a whole number; write a whole number"),
    (put("members.0.id", "A b"), '$.members[0].id: "A b" is out of bounds'),
    (put("members.0.columns", "age"), '$.members[0].columns: "age" is not a list; write a list'),
    (put("members.0.runtime", "onnx"), '$.members[0].runtime: "onnx" is not allowed; use one of "litert", '
        '"tensorflow"'),
    (put("members.2.signature", 1), "$.members[2].signature: 1 is not a string; write a string"),
    (put("members.3.inputs", ["age"]), '$.members[3].inputs: ["age"] is not an object; write an object'),
    (put("members.3.inputs.person", "age"), '$.members[3].inputs.person: "age" is not a list; write a list'),
    (put("members.3.inputs.person", [1]), "$.members[3].inputs.person[0]: 1 is not a string; write a string"),
    (put("members.3.output.name", 1), "$.members[3].output.name: 1 is not a string; write a string"),
    (put("golden", {}), "$.golden: {} is not a list; write a list"),
    (put("golden.1", [30]), "$.golden[1]: [30] is not an object; write an object"),
    (put("members.0.output", "label"), '$.members[0].output: "label" is not an object; write an object'),
    (put("members.0.output", {}), '$.members[0].output: "kind" is missing; add "kind" with one of "probability", '),
    (put("members.0.output.kind", "prob"), '$.members[0].output.kind: "prob" is not allowed; use one of "probability", '
        '"probabilities", "logit", "logits", "label", "value"'),
    (put("members.0.output.temperature", 0), "$.members[0].output.temperature: 0 is out of bounds; use a number"),
    (put("members.0.output.tolerance", 0.2), "$.members[0].output.tolerance: 0.2 is out of bounds; use a number"),
    (
        put("members.1.output.tolerance", 0.1),
        '$.members[1].output.tolerance: "tolerance" is not a known key; remove it',
    ),
    (put("members.0.output.classes", ["no"]), '$.members[0].output.classes: "classes" is not a known key; remove it'),
    (put("members.0.output.of", 1), "$.members[0].output.of: 1 is not a string; write a string"),
    (put("members.2.output.one_hot", 1), "$.members[2].output.one_hot: 1 is not true or false; write true or false"),
    (put("members.2.output.classes", [0, 1]), "$.members[2].output.classes[1]: 1 is not a string; write a string"),
    (put("members.0.output", {"kind": "value", "scale": "2"}), '$.members[0].output.scale: "2" is not a number; '),
    (put("members.1.digest", "abc"), '$.members[1].digest: "abc" is out of bounds; use a string that matches'),
    (put("agregation", {"method": "mean"}), '$.agregation: "agregation" is not a known key; remove it'),
]  # fmt: skip

MEANING: list[tuple[Edit, str]] = [
    (put("task.classes", ["no", "yes", "maybe"]), "$.task.classes: has 3 classes; give two, or use the type"),
    (put("task.classes", ["no", "no"]), '$.task.classes[1]: the class "no" is given twice; use another name or '),
    (put("features.1.name", "age"), '$.features[1].name: the feature "age" is given twice; '),
    (put("features.0.min", 100), "$.features[0].min: 100.0 is above max 99.0; swap them"),
    (put("features.0.missing", 100), "$.features[0].missing: 100.0 is outside min and max; use a value inside"),
    (put("features.2.scaling.max", 1e-300), "$.features[2].scaling.max: 1e-300 is above min 0.0 by less than 1e-50, "
        "which numbers are divided by; use a max that is at least 1e-50 above it"),
    (put("features.2.scaling.max", 0), "$.features[2].scaling.max: 0.0 is not above min 0.0; use a larger max"),
    (put("features.0.min", -1), '$.features[0].scaling: log1p has no value at -1 and below; add a "min" above -1'),
    (drop("features.0.min"), '$.features[0].scaling: log1p has no value at -1 and below; add a "min" above -1'),
    (put("features.4.vocabulary", ["f", "f"]), '$.features[4].vocabulary[1]: the value "f" is given twice; '),
    (put("features.4.vocabulary", ["f", 1, "1"]), '$.features[4].vocabulary[2]: the value "1" is given twice; '),
    (put("features.4.missing", "x"), '$.features[4].missing: "x" is not in the vocabulary; use one of "f", "m"'),
    (put("features.3.vocabulary", ["C", 7, "other"]), '$.features[3].vocabulary: "other" is also the name for '),
    (put("members.1.id", "a"), '$.members[1].id: the member "a" is given twice; use another name or remove it'),
    (put("members.0.columns", ["aeg"]), '$.members[0].columns[0]: "aeg" is not a column; use one of "age", "size", '),
    (put("members.0.columns", ["age", "age"]), '$.members[0].columns[1]: the column "age" is given twice; '),
    (put("members.0.columns", []), "$.members[0].columns: is empty; name at least one column, or remove it"),
    (put("members.0.columns", ["age", "image"]), '$.members[0].columns: takes the tensor "image" together with other '),
    (drop("members.0.columns"), '$.members[0]: takes the tensor "image" together with other columns; name '
        'what it takes: ["image"] alone'),
    (
        put("members.3.columns", ["age"]),
        '$.members[3].inputs: is given together with "columns"; keep the one that fits the ',
    ),
    (put("members.3.inputs", {}), "$.members[3].inputs: is empty; name the columns of each input, or remove it"),
    (put("members.3.inputs.person", []), "$.members[3].inputs.person: is empty; name at least one column"),
    (put("members.3.inputs.person.1", "aeg"), '$.members[3].inputs.person[1]: "aeg" is not a column; use one of "age", '
        '"size", "fare", "port=C", "port=7", "port=other", "sex", "alone", "image", did you mean "age"?'),
    (put("members.3.inputs.person.1", "age"), '$.members[3].inputs.person[1]: the column "age" is given twice; '),
    (put("members.3.inputs.person.1", "image"), '$.members[3].inputs.person: takes the tensor "image" together with '
        'other columns; name what it takes: ["image"] alone, or only columns that are not tensors'),
    (put("golden.0.age", 100), "$.golden[0].age: 100 is out of range; use a number between 0 and 99"),
    (put("golden.1.image", [[1, 2]]), "$.golden[1].image: has shape "),
    (drop("golden.1.size"), "$.golden[1].size: is missing"),
    (put("golden.1.siez", 1), '$.golden[1].siez: "siez" is not a feature; remove it'),
    (put("members.0.output", {"kind": "value"}), '$.members[0].output.kind: "value" does not fit a binary task; use '
        'one of "label", "logit", "logits", "probabilities", "probability"'),
    (put("members.0.output.of", "yse"), '$.members[0].output.of: "yse" is not a class of the task; use one of "no", '
        '"yes", did you mean "yes"?'),
    (put("members.1.output.of", "maybe"), '$.members[1].output.of: "maybe" is not a class of the task; use one of '),
    (put("members.2.output.classes", ["yes"]), '$.members[2].output.classes: the class "no" is missing; add it'),
    (put("members.2.output.classes", ["yes", "no", "no"]), '$.members[2].output.classes[2]: the class "no" is given '),
    (put("members.2.output.classes", ["yes", "no", "si"]), '$.members[2].output.classes[2]: "si" is not a class of the '
        'task; use one of "no", "yes"'),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "expected"), STRUCTURE, ids=[expected for _, expected in STRUCTURE])
def test_a_broken_structure_is_one_problem_with_path_value_and_remedy(edit: Edit, expected: str) -> None:
    data = copy.deepcopy(RICH)
    edit(data)
    (found,) = [problem for problem in problems_of(data) if problem.startswith(expected)]
    assert "; " in found


@pytest.mark.parametrize(("edit", "expected"), STRUCTURE, ids=[expected for _, expected in STRUCTURE])
def test_the_schema_refuses_a_broken_structure_too(edit: Edit, expected: str) -> None:
    data = copy.deepcopy(RICH)
    edit(data)
    assert not SCHEMA.is_valid(data), expected


@pytest.mark.parametrize(("edit", "expected"), MEANING, ids=[expected for _, expected in MEANING])
def test_what_makes_no_sense_is_one_problem_with_path_value_and_remedy(edit: Edit, expected: str) -> None:
    data = copy.deepcopy(RICH)
    edit(data)
    (found,) = problems_of(data)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ({"a": 0.5, "b": 0.5}, ['$.task.thresholds: the class "c" is missing; add it']),
        (
            {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5},
            ['$.task.thresholds.d: "d" is not a class of the task; use one of "a", "b", "c"'],
        ),
        (
            {"a": 0.5, "B": 0.5},
            [
                '$.task.thresholds.B: "B" is not a class of the task; use one of "a", "b", "c", did you mean "b"?',
                '$.task.thresholds: the class "b" is missing; add it',
                '$.task.thresholds: the class "c" is missing; add it',
            ],
        ),
        ({}, [f'$.task.thresholds: the class "{name}" is missing; add it' for name in "abc"]),
    ],
)
def test_thresholds_name_every_class_and_nothing_else(thresholds: dict[str, float], expected: list[str]) -> None:
    data = manifest(member(kind="probabilities"), task={**THREE_TASK, "thresholds": thresholds})
    assert problems_of(data) == expected


@pytest.mark.parametrize("kind", ["probabilities", "logits", "label"])
def test_an_order_of_classes_is_a_permutation_of_the_tasks(kind: str) -> None:
    output = {"kind": kind, "classes": ["c", "c", "bb"]}
    path = "$.members[0].output.classes"
    assert problems_of(manifest(member(output=output), task=THREE_TASK, aggregation={"method": "hard_vote"})) == [
        f'{path}[2]: "bb" is not a class of the task; use one of "a", "b", "c", did you mean "b"?',
        f'{path}[1]: the class "c" is given twice; use another name or remove it',
        f'{path}: the class "a" is missing; add it',
        f'{path}: the class "b" is missing; add it',
    ]


@pytest.mark.parametrize(
    ("task", "kind", "allowed"),
    [
        (THREE_TASK, "probability", '"label", "logits", "probabilities"'),
        (THREE_TASK, "logit", '"label", "logits", "probabilities"'),
        (THREE_TASK, "value", '"label", "logits", "probabilities"'),
        ({"type": "regression"}, "label", '"value"'),
        ({"type": "regression"}, "logits", '"value"'),
    ],
)
def test_a_kind_of_output_fits_its_own_tasks_only(task: dict[str, Any], kind: str, allowed: str) -> None:
    assert problems_of(manifest(member(kind=kind), task=task)) == [
        f'$.members[0].output.kind: "{kind}" does not fit a {task["type"]} task; use one of {allowed}'
    ]


def test_a_value_is_not_scaled_by_nothing() -> None:
    assert problems_of(manifest(member(output={"kind": "value", "scale": 0, "offset": 3}))) == [
        "$.members[0].output.scale: 0.0 makes every value the same; use another, or remove it"
    ]


def test_every_problem_of_structure_and_meaning_is_reported_at_once() -> None:
    data = manifest(
        member("a", kind="probability", wieght=2),
        member("b", kind="value", columns=["y"]),
        member("b", kind="value", timeout=0),
        quorum={"min_members": "two"},
        aggregation={"method": "mean", "tie": "abstain"},
        review={"min_margin": 0.5},
        cascade={},
        features=[X, {**X, "name": "y", "type": "number", "min": 3, "max": 1}],
        extra=1,
    )
    assert {problem.split(":")[0] for problem in problems_of(data)} == {
        "$.aggregation.tie",
        "$.cascade",
        "$.extra",
        "$.features[1].min",
        "$.members[0].wieght",
        "$.members[2].timeout",
        "$.quorum.min_members",
        "$.review.min_margin",
    }


def test_every_problem_of_golden_rows_is_reported_as_a_payloads_would_be() -> None:
    golden = [{"x": 0}, {"x": "much"}, {"y": 1}]
    problems = problems_of(manifest(golden=golden))
    with pytest.raises(InvalidPayload) as refused:
        normalize((NumberFeature("x"),), golden, locate="$.instances[{}]".format)
    assert problems == [str(problem).replace("$.instances", "$.golden") for problem in refused.value.problems]
    assert [problem.split(":")[0] for problem in problems] == ["$.golden[1].x", "$.golden[2].x", "$.golden[2].y"]


@pytest.mark.parametrize("features", [[{**X, "min": 3, "max": 1}], [{**X, "min": "low"}], [X, X], "x"])
def test_golden_rows_are_not_checked_where_features_are_invalid(features: Any) -> None:
    problems = problems_of(manifest(golden=[{"x": "much"}], features=features))
    assert all(problem.startswith("$.features") for problem in problems)


def test_golden_rows_are_checked_beside_other_problems() -> None:
    data = manifest(member(kind="label"), golden=[{"x": "much"}])
    assert [problem.split(":")[0] for problem in problems_of(data)] == ["$.members[0].output.kind", "$.golden[0].x"]


def test_an_input_may_take_a_column_that_another_takes_too() -> None:
    data = manifest(member(inputs={"a": ["x"], "b": ["x"]}))
    assert parse_manifest(json.dumps(data)).members[0].inputs == {"a": ("x",), "b": ("x",)}


def test_well_formed_members_are_checked_beside_broken_ones() -> None:
    data = manifest(member("a", kind="probability"), member("b", timeout="long"))
    assert {problem.split(":")[0] for problem in problems_of(data)} == {
        "$.members[0].output.kind",
        "$.members[1].timeout",
    }


@pytest.mark.parametrize(
    ("broken", "spared"),
    [
        ({"quorum": {"min_members": "two"}}, "$.members[0].weight"),
        ({"aggregation": {"method": "maen"}}, "$.members[0].weight"),
        ({"cascade": {"min_margin": 2}}, "$.members[0].tier"),
    ],
)
def test_what_hangs_on_a_broken_part_is_not_judged(broken: dict[str, Any], spared: str) -> None:
    data = manifest(member(weight=2, tier=2))
    assert spared in {problem.split(":")[0] for problem in problems_of(data)}
    assert spared not in {problem.split(":")[0] for problem in problems_of({**data, **broken})}


@pytest.mark.parametrize("text", ["", "{", '{"name": }', b"\xff\xfe", "[NaN]", "[Infinity]", "[1e400]"])
def test_what_is_not_json_is_one_problem(text: str | bytes) -> None:
    with pytest.raises(InvalidManifest, match=r"\$: is not JSON: .*; fix the syntax"):
        parse_manifest(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"manifest"'])
def test_what_is_not_an_object_is_one_problem(text: str) -> None:
    with pytest.raises(InvalidManifest, match=r"\$: .* is not an object; write an object"):
        parse_manifest(text)


def walk(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside of JSON data."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from walk(value, (*path, key))


PLACES = [(name, path) for name, data in SOUND.items() for path in walk(data)]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 60),
    st.floats(-2, 2),
    st.sampled_from(["a", "b", "c", "mean", "label", ""]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "type", "method", "a", "half"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def replace(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the data with another value at a path."""
    changed = copy.deepcopy(data)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


@given(st.sampled_from(PLACES), VALUES)
@example(("stacked", ("aggregation", "intercept")), 10**400)
@example(("stacked", ("schema_version",)), 10**400)
def test_a_structure_without_problems_is_one_that_msgspec_reads(place: tuple[str, tuple[Any, ...]], value: Any) -> None:
    data = replace(SOUND[place[0]], place[1], value)
    if check_structure(data, Manifest):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(data, Manifest)
    else:
        assert isinstance(msgspec.convert(data, Manifest), Manifest)


@given(st.sampled_from(PLACES), VALUES)
def test_whatever_is_written_is_read_or_refused_with_problems(place: tuple[str, tuple[Any, ...]], value: Any) -> None:
    data = replace(SOUND[place[0]], place[1], value)
    if check_structure(data, Manifest):
        assert problems_of(data)
        return
    with suppress(InvalidManifest):  # the well formed may still make no sense, but nothing else is raised
        assert isinstance(parse_manifest(json.dumps(data)), Manifest)
