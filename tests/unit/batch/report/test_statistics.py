from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, mean_absolute_error

import strategies
from builders import BINARY, THREE, Supply, release, released
from stepensemble.batch.report.statistics import (
    CALIBRATION_BINS,
    MAX_EXAMPLES,
    Accuracy,
    Histogram,
    Histograms,
    LabelCounts,
    MemberStatistics,
    PairAgreement,
    Rejection,
    RowLocation,
    ShardReport,
    ShardStatistics,
    count_bins,
    count_predictions,
    count_rows_read,
    merge_statistics,
)
from stepensemble.core.aggregation.decision import Decision, DecisionRules, decide_rows
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.output_source import MemberResult
from stepensemble.core.schema.policy import Confidence, HardVote

COUNTS = st.integers(0, 10**9)
SUMS = st.integers(0, 2**40).map(lambda number: number / 1024)  # whose sums are exact
NAMES = st.sampled_from(["a", "b", "c"])
LOCATIONS = st.builds(RowLocation, NAMES, st.integers(1, 9))


def by_name(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(NAMES, values, max_size=3)


def hundreds(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*[values] * CALIBRATION_BINS)


ACCURACIES = st.builds(Accuracy, COUNTS, COUNTS, COUNTS, SUMS, hundreds(COUNTS), hundreds(SUMS), hundreds(COUNTS))
MEMBERS = st.builds(MemberStatistics, COUNTS, by_name(COUNTS), COUNTS, SUMS, COUNTS, SUMS, SUMS, COUNTS, ACCURACIES)
REJECTIONS = st.builds(
    Rejection, COUNTS, st.sets(LOCATIONS, max_size=MAX_EXAMPLES).map(lambda rows: tuple(sorted(rows)))
)
HISTOGRAMS = st.builds(Histogram, st.just((0.5, 1.5)), st.tuples(COUNTS, COUNTS, COUNTS), COUNTS)
STATISTICS = st.builds(
    ShardStatistics,
    statuses=by_name(COUNTS),
    decisions=by_name(COUNTS),
    members=by_name(MEMBERS),
    agreement=by_name(by_name(st.builds(PairAgreement, COUNTS, COUNTS))),
    histograms=st.builds(Histograms, st.none() | HISTOGRAMS, by_name(HISTOGRAMS)),
    accuracy=ACCURACIES,
    confusion=by_name(by_name(COUNTS)),
    ground_truth=st.builds(LabelCounts, COUNTS, REJECTIONS, COUNTS, COUNTS),
    rejections=by_name(by_name(REJECTIONS)),
    seconds=by_name(SUMS),
    bytes=by_name(COUNTS),
)


@settings(max_examples=50, deadline=None)
@given(STATISTICS, STATISTICS, STATISTICS)
@pytest.mark.slow
def test_statistics_are_merged_in_any_order_and_any_grouping(
    one: ShardStatistics, two: ShardStatistics, three: ShardStatistics
) -> None:
    together = merge_statistics([one, two, three])
    assert (
        merge_statistics([merge_statistics([one, two]), three])
        == merge_statistics([one, merge_statistics([two, three])])
        == together
    )
    assert merge_statistics([three, one, two]) == together
    assert merge_statistics([one, ShardStatistics()]) == merge_statistics([one]) == one
    assert merge_statistics([]) == ShardStatistics()


@settings(max_examples=50, deadline=None)
@given(STATISTICS)
@pytest.mark.slow
def test_a_report_is_the_same_after_encoding_and_decoding(statistics: ShardStatistics) -> None:
    report = ShardReport(3, 10, 8, 2, "DEGRADED", None, statistics)
    assert msgspec.json.decode(msgspec.json.encode(report), type=ShardReport) == report


def test_histograms_of_different_edges_cannot_be_merged() -> None:
    parts = [ShardStatistics(histograms=Histograms(Histogram((edge,), (1, 2)))) for edge in (0.5, 0.6)]
    with pytest.raises(ValueError, match=r"different edges: \(0.5,\) and \(0.6,\)"):
        merge_statistics(parts)


def test_a_bin_begins_with_its_edge_and_what_is_missing_is_counted_apart() -> None:
    values = np.array([-1.0, 0.0, 0.5, 1.0, 7.0, np.nan, np.nan])
    assert count_bins(values, (0.0, 1.0)) == Histogram((0.0, 1.0), (1, 2, 2), 2)
    assert count_bins(np.empty(0), ()) == Histogram((), (0,))


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=5)
)
def test_bins_are_numpys_histogram(values: list[float], edges: set[float]) -> None:
    ascending = tuple(sorted(edges))
    expected, _ = np.histogram(values, [-np.inf, *ascending, np.inf])
    assert count_bins(np.array(values, dtype=np.float64), ascending).counts == tuple(expected.tolist())


