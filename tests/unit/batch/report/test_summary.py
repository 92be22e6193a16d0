"""The summary of a run, from the reports of its shards: every number is computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from builders import BINARY, REGRESSION, release, released
from stepensemble.batch.documents import BinEdges, File, Options, RunPlan, Shard, ShardFailure
from stepensemble.batch.report.calibration import Calibration, bound_share
from stepensemble.batch.report.label_summary import describe_labels
from stepensemble.batch.report.statistics import (
    CALIBRATION_BINS,
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
)
from stepensemble.batch.report.summary import (
    RunAttempt,
    RunContext,
    RunLocations,
    ShardOutcomes,
    Summary,
    explain_run_failure,
    summarize,
)
from stepensemble.core.schema.manifest import BooleanFeature, CategoryFeature, NumberFeature

TWO = release(
    BINARY, released("a", "probability"), released("b", "probability"), released("s", "probability", role="shadow")
)
FILES = (
    File("datasets/a.csv", "a.csv", 100, "1", "csv", rows=30),
    File("datasets/b.csv.gz", "b.csv.gz", 9, "1", "csv", "gzip"),
)
SHARDS = (Shard(0, 0, 0, 50, 1, 20), Shard(1, 0, 50, 100, 21, 10), Shard(2, 1, 0, 9, 1, None))
PLAN = RunPlan(
    run="0123456789abcdef",
    execution="first",
    started_at="2026-03-01T05:00:00Z",
    ensemble="halves",
    release="r" * 64,
    slots={},
    dataset="s3://data/datasets/",
    date="2026-03-01",
    output="results",
    options=Options(),
    files=FILES,
    columns=("x",),
    shards=3,
    edges=BinEdges((0.5,), {"x": (1.0,)}),
)
ATTEMPT = RunAttempt("second", 2, "2026-03-01T05:01:30Z")
LOCATIONS = RunLocations(
    "s3://data/results/run/", "s3://data/results-rejected/run/", "s3://data/results-reports/run/report.html"
)
MEMORY = {"normalize_shard": 2048, "score": 1024, "aggregate_shard": 2048}


RUN = RunContext(PLAN, SHARDS, TWO, ATTEMPT, MEMORY)


def report(number: int, rows_in: int, wrong: int = 0, **counted: Any) -> ShardReport:
    return ShardReport(number, rows_in, rows_in - wrong, wrong, "COMPLETE", None, ShardStatistics(**counted))


def summary_of(
    *reports: ShardReport, plan: RunPlan = PLAN, failures: Any = None, previous: Summary | None = None
) -> Summary:
    run = replace(RUN, plan=plan)
    return summarize(run, ShardOutcomes(reports, failures or {}), previous, LOCATIONS)


ALL_SHARDS = (report(0, 20), report(1, 10), report(2, 70))


def test_rows_add_up() -> None:
    summary = summary_of(report(0, 20, 3), report(1, 10), report(2, 70, 1))
    assert (summary.status, summary.cause, summary.failed_shards) == ("SUCCEEDED", None, 0)
    assert (summary.rows, summary.rows_in, summary.rows_out, summary.rows_rejected) == (100, 100, 96, 4)
    assert (summary.results, summary.rejected) == (LOCATIONS.results, LOCATIONS.rejected)
    assert (summary.attempt, summary.seconds, summary.files, summary.shards) == (2, 90.0, 2, 3)
    assert summary_of(*ALL_SHARDS).rejected is None


def test_rows_that_were_planned_and_not_read_fail_the_run() -> None:
    summary = summary_of(report(0, 19), report(1, 10), report(2, 70))
    assert summary.status == "FAILED"
    assert summary.results is None
    assert summary.cause == "shard 0 of a.csv: 20 rows were planned and 19 were read"


def test_rows_that_are_neither_predicted_nor_rejected_fail_the_run() -> None:
    lost = structs.replace(report(1, 10), rows_out=8)
    assert summary_of(report(0, 20), lost, report(2, 70)).cause == (
        "shard 1 of a.csv: of 10 rows 8 were predicted and 0 rejected"
    )


def test_shards_that_are_not_accounted_for_fail_the_run() -> None:
    assert (
        explain_run_failure(RUN, ShardOutcomes(ALL_SHARDS[:2], {})) == "3 shards were planned, and 2 are accounted for"
    )


def test_the_options_limit_how_many_shards_may_fail() -> None:
    failures = {1: ShardFailure("QuorumNotMet", "0 of 2 voters responded; 1 must")}
    summary = summary_of(report(0, 20), report(2, 70), failures=failures)
    assert summary.status == "FAILED"
    assert summary.cause == (
        "1 of 3 shards failed, and max_failed_shards is 0; start the run again to repeat only these. Shard 1 of a.csv, "
        "from row 21 on: QuorumNotMet: 0 of 2 voters responded; 1 must"
    )
    tolerant = structs.replace(PLAN, options=Options(max_failed_shards=1))
    summary = summary_of(report(0, 20), report(2, 70), plan=tolerant, failures=failures)
    assert summary.status == "SUCCEEDED"
    assert (summary.rows, summary.rows_in, summary.rows_failed, summary.failed_shards) == (100, 90, 10, 1)
    assert [(one.number, one.file, one.error) for one in summary.failures] == [(1, "a.csv", "QuorumNotMet")]


@pytest.mark.parametrize(("rejected", "status"), [(5, "SUCCEEDED"), (6, "FAILED")])
def test_the_options_limit_the_share_of_rows_that_may_be_rejected(rejected: int, status: str) -> None:
    plan = structs.replace(PLAN, options=Options(max_rejected=0.05))
    summary = summary_of(report(0, 20), report(1, 10), report(2, 70, rejected), plan=plan)
    assert summary.status == status
    if status == "FAILED":
        assert summary.cause is not None
        assert summary.cause.startswith("6 of 100 rows were rejected (6.0%), and max_rejected is 5.0%")


def test_an_empty_dataset_is_a_run_of_zero_rows() -> None:
    empty = structs.replace(PLAN, files=(), shards=0)
    run = replace(RUN, plan=empty, shards=())
    summary = summarize(run, ShardOutcomes((), {}), None, LOCATIONS)
    assert (summary.status, summary.rows, summary.rows_out) == ("SUCCEEDED", 0, 0)
    assert [(member.rows, member.mean, member.pivotal) for member in summary.members] == [(0, None, None)] * 3


def test_members_and_agreement_are_shares_of_the_predicted_rows() -> None:
    first = {
        "members": {
            "a": MemberStatistics(shards=1, rows=20, seconds=0.5, total=5.0, pivotal=2),
            "b": MemberStatistics(shards=1, failures={"ModelRefused": 1}),
            "s": MemberStatistics(shards=1, rows=20, seconds=0.1, total=10.0),
        },
        "agreement": {"a": {"s": PairAgreement(20, 15)}},
    }
    second = {
        "members": {
            "a": MemberStatistics(shards=1, rows=10, seconds=0.25, total=4.0, pivotal=1),
            "b": MemberStatistics(shards=1, rows=10, seconds=0.25, total=1.0),
            "s": MemberStatistics(shards=1, rows=10, seconds=0.1, total=5.0),
        },
        "agreement": {"a": {"s": PairAgreement(10, 10), "b": PairAgreement(10, 4)}, "b": {"s": PairAgreement(10, 0)}},
    }
    summary = summary_of(report(0, 20, **first), report(1, 10, **second), report(2, 0))
    a, b, s = summary.members
    assert (a.shards, a.rows, a.seconds, a.mean, a.pivotal) == (2, 30, 0.75, 9 / 30, 3 / 30)
    assert (b.shards, b.rows, b.failures, b.mean) == (2, 10, {"ModelRefused": 1}, 0.1)
    assert (s.role, s.rows, s.pivotal) == ("shadow", 30, None)
    assert summary.agreement == ((1.0, 0.4, 25 / 30), (0.4, 1.0, 0.0), (25 / 30, 0.0, 1.0))


def counted_in(bins: dict[int, tuple[int, float, int]], correct: int, error: float) -> Accuracy:
    """Return the sums of rows by bins of a hundredth: rows, the probability of each, rows of the true class."""
    counts, sums, observed = [0] * CALIBRATION_BINS, [0.0] * CALIBRATION_BINS, [0] * CALIBRATION_BINS
    for place, (rows, probability, hits) in bins.items():
        counts[place], sums[place], observed[place] = rows, rows * probability, hits
    rows = sum(counts)
    return Accuracy(rows, correct, rows, error, tuple(counts), tuple(sums), tuple(observed))


def test_calibration_compares_with_the_labels_that_are_known() -> None:
    # 40 rows have a probability of 0.25, and a quarter of them is of the class; 60 have 0.95, and half of them are.
    accuracy = counted_in({25: (40, 0.25, 10), 95: (60, 0.95, 30)}, correct=60, error=30.0)
    summary = summary_of(
        *ALL_SHARDS[1:], report(0, 20, accuracy=accuracy, members={"a": MemberStatistics(accuracy=accuracy)})
    )
    assert summary.calibration is not None
    ensemble = summary.calibration.ensemble
    assert summary.calibration.members == {"a": ensemble}
    assert (ensemble.rows, ensemble.accuracy, ensemble.brier_score, ensemble.error) == (100, 0.6, 0.3, 0.3)
    assert ensemble.mean_absolute_error is None
    assert ensemble.calibration_error == pytest.approx(60 / 100 * (0.95 - 0.5))
    assert (ensemble.counts, ensemble.observed) == ((40, 60), (0.25, 0.5))
    assert ensemble.mean_predicted == pytest.approx((0.25, 0.95))
    assert summary_of(*ALL_SHARDS).calibration is None


def calibrate_ensemble(accuracy: Accuracy) -> Calibration:
    calibration = summary_of(*ALL_SHARDS[1:], report(0, 20, accuracy=accuracy)).calibration
    assert calibration is not None
    return calibration.ensemble


def test_bins_of_a_calibration_have_about_as_many_rows_each_and_never_a_few() -> None:
    even = counted_in({place: (4, place / 100, 1) for place in range(100)}, 0, 0.0)
    assert calibrate_ensemble(even).counts == (40,) * 10
    few = counted_in({place: (1, place / 100, 0) for place in range(0, 100, 2)}, 0, 0.0)  # 50 rows, each in its own bin
    assert calibrate_ensemble(few).counts == (25, 25)
    uneven = counted_in({1: (900, 0.01, 9), 50: (50, 0.5, 25), 99: (50, 0.99, 50)}, 0, 0.0)
    assert calibrate_ensemble(uneven).counts == (900, 100)  # the first bin cannot be split


@pytest.mark.parametrize("hits", [0, 1, 5, 10])
def test_bounds_of_a_share_are_wilsons(hits: int) -> None:
    # The bounds are as many standard errors from the share as the quantile: a root, found by bisection.
    def find(low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            off = abs(hits / 10 - middle) - 1.959964 * (middle * (1 - middle) / 10) ** 0.5
            if (off > 0) == (middle < hits / 10):
                low = middle
            else:
                high = middle
        return low

    low, high = bound_share(hits, 10)
    assert low == pytest.approx(find(0.0, hits / 10) if hits else 0.0, abs=1e-6)
    assert high == pytest.approx(find(hits / 10, 1.0) if hits < 10 else 1.0, abs=1e-6)


def test_drift_is_measured_against_the_previous_run_if_its_bins_are_the_same() -> None:
    def counted(x: tuple[int, int], predictions: tuple[int, int], edges: tuple[float, ...] = (1.0,)) -> Summary:
        histograms = Histograms(Histogram((0.5,), predictions), {"x": Histogram(edges, x)})
        return summary_of(report(0, 20, histograms=histograms), *ALL_SHARDS[1:], previous=before)

    before = None
    before = counted((10, 10), (5, 15))
    assert before.drift is None
    assert before.previous_histograms == Histograms()
    now = counted((20, 20), (15, 5))
    assert now.drift is not None
    assert now.drift.features == {"x": pytest.approx(0)}
    # A quarter became three quarters: twice (3/4 - 1/4) ln 3.
    assert now.drift.prediction == pytest.approx(1.0986122886681098)
    assert now.previous_histograms.prediction == Histogram((0.5,), (5, 15))
    other = counted((20, 20), (15, 5), edges=(2.0,))
    assert other.drift is not None
    assert other.drift.features == {"x": None}


def test_rejections_are_listed_by_column_and_reason() -> None:
    first, last = (RowLocation("a.csv", 3), RowLocation("a.csv", 9)), (RowLocation("a.csv", 22),)
    one = {"rejections": {"Age": {"is not a number": Rejection(2, first)}}}
    other = {"rejections": {"Age": {"is not a number": Rejection(1, last)}, "": {"is no row": Rejection(1)}}}
    summary = summary_of(report(0, 20, 2, **one), report(1, 10, 2, **other), report(2, 70))
    assert summary.rejections["Age"]["is not a number"] == Rejection(3, (*first, *last))
    assert summary.rejections[""]["is no row"].rows == 1


def test_the_slowest_shards_come_first_and_the_slowest_member_counts() -> None:
    def slow(number: int, rows: int, seconds: float, *members: float) -> ShardReport:
        both = {id_: MemberStatistics(shards=1, seconds=each) for id_, each in zip("ab", members, strict=False)}
        return report(number, rows, seconds={"normalize_shard": seconds}, members=both)

    summary = summary_of(slow(0, 20, 1.0, 2.0, 3.0), slow(1, 10, 5.0), slow(2, 70, 0.5))
    assert [(one.number, one.file, one.rows, one.seconds) for one in summary.slowest] == [
        (1, "a.csv", 10, 5.0),
        (0, "a.csv", 20, 4.0),
        (2, "b.csv.gz", 70, 0.5),
    ]


def test_the_cost_is_that_of_the_functions() -> None:
    def worked(number: int, rows: int) -> ShardReport:
        members = {id_: MemberStatistics(shards=1, rows=rows, seconds=1.0) for id_ in "abs"}
        return report(number, rows, members=members, seconds={"normalize_shard": 2.0, "aggregate_shard": 1.0})

    cost = summary_of(worked(0, 20), worked(1, 10), worked(2, 70)).cost
    # Three shards: 2 and 1 seconds with 2 GB, three members a second each with 1 GB.
    assert cost.gb_seconds == pytest.approx(3 * (3 * 2 + 3))
    assert cost.requests == 3 * 5
    # The run's 6; a shard has 4, Parallel and its Maps 3, three members, Aggregate and Next tier?.
    assert cost.state_transitions == 6 + 3 * (4 + 3 + 3 + 2)


def test_a_regression_has_neither_agreement_nor_pivotal_members() -> None:
    one = release(REGRESSION, released("a"))
    plan = structs.replace(PLAN, shards=1)
    reports = (report(0, 20, members={"a": MemberStatistics(shards=1, rows=20, total=-40.0)}),)
    run = replace(RUN, plan=plan, shards=SHARDS[:1], release=one)
    summary = summarize(run, ShardOutcomes(reports, {}), None, LOCATIONS)
    assert summary.agreement == ()
    assert (summary.members[0].mean, summary.members[0].pivotal) == (-2.0, None)


def test_the_notes_of_the_plan_are_in_the_summary() -> None:
    notes = ('not used: "z"',)
    assert summary_of(*ALL_SHARDS, plan=structs.replace(PLAN, notes=notes)).notes == notes


def test_the_summary_describes_how_labels_were_read_and_what_is_unusual() -> None:
    plan = structs.replace(PLAN, options=Options(label="y"), label_values="names")
    examples = (RowLocation("a.csv", 4), RowLocation("a.csv", 8))
    ground_truth = LabelCounts(398, Rejection(2, examples), case_mismatches=1, other_reading=1)
    confusion = {"no": {"no": 5, "yes": 190}, "yes": {"no": 195, "yes": 6}}
    summary = summary_of(report(0, 20, ground_truth=ground_truth, confusion=confusion), *ALL_SHARDS[1:], plan=plan)
    assert summary.ground_truth is not None
    notes = list(describe_labels(summary.ground_truth, ("no", "yes")))
    assert [note.text for note in notes] == [
        "2 of 398 labels are not the name of a class: a.csv row 4, a.csv row 8",
        "1 of them differ from a class's name in upper and lower case only",
        "1 of them are indexes; --label-values indexes reads the whole column as indexes",
        # 385 of 396 in the other order, 11 in this one.
        "labels and classes seem to be in different orders: with no as yes, yes as no, 97.2% of the predictions would "
        "be right instead of 2.8%",
    ]
    assert all(note.is_warning for note in notes)
    read = structs.replace(
        summary.ground_truth, label_values="indexes", unrecognized=0, case_mismatches=0, other_reading=0, warning=None
    )
    assert list(describe_labels(read, ("no", "yes"))) == [("labels read as indexes: 0 = no, 1 = yes", False)]
    assert summary_of(*ALL_SHARDS).ground_truth is None


def test_the_previous_distributions_are_those_of_the_features_with_the_largest_drift() -> None:
    features = (
        NumberFeature("x"),
        CategoryFeature("port", ("C", "Q"), unknown="other"),
        BooleanFeature("paid"),
    )
    read = release(BINARY, released("a", "probability"), features=features)
    edges = {"x": (1.0,), "port": (1.0, 2.0), "paid": (1.0,)}
    run = replace(
        RUN, plan=structs.replace(PLAN, edges=BinEdges((0.5,), edges), shards=1), shards=SHARDS[:1], release=read
    )

    def counted(x: tuple[int, int], port: tuple[int, ...], previous: Summary | None) -> Summary:
        bins = {"x": x, "port": port, "paid": (5, 5)}
        features = {name: Histogram(edges[name], counts) for name, counts in bins.items()}
        one = (report(0, 20, histograms=Histograms(Histogram((0.5,), (5, 5)), features)),)
        return summarize(run, ShardOutcomes(one, {}), previous, LOCATIONS)

    before = counted((9, 1), (8, 1, 1), None)
    now = counted((8, 2), (1, 1, 8), before)
    assert (before.previous_histograms, before.bin_names) == (Histograms(), {})
    assert list(now.previous_histograms.features) == ["port", "x", "paid"]
    assert now.previous_histograms.features["port"] == Histogram((1.0, 2.0), (8, 1, 1))
    assert now.bin_names == {"port": ("C", "Q", "other"), "paid": ("false", "true")}
