"""What is said of a run, from what its shards report: every number by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from builders import BINARY, REGRESSION, release, released
from stepensemble.batch.documents import File, Options, RunPlan, Shard, ShardFailure
from stepensemble.batch.report.calibration import bound_share
from stepensemble.batch.report.label_summary import describe_labels
from stepensemble.batch.report.statistics import (
    CALIBRATION_BINS,
    Accuracy,
    Histogram,
    LabelCounts,
    MemberStatistics,
    PairAgreement,
    Rejection,
    ShardReport,
    ShardStatistics,
)
from stepensemble.batch.report.summary import (
    RunAttempt,
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
    edges={"x": (1.0,), "": (0.5,)},
)
TIMES = RunAttempt("second", 2, "2026-03-01T05:01:30Z")
PLACES = RunLocations(
    "s3://data/results/run/", "s3://data/results-rejected/run/", "s3://data/results-reports/run/report.html"
)
MEMORY = {"normalize_shard": 2048, "score": 1024, "aggregate_shard": 2048}


def report(number: int, rows_in: int, wrong: int = 0, **counted: Any) -> ShardReport:
    return ShardReport(number, rows_in, rows_in - wrong, wrong, "COMPLETE", None, ShardStatistics(**counted))


def summary_of(
    *reports: ShardReport, plan: RunPlan = PLAN, failures: Any = None, previous: Summary | None = None
) -> Summary:
    return summarize(plan, SHARDS, TWO, ShardOutcomes(reports, failures or {}), TIMES, MEMORY, previous, PLACES)


WHOLE = (report(0, 20), report(1, 10), report(2, 70))


def test_rows_add_up() -> None:
    summary = summary_of(report(0, 20, 3), report(1, 10), report(2, 70, 1))
    assert (summary.status, summary.cause, summary.failed_shards) == ("SUCCEEDED", None, 0)
    assert (summary.rows, summary.rows_in, summary.rows_out, summary.rows_rejected) == (100, 100, 96, 4)
    assert (summary.results, summary.rejected) == (PLACES.results, PLACES.rejected)
    assert (summary.attempt, summary.seconds, summary.files, summary.shards) == (2, 90.0, 2, 3)
    assert summary_of(*WHOLE).rejected is None


def test_rows_that_were_planned_and_not_read_fail_the_run() -> None:
    summary = summary_of(report(0, 19), report(1, 10), report(2, 70))
    assert summary.status == "FAILED"
    assert summary.results is None
    assert summary.cause == "shard 0 of a.csv: 20 rows were planned and 19 were read"


def test_rows_that_are_neither_answered_nor_rejected_fail_the_run() -> None:
    lost = structs.replace(report(1, 10), rows_out=8)
    assert summary_of(report(0, 20), lost, report(2, 70)).cause == (
        "shard 1 of a.csv: of 10 rows 8 were answered and 0 rejected"
    )


def test_shards_that_are_not_accounted_for_fail_the_run() -> None:
    assert (
        explain_run_failure(PLAN, SHARDS, ShardOutcomes(WHOLE[:2], {}))
        == "3 shards were planned, and 2 are accounted for"
    )


def test_so_many_shards_may_fail_as_the_options_say() -> None:
    failures = {1: ShardFailure("QuorumNotMet", "0 of 2 voters answered; 1 must")}
    summary = summary_of(report(0, 20), report(2, 70), failures=failures)
    assert summary.status == "FAILED"
    assert summary.cause == (
        "1 of 3 shards failed, where max_failed_shards is 0; start the run again to do these alone. Shard 1 of a.csv, "
        "from row 21 on: QuorumNotMet: 0 of 2 voters answered; 1 must"
    )
    tolerant = structs.replace(PLAN, options=Options(max_failed_shards=1))
    summary = summary_of(report(0, 20), report(2, 70), plan=tolerant, failures=failures)
    assert summary.status == "SUCCEEDED"
    assert (summary.rows, summary.rows_in, summary.rows_failed, summary.failed_shards) == (100, 90, 10, 1)
    assert [(one.number, one.file, one.error) for one in summary.failures] == [(1, "a.csv", "QuorumNotMet")]


@pytest.mark.parametrize(("rejected", "status"), [(5, "SUCCEEDED"), (6, "FAILED")])
def test_such_a_share_of_rows_may_be_rejected_as_the_options_say(rejected: int, status: str) -> None:
    plan = structs.replace(PLAN, options=Options(max_rejected=0.05))
    summary = summary_of(report(0, 20), report(1, 10), report(2, 70, rejected), plan=plan)
    assert summary.status == status
    if status == "FAILED":
        assert summary.cause is not None
        assert summary.cause.startswith("6 of 100 rows were rejected (6.0%), where max_rejected is 5.0%")


def test_an_empty_dataset_is_a_run_of_zero_rows() -> None:
    empty = structs.replace(PLAN, files=(), shards=0)
    summary = summarize(empty, (), TWO, ShardOutcomes((), {}), TIMES, MEMORY, None, PLACES)
    assert (summary.status, summary.rows, summary.rows_out) == ("SUCCEEDED", 0, 0)
    assert [(member.rows, member.mean, member.pivotal) for member in summary.members] == [(0, None, None)] * 3


def test_members_and_agreement_are_shares_of_what_was_answered() -> None:
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


def counted_in(bins: dict[int, tuple[int, float, int]], right: int, error: float) -> Accuracy:
    """Return what rows add up to, by bins of a hundredth: rows, what was said of each, how often it was so."""
    counts, said, true = [0] * CALIBRATION_BINS, [0.0] * CALIBRATION_BINS, [0] * CALIBRATION_BINS
    for place, (rows, each, hits) in bins.items():
        counts[place], said[place], true[place] = rows, rows * each, hits
    rows = sum(counts)
    return Accuracy(rows, right, rows, error, tuple(counts), tuple(said), tuple(true))


def test_calibration_is_against_the_labels_that_are_known() -> None:
    # 40 rows said 0.25, a quarter of them was so; 60 said 0.95, half of them were so.
    accuracy = counted_in({25: (40, 0.25, 10), 95: (60, 0.95, 30)}, right=60, error=30.0)
    summary = summary_of(
        *WHOLE[1:], report(0, 20, accuracy=accuracy, members={"a": MemberStatistics(accuracy=accuracy)})
    )
    member_, ensemble = summary.calibration
    assert (member_.name, ensemble.name) == ("a", "")
    assert (ensemble.rows, ensemble.right, ensemble.error) == (100, 0.6, 0.3)
    assert ensemble.expected == pytest.approx(60 / 100 * (0.95 - 0.5))
    assert (ensemble.counts, ensemble.true) == ((40, 60), (0.25, 0.5))
    assert ensemble.said == pytest.approx((0.25, 0.95))
    assert summary_of(*WHOLE).calibration == ()


def test_bins_of_a_calibration_have_about_as_many_rows_each_and_never_a_few() -> None:
    even = counted_in({place: (4, place / 100, 1) for place in range(100)}, 0, 0.0)
    (calibration,) = summary_of(*WHOLE[1:], report(0, 20, accuracy=even)).calibration
    assert calibration.counts == (40,) * 10
    few = counted_in({place: (1, place / 100, 0) for place in range(0, 100, 2)}, 0, 0.0)  # 50 rows, each alone
    (calibration,) = summary_of(*WHOLE[1:], report(0, 20, accuracy=few)).calibration
    assert calibration.counts == (25, 25)
    uneven = counted_in({1: (900, 0.01, 9), 50: (50, 0.5, 25), 99: (50, 0.99, 50)}, 0, 0.0)
    (calibration,) = summary_of(*WHOLE[1:], report(0, 20, accuracy=uneven)).calibration
    assert calibration.counts == (900, 100)  # the first cannot be cut


@pytest.mark.parametrize("hits", [0, 1, 5, 10])
def test_bounds_of_a_share_are_wilsons(hits: int) -> None:
    # Its bounds are where the share lies as many standard errors off as the quantile says: a root, found by halving.
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


def test_drift_is_measured_against_the_run_before_where_its_bins_are_the_same() -> None:
    def counted(x: tuple[int, int], answers: tuple[int, int], edges: tuple[float, ...] = (1.0,)) -> Summary:
        histograms = {"x": Histogram(edges, x), "": Histogram((0.5,), answers)}
        return summary_of(report(0, 20, histograms=histograms), *WHOLE[1:], previous=before)

    before = None
    before = counted((10, 10), (5, 15))
    assert before.drift == ()
    assert before.before is None
    now = counted((20, 20), (15, 5))
    x, prediction = now.drift
    assert (x.name, x.index) == ("x", pytest.approx(0))
    # A quarter became three quarters: twice (3/4 - 1/4) ln 3.
    assert (prediction.name, prediction.index) == ("", pytest.approx(1.0986122886681098))
    assert now.before == Histogram((0.5,), (5, 15))
    other = counted((20, 20), (15, 5), edges=(2.0,))
    assert other.drift[0].index is None


def test_what_was_rejected_is_listed_by_column_and_reason() -> None:
    one = {"rejected": {"Age": {"is not a number": Rejection(2, (("a.csv", 3), ("a.csv", 9)))}}}
    other = {"rejected": {"Age": {"is not a number": Rejection(1, (("a.csv", 22),))}, "": {"is no row": Rejection(1)}}}
    summary = summary_of(report(0, 20, 2, **one), report(1, 10, 2, **other), report(2, 70))
    assert summary.rejections["Age"]["is not a number"].rows == 3
    assert summary.rejections[""]["is no row"].rows == 1


def test_the_slowest_shards_come_first_and_members_count_as_the_slowest_of_them() -> None:
    def slow(number: int, rows: int, seconds: float, *members: float) -> ShardReport:
        said = {id_: MemberStatistics(shards=1, seconds=each) for id_, each in zip("ab", members, strict=False)}
        return report(number, rows, seconds={"normalize_shard": seconds}, members=said)

    summary = summary_of(slow(0, 20, 1.0, 2.0, 3.0), slow(1, 10, 5.0), slow(2, 70, 0.5))
    assert [(one.number, one.file, one.rows, one.seconds) for one in summary.slowest] == [
        (1, "a.csv", 10, 5.0),
        (0, "a.csv", 20, 4.0),
        (2, "b.csv.gz", 70, 0.5),
    ]


def test_the_cost_is_what_the_functions_took() -> None:
    def worked(number: int, rows: int) -> ShardReport:
        members = {id_: MemberStatistics(shards=1, rows=rows, seconds=1.0) for id_ in "abs"}
        return report(number, rows, members=members, seconds={"normalize_shard": 2.0, "aggregate_shard": 1.0})

    cost = summary_of(worked(0, 20), worked(1, 10), worked(2, 70)).cost
    # Three shards: 2 and 1 seconds with 2 GB, three members a second each with 1 GB.
    assert cost.gb_seconds == pytest.approx(3 * (3 * 2 + 3))
    assert cost.requests == 3 * 5
    # The frame's 6; a shard has 4, Parallel and its Maps 3, three members, Aggregate and Answered?.
    assert cost.state_transitions == 6 + 3 * (4 + 3 + 3 + 2)


def test_a_regression_has_neither_agreement_nor_tipping_members() -> None:
    one = release(REGRESSION, released("a"))
    plan = structs.replace(PLAN, shards=1)
    reports = (report(0, 20, members={"a": MemberStatistics(shards=1, rows=20, total=-40.0)}),)
    summary = summarize(plan, SHARDS[:1], one, ShardOutcomes(reports, {}), TIMES, MEMORY, None, PLACES)
    assert summary.agreement == ()
    assert (summary.members[0].mean, summary.members[0].pivotal) == (-2.0, None)


def test_what_was_noted_when_it_was_planned_is_said() -> None:
    notes = ('not used: "z"',)
    assert summary_of(*WHOLE, plan=structs.replace(PLAN, notes=notes)).notes == notes


def test_how_labels_were_read_is_said_and_what_is_wrong_with_them() -> None:
    plan = structs.replace(PLAN, options=Options(label="y"), label_values="names")
    truth = LabelCounts(398, Rejection(2, (("a.csv", 4), ("a.csv", 8))), capitals=1, other=1)
    confusion = {"no": {"no": 5, "yes": 190}, "yes": {"no": 195, "yes": 6}}
    summary = summary_of(report(0, 20, truth=truth, confusion=confusion), *WHOLE[1:], plan=plan)
    assert summary.truth is not None
    lines = list(describe_labels(summary.truth, ("no", "yes")))
    assert [line for line, _ in lines] == [
        "2 of 398 labels not understood, since not a class's name: a.csv row 4, a.csv row 8",
        "1 of them differ from a class's name in capitals alone",
        "1 of them are indexes; --label-values indexes reads the whole column so",
        # 385 of 396 the other way round, 11 as it is.
        "labels and classes seem to be in different orders: with no as yes, yes as no 97.2% would be right instead of "
        "2.8%",
    ]
    assert all(serious for _, serious in lines)
    read = structs.replace(summary.truth, values="indexes", unknown=0, capitals=0, other=0, doubt=None)
    assert list(describe_labels(read, ("no", "yes"))) == [("labels read as indexes: 0 = no, 1 = yes", False)]
    assert summary_of(*WHOLE).truth is None


def test_the_run_before_is_kept_of_the_features_that_have_shifted_most() -> None:
    features = (
        NumberFeature("x"),
        CategoryFeature("port", ("C", "Q"), unknown="other"),
        BooleanFeature("paid"),
    )
    read = release(BINARY, released("a", "probability"), features=features)
    edges = {"x": (1.0,), "port": (1.0, 2.0), "paid": (1.0,), "": (0.5,)}
    plan = structs.replace(PLAN, edges=edges, shards=1)

    def counted(x: tuple[int, int], port: tuple[int, ...], previous: Summary | None) -> Summary:
        bins = {"x": x, "port": port, "paid": (5, 5), "": (5, 5)}
        histograms = {name: Histogram(edges[name], counts) for name, counts in bins.items()}
        one = (report(0, 20, histograms=histograms),)
        return summarize(plan, SHARDS[:1], read, ShardOutcomes(one, {}), TIMES, MEMORY, previous, PLACES)

    before = counted((9, 1), (8, 1, 1), None)
    now = counted((8, 2), (1, 1, 8), before)
    assert (before.shifted, before.bins) == ({}, {})
    assert list(now.shifted) == ["port", "x", "paid"]
    assert now.shifted["port"] == Histogram((1.0, 2.0), (8, 1, 1))
    assert now.bins == {"port": ("C", "Q", "other"), "paid": ("false", "true")}
