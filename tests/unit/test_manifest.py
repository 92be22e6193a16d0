from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from builders import ROOT, X, manifest, member
from stepensemble.core.errors import InvalidManifest
from stepensemble.core.features import all_column_names
from stepensemble.core.manifest import json_schema, parse_manifest

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
    "aggregation": {"method": "weighted_mean"},
    "quorum": {"min_members": 1},
    "members": [
        member("a", kind="probability", weight=2.5, columns=["age", "port=C", "port=7", "port=other", "sex"]),
        member("b", kind="probability", columns=["image"], digest="ab" * 32, timeout=50),
        member("c", kind="label", role="shadow", columns=["alone"], runtime="litert"),
    ],
}

THREE_TASK = {"type": "multiclass", "classes": ["a", "b", "c"]}
SOUND = {
    "smallest": manifest(),
    "rich": RICH,
    "multiclass": manifest(member(kind="probabilities"), task=THREE_TASK, aggregation={"method": "soft_vote"}),
    "labels": manifest(member(kind="label"), task=THREE_TASK, aggregation={"method": "hard_vote"}),
}


def problems_of(data: object) -> list[str]:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(json.dumps(data))
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_manifest_is_accepted_by_parser_and_schema(name: str) -> None:
    assert parse_manifest(json.dumps(SOUND[name])).name == SOUND[name]["name"]
    SCHEMA.validate(SOUND[name])


def test_the_shipped_manifest_is_sound() -> None:
    text = (ROOT / "models" / "manifest.json").read_text()
    shipped = parse_manifest(text)
    SCHEMA.validate(json.loads(text))
    assert all_column_names(shipped.features) == (
        "Pclass=1", "Pclass=2", "Pclass=3", "Sex", "Age", "SibSp", "Parch", "Fare",
        "Embarked=C", "Embarked=Q", "Embarked=S",
    )  # fmt: skip


def test_defaults_are_what_the_documentation_says() -> None:
    parsed = parse_manifest(json.dumps(manifest()))
    (only,) = parsed.members
    assert (only.weight, only.role, only.timeout, only.runtime, only.columns) == (1.0, "voter", 10, "litert", None)
    assert (parsed.aggregation.method, parsed.quorum.min_members) == ("mean", None)


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


