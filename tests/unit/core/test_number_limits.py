"""No number of a manifest that passes its check, and no finite output, leaves float64 on the way to an answer."""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import event, given, settings

import strategies
from builders import manifest, member, release, released
from stepensemble.batch.output.result_table import ShardPredictions, predict_shard
from stepensemble.batch.report.statistics import count_predictions
from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult
from stepensemble.core.aggregation.single_row import prepare_fast_path
from stepensemble.core.errors import InvalidManifest, InvalidPayload
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.schema.manifest import Manifest
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.publishing.golden import draw_rows

ADMITTED = [1e-50, 1e-7, 0.5, 1.0, 3.0, 1e7, 3.4e38, 1e50]
EXTREMES = [5e-324, 1e-300, *ADMITTED, 1e51, 1e90, 1e150, 8.9e307, 1.7976931348623157e308]
METHODS = ["mean", "weighted_mean", "median", "trimmed_mean", "min", "max", "stack", "geometric_mean", "weighted_vote"]
WEIGHTED = ("weighted_mean", "geometric_mean", "weighted_vote")


@dataclass(frozen=True)
class Magnitudes:
    """What numbers are drawn from."""

    levels: list[float]

    @property
    def positive(self) -> st.SearchStrategy[float]:
        return st.sampled_from(self.levels)

    @property
    def any(self) -> st.SearchStrategy[float]:
        return st.one_of(self.positive, self.positive.map(operator.neg), st.just(0.0))

    @property
    def shares(self) -> st.SearchStrategy[float]:
        return st.sampled_from([*(level for level in self.levels if level < 1), 0.9999999999999999])


@st.composite
def tasks(draw: st.DrawFn, drawn: Magnitudes) -> dict[str, Any]:
    kind = draw(st.sampled_from(["binary", "multiclass", "regression"]))
    if kind == "binary":
        return {"type": kind, "classes": ["no", "yes"], "threshold": draw(drawn.shares)}
    if kind == "multiclass":
        names = ["red", "green", "blue"]
        thresholds = {name: draw(drawn.shares) for name in names}
        return {"type": kind, "classes": names, **({"thresholds": thresholds} if draw(st.booleans()) else {})}
    return {"type": kind}


@st.composite
def aggregations(draw: st.DrawFn, drawn: Magnitudes, kind: str, ids: list[str]) -> dict[str, Any]:
    method = draw(st.sampled_from(METHODS))
    if kind == "regression" and method in ("geometric_mean", "weighted_vote"):
        method = "weighted_mean"
    if method != "stack":
        return {"method": method}
    several = st.lists(drawn.any, min_size=3, max_size=3)
    matrix = st.lists(several, min_size=3, max_size=3)
    coefficients = {id_: draw(matrix if kind == "multiclass" else drawn.any) for id_ in ids}
    intercept = draw(several if kind == "multiclass" else drawn.any)
    return {"method": "stack", "coefficients": coefficients, "intercept": intercept, "missing": "mean"}


@st.composite
def manifests(draw: st.DrawFn, levels: list[float]) -> dict[str, Any]:
    """Draw a manifest with numbers of these magnitudes."""
    drawn = Magnitudes(levels)
    task = draw(tasks(drawn))
    kinds = {"binary": ["probability", "logit", "logits"], "multiclass": ["probabilities", "logits"]}
    members = []
    for id_ in "abc"[: draw(st.integers(1, 3))]:
        output: dict[str, Any] = {"kind": draw(st.sampled_from(kinds.get(task["type"], ["value"])))}
        if output["kind"] == "value":
            output |= {"scale": draw(drawn.any), "offset": draw(drawn.any)}
        else:
            output["temperature"] = draw(drawn.positive)
        members.append(member(id_, output=output))
    aggregation = draw(aggregations(drawn, task["type"], [one["id"] for one in members]))
    if aggregation["method"] in WEIGHTED:
        members = [one | {"weight": draw(drawn.positive)} for one in members]
    scaling = draw(
        st.one_of(
            st.none(),
            st.fixed_dictionaries({"type": st.just("standard"), "mean": drawn.any, "std": drawn.positive}),
            st.fixed_dictionaries({"type": st.just("min_max"), "min": drawn.any, "max": drawn.any}),
        )
    )
    low, high = sorted([draw(drawn.any), draw(drawn.any)])
    bounds = draw(st.sampled_from([{}, {"min": low}, {"min": low, "max": high}]))
    feature = {"name": "x", "type": "number", "missing": draw(st.sampled_from([low, None])), "scaling": scaling}
    review = {"max_spread": draw(drawn.positive)}
    return manifest(*members, task=task, features=[feature | bounds], aggregation=aggregation, review=review)


