from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from builders import manifest, member, released
from stepensemble.core.errors import InvalidManifest
from stepensemble.core.schema.policy import CLASS_METHODS, VOTES, WEIGHTED_METHODS, Quorum
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.core.validation.policy import METHODS, check_quorum

TWO = {"type": "binary", "classes": ["no", "yes"]}
THREE = {"type": "multiclass", "classes": ["a", "b", "c"]}
KINDS = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}

PARAMETERS = {"stack": {"coefficients": {"m": 1}, "missing": "mean"}}
"""What a method needs besides its name, for one voter "m"."""


def problems_of(data: object) -> list[str]:
    """Return a manifest's problems; none where it is sound."""
    try:
        parse_manifest(json.dumps(data))
    except InvalidManifest as refused:
        return [str(problem) for problem in refused.problems]
    return []


def ensemble(*members: dict[str, Any], method: str = "mean", task: dict[str, Any] = TWO, **more: Any) -> dict[str, Any]:
    """Return a manifest as data, its members of a kind that answers the task unless they say another."""
    given = {"kind": KINDS[task["type"]]}
    entries = [
        {**entry, "output": entry["output"] if entry["output"] != {"kind": "value"} else given} for entry in members
    ]
    aggregation = {"method": method, **PARAMETERS.get(method, {})}
    return manifest(*entries, task=task, **{"aggregation": aggregation, **more})


def stack(coefficients: Any, **more: Any) -> dict[str, Any]:
    return {"method": "stack", "coefficients": coefficients, "missing": "refuse", **more}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits_classes(method: str) -> None:
    assert problems_of(ensemble(member("m"), method=method)) == []


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_need_classes_do_not_fit_a_regression(method: str) -> None:
    expected = (
        f'$.aggregation.method: "{method}" needs classes, and the task is a regression; use one of "mean", '
        '"weighted_mean", "median", "trimmed_mean", "min", "max", "stack"'
    )
    found = problems_of(ensemble(member("m"), method=method, task={"type": "regression"}))
    assert found == ([expected] if method in CLASS_METHODS else [])


@pytest.mark.parametrize("tie", ["first", "abstain", "highest_mean"])
def test_a_regression_has_no_ties_to_break(tie: str) -> None:
    aggregation = {"method": "mean", "tie": tie}
    expected = f'$.aggregation.tie: "{tie}" has no effect: a regression has no ties; remove it'
    assert problems_of(manifest(aggregation=aggregation)) == ([] if tie == "first" else [expected])
    assert problems_of(ensemble(member("m"), aggregation=aggregation)) == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", [TWO, THREE], ids=["two", "three"])
def test_a_label_is_not_a_probability_unless_declared(method: str, task: dict[str, Any]) -> None:
    parameters = dict(PARAMETERS)
    if method == "stack" and task is THREE:
        parameters["stack"] = {"coefficients": {"m": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}, "missing": "mean"}
    aggregation = {"method": method, **parameters.get(method, {})}
    refused = problems_of(ensemble(member("m", kind="label"), task=task, aggregation=aggregation))
    assert refused == (
        []
        if method in VOTES
        else [
            f'$.members[0].output.kind: "label" is not a probability, and the method "{method}" needs probabilities; '
            'use the method "hard_vote" or "weighted_vote"; or add "one_hot": true to read a label as probability 1; '
            "or use a model that outputs probabilities"
        ]
    )
    certain = member("m", output={"kind": "label", "one_hot": True})
    assert problems_of(ensemble(certain, task=task, aggregation=aggregation)) == []


def test_a_shadow_may_output_labels_where_voters_are_averaged() -> None:
    assert problems_of(ensemble(member("m"), member("s", kind="label", role="shadow"))) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_without_an_effect_is_a_problem(method: str) -> None:
    expected = (
        f'$.members[0].weight: 2.5 has no effect under the method "{method}"; remove it, or use a method that weights: '
        '"geometric_mean", "soft_vote", "weighted_mean", "weighted_vote"; or declare the quorum\'s "min_weight"'
    )
    data = ensemble(member("m", weight=2.5), method=method)
    assert problems_of(data) == ([] if method in WEIGHTED_METHODS else [expected])
    assert problems_of({**data, "quorum": {"min_weight": 0.5}}) == []


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("m", role="shadow")], '$.members: has no voter; give at least one member the role "voter"'),
        ([member("m", weight=0)], "$.members: has no voter with a weight above 0; raise one weight"),
        (
            [member("m", weight=0), member("s", role="shadow")],
            "$.members: has no voter with a weight above 0; raise one weight",
        ),
    ],
)
def test_someone_must_count(members: list[dict[str, Any]], expected: str) -> None:
    assert problems_of(ensemble(*members, method="weighted_mean")) == [expected]


PAIR = [member("left"), member("right"), member("watcher", role="shadow")]
EYE = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
AT = "$.aggregation.coefficients"