STRUCTURE: list[tuple[Edit, str]] = [
    (drop("schema_version"), '$: "schema_version" is missing; add "schema_version" (one of 1)'),
    (put("schema_version", 2), "$.schema_version: 2 is not allowed; use one of 1"),
    (put("schema_version", True), "$.schema_version: true is not allowed; use one of 1"),
    (put("name", "Rich Men"), '$.name: "Rich Men" is out of bounds; it must be str matching regex'),
    (put("name", 7), "$.name: 7 is not a string; write a string"),
    (drop("task"), '$: "task" is missing; add "task" (an object)'),
    (put("task", "binary"), '$.task: "binary" is not an object; write an object'),
    (put("task", {}), '$.task: "type" is missing; add "type" with one of "binary", "multiclass", "regression"'),
    (put("task.type", "binray"), '$.task.type: "binray" is not allowed; use one of "binary", "multiclass", "regression"'
        ', did you mean "binary"?'),
    (put("task.threshold", 1), "$.task.threshold: 1 is out of bounds; it must be float < 1.0"),
    (put("task.threshold", "half"), '$.task.threshold: "half" is not a number; write a number'),
    (put("task.classes", ["yes"]), "$.task.classes: has 1 entries; give at least 2"),
    (put("task.classes", ["no", 1]), "$.task.classes[1]: 1 is not a string; write a string"),
    (put("features", []), "$.features: has 0 entries; give at least 1"),
    (put("features", {}), "$.features: {} is not a list; write a list"),
    (put("features.0.type", "numbre"), '$.features[0].type: "numbre" is not allowed; use one of "number", "category", '
        '"boolean", "tensor", did you mean "number"?'),
    (put("features.0.name", "a=b"), '$.features[0].name: "a=b" is out of bounds'),
    (put("features.0.mim", 3), '$.features[0].mim: "mim" is not known here; remove it'),
    (put("features.1.scaling.type", "zscore"), '$.features[1].scaling.type: "zscore" is not allowed; '
        'use one of "standard", "min_max", "log1p"'),
    (put("features.1.scaling.std", 0), "$.features[1].scaling.std: 0 is out of bounds; it must be float > 0.0"),
    (drop("features.1.scaling.mean"), '$.features[1].scaling: "mean" is missing; add "mean" (a number)'),
    (put("features.3.vocabulary", []), "$.features[3].vocabulary: has 0 entries; give at least 1"),
    (put("features.3.vocabulary.1", 1.5), "$.features[3].vocabulary[1]: 1.5 is not a string or a whole number; "),
    (put("features.3.vocabulary.1", True), "$.features[3].vocabulary[1]: true is not a string or a whole number; "),
    (put("features.3.encoding", "onehot"), '$.features[3].encoding: "onehot" is not allowed; '
        'use one of "index", "one_hot", did you mean "one_hot"?'),
    (put("features.5.missing", 0), "$.features[5].missing: 0 is not true or false; write true or false"),
    (put("features.6.shape", [2, 0]), "$.features[6].shape[1]: 0 is out of bounds; it must be int >= 1"),
    (put("features.6.dtype", "float"), '$.features[6].dtype: "float" is not allowed; use one of "float32", '),
    (put("aggregation.method", "median"), '$.aggregation.method: "median" is not allowed; use one of "hard_vote", '),
    (put("quorum.min_members", 0), "$.quorum.min_members: 0 is out of bounds; it must be int >= 1"),
    (put("quorum.minmembers", 1), '$.quorum.minmembers: "minmembers" is not known here; remove it'),
    (put("members", []), "$.members: has 0 entries; give at least 1"),
    (drop("members.0.artifact"), '$.members[0]: "artifact" is missing; add "artifact" (a string)'),
    (put("members.0.wieght", 1), '$.members[0].wieght: "wieght" is not known here; remove it'),
    (put("members.0.weight", -1), "$.members[0].weight: -1 is out of bounds; it must be float >= 0.0"),
    (put("members.0.role", "judge"), '$.members[0].role: "judge" is not allowed; use one of "shadow", "voter"'),
    (put("members.0.timeout", 51), "$.members[0].timeout: 51 is out of bounds; it must be int <= 50"),
    (put("members.0.timeout", 1.5), "$.members[0].timeout: 1.5 is not a whole number; write a whole number"),
    (put("members.0.id", "A b"), '$.members[0].id: "A b" is out of bounds'),
    (put("members.0.columns", "age"), '$.members[0].columns: "age" is not a list; write a list'),
    (put("members.0.runtime", "onnx"), '$.members[0].runtime: "onnx" is not allowed; use one of "litert"'),
    (put("members.0.output.kind", "prob"), '$.members[0].output.kind: "prob" is not allowed; use one of '),
    (put("members.1.digest", "abc"), '$.members[1].digest: "abc" is out of bounds; it must be str matching regex'),
    (put("agregation", {"method": "mean"}), '$.agregation: "agregation" is not known here; remove it'),
]  # fmt: skip