def check_finite(document: Any) -> None:
    json.dumps(document, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(st.one_of(manifests(ADMITTED), manifests(EXTREMES)), strategies.SEEDS)
@pytest.mark.slow
def test_law_a_manifest_that_passes_its_check_never_overflows(
    document: dict[str, Any], generator: np.random.Generator
) -> None:
    try:
        read = parse_manifest(json.dumps(document))
    except InvalidManifest:
        event("refused")
        return
    event("admitted")
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        check_columns(read)
        check_answers(read, generator)


def check_columns(read: Manifest) -> None:
    for rows in ([{"x": None}], [{"x": number} for number in EXTREMES], draw_rows(read.features, 8)):
        try:
            columns = normalize(read.features, rows)
        except InvalidPayload:
            assert rows != [{"x": None}] or read.features[0].missing is None  # which is always taken
            continue
        assert all(np.isfinite(column).all() for column in columns.values())


def check_answers(read: Manifest, generator: np.random.Generator) -> None:
    rows = 6
    said = {}
    for one in read.members:
        width = {"probabilities": 3, "logits": len(getattr(read.task, "classes", ()))}.get(
            one.output.__struct_config__.tag, 1
        )
        numbers = generator.choice([*EXTREMES, 0.0, *(-number for number in EXTREMES)], (rows, width))
        if one.output.__struct_config__.tag == "probability":
            numbers = generator.choice([0.0, 5e-324, 1e-300, 0.5, 1.0], (rows, width))
        if one.output.__struct_config__.tag == "probabilities":
            numbers = np.eye(3)[generator.integers(0, 3, rows)] * (1 - 1e-9) + 1e-9 / 3
        said[one.id] = MemberResult(one.id, numbers[:, 0] if width == 1 else numbers)
    members = [released(one.id, one.output, weight=one.weight) for one in read.members]
    made = release(read.task, *members, aggregation=read.aggregation, review=read.review)
    decided = decide(made, made.policy, rows, CollectedResults([said]))
    assert isinstance(decided, ExecutionResult)
    check_finite(msgspec.to_builtins(decided.to_output("p", "r")))
    answered = predict_shard(made, made.policy, pl.DataFrame({"row": np.arange(rows)}), CollectedResults([said]))
    assert isinstance(answered, ShardPredictions)
    if answered.decision is not None:
        check_finite(msgspec.to_builtins(count_predictions(made, answered.decision, ())))
    fast_path = prepare_fast_path(made)
    for row in range(rows if fast_path is not None else 0):
        alone = fast_path({id_: MemberResult(id_, one.outputs[[row]]) for id_, one in said.items()})
        if alone is not None:
            check_finite(msgspec.to_builtins(alone.predictions))


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("$.members[0].weight", {"weight": 1e308}, "1e+308 is out of bounds", "use a number of at most 1e+50"),
    (
        "$.members[0].output.scale",
        {"output": {"kind": "value", "scale": -1e300}},
        "-1e+300 is out of bounds",
        "use a number of at least -1e+50",
    ),
    (
        "$.members[0].output.offset",
        {"output": {"kind": "value", "offset": 1e51}},
        "1e+51 is out of bounds",
        "use a number of at most 1e+50",
    ),
]


@pytest.mark.parametrize(("path", "more", "message", "remedy"), REFUSED)
def test_a_number_that_no_arithmetic_holds_is_refused_with_its_place(
    path: str, more: dict[str, Any], message: str, remedy: str
) -> None:
    broken = manifest(member("a") | more, member("b"), aggregation={"method": "weighted_mean"})
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(json.dumps(broken))
    (problem,) = refused.value.problems
    assert (problem.path, problem.message, problem.remedy) == (path, message, remedy)