@pytest.mark.parametrize(
    ("task", "aggregation", "expected"),
    [
        (TWO, stack({"left": 1, "right": -2.5}, intercept=3), []),
        ({"type": "regression"}, stack({"left": 0, "right": -2.5}, intercept=3), []),
        (THREE, stack({"left": EYE, "right": EYE}), []),
        (THREE, stack({"left": EYE, "right": EYE}, intercept=0), []),
        (THREE, stack({"left": EYE, "right": EYE}, intercept=[1, 0, -1]), []),
        (TWO, stack({"left": 1}), [f'{AT}: the voter "right" is missing; add "right" with a number']),
        (
            THREE,
            stack({"left": EYE}),
            [f'{AT}: the voter "right" is missing; add "right" with a list of 3 numbers for each of the 3 classes'],
        ),
        (
            TWO,
            stack({}),
            [
                f'{AT}: the voter "left" is missing; add "left" with a number',
                f'{AT}: the voter "right" is missing; add "right" with a number',
            ],
        ),
        (
            TWO,
            stack({"left": 1, "rihgt": 2}),
            [
                f'{AT}.rihgt: "rihgt" is not a voter; remove it, or use one of "left", "right", did you mean "right"?',
                f'{AT}: the voter "right" is missing; add "right" with a number',
            ],
        ),
        (
            TWO,
            stack({"left": 1, "right": 2, "other": 2}),
            [f'{AT}.other: "other" is not a voter; remove it, or use one of "left", "right"'],
        ),
        (
            TWO,
            stack({"left": 1, "right": 2, "watcher": 1}),
            [f'{AT}.watcher: "watcher" is a shadow, which never counts; remove it, or make that member a voter'],
        ),
        (
            TWO,
            stack({"left": 0, "right": 0.0}),
            [f"{AT}: are all 0, and no voter counts; give at least one other than 0"],
        ),
        (
            THREE,
            stack({"left": [[0] * 3] * 3, "right": [[0.0] * 3] * 3}),
            [f"{AT}: are all 0, and no voter counts; give at least one other than 0"],
        ),
        (
            TWO,
            stack({"left": 1, "right": EYE}),
            [f"{AT}.right: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] is not a number; write a number"],
        ),
        (
            THREE,
            stack({"left": EYE, "right": 1}),
            [
                f"{AT}.right: 1.0 is not a list of 3 numbers for each of the 3 classes; write a list of 3 numbers for "
                "each of the 3 classes"
            ],
        ),
        (
            THREE,
            stack({"left": EYE, "right": [[1, 0, 0], [1, 0]]}),
            [
                f'{AT}.right: has 2 lists for 3 classes; write one for each class: "a", "b", "c"',
                f'{AT}.right[1]: has 2 numbers for 3 classes; write one for each class: "a", "b", "c"',
            ],
        ),
        (
            TWO,
            stack({"left": 1, "right": 1}, intercept=[0, 1]),
            ["$.aggregation.intercept: [0.0, 1.0] is not a number; write a number"],
        ),
        (
            THREE,
            stack({"left": EYE, "right": EYE}, intercept=1.5),
            [
                "$.aggregation.intercept: 1.5 is one number for 3 classes; write a list with one for each class: "
                '"a", "b", "c"'
            ],
        ),
        (
            THREE,
            stack({"left": EYE, "right": EYE}, intercept=[1, 2]),
            ['$.aggregation.intercept: has 2 numbers for 3 classes; write one for each class: "a", "b", "c"'],
        ),
    ],
)
def test_a_stack_has_coefficients_for_exactly_the_voters(
    task: dict[str, Any], aggregation: dict[str, Any], expected: list[str]
) -> None:
    assert problems_of(ensemble(*PAIR, task=task, aggregation=aggregation)) == expected


@pytest.mark.parametrize(
    ("quorum", "expected"),
    [
        ({"min_members": 2, "min_weight": 1, "required": ["left", "right"]}, []),
        ({"min_members": 3}, ["$.quorum.min_members: 3 is more than the 2 voters; use at most 2"]),
        (
            {"required": ["lefft"]},
            [
                '$.quorum.required[0]: "lefft" is not a voter; remove it, or use one of "left", "right", '
                'did you mean "left"?'
            ],
        ),
        (
            {"required": ["left", "lefft"]},
            ['$.quorum.required[1]: "lefft" is not a voter; remove it, or use one of "left", "right"'],
        ),
        (
            {"required": ["left", "watcher"]},
            ['$.quorum.required[1]: "watcher" is a shadow, which never counts; remove it, or make that member a voter'],
        ),
        ({"required": ["left", "left"]}, ['$.quorum.required[1]: "left" is given twice; remove it']),
    ],
)
def test_a_quorum_is_one_that_the_voters_can_meet(quorum: dict[str, Any], expected: list[str]) -> None:
    assert problems_of(ensemble(*PAIR, quorum=quorum)) == expected


