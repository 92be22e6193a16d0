"""A run's report in a real browser: what is drawn, where, in which colours, and that nothing is requested or run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from msgspec import structs

from browser import BROWSER, Seen, show_page
from stepensemble.batch.documents import Options
from stepensemble.batch.report.calibration import Calibration, CalibrationSummary
from stepensemble.batch.report.charts import choose_bounds
from stepensemble.batch.report.cost import Cost, FunctionUse
from stepensemble.batch.report.html import count_by_bounds, draw_report, name_shift
from stepensemble.batch.report.label_summary import LabelSummary
from stepensemble.batch.report.statistics import Histogram, Histograms, Rejection, RowLocation
from stepensemble.batch.report.summary import Drift, FailedShard, MemberSummary, SampledPrediction, SlowShard, Summary

needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; make browser installs it")

NAMES = ("linear", "wide", "deep", "wide_and_deep")
AGREEMENT = ((1.0, 0.91, 0.83, 0.72), (0.91, 1.0, 0.85, None), (0.83, 0.85, 1.0, 0.95), (0.72, None, 0.95, 1.0))
LOWEST = 0.7  # the scale begins at the tenth below the least agreement
SHARED = Histogram((1.0,), (500, 500))
COUNTS, BEFORE = (400, 300, 200, 100, 0), (250, 250, 200, 200, 100)
PREDICTED = (0.1, 0.3, 0.5, 0.7, 0.9)
OBSERVED = {
    "linear": (0.3, 0.4, 0.5, 0.6, 0.7),
    "wide": (0.0, 0.1, 0.5, 0.9, 1.0),
    "deep": (0.2, 0.2, 0.4, 0.5, 0.8),
    "wide_and_deep": (0.15, 0.45, 0.65, 0.8, 0.95),
    "ensemble": (0.05, 0.25, 0.55, 0.75, 0.85),
}
OKABE_ITO = {"orange": (230, 159, 0), "sky": (86, 180, 233), "green": (0, 158, 115), "purple": (204, 121, 167)}
BLUE, INK = (0, 114, 178), (34, 34, 34)
EVIL = (
    '<script>window.ran = "text"</script><img src="http://example.test/x.png" onerror="window.ran = 1">$\\frac{&"\x08'
)

CALIBRATIONS = {
    name: Calibration(
        rows=1_000,
        accuracy=0.81,
        brier_score=0.19,
        calibration_error=0.05,
        counts=(200,) * 5,
        mean_predicted=PREDICTED,
        observed=observed,
    )
    for name, observed in OBSERVED.items()
}
SUMMARY = Summary(
    run="3f0c9a1b2c3d4e5f",
    status="SUCCEEDED",
    cause=None,
    ensemble="titanic",
    release="bde4a308dabb",
    task="binary",
    classes=("died", "survived"),
    dataset="s3://data/datasets/dt=2026-11-21/",
    date="2026-11-21",
    attempt=1,
    execution="arn:aws:states:eu-central-1:123456789012:execution:batch:one",
    started_at="2026-11-21T04:00:00Z",
    finished_at="2026-11-21T04:00:12Z",
    seconds=12.5,
    options=Options(),
    files=1,
    shards=7,
    failed_shards=0,
    rows=1_025,
    rows_in=1_025,
    rows_out=1_000,
    rows_rejected=25,
    rows_failed=0,
    statuses={"COMPLETE": 900, "DEGRADED": 100},
    decisions={"accept": 960, "review": 40},
    labels={"died": 700, "survived": 300},
    tiers={"1": 1_000},
    rejections={
        "": {"has 6 fields, the header has 5": Rejection(5, (RowLocation("part-0.csv", 17),))},
        "Age": {"is not a number": Rejection(20, (RowLocation("part-0.csv", 3), RowLocation("part-0.csv", 1_204)))},
    },
    members=tuple(MemberSummary(name, "1", "voter", 7, {}, 1_000, 2.5, 0.38, 0.02) for name in NAMES),
    agreement=AGREEMENT,
    calibration=CalibrationSummary(CALIBRATIONS["ensemble"], {name: CALIBRATIONS[name] for name in NAMES}),
    histograms=Histograms(
        Histogram((0.2, 0.4, 0.6, 0.8), COUNTS),
        {
            "Age": Histogram((18.0, 40.0), (200, 500, 250), 50),
            "Fare": Histogram((10.0,), (900, 100)),
            "Sex": Histogram((1.0,), (400, 600)),
        },
    ),
    drift=Drift(0.12, {"Age": 0.03, "Fare": 0.31, "Sex": None}),
    previous_summary="results-reports/ensemble=titanic/dt=2026-11-20/run=0/summary.json",
    slowest=(SlowShard(3, "part-0.csv", 150, 4.25),),
    failures=(),
    seconds_by_function={},
    bytes={},
    cost=Cost((FunctionUse("normalize-shard", 2_048, 7, 617.0),), 1_234.0, 7, 77, 0.0225),
    results="s3://data/results/",
    rejected="s3://data/results-rejected/",
    report="s3://data/results-reports/report.html",
    ground_truth=LabelSummary(
        "Survived", "indexes", 1_000, 2, (RowLocation("part-0.csv", 4), RowLocation("part-0.csv", 9))
    ),
    previous_histograms=Histograms(
        Histogram((0.2, 0.4, 0.6, 0.8), BEFORE),
        {"Fare": Histogram((10.0,), (500, 500)), "Age": Histogram((18.0, 40.0), (250, 500, 250)), "Sex": SHARED},
    ),
    bin_names={"Sex": ("female", "male")},
)
EMPTY = structs.replace(
    SUMMARY,
    rows_in=0,
    rows_out=0,
    rows_rejected=0,
    shards=0,
    seconds=0.0,
    statuses={},
    decisions={},
    labels={},
    rejections={},
    members=(),
    agreement=(),
    calibration=None,
    histograms=Histograms(),
    drift=None,
    previous_summary=None,
    ground_truth=None,
    previous_histograms=Histograms(),
    slowest=(),
    cost=Cost((), 0.0, 0, 11, 0.0),
)
CLASSES = structs.replace(
    SUMMARY,
    task="multiclass",
    classes=("setosa", "versicolor", "virginica"),
    labels={"setosa": 500, "virginica": 500},
    members=tuple(structs.replace(member, mean=None) for member in SUMMARY.members),
    previous_histograms=Histograms(),
    histograms=Histograms(Histogram((1.0, 2.0), (500, 0, 500))),  # of the class's index; bars by class show the same
)
SAMPLE = tuple(SampledPrediction(float(value), value + 3.0 if value % 2 else None) for value in range(0, 1_000, 3))
ABSOLUTE_ERROR = Calibration(1_000, mean_absolute_error=1234.5)
NUMBERS = structs.replace(
    SUMMARY,
    task="regression",
    classes=(),
    labels={},
    histograms=Histograms(Histogram((-1e9, -1e6, 0.0, 10.0, 1e6, 1e9), (0, 10, 500, 400, 90, 0, 0))),
    agreement=(),
    members=tuple(structs.replace(member, pivotal=None) for member in SUMMARY.members),
    calibration=CalibrationSummary(ABSOLUTE_ERROR, dict.fromkeys(NAMES, ABSOLUTE_ERROR)),
    ground_truth=LabelSummary("y", None, 1_000, 0),
    previous_histograms=Histograms(),
    sample=SAMPLE,
    previous_sample=tuple(row.predicted + 100.0 for row in SAMPLE),
)
ALONE = structs.replace(
    SUMMARY,
    members=SUMMARY.members[:1],
    agreement=((1.0,),),
    calibration=CalibrationSummary(CALIBRATIONS["ensemble"], {NAMES[0]: CALIBRATIONS[NAMES[0]]}),
)
FAILED = structs.replace(
    SUMMARY,
    status="FAILED",
    cause="QuorumNotMet: 2 of 7 shards failed; max_failed_shards is 0",
    failed_shards=2,
    rows_failed=300,
    failures=(
        FailedShard(1, "a.csv.gz", 1, None, "QuorumNotMet", "no voter"),
        FailedShard(2, "b.csv", 1, 300, "A", "b"),
    ),
)
HOSTILE = structs.replace(
    SUMMARY,
    **dict.fromkeys(
        ("ensemble", "date", "run", "release", "dataset", "cause", "previous_summary", "finished_at"), EVIL
    ),
    classes=(EVIL, EVIL + "b"),
    labels={EVIL: 1, EVIL + "b": 2},
    members=tuple(
        structs.replace(member, id=f"{number}{EVIL}", version=EVIL, failures={EVIL: 1})
        for number, member in enumerate(SUMMARY.members)
    ),
    calibration=CalibrationSummary(CALIBRATIONS["ensemble"], {f"{name}{EVIL}": CALIBRATIONS[name] for name in NAMES}),
    ground_truth=LabelSummary(EVIL, "indexes", 9, 1, (RowLocation(EVIL, 1),), warning=EVIL),
    histograms=Histograms(SUMMARY.histograms.prediction, {EVIL: SHARED}),
    previous_histograms=Histograms(features={EVIL: SHARED}),
    bin_names={EVIL: (EVIL, EVIL)},
    drift=Drift(None, {EVIL: 0.2}),
    rejections={EVIL: {EVIL: Rejection(1, (RowLocation(EVIL, 1),))}},
    slowest=(SlowShard(0, EVIL, 1, 1.0),),
    failures=(FailedShard(0, EVIL, 1, 1, EVIL, EVIL),),
    cost=Cost((FunctionUse(EVIL, 1, 1, 1.0),), 1.0, 1, 1, 1.0),
)
MANY = 31
KINDS = {
    "binary": SUMMARY,
    "empty": EMPTY,
    "multiclass": CLASSES,
    "regression": NUMBERS,
    "one member": ALONE,
    "failed": FAILED,
    "hostile": HOSTILE,
    "many members": structs.replace(
        SUMMARY,
        members=tuple(
            structs.replace(SUMMARY.members[0], id=f"member-{number}-of-a-long-name") for number in range(MANY)
        ),
        agreement=((0.5,) * MANY,) * MANY,
    ),
    "votes": structs.replace(
        SUMMARY, histograms=Histograms(Histogram((0.5,), (700, 300))), previous_histograms=Histograms()
    ),
    "nothing in common": structs.replace(
        SUMMARY,
        agreement=((None,) * 4,) * 4,
        rows_out=0,
        labels={},
        histograms=Histograms(),
        previous_histograms=Histograms(),
    ),
}


@cache
def draw_once(kind: str) -> str:
    """Return the report of a kind of run, drawn once for all tests."""
    return draw_report(KINDS[kind])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return show_page(draw_once("binary"), tmp_path_factory.mktemp("light"))


@needs_browser
def test_cells_of_the_matrix_form_a_grid_and_have_the_colours_of_their_numbers(seen: Seen) -> None:
    scale = mpl.colormaps["YlGnBu"]
    boxes = {(row, column): seen.box(f"agreement-cell-{row}-{column}") for row, column in product(range(4), repeat=2)}
    side = boxes[0, 0][2] - boxes[0, 0][0]
    assert side > 30
    for (row, column), (left, top, right, bottom) in boxes.items():
        assert left == pytest.approx(boxes[0, 0][0] + column * side, abs=0.1)
        assert top == pytest.approx(boxes[0, 0][1] + row * side, abs=0.1)
        assert (right - left, bottom - top) == pytest.approx((side, side), abs=0.1)
        share = AGREEMENT[row][column]
        expected = (187, 187, 187) if share is None else np.multiply(scale((share - LOWEST) / (1 - LOWEST))[:3], 255)
        for x, y in product((0.15, 0.85), repeat=2):  # the corners, where no number is written
            assert seen.colour(left + x * side, top + y * side) == pytest.approx(tuple(expected), abs=1.5)


@needs_browser
def test_numbers_are_inside_their_cells_with_enough_contrast(seen: Seen) -> None:
    written = {text: box for text, *box in seen.measured["texts"]}
    for row, column in product(range(4), repeat=2):
        share = AGREEMENT[row][column]
        left, top, right, bottom = seen.box(f"agreement-cell-{row}-{column}")
        inside = [
            text
            for text, *box in seen.measured["texts"]
            if left < box[0] and box[2] < right and top < box[1] and box[3] < bottom
        ]
        assert inside == ["–" if share is None else f"{share:.2f}"]
        # WCAG requires a contrast of 4.5 for small text; the darkest and the lightest pixel are ink and cell.
        cell = seen.pixels[int(top) + 2 : int(bottom) - 1, int(left) + 2 : int(right) - 1].reshape(-1, 3) / 255
        linear = np.where(cell <= 0.04045, cell / 12.92, ((cell + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        assert (linear.max() + 0.05) / (linear.min() + 0.05) > 4.5
    assert written["linear"]


@needs_browser
def test_curves_pass_through_mean_predicted_and_observed(seen: Seen) -> None:
    curves = {f"calibration-curve-{number}": OBSERVED[name] for number, name in enumerate(NAMES)}
    curves["calibration-curve-ensemble"] = OBSERVED["ensemble"]
    assert seen.measured["marks"].keys() == curves.keys()
    colours = dict(zip(curves, (*OKABE_ITO.values(), INK), strict=True))
    points, places = [], []
    for name, true in curves.items():
        marks = np.array(seen.measured["marks"][name])
        centres = (marks[:, :2] + marks[:, 2:]) / 2
        points += list(zip(PREDICTED, true, strict=True))
        places += centres.tolist()
        assert seen.colour(*centres[-2]) == pytest.approx(colours[name], abs=2)
    predicted, observed = np.array(points).T
    across, down = np.array(places).T
    right, left = np.polyfit(predicted, across, 1)
    up, bottom = np.polyfit(observed, down, 1)
    assert right == pytest.approx(-up, rel=0.005)  # one unit is as long upwards as to the right
    assert right > 200
    np.testing.assert_allclose(across, left + right * predicted, atol=0.2)
    np.testing.assert_allclose(down, bottom + up * observed, atol=0.2)


@needs_browser
def test_bars_are_as_tall_as_their_counts_and_the_previous_run_is_outlined(seen: Seen) -> None:
    boxes = [seen.box(f"values-bar-{number}") for number in range(5)]
    heights = [bottom - top for _, top, _, bottom in boxes]
    np.testing.assert_allclose(np.divide(heights, heights[0]), np.divide(COUNTS, COUNTS[0]), atol=0.002)
    for (left, top, right, bottom), height in zip(boxes, heights, strict=True):
        if height:
            assert seen.colour((left + right) / 2, bottom - 3) == BLUE
            assert seen.colour((left + right) / 2, top - 6) != BLUE
    outline = seen.box("values-previous")
    assert outline[3] - outline[1] == pytest.approx(heights[0] * 250 / 400, abs=3)


@needs_browser
def test_a_regressions_bars_are_equally_wide_and_its_points_are_at_their_coordinates(tmp_path: Path) -> None:
    shown = show_page(draw_once("regression"), tmp_path, screenshot=False)
    bounds = choose_bounds(np.array([row.predicted for row in SAMPLE]), np.array(NUMBERS.previous_sample))
    assert np.ptp(np.diff(bounds)) == pytest.approx(0)
    counts, _ = np.histogram([row.predicted for row in SAMPLE], bounds)
    boxes = [shown.box(f"values-bar-{number}") for number in range(len(counts))]
    np.testing.assert_allclose([right - left for left, _, right, _ in boxes], boxes[0][2] - boxes[0][0], rtol=0.001)
    heights = np.array([bottom - top for _, top, _, bottom in boxes])
    np.testing.assert_allclose(heights / heights.max(), counts / counts.max(), atol=0.002)
    left, top, right, bottom = shown.box("scatter-points")
    assert right - left == pytest.approx(bottom - top, rel=0.01)  # the actual is the predicted and 3: a line


@needs_browser
def test_the_rows_of_a_calibrations_bins_stand_below_their_points(seen: Seen) -> None:
    marks = np.array(seen.measured["marks"]["calibration-curve-ensemble"])
    for place, (left, _, right, _) in enumerate(marks):
        for name in ("rows", "bounds"):
            box = seen.box(f"calibration-{name}-{place}")
            assert (box[0] + box[2]) / 2 == pytest.approx((left + right) / 2, abs=0.5)


@needs_browser
def test_features_with_drift_are_drawn_beside_the_previous_run(seen: Seen) -> None:
    fare = [seen.box(f"shifts-0-bar-{number}") for number in range(2)]
    heights = [bottom - top for _, top, _, bottom in fare]
    assert heights[1] / heights[0] == pytest.approx(1 / 9, abs=0.01)
    written = [text for text, *_ in seen.measured["texts"]]
    assert {"female", "male", "missing"} <= set(written)
    assert "shifts-1-bar-3" in seen.measured["boxes"]  # what is missing is a bin


@needs_browser
def test_every_element_is_visible_and_inside_the_page(seen: Seen) -> None:
    for text, left, top, right, bottom in seen.measured["texts"]:
        assert not text or (right > left and bottom > top), text
        assert left >= 0, text
        assert right <= 1000, text
    for words in (
        "titanic 2026-11-21 succeeded", "1,025", "97.6%", "82 rows/s", "Fare", "0.310", "large", "the prediction",
        "moderate", "Age is not a number part-0.csv 3, part-0.csv 1,204 20",
        "1,234.0", "about $0.022", "81.0%", "10.0%", "pivotal",
        "the ensemble 1,000 81.0% 0.050 0.190",
        "Least: linear and wide_and_deep, 72.0%. Most: deep and wide_and_deep, 95.0%.",
    ):  # fmt: skip
        assert words in re.sub(r"\s+", " ", seen.measured["seen"])


@needs_browser
@pytest.mark.parametrize("kind", ["binary", "empty", "regression", "many members", "hostile"])
def test_a_page_makes_no_request_and_fits_a_small_window(kind: str, tmp_path: Path) -> None:
    shown = show_page(draw_once(kind), tmp_path, width=500, screenshot=False)
    assert shown.requests == ()
    assert shown.measured["resources"] == []
    assert shown.measured["width"] == 500
    assert shown.measured["scripts"] == 1  # the test's own


@needs_browser
def test_the_original_page_makes_no_request(seen: Seen) -> None:
    assert seen.requests == ()


@needs_browser
def test_a_page_that_makes_a_request_would_be_noticed(tmp_path: Path) -> None:
    page = '<!DOCTYPE html><body><main><img src="http://example.test/x.png"></main></body>'
    assert "GET http://example.test/x.png" in show_page(page, tmp_path, screenshot=False).requests


@needs_browser
def test_text_from_data_is_escaped(tmp_path: Path) -> None:
    shown = show_page(draw_once("hostile"), tmp_path, screenshot=False)
    assert shown.measured["ran"] is None
    assert "img" not in shown.measured["names"]
    assert shown.measured["title"].startswith("<script>window.ran")
    assert shown.measured["seen"].count('<script>window.ran = "text"</script>') > 15


@needs_browser
def test_a_script_in_a_page_that_is_not_escaped_would_be_noticed(tmp_path: Path) -> None:
    page = f"<!DOCTYPE html><body><main>{EVIL}</main></body>".replace("\x08", "")
    assert show_page(page, tmp_path, screenshot=False).measured["ran"] == 1  # the missing image fails last


@needs_browser
def test_the_page_is_dark_in_a_dark_scheme(seen: Seen, tmp_path: Path) -> None:
    dark = show_page(draw_once("binary"), tmp_path, dark=True)
    assert sum(seen.colour(2, 2)) > 3 * 240
    assert sum(dark.colour(2, 2)) < 3 * 40
    left, top, _, _ = dark.box("agreement-cell-0-0")
    assert dark.colour(left + 5, top + 5) == seen.colour(left + 5, top + 5)  # a number's colour stays


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_has_a_title_and_a_text_alternative(kind: str) -> None:
    page = draw_once(kind)
    charts = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]  # noqa: S314 our own
    assert page.count("<svg") == len(charts) == page.count('role="img"')
    for chart in charts:
        named = {element.get("id"): element for element in chart if element.tag in {"title", "desc"}}
        assert [*named] == chart.attrib["aria-labelledby"].split()
        assert all(element.text and len(element.text) > 5 for element in named.values())
    assert bool(charts) == (kind != "empty")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_reports_have_equal_bytes_and_unique_ids(kind: str) -> None:
    page = draw_once(kind)
    assert page == draw_report(KINDS[kind])
    ids = Counter(re.findall(r'\sid="([^"]+)"', page))
    assert set(ids.values()) == {1}
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(ids)
    assert len(page) < 1_000_000


def test_the_report_of_an_empty_run_and_of_a_failed_run() -> None:
    empty, failed = draw_once("empty"), draw_once("failed")
    for words in ("No row has a prediction.", "No member was invoked.", "No row was rejected.", "no earlier run"):
        assert words in empty
    assert FAILED.cause is not None
    assert FAILED.cause in failed
    assert "2 failed" in failed
    assert "There is only one member." in draw_once("one member")


def test_every_row_is_in_one_of_the_counts() -> None:
    votes = structs.replace(SUMMARY, rows=1_325, rows_failed=300, decisions={"accept": 300, "abstain": 700})
    numbers = dict(re.findall(r'class="name">([^<]*)</span> <small>([^<]*)</small>', draw_report(votes)))
    assert numbers["predicted"] == "75.5%"  # 1,000 of 1,325
    assert numbers["abstained"] == "70.0%"  # of the 1,000
    assert '<span class="number">1,325</span> <span class="name">rows in</span>' in draw_report(votes)


def test_the_axis_of_shares_ends_at_100_percent() -> None:
    one = draw_report(structs.replace(SUMMARY, labels={"died": 1_000}))
    assert ">100%<" in one
    assert ">120%<" not in one


def test_the_charts_of_each_task() -> None:
    drawn = {kind: re.findall(r'id="(classes|values)-title"', draw_once(kind)) for kind in KINDS}
    assert drawn["binary"] == drawn["votes"] == ["classes", "values"]
    assert drawn["multiclass"] == ["classes"]
    assert drawn["regression"] == ["values"]


def test_the_report_needs_neither_polars_nor_any_runtime() -> None:
    blocked = ["polars", "ai_edge_litert", "tensorflow", "boto3"]
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport stepensemble.batch.report.html"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bins_of_a_regression_count_all_rows_and_outliers_do_not_widen_them() -> None:
    values = np.array([*np.linspace(299_000, 301_000, 999), 1e9])
    bounds = choose_bounds(values)
    assert (bounds[0], bounds[-1]) == (299_000, 301_000)
    counts = count_by_bounds(values, bounds)
    assert sum(counts) == 1_000
    assert max(counts) - min(counts) < 10
    assert count_by_bounds(np.full(3, 7.0), choose_bounds(np.full(3, 7.0))).count(3) == 1


@pytest.mark.parametrize(
    ("index", "word"), [(0.0, "small"), (0.099, "small"), (0.1, "moderate"), (0.249, "moderate"), (0.25, "large")]
)
def test_names_of_shifts(index: float, word: str) -> None:
    assert name_shift(index) == word
