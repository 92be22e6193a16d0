from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from builders import BINARY, REGRESSION, THREE, released
from builders import release as make_release
from stepensemble.core.aggregation.output import (
    MemberFailure,
    MemberReport,
    Output,
    Participation,
    Prediction,
    ShadowReport,
)
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.outputs import Label, Probabilities, Probability, Value, output_width
from stepensemble.core.schema.policy import Confidence, Mean, Stacking
from stepensemble.core.schema.task import MulticlassTask, RegressionTask, Task, name_classes
from stepensemble.core.state_size import STATE_BYTES, travels_inline
from stepensemble.handlers.state import Frame, MemberToInvoke, TierColumns, TierRequest, TierResults, prepare_tier

WORST = -2.2250738585072014e-308
"""No float64 is longer in JSON."""

BOUNDS = Confidence(min_agreement=WORST, max_spread=WORST, min_margin=WORST)

WORDS = st.text(min_size=1, max_size=30)
TASKS = st.one_of(
    st.just(REGRESSION),
    st.just(BINARY),
    st.lists(WORDS, min_size=2, max_size=12, unique=True).map(lambda names: MulticlassTask(classes=tuple(names))),
)


def build(task: Task, *roles: str, stacked: bool = False) -> Release:
    """Return a release with a member for each role: `shadow`, `label` (class names) or `voter`, and its tier."""
    kind = {REGRESSION: Value(), BINARY: Probability()}.get(task, Probabilities())
    members = []
    for number, role in enumerate(roles):
        kind_of_member, _, tier = role.partition(" ")
        output = Label(one_hot=True) if kind_of_member == "label" else kind
        more = {"role": "shadow" if kind_of_member == "shadow" else "voter", "tier": int(tier or 1), "timeout": 50}
        members.append(released(f"{number:02d}".ljust(64, "m"), output, version="v" * 64, **more))
    classes = len(name_classes(task))
    matrix = ((WORST,) * classes,) * classes if classes > 2 else WORST
    coefficients = {member.id: matrix for member in members if member.role == "voter"}
    intercept = (WORST,) * classes if classes > 2 else WORST
    return make_release(
        task,
        *members,
        aggregation=Stacking(coefficients=coefficients, intercept=intercept, missing="refuse", tie="highest_mean")
        if stacked
        else Mean(),
        review=BOUNDS,
        cascade=BOUNDS if any(member.tier > 1 for member in members) else None,
    )


class States:
    """The largest execution of a release: every row in every tier, the longest numbers and names."""

    def __init__(self, release: Release, rows: int, columns: int, failing: int = 0) -> None:
        self.release, self.rows, self.failing = release, rows, failing
        names = tuple(f"column-{column}" for column in range(columns))
        self.input = {"instances": [dict.fromkeys(names, WORST)] * rows}
        self.columns = {name: [WORST] * rows for name in names}
        self.members = [
            MemberToInvoke(
                id=member.id,
                runtime="litert",
                artifact=member.artifact,
                inputs={"": names},
                signature="s" * 64,
                output="o" * 64,
                outputs_key=None,
                tier=member.tier,
                role=member.role,
                function="f" * 64,
                timeout=50,
            )
            for member in release.members
        ]

    @property
    def fit(self) -> bool:
        """Whether the arithmetic lets it travel inline."""
        return travels_inline(
            self.release,
            self.release.policy,
            input_bytes=size(self.input),
            columns_bytes=size(self.columns),
            members_bytes={
                tier: size([member for member in self.members if member.tier == tier])
                for tier in range(1, self.release.tiers + 1)
            },
            rows=self.rows,
        )

    def outputs(self, place: int) -> list[Any] | None:
        member, classes = self.release.members[place], name_classes(self.release.task)
        if place < self.failing:
            return None
        if isinstance(member.output, Label):
            return [max(classes, key=size)] * self.rows
        width = output_width(self.release.task, member.output)
        return [WORST if width == 1 else [WORST] * width] * self.rows

    def results(self, tier: int) -> TierResults:
        results: dict[str, list[Any]] = {"voter": [], "shadow": []}
        for place, member in enumerate(self.release.members):
            outputs = self.outputs(place)
            if member.tier == tier and outputs is None:
                results[member.role].append({"id": member.id, "error": {"Error": "Runtime.ExitError", "Cause": CAUSE}})
            elif member.tier == tier:
                results[member.role].append(
                    {"id": member.id, "outputs": outputs, "duration_ms": 12345.678, "cold": False}
                )
        return TierResults(tuple(results["voter"]), tuple(results["shadow"]))

    def output(self) -> Output:
        classes = name_classes(self.release.task)
        shadows = [member.id for member in self.release.members if member.role == "shadow"]
        fields: dict[str, Any] = {"value": WORST, "spread": WORST, "range": WORST, "decision": "abstain", "tier": 3}
        fields["shadows"] = dict.fromkeys(shadows, ShadowReport(agrees=False, flips=False))
        if classes:
            numbers = ("score", "agreement", "margin", "entropy", "mean_entropy", "mutual_information")
            fields |= dict.fromkeys(numbers, WORST)
            fields |= {"label": max(classes, key=size), "probabilities": [WORST] * len(classes), "tie": False}
            fields["pivotal"] = [voter.id for voter in self.release.voters]
            assert set(fields) == set(Prediction.__struct_fields__) - {"missing", "failure"}  # no voter is missing
        reports = [
            MemberReport(
                id=member.id,
                version=member.version,
                digest="0" * 64,
                role=member.role,
                status="skipped",
                weight=WORST,
                outputs=self.outputs(place),
                duration_ms=12345.678,
                cold=False,
                error=MemberFailure("T" * 64, CAUSE if place < self.failing else ""),
            )
            for place, member in enumerate(self.release.members)
        ]
        return Output(
            prediction_id="p" * 128,
            release="0" * 64,
            status="DEGRADED",
            policy=self.release.policy,
            participation={"voter": Participation(99, 99, WORST), "shadow": Participation(99, 99, WORST)},
            needs_review=self.rows,
            predictions=[Prediction(**fields)] * self.rows,
            members=reports,
        )

    def bodies(self) -> Iterator[Any]:
        """Return every state, and every event that Aggregate gets."""
        frame = Frame("p" * 128, "0" * 64, inline=True)
        execution = {"id": "a" * 256, "name": "n" * 80, "started_at": "2026-03-01T12:00:00.000Z"}
        earlier: list[TierRequest] = []
        for tier in range(1, self.release.tiers + 1):
            members = [member for member in self.members if member.tier >= tier]
            state = prepare_tier(frame, tier, members, TierColumns(self.rows, self.columns, self.columns), earlier)
            results = self.results(tier)
            yield {**state, "undecided": self.rows, "results": results}
            sent = {key: state[key] for key in ("prediction_id", "release", "inline", "rows", "earlier", "cascade")}
            yield {**sent, "results": results, "payload": self.input, "execution": execution}
            earlier.append(TierRequest(self.rows, results))
        yield self.output()


