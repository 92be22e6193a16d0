from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from builders import ROOT, manifest, member
from stepensemble.core.preprocessing.encoding import all_column_names
from stepensemble.core.schema.manifest import Manifest, json_schema, select_voters
from stepensemble.core.schema.outputs import Label, Logit, Logits, Probabilities, Probability, Value
from stepensemble.core.schema.policy import Confidence, Mean, Policy, Quorum, TrimmedMean
from stepensemble.core.schema.task import BinaryTask, MulticlassTask
from stepensemble.core.validation.manifest import parse_manifest


def read(**parts: Any) -> Manifest:
    return parse_manifest(json.dumps(manifest(*parts.pop("members", [member()]), **parts)))


def test_the_shipped_manifest_is_sound() -> None:
    text = (ROOT / "models" / "manifest.json").read_text()
    shipped = parse_manifest(text)
    Draft202012Validator(json_schema()).validate(json.loads(text))
    assert all_column_names(shipped.features) == (
        "Pclass=1", "Pclass=2", "Pclass=3", "Sex", "Age", "SibSp", "Parch", "Fare",
        "Embarked=C", "Embarked=Q", "Embarked=S",
    )  # fmt: skip


def test_defaults_are_what_the_documentation_states() -> None:
    parsed = read()
    (only,) = parsed.members
    assert (only.weight, only.role, only.tier, only.timeout, only.runtime) == (1.0, "voter", 1, 10, "litert")
    assert (only.columns, only.digest) == (None, None)
    assert parsed.policy == Policy(
        Mean(tie="first"), Quorum(min_members=None, min_weight=None, required=()), review=None, cascade=None
    )
    assert TrimmedMean().trim == 0.1
    assert Confidence() == Confidence(min_agreement=None, max_spread=None, min_margin=None)


@pytest.mark.parametrize(
    ("task", "output", "expected"),
    [
        ("binary", {"kind": "probability"}, Probability(of=None, temperature=1.0, tolerance=0.001)),
        ("binary", {"kind": "logit", "of": "no"}, Logit(of="no", temperature=1.0)),
        ("multiclass", {"kind": "probabilities"}, Probabilities(classes=None, temperature=1.0, tolerance=0.001)),
        ("multiclass", {"kind": "logits", "temperature": 2}, Logits(classes=None, temperature=2.0)),
        ("multiclass", {"kind": "label", "one_hot": True}, Label(classes=None, one_hot=True)),
        ("regression", {"kind": "value", "offset": 1}, Value(scale=1.0, offset=1.0)),
    ],
)
def test_an_output_is_read_by_its_kind(task: str, output: dict[str, Any], expected: Any) -> None:
    tasks = {"regression": {"type": "regression"}}
    classes = {"type": task, "classes": ["no", "yes"]}
    assert read(members=[member(output=output)], task=tasks.get(task, classes)).members[0].output == expected


def test_thresholds_are_read_by_task() -> None:
    two = read(members=[member(kind="logit")], task={"type": "binary", "classes": ["no", "yes"], "threshold": 0.2}).task
    three = {"type": "multiclass", "classes": ["a", "b"], "thresholds": {"b": 0.25, "a": 0.5}}
    assert two == BinaryTask(("no", "yes"), threshold=0.2)
    assert read(members=[member(kind="logits")], task=three).task == MulticlassTask(("a", "b"), {"a": 0.5, "b": 0.25})


def test_the_policy_is_the_four_parts_together() -> None:
    parsed = read(
        members=[member("a"), member("b", tier=2)],
        aggregation={"method": "trimmed_mean", "trim": 0.25},
        quorum={"min_members": 1, "min_weight": 0.5, "required": ["b"]},
        review={"max_spread": 2},
        cascade={"max_spread": 1},
    )
    assert parsed.policy == Policy(
        TrimmedMean(trim=0.25), Quorum(1, 0.5, ("b",)), Confidence(max_spread=2.0), Confidence(max_spread=1.0)
    )


def test_voters_are_the_members_that_count() -> None:
    members = read(members=[member("a"), member("b", role="shadow"), member("c", tier=1)]).members
    assert [voter.id for voter in select_voters(members)] == ["a", "c"]