def test_rejected_rows_are_counted_by_column_and_kind_with_the_first_ones_as_examples() -> None:
    wrong = [("Age", "is not a number", RowLocation("a.csv", row)) for row in (9, 2, 5, 1)]
    wrong.append(("Age", "is missing", RowLocation("a.csv", 3)))
    values = {"Age": np.array([1.0, np.nan]), "Sex": np.array([0.0])}
    counted = count_rows_read(values, {"Age": (0.0,)}, wrong, ground_truth=LabelCounts(9, Rejection(2)))
    assert counted == ShardStatistics(
        histograms=Histograms(features={"Age": Histogram((0.0,), (0, 1), 1)}),
        ground_truth=LabelCounts(9, Rejection(2)),
        rejections={
            "Age": {
                "is not a number": Rejection(4, tuple(RowLocation("a.csv", row) for row in (1, 2, 5))),
                "is missing": Rejection(1, (RowLocation("a.csv", 3),)),
            }
        },
    )


def decide(read: Any, results: dict[str, MemberResult], rows: int) -> Decision:
    decision = decide_rows(DecisionRules(read.task, read.policy, read.members), rows, Supply(lambda *_: results))
    assert isinstance(decision, Decision)
    return decision


def test_a_binary_shard_by_hand() -> None:
    read = release(
        BINARY,
        released("one", "probability"),
        released("two", "probability"),
        released("failed", "probability"),
        review=Confidence(min_margin=0.3),
    )
    results = {
        "one": MemberResult("one", np.array([0.75, 0.25, 0.5]), 250.0, cold=True),
        "two": MemberResult("two", np.array([1.0, 0.5, 0.0]), 500.0, cold=False),
        "failed": MemberResult("failed", failure=MemberFailure("ModelRefused", "broken")),
    }
    truth = np.array([1.0, 1.0, np.nan])
    decision = decide(read, results, 3)
    counted = count_predictions(read, decision, (0.5,), truth)
    # The means are 0.875, 0.375 and 0.25. The margins are 0.75, 0.25 and 0.5: the second row is for review.
    assert counted.statuses == {"DEGRADED": 3}
    assert counted.decisions == {"accept": 2, "review": 1}
    assert counted.labels == {"no": 2, "yes": 1}
    assert counted.tiers == {"1": 3}
    assert counted.histograms == Histograms(Histogram((0.5,), (2, 1)))
    # Labels of one: yes, no, yes; of two: yes, yes, no. Without two, the third row is yes; without one, the second.
    assert counted.agreement == {"one": {"two": PairAgreement(3, 1)}}
    one, two = counted.members["one"], counted.members["two"]
    assert (one.shards, one.rows, one.seconds, one.cold, one.total, one.squares) == (1, 3, 0.25, 1, 1.5, 0.875)
    assert (one.pivotal, two.pivotal) == (1, 1)
    assert counted.members["failed"] == MemberStatistics(shards=1, failures={"ModelRefused": 1})
    # Of the two rows whose truth, "yes", is known, the prediction is right in the first: 0.125² + 0.625² = 0.40625
    assert (counted.accuracy.rows, counted.accuracy.correct, counted.accuracy.error_sum) == (2, 1, 0.40625)
    filled = {
        place: (probability, observed)
        for place, (rows, probability, observed) in enumerate(
            zip(
                counted.accuracy.counts,
                counted.accuracy.probability_sums,
                counted.accuracy.observed_counts,
                strict=True,
            )
        )
        if rows
    }
    assert filled == {37: (0.375, 1), 87: (0.875, 1)}  # bins of equal width
    assert sum(counted.accuracy.counts) == 2
    assert counted.confusion == {"yes": {"no": 1, "yes": 1}}
    assert (one.accuracy.rows, one.accuracy.correct, two.accuracy.correct) == (2, 1, 2)


def test_a_member_whose_output_is_a_label_has_no_probabilities_to_measure() -> None:
    members = released("soft", "probabilities"), released("named", "label")
    read = release(THREE, *members, aggregation=HardVote())
    results = {
        "soft": MemberResult("soft", np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])),
        "named": MemberResult("named", np.array([0, 1])),
    }
    counted = count_predictions(read, decide(read, results, 2), (), np.array([0.0, 2.0]))
    assert counted.members["named"].accuracy == Accuracy(rows=2, correct=1)
    # (0.5² + 0.25² + 0.25²) + (0.125² + 0.125² + 0.25²)
    soft = counted.members["soft"].accuracy
    assert (soft.correct, soft.scored, soft.error_sum) == (2, 2, 0.375 + 0.09375)
    assert (soft.counts[50], soft.counts[75], sum(soft.observed_counts)) == (1, 1, 2)
    assert counted.members["soft"].total == 0.0


