from __future__ import annotations

from itertools import combinations
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from msgspec import structs

from builders import ANY_VOTER, BINARY, REGRESSION, THREE, artifact, release, released
from stepensemble.core.releases.diff import compare_releases, describe, find_longest_ascent
from stepensemble.core.releases.release import Release, encode_release
from stepensemble.core.schema.manifest import CategoryFeature, Log1p, NumberFeature, Standard
from stepensemble.core.schema.outputs import Probability
from stepensemble.core.schema.policy import Confidence, Mean, Quorum, TrimmedMean, WeightedMean

AGE = NumberFeature("Age", min=0, max=120, scaling=Standard(30, 14))
PORT = CategoryFeature("Port", ("C", "Q", "S"))
BEFORE = release(
    BINARY,
    released("a", "probability", inputs={"": ("Age", "Port")}),
    released("b", "probability"),
    features=(AGE, PORT),
)


def words(after: Release, before: Release = BEFORE) -> list[str]:
    return [difference.words for difference in compare_releases(before, after)]


def with_member(**changes: Any) -> Release:
    a, b = BEFORE.members
    return structs.replace(BEFORE, members=(structs.replace(a, **changes), b))


def with_policy(**changes: Any) -> Release:
    return structs.replace(BEFORE, policy=structs.replace(BEFORE.policy, **changes))


def with_features(*features: Any) -> Release:
    return structs.replace(BEFORE, features=features)


def test_a_release_has_no_difference_from_itself() -> None:
    assert words(BEFORE) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": "2"}, "member a: version 1 → 2"),
        (
            # echo -n a | sha256sum; echo -n new | sha256sum
            {"artifact": artifact(b"new")},
            "member a: artifact ca978112ca1b (1 bytes) → 11507a0e2f5e (3 bytes)",
        ),
        ({"weight": 0.1}, "member a: weight 1 → 0.1"),
        ({"role": "shadow"}, "member a: role voter → shadow"),
        ({"tier": 2}, "member a: tier 1 → 2"),
        ({"timeout": 20}, "member a: timeout 10 → 20"),
        ({"runtime": "other"}, "member a: runtime litert → other"),
        ({"inputs": {"": ("Port", "Age")}}, "member a: inputs Port: position 2 → 1"),
        ({"inputs": {"": ("Age", "Fare")}}, 'member a: inputs "Port" removed, "Fare" added'),
        (
            {"inputs": {"left": ("Age",), "right": ("Port", "Age")}},
            "member a: inputs Age, Port → {left: (Age), right: (Port, Age)}",
        ),
        ({"signature": "half"}, "member a: signature none → half"),
        ({"output": Probability(name="total")}, "member a: output.name none → total"),
        ({"output": Probability(temperature=2)}, "member a: output.temperature 1 → 2"),
        ({"output": Probability(of="no")}, "member a: output.of none → no"),
    ],
)
def test_a_changed_member_is_reported_field_by_field(changes: dict[str, Any], expected: str) -> None:
    assert words(with_member(**changes)) == [expected]


def test_another_kind_of_output_is_reported_as_a_whole() -> None:
    logit = released("a", "logit").output
    assert words(with_member(output=logit)) == ["member a: output probability → logit"]
    tempered = structs.replace(logit, temperature=1.5)
    assert words(with_member(output=tempered)) == ["member a: output probability → logit, temperature 1.5"]


def test_inputs_are_reported_one_by_one_whatever_their_order() -> None:
    def with_inputs(**inputs: tuple[str, ...]) -> Release:
        return with_member(inputs=inputs)

    before = with_inputs(left=("Age",), right=("Port", "Fare"))
    assert words(with_inputs(right=("Port", "Fare"), left=("Age",)), before) == []
    assert words(with_inputs(right=("Fare", "Port"), left=("Size",)), before) == [
        'member a: inputs.left "Age" removed, "Size" added',
        "member a: inputs.right Fare: position 2 → 1",
    ]
    assert words(with_inputs(left=("Age",)), before) == [
        "member a: inputs {left: (Age), right: (Port, Fare)} → {left: (Age)}"
    ]