CAUSE = "c" * 5_000


def size(value: Any) -> int:
    return len(msgspec.json.encode(value))


def assert_fits(release: Release, columns: int, failing: int = 0) -> int:
    """Find the most rows that are accepted, where the arithmetic is tightest, and measure their size."""
    few, many = 0, 1
    while States(release, many, columns, failing).fit:
        few, many = many, many * 2
    while many - few > 1:
        middle = (few + many) // 2
        if States(release, middle, columns, failing).fit:
            few = middle
        else:
            many = middle
    if few:
        for body in States(release, few, columns, failing).bodies():
            assert size(body) <= STATE_BYTES
    return few


ROLES = {
    REGRESSION: ["voter", "voter 2", "voter 3", "shadow", "shadow 2"],
    "classes": ["voter", "voter 2", "voter 3", "label", "label 2", "shadow", "shadow 2"],
}


@settings(max_examples=25, deadline=None)
@given(TASKS, st.integers(1, 20), st.data())
def test_law_what_travels_inline_fits_into_every_state_at_its_largest(
    task: Task, columns: int, data: st.DataObject
) -> None:
    roles = ROLES[REGRESSION] if isinstance(task, RegressionTask) else ROLES["classes"]
    drawn = data.draw(st.lists(st.sampled_from(roles), max_size=7))
    release = build(task, "voter", *drawn, stacked=data.draw(st.booleans()))
    assert_fits(release, columns, data.draw(st.integers(0, len(release.members))))


QUOTES = MulticlassTask(classes=('"' * 400, "b"))


@pytest.mark.parametrize(
    ("release", "columns", "failing"),
    [
        pytest.param(build(REGRESSION, *["voter"] * 8), 1000, 8, id="more causes than outputs"),
        pytest.param(build(QUOTES, "voter"), 1, 0, id="a label that JSON writes twice as long"),
        pytest.param(build(QUOTES, *["label"] * 8), 1, 0, id="members with labels"),
        pytest.param(build(REGRESSION, "voter", "voter 2", "voter 3"), 200, 0, id="columns that travel twice"),
        pytest.param(build(BINARY, "voter", *["shadow"] * 7), 1, 0, id="mostly shadows"),
    ],
)
def test_what_travels_inline_fits_at_the_edges_too(release: Release, columns: int, failing: int) -> None:
    assert assert_fits(release, columns, failing) > 0


def test_a_passenger_and_a_few_hundred_travel_inline_and_ten_thousand_do_not() -> None:
    four = build(BINARY, *["voter"] * 4)
    assert [States(four, rows, 11).fit for rows in (1, 200, 10_000)] == [True, True, False]


def test_a_cascade_carries_fewer_rows_as_their_columns_travel_to_aggregate_too() -> None:
    once = assert_fits(build(REGRESSION, "voter", "voter"), 100)
    more = assert_fits(build(REGRESSION, "voter", "voter 2"), 100)
    # Beside the input, some 37 bytes a value ("column-99":-2.2…e-308,), go the columns, 25 bytes a value.
    assert more / once == pytest.approx(37 / (37 + 25), abs=0.03)


def test_a_stack_of_ten_classes_takes_the_room_of_its_coefficients() -> None:
    ten = MulticlassTask(classes=tuple("abcdefghij"))
    stacked, plain = (build(ten, *["voter"] * 8, stacked=stacked) for stacked in (True, False))
    # 8 x 10 x 10 coefficients of 24 letters, and a comma each
    assert size(stacked.policy) - size(plain.policy) > 8 * 100 * 25
    assert assert_fits(stacked, 1) < assert_fits(plain, 1)


def test_a_large_input_alone_decides() -> None:
    sizes: dict[str, Any] = {"columns_bytes": 100, "members_bytes": {1: 100}, "rows": 1}
    one = build(THREE, "voter")
    assert travels_inline(one, one.policy, input_bytes=200_000, **sizes)
    assert not travels_inline(one, one.policy, input_bytes=STATE_BYTES, **sizes)