def test_a_cascade_counts_each_member_over_the_rows_that_it_was_invoked_with() -> None:
    members = released("first", "probability"), released("late", "probability", tier=2)
    shadow = released("trial", "probability", role="shadow", tier=2)
    read = release(BINARY, *members, shadow, cascade=Confidence(min_margin=0.5))
    results = {
        "first": MemberResult("first", np.array([0.875, 0.625, 0.125, 0.375])),
        "late": MemberResult("late", np.array([0.0, 1.0])),
        "trial": MemberResult("trial", np.array([0.0, 0.0])),
    }
    counted = count_predictions(read, decide(read, results, 4), (), np.array([1.0, 0.0, 0.0, np.nan]))
    assert counted.tiers == {"1": 2, "2": 2}
    assert {id_: one.rows for id_, one in counted.members.items()} == {"first": 4, "late": 2, "trial": 2}
    # Of the second row and the fourth: yes and no; no and yes; no and no.
    assert counted.agreement == {
        "first": {"late": PairAgreement(2, 0), "trial": PairAgreement(2, 1)},
        "late": {"trial": PairAgreement(2, 1)},
    }
    assert (counted.members["late"].accuracy.rows, counted.members["late"].accuracy.correct) == (1, 1)
    # (0.625 + 0) / 2 is below 0.5, so all three rows with ground truth are right.
    assert (counted.accuracy.rows, counted.accuracy.correct) == (3, 3)


def test_members_of_a_tier_that_is_not_reached_are_not_counted() -> None:
    read = release(
        BINARY,
        released("first", "probability"),
        released("late", "probability", tier=2),
        cascade=Confidence(min_margin=0.5),
    )
    decision = decide(read, {"first": MemberResult("first", np.array([0.9]))}, 1)
    assert list(count_predictions(read, decision).members) == ["first"]


def test_a_shard_without_quorum_counts_only_its_members() -> None:
    read = release(BINARY, released("one", "probability"))
    decision = decide(read, {"one": MemberResult("one", failure=MemberFailure("Timeout", "slow"))}, 2)
    assert count_predictions(read, decision, (0.5,)) == ShardStatistics(
        members={"one": MemberStatistics(shards=1, failures={"Timeout": 1})}
    )


@settings(max_examples=60, deadline=None)
@given(strategies.cases(), strategies.SEEDS)
def test_accuracy_is_scikit_learns_for_any_task_and_policy(case: Any, generator: np.random.Generator) -> None:
    classes = getattr(case.task, "classes", ())
    kind = "probabilities" if classes else "value"
    read = release(
        case.task,
        *(released(vote.id, kind, weight=vote.weight) for vote in case.votes),
        aggregation=case.aggregation,
    )
    truth = generator.integers(0, len(classes), case.rows) if classes else generator.normal(0, 9, case.rows)
    decision = decide(read, {vote.id: MemberResult(vote.id, vote.output) for vote in case.votes}, case.rows)
    counted = count_predictions(read, decision, (), truth.astype(np.float64))
    predictions = decision.decided[0].predictions
    if not classes:
        expected = mean_absolute_error(truth, predictions.value)
        assert counted.accuracy.error_sum / case.rows == pytest.approx(expected)
        return
    assert predictions.classes is not None
    assert counted.accuracy.correct / case.rows == accuracy_score(truth, predictions.classes.label)
    assert sum(counted.accuracy.counts) == case.rows
    if len(classes) == 2:
        probability = np.clip(predictions.value, 0, 1)
        assert counted.accuracy.error_sum / case.rows == pytest.approx(
            brier_score_loss(truth, probability, labels=[0, 1])
        )
        if not np.any(
            np.isclose(probability * 100 % 1, 0) | np.isclose(probability * 100 % 1, 1)
        ):  # it puts edges into the bin below
            true, mean = calibration_curve(truth, probability, n_bins=CALIBRATION_BINS)
            full = np.array(counted.accuracy.counts) > 0
            counts = np.array(counted.accuracy.counts)[full]
            np.testing.assert_allclose(np.array(counted.accuracy.observed_counts)[full] / counts, true)
            np.testing.assert_allclose(np.array(counted.accuracy.probability_sums)[full] / counts, mean)


def test_merged_statistics_are_those_of_all_rows_counted_together() -> None:
    generator = np.random.default_rng(7)
    read = release(BINARY, released("one", "probability"), released("two", "probability"))
    outputs = {id_: generator.integers(0, 65, 100) / 64 for id_ in ("one", "two")}
    truth = generator.integers(0, 2, 100).astype(np.float64)

    def count(rows: slice) -> ShardStatistics:
        results = {id_: MemberResult(id_, output[rows], 125.0, cold=False) for id_, output in outputs.items()}
        return count_predictions(read, decide(read, results, len(truth[rows])), (0.25, 0.5), truth[rows])

    parts, together = merge_statistics([count(slice(0, 30)), count(slice(30, 100))]), count(slice(0, 100))
    once = {id_: msgspec.structs.replace(one, shards=1, seconds=one.seconds / 2) for id_, one in parts.members.items()}
    assert msgspec.structs.replace(parts, members=once) == together


def test_counting_needs_no_polars() -> None:
    code = "import json, sys, stepensemble.batch.report.statistics; print(json.dumps('polars' in sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) is False