def test_an_output_that_has_a_name_is_reported_with_it() -> None:
    named = structs.replace(released("a", "logit").output, name="score")
    assert words(with_member(output=named)) == ["member a: output probability → logit, name score"]


def test_members_come_and_go() -> None:
    _, b = BEFORE.members
    after = structs.replace(BEFORE, members=(b, released("c", "logit", weight=2, role="shadow", tier=2)))
    # echo -n a | sha256sum; echo -n c | sha256sum
    assert words(after) == [
        "member a: removed (version 1, probability, weight 1, voter, artifact ca978112ca1b (1 bytes))",
        "member c: added (version 1, logit, weight 2, shadow, tier 2, artifact 2e7d2c03a950 (1 bytes))",
    ]


def test_the_order_of_members_and_features_is_a_difference_too() -> None:
    assert words(structs.replace(BEFORE, members=BEFORE.members[::-1])) == ["members: b: position 2 → 1"]
    assert words(with_features(PORT, AGE)) == ["features: Port: position 2 → 1"]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("dabcef", ["d: position 4 → 1"]),
        ("bcdefa", ["a: position 1 → 6"]),
        ("abxcf", ['"d" removed, "e" removed, "x" added']),
        ("fabc", ['"d" removed, "e" removed, f: position 6 → 1']),
        ("badcfe", ["b: position 2 → 1, d: position 4 → 3, f: position 6 → 5"]),
    ],
)
def test_of_a_list_in_another_order_the_fewest_moves_are_reported(after: str, expected: list[str]) -> None:
    before = with_member(inputs={"": tuple("abcdef")})
    assert words(with_member(inputs={"": tuple(after)}), before) == [f"member a: inputs {one}" for one in expected]


def test_of_many_moves_some_are_reported() -> None:
    names = tuple(f"{number:02}" for number in range(20))
    (described,) = words(with_member(inputs={"": names[::-1]}), with_member(inputs={"": names}))
    assert described.startswith("member a: inputs 19: position 20 → 1, 18: position 19 → 2, ")
    assert described.endswith(", and 11 more moved")  # of 20 one stays, and 8 are listed


@given(st.permutations(range(8)))
def test_law_what_is_not_moved_ascends_and_nothing_longer_does(order: list[int]) -> None:
    ascent = find_longest_ascent(order)
    assert ascent == sorted(ascent)
    assert [number for number in order if number in ascent] == ascent
    longer = combinations(order, len(ascent) + 1)
    assert not any(list(some) == sorted(some) for some in longer)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ((AGE,), ["feature Port: removed (category, vocabulary (C, Q, S))"]),
        ((AGE, PORT, NumberFeature("Fare", missing=7.5)), ["feature Fare: added (number, missing 7.5)"]),
        ((structs.replace(AGE, max=100.0), PORT), ["feature Age: max 120 → 100"]),
        ((structs.replace(AGE, max=None), PORT), ["feature Age: max 120 → none"]),
        ((structs.replace(AGE, scaling=Standard(31, 14)), PORT), ["feature Age: scaling.mean 30 → 31"]),
        ((structs.replace(AGE, scaling=Log1p()), PORT), ["feature Age: scaling standard, mean 30, std 14 → log1p"]),
        (
            (AGE, structs.replace(PORT, vocabulary=("C", "Q", "X"))),
            ['feature Port: vocabulary "S" removed, "X" added'],
        ),
        ((AGE, structs.replace(PORT, vocabulary=("Q", "C", "S"))), ["feature Port: vocabulary Q: position 2 → 1"]),
        ((AGE, NumberFeature("Port")), ["feature Port: category, vocabulary (C, Q, S) → number"]),
    ],
)
def test_features_are_reported_field_by_field(features: tuple[Any, ...], expected: list[str]) -> None:
    assert words(with_features(*features)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aggregation": WeightedMean()}, "aggregation: mean → weighted_mean"),
        ({"aggregation": Mean(tie="abstain")}, "aggregation: tie first → abstain"),
        ({"aggregation": TrimmedMean(trim=0.2)}, "aggregation: mean → trimmed_mean, trim 0.2"),
        ({"quorum": Quorum()}, "quorum: min_members 1 → more than half"),
        ({"quorum": structs.replace(ANY_VOTER, required=("a",))}, 'quorum: required "a" added'),
        ({"review": Confidence(min_margin=0.1)}, "review: none → min_margin 0.1"),
        ({"cascade": Confidence(min_agreement=1.0)}, "cascade: none → min_agreement 1"),
    ],
)
def test_the_policy_is_reported_part_by_part(changes: dict[str, Any], expected: str) -> None:
    assert words(with_policy(**changes)) == [expected]