def test_a_payloads_quorum_is_judged_by_the_releases_members() -> None:
    members = [released("a"), released("b", role="shadow")]
    assert [str(problem) for problem in check_quorum(Quorum(2, None, ("b",)), members, "$.input.quorum")] == [
        "$.input.quorum.min_members: 2 is more than the 1 voters; use at most 1",
        '$.input.quorum.required[0]: "b" is a shadow, which never counts; remove it, or make that member a voter',
    ]


BOUNDS = '"min_agreement", "max_spread", "min_margin"'
TIERED = [member("first"), member("last", tier=2)]


@pytest.mark.parametrize("part", ["review", "cascade"])
def test_a_confidence_needs_a_bound(part: str) -> None:
    expected = f"$.{part}: has no bound; give at least one of {BOUNDS}, or remove it"
    members = TIERED if part == "cascade" else PAIR
    assert problems_of(ensemble(*members, **{part: {}})) == [expected]
    assert problems_of(ensemble(*members, **{part: {"max_spread": 0}})) == []


@pytest.mark.parametrize("part", ["review", "cascade"])
def test_a_regression_is_confident_by_its_spread_alone(part: str) -> None:
    bounds = {"min_agreement": 0.8, "max_spread": 1, "min_margin": 0.1}
    members = TIERED if part == "cascade" else PAIR
    assert problems_of(ensemble(*members, **{part: bounds})) == []
    assert problems_of(ensemble(*members, task={"type": "regression"}, **{part: bounds})) == [
        f'$.{part}.min_agreement: 0.8 needs labels, and the task is a regression; use "max_spread"',
        f'$.{part}.min_margin: 0.1 needs labels, and the task is a regression; use "max_spread"',
    ]


def test_tiers_are_for_a_cascade() -> None:
    assert problems_of(ensemble(*TIERED, cascade={"min_margin": 0.5})) == []
    assert problems_of(ensemble(*TIERED)) == [
        '$.members[1].tier: 2 has no effect without a cascade; remove it, or add "cascade"'
    ]


def tiers(*numbers: int) -> list[dict[str, Any]]:
    return [member(f"m{index}", tier=number) for index, number in enumerate(numbers)]


NO_WEIGHT = "has no voter with a weight above 0; raise one weight"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (tiers(1, 2, 2, 3), []),
        (tiers(2, 1), []),
        (
            tiers(1, 1),
            [
                "$.cascade: every member is in tier 1, so there is no other tier to send rows to; put members into the "
                "tiers 1 and 2, or remove the cascade"
            ],
        ),
        (
            tiers(2),
            [
                "$.cascade: every member is in tier 2, so there is no other tier to send rows to; put members into the "
                "tiers 1 and 2, or remove the cascade"
            ],
        ),
        (tiers(1, 3), ["$.members: are in the tiers 1, 3; number them 1 to 2, without gaps"]),
        (tiers(2, 3), ["$.members: are in the tiers 2, 3; number them 1 to 2, without gaps"]),
        (tiers(1, 10**15), [f"$.members: are in the tiers 1, {10**15}; number them 1 to 2, without gaps"]),
        (
            [member("a", role="shadow"), member("b", tier=2)],
            ["$.members: tier 1 has shadows and no voter; put a voter into it"],
        ),
        (
            [member("a"), member("b", tier=2, role="shadow"), member("c", tier=3)],
            ["$.members: tier 2 has shadows and no voter; put a voter into it"],
        ),
        ([member("a", weight=0), member("b", tier=2)], [f"$.members: tier 1 {NO_WEIGHT}"]),
        ([member("a", weight=0), member("b", tier=2, weight=0)], [f"$.members: {NO_WEIGHT}"]),
        ([member("a"), member("b", tier=2, weight=0)], []),
    ],
)
def test_a_cascade_has_tiers_that_can_predict(members: Sequence[dict[str, Any]], expected: list[str]) -> None:
    data = ensemble(*members, method="weighted_mean", cascade={"min_margin": 0.5}, quorum={"min_members": 1})
    assert problems_of(data) == expected


def test_the_first_tier_can_meet_the_quorum_alone() -> None:
    members = tiers(1, 1, 2, 2)

    def found(least: int) -> list[str]:
        return problems_of(ensemble(*members, cascade={"min_margin": 0.5}, quorum={"min_members": least}))

    assert found(2) == []
    assert found(3) == [
        "$.quorum.min_members: 3 is more than the 2 voters of tier 1, so no row could be decided there; use at most "
        "2, or put more voters into tier 1"
    ]
    assert found(5) == ["$.quorum.min_members: 5 is more than the 4 voters; use at most 4"]


def test_a_stack_cannot_predict_before_all_were_invoked() -> None:
    aggregation = stack({"first": 1, "last": 2})
    assert problems_of(ensemble(*TIERED, aggregation=aggregation, cascade={"min_margin": 0.5})) == [
        '$.cascade: the method "stack" needs every voter, and a cascade invokes only some of them first; remove the '
        'cascade and every "tier", or use another method'
    ]