MEANING: list[tuple[Edit, str]] = [
    (put("task.classes", ["no", "yes", "maybe"]), '$.task.classes: has 3 classes; give two, or use the type'),
    (put("task.classes", ["no", "no"]), '$.task.classes[1]: the class "no" is there already; use another name or '),
    (put("features.1.name", "age"), '$.features[1].name: the feature "age" is there already; '),
    (put("features.0.min", 100), "$.features[0].min: 100.0 is above max 99.0; exchange them"),
    (put("features.0.missing", 100), "$.features[0].missing: 100.0 is outside min and max; use a value inside"),
    (put("features.2.scaling.max", 0), "$.features[2].scaling.max: 0.0 is not above min 0.0; use a greater max"),
    (put("features.0.min", -1), '$.features[0].scaling: log1p has no value at -1 and below; add a "min" above -1'),
    (drop("features.0.min"), '$.features[0].scaling: log1p has no value at -1 and below; add a "min" above -1'),
    (put("features.4.vocabulary", ["f", "f"]), '$.features[4].vocabulary[1]: the value "f" is there already; '),
    (put("features.4.vocabulary", ["f", 1, "1"]), '$.features[4].vocabulary[2]: the value "1" is there already; '),
    (put("features.4.missing", "x"), '$.features[4].missing: "x" is not in the vocabulary; use one of "f", "m"'),
    (put("members.1.id", "a"), '$.members[1].id: the member "a" is there already; use another name or remove it'),
    (put("members.0.columns", ["aeg"]), '$.members[0].columns[0]: "aeg" is not a column; use one of "age", "size", '),
    (put("members.0.columns", ["age", "age"]), '$.members[0].columns[1]: the column "age" is there already; '),
    (put("members.0.columns", []), "$.members[0].columns: is empty; name at least one column, or remove it"),
    (put("members.0.columns", ["age", "image"]), '$.members[0].columns: takes the tensor "image" together with other '),
    (drop("members.0.columns"), '$.members[0]: takes the tensor "image" together with other columns; give it'),
    (put("members.0.output.kind", "value"), '$.members[0].output.kind: "value" does not answer a binary task; use one '
        'of "label", "probability"'),
    (put("members.0.output.kind", "label"), '$.members[0].output.kind: "label" is no probability, and the method '
        '"weighted_mean" averages probabilities; use the method "hard_vote", or'),
    (put("aggregation.method", "mean"), '$.members[0].weight: 2.5 has no effect under the method "mean"; remove it, or '
        'use a method that weights: "soft_vote", "weighted_mean"'),
    (put("quorum.min_members", 3), "$.quorum.min_members: 3 is more than the 2 voters; use at most 2"),
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
    ("data", "expected"),
    [
        (
            manifest(aggregation={"method": "hard_vote"}),
            '$.aggregation.method: "hard_vote" needs classes, and the task is a regression; '
            'use "mean" or "weighted_mean"',
        ),
        (
            manifest(member(role="shadow")),
            '$.members: has no voter; give at least one member the role "voter"',
        ),
        (
            manifest(member(weight=0), aggregation={"method": "weighted_mean"}),
            "$.members: has no voter with a weight above 0; raise one weight",
        ),
        (
            manifest(features=[{**X, "type": "category", "vocabulary": ["a", "other"], "unknown": "other"}]),
            '$.features[0].vocabulary: "other" is also the name for unknown values; rename that value',
        ),
    ],
)
def test_what_makes_no_sense_elsewhere(data: dict[str, Any], expected: str) -> None:
    assert problems_of(data) == [expected]


def test_a_shadow_may_answer_labels_where_voters_are_averaged() -> None:
    assert RICH["members"][2]["role"] == "shadow"
    assert RICH["members"][2]["output"] == {"kind": "label"}
    parse_manifest(json.dumps(RICH))


def test_every_problem_of_structure_and_meaning_is_reported_at_once() -> None:
    data = manifest(
        member("a", kind="probability", wieght=2),
        member("b", kind="value", columns=["y"]),
        member("b", kind="value", timeout=0),
        quorum={"min_members": "two"},
        features=[X, {**X, "name": "y", "type": "number", "min": 3, "max": 1}],
        extra=1,
    )
    assert {problem.split(":")[0] for problem in problems_of(data)} == {
        "$.extra",
        "$.features[1].min",
        "$.members[0].wieght",
        "$.members[2].timeout",
        "$.quorum.min_members",
    }


def test_well_formed_members_are_checked_beside_broken_ones() -> None:
    data = manifest(member("a", kind="probability"), member("b", timeout="long"))
    assert {problem.split(":")[0] for problem in problems_of(data)} == {
        "$.members[0].output.kind",
        "$.members[1].timeout",
    }


@pytest.mark.parametrize("text", ["", "{", '{"name": }', b"\xff\xfe", "[NaN]"])
def test_what_is_no_json_is_one_problem(text: str | bytes) -> None:
    with pytest.raises(InvalidManifest, match=r"\$: is not JSON: .*; mend the syntax"):
        parse_manifest(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"manifest"'])
def test_what_is_no_object_is_one_problem(text: str) -> None:
    with pytest.raises(InvalidManifest, match=r"\$: .* is not an object; write an object"):
        parse_manifest(text)