def test_the_task_is_reported() -> None:
    assert words(structs.replace(BEFORE, task=structs.replace(BINARY, threshold=0.6))) == ["task: threshold 0.5 → 0.6"]
    assert words(structs.replace(BEFORE, task=REGRESSION)) == ["task: binary, classes (no, yes) → regression"]
    assert words(structs.replace(BEFORE, task=THREE)) == [
        "task: binary, classes (no, yes) → multiclass, classes (red, green, blue)"
    ]


def test_name_and_format_are_reported() -> None:
    assert words(structs.replace(BEFORE, name="other", format=9)) == [
        "release: format 3 → 9",
        "release: name halves → other",
    ]


def test_a_difference_is_structured_too() -> None:
    (difference,) = compare_releases(BEFORE, with_member(output=Probability(temperature=2)))
    assert msgspec.to_builtins(difference) == {
        "part": "member",
        "name": "a",
        "field": "output.temperature",
        "change": "changed",
        "from": 1.0,
        "to": 2.0,
        "words": "member a: output.temperature 1 → 2",
    }
    (removed,) = compare_releases(BEFORE, structs.replace(BEFORE, members=BEFORE.members[:1]))
    assert (removed.change, removed.name, removed.after) == ("removed", "b", None)
    assert removed.before["id"] == "b"


def test_numbers_are_reported_so_that_they_differ() -> None:
    assert words(with_member(weight=1.0000001)) == ["member a: weight 1 → 1.0000001"]
    assert describe(1 / 3) == "0.333333333333333"


CHANGES: dict[str, Any] = {
    "version": st.sampled_from(["1", "2"]),
    "weight": st.sampled_from([1.0, 2.0, 0.0, -0.0]),
    "role": st.sampled_from(["voter", "shadow"]),
    "inputs": st.sampled_from(
        [{"": ("x", "y")}, {"": ("y", "x")}, {"a": ("x",), "b": ("y",)}, {"a": ("y",), "b": ("x",)}]
    ),
    "signature": st.sampled_from([None, "half"]),
    "output": st.sampled_from([Probability(), Probability(of="no"), released("a", "label").output]),
    "artifact": st.sampled_from([artifact(b"1"), artifact(b"2")]),
}


@st.composite
def releases(draw: st.DrawFn) -> Release:
    ids = draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True))
    members = [structs.replace(released(id_, "label"), **draw(st.fixed_dictionaries(CHANGES))) for id_ in ids]
    features = draw(st.permutations([AGE, PORT, NumberFeature("x")]))
    return release(
        draw(st.sampled_from([BINARY, structs.replace(BINARY, threshold=0.6), THREE])),
        *members,
        aggregation=draw(st.sampled_from([Mean(), TrimmedMean(), TrimmedMean(trim=0.3)])),
        review=draw(st.sampled_from([None, Confidence(), Confidence(min_margin=0.1)])),
        features=tuple(features[: draw(st.integers(1, 3))]),
    )


@given(releases(), releases())
def test_law_there_is_a_difference_exactly_where_the_digests_differ(one: Release, other: Release) -> None:
    found = compare_releases(one, other)
    assert bool(found) == (encode_release(one)[0] != encode_release(other)[0])
    assert len({difference.words for difference in found}) == len(found)
    assert len(compare_releases(other, one)) == len(found)
