"""Documents of schema version 1, written by the last release that had it, are read as documents of this version.

The files in `version-1` were written by that release from the numbers below; `test_summary` has the same run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepensemble.batch.documents import SCHEMA_VERSION, BinEdges
from stepensemble.batch.report.calibration import Calibration, CalibrationSummary
from stepensemble.batch.report.label_summary import LabelSummary
from stepensemble.batch.report.sampling import Sample, SampledRow
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
    ShardRead,
    ShardReport,
    ShardStatistics,
)
from stepensemble.batch.report.summary import Drift, SampledPrediction
from stepensemble.batch.stored_documents import decode_plan, decode_shard_read, decode_shard_report, decode_summary

FOLDER = Path(__file__).parent / "version-1"
REJECTIONS = {
    "x": {"is not a number": Rejection(2, (RowLocation("a.csv", 3), RowLocation("a.csv", 9)))},
    "": {"is no row": Rejection(2)},
}
EXAMPLES = (RowLocation("a.csv", 4), RowLocation("a.csv", 8))
CONFUSION = {"no": {"no": 30, "yes": 30}, "yes": {"no": 10, "yes": 30}}


def in_bins(**values: Any) -> tuple[Any, ...]:
    """Return values by bins of a hundredth, of which two are not empty."""
    empty = type(values["low"])()
    return tuple({25: values["low"], 75: values["high"]}.get(place, empty) for place in range(CALIBRATION_BINS))


ACCURACY = Accuracy(
    100, 60, 100, 25.0, in_bins(low=40, high=60), in_bins(low=10.0, high=45.0), in_bins(low=10, high=30)
)
STATISTICS = ShardStatistics(
    statuses={"COMPLETE": 90, "DEGRADED": 6},
    decisions={"accept": 95, "review": 1},
    labels={"no": 40, "yes": 56},
    tiers={"1": 96},
    members={
        "a": MemberStatistics(
            shards=1,
            rows=96,
            seconds=0.5,
            cold=1,
            total=48.0,
            squares=24.0,
            pivotal=3,
            accuracy=ACCURACY,
            unusable=2,
        ),
        "b": MemberStatistics(shards=1, failures={"ModelRefused": 1}),
    },
    agreement={"a": {"s": PairAgreement(20, 15)}},
    histograms=Histograms(Histogram((0.5,), (48, 48)), {"x": Histogram((1.0,), (48, 48), 4)}),
    accuracy=ACCURACY,
    confusion=CONFUSION,
    ground_truth=LabelCounts(99, Rejection(2, EXAMPLES), case_mismatches=1, other_reading=1),
    sample=Sample((SampledRow(5, 0.25, 1.0), SampledRow(7, 0.5, None))),
    rejections=REJECTIONS,
    seconds={"normalize_shard": 2.0, "aggregate_shard": 1.0},
    bytes={"read": 50, "columns": 20, "part": 10},
)


def test_a_plan() -> None:
    body = (FOLDER / "plan.json").read_bytes()
    plan = decode_plan(body)
    assert plan.edges == BinEdges((0.5,), {"x": (1.0,)})
    assert plan.previous_summary == "results-reports/ensemble=halves/dt=2026-02-28/run=0/summary.json"
    assert (plan.run, plan.label_values, plan.notes) == ("0123456789abcdef", "names", ('not used: "z"',))
    assert_all_keys_are_read(body, plan)


def test_a_shard_report() -> None:
    body = (FOLDER / "shard_report.json").read_bytes()
    report = decode_shard_report(body)
    assert report == ShardReport(0, 20, 16, 4, "DEGRADED", None, STATISTICS)
    assert decode_shard_read(body) == ShardRead(20, 4, STATISTICS)


def test_a_summary() -> None:
    summary = decode_summary((FOLDER / "summary.json").read_bytes())
    calibration = Calibration(
        rows=100,
        accuracy=0.6,
        brier_score=0.25,
        calibration_error=0.15,
        counts=(40, 60),
        mean_predicted=(0.25, 0.75),
        observed=(0.25, 0.5),
    )
    assert summary.calibration == CalibrationSummary(calibration, {"a": calibration, "b": Calibration(0)})
    assert summary.histograms == STATISTICS.histograms
    # x: 64 and 32 of 100 rows became 48 and 48: 0.16 ln(64/48) + 0.16 ln(48/32). The prediction: a third and two thirds
    # became halves: ln(3/2) / 6 + ln(4/3) / 6.
    assert summary.drift is not None
    assert summary.drift.prediction == pytest.approx(0.1155, abs=1e-4)
    assert summary.drift == Drift(summary.drift.prediction, {"x": pytest.approx(0.1109, abs=1e-4)})
    assert summary.previous_summary == "results-reports/ensemble=halves/dt=2026-02-28/run=0/summary.json"
    assert summary.previous_histograms == Histograms(Histogram((0.5,), (32, 64)), {"x": Histogram((1.0,), (64, 32), 4)})
    assert summary.rejections == REJECTIONS
    assert summary.ground_truth == LabelSummary(
        "y", "names", 99, 2, EXAMPLES, case_mismatches=1, other_reading=1, confusion=CONFUSION
    )
    assert summary.sample == (SampledPrediction(0.25, 1.0), SampledPrediction(0.5, None))
    assert summary.previous_sample == (0.25, 0.5)
    assert [(one.function, one.memory_mb, one.requests) for one in summary.cost.functions] == [
        ("normalize_shard", 2048, 2),
        ("aggregate_shard", 2048, 1),
        ("score", 1024, 2),
    ]
    assert (summary.rows, summary.rows_out, summary.status) == (100, 86, "SUCCEEDED")


def test_a_regressions_error_is_the_mean_absolute_error() -> None:
    old = msgspec.json.decode((FOLDER / "summary.json").read_bytes())
    old["task"] = "regression"
    old["calibration"] = [{"name": "", "rows": 9, "right": None, "error": 0.5}]
    summary = decode_summary(msgspec.json.encode(old))
    assert summary.calibration == CalibrationSummary(Calibration(9, mean_absolute_error=0.5))


def test_a_summary_without_labels_and_without_an_earlier_run() -> None:
    old = msgspec.json.decode((FOLDER / "summary.json").read_bytes())
    old |= {"calibration": [], "drift": [], "previous": None, "before": None, "truth": None}
    for key in ("shifted", "bins", "sample", "sample_before"):  # which the first summaries did not have
        del old[key]
    summary = decode_summary(msgspec.json.encode(old))
    assert (summary.calibration, summary.drift, summary.ground_truth) == (None, None, None)
    assert (summary.previous_histograms, summary.sample) == (Histograms(), ())


@pytest.mark.parametrize("decode", [decode_plan, decode_shard_report, decode_shard_read, decode_summary])
@pytest.mark.parametrize("body", [b"{}", b"[]", b"no JSON", b'{"schema_version": 2}'])
def test_other_documents_are_refused(decode: Any, body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(body)


@pytest.mark.parametrize(
    ("name", "decode"), [("plan", decode_plan), ("shard_report", decode_shard_report), ("summary", decode_summary)]
)
def test_a_document_that_is_stored_again_has_this_version(name: str, decode: Any) -> None:
    document = decode((FOLDER / f"{name}.json").read_bytes())
    stored = msgspec.json.encode(document)
    assert msgspec.json.decode(stored)["schema_version"] == SCHEMA_VERSION == 2
    assert decode(stored) == document


def assert_all_keys_are_read(body: bytes, document: Any) -> None:
    """Assert that every key of version 1 is in the document, or was renamed."""
    renamed = {"previous"}
    assert msgspec.json.decode(body).keys() - renamed <= msgspec.to_builtins(document).keys()
