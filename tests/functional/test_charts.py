"""The charts and tables of docs/aggregation.md come from the shipped models, and their numbers are correct."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import runpy
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from stepensemble import Ensemble
from stepensemble.core.schema.policy import Confidence
from written import assert_as_shown

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "titanic"
PAGE = (ROOT / "docs" / "aggregation.md").read_text(encoding="utf-8")
CHARTS = sorted(re.findall(r"\]\((charts/\w+\.svg)\)", PAGE))

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="Matplotlib is not installed; make charts installs it"
)


def load(name: str) -> ModuleType:
    """Import a module of the example, which is not a package: its scripts run from their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        return importlib.import_module(name)


confidence = load("confidence")
passengers = load("passengers")


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return Ensemble.load(ROOT / "models" / "manifest.json")


@pytest.fixture(scope="module")
def held_out() -> Any:
    return passengers.split(passengers.read_passengers())[1]


@pytest.fixture(scope="module")
def evaluated(ensemble: Ensemble, held_out: Any) -> Any:
    return confidence.evaluate_passengers(ensemble, held_out)


def test_the_page_shows_the_tables_of_the_shipped_models(evaluated: Any) -> None:
    tables = confidence.format_tables(evaluated).splitlines()
    first = PAGE.splitlines().index(tables[0])
    assert_as_shown(tables, PAGE.splitlines()[first : first + len(tables)])


def test_every_chart_is_shown_and_small_and_of_the_shipped_release(ensemble: Ensemble) -> None:
    drawn = {f"charts/{path.name}" for path in (ROOT / "docs" / "charts").iterdir()}
    assert sorted(name for name in drawn if not name.startswith("charts/performance-")) == CHARTS
    for name in CHARTS:
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        sources = re.findall(r"<dc:source>(.*)</dc:source>", text)
        assert sources == [f"release {ensemble.digest}"], "make charts"
        assert len(text) < 100_000
        assert "dc:date" not in text


@needs_matplotlib
def test_drawing_twice_gives_the_same_bytes(evaluated: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        # Run, not imported: the benchmarks have a script of this name, too.
        draw = runpy.run_path(str(EXAMPLE / "charts.py"))["write_charts"]
    for folder in ("once", "again"):
        draw(evaluated, tmp_path / folder)
    for name in CHARTS:
        once, again = (tmp_path / folder / Path(name).name for folder in ("once", "again"))
        assert once.read_bytes() == again.read_bytes()


def test_the_evaluated_predictions_are_the_ensembles(evaluated: Any, ensemble: Ensemble, held_out: Any) -> None:
    predictions = ensemble.predict({"instances": held_out.rows})["predictions"]
    assert evaluated.release == ensemble.digest
    assert evaluated.threshold == 0.5
    right = [(p["label"] == "survived") == bool(lived) for p, lived in zip(predictions, held_out.survived, strict=True)]
    assert evaluated.correct.tolist() == right
    np.testing.assert_allclose(evaluated.probability, np.mean(list(evaluated.members.values()), axis=0), atol=1e-12)


def test_the_band_is_the_members_range_in_the_order_of_the_probability(evaluated: Any) -> None:
    band = confidence.sort_band(evaluated)
    assert (np.diff(band.probability) >= 0).all()
    outputs = list(zip(*evaluated.members.values(), strict=True))
    expected = sorted(
        zip(evaluated.probability, map(min, outputs), map(max, outputs), strict=True), key=lambda row: row[0]
    )
    np.testing.assert_array_equal(np.stack([band.probability, band.low, band.high], axis=1), expected)
    assert band.survived.sum() == 100


@pytest.mark.parametrize("bins", [4, 6, 10])
def test_reliability_is_scikit_learns_calibration_curve(evaluated: Any, bins: int) -> None:
    for probabilities in (evaluated.probability, *evaluated.members.values()):
        measured = confidence.measure_reliability(probabilities, evaluated.survived, bins)
        shares, means = calibration_curve(evaluated.survived, probabilities, n_bins=bins, strategy="quantile")
        np.testing.assert_allclose([one.survived.value for one in measured], shares)
        np.testing.assert_allclose([one.predicted for one in measured], means)
        assert sum(one.survived.total for one in measured) == 262


@pytest.mark.parametrize(("count", "of"), [(0, 14), (9, 14), (47, 47), (198, 221), (1, 2)])
def test_an_interval_is_scipys_wilson_interval(count: int, of: int) -> None:
    share = confidence.count_share(np.arange(of) < count)
    expected = binomtest(count, of).proportion_ci(0.95, method="wilson")
    assert (share.count, share.total, share.value) == (count, of, count / of)
    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_groups_count_every_passenger_once(evaluated: Any) -> None:
    agreeing = Counter(f"{agreement * 4:.0f} of 4" for agreement in evaluated.agreement)
    leading = Counter(min(int(margin * 5), 4) for margin in evaluated.margin)
    by_margin = confidence.group_by_margin(evaluated)
    assert {group.name: group.correct.total for group in confidence.group_by_agreement(evaluated)} == agreeing
    assert [group.name for group in by_margin] == ["0 to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to 1"]
    assert [group.correct.total for group in by_margin] == [leading[fifth] for fifth in range(5)]
    for groups in (confidence.group_by_agreement(evaluated), by_margin):
        assert sum(group.correct.count for group in groups) == evaluated.correct.sum()


def test_a_bound_has_the_effect_of_a_manifest_with_that_review(
    evaluated: Any, ensemble: Ensemble, held_out: Any
) -> None:
    for effect in confidence.measure_bounds(evaluated):
        policy = structs.replace(ensemble.release.policy, review=Confidence(**{effect.field: effect.bound}))
        reviewing = dataclasses.replace(ensemble, release=structs.replace(ensemble.release, policy=policy))
        output = reviewing.predict({"instances": held_out.rows})
        reviewed = np.array([prediction["decision"] == "review" for prediction in output["predictions"]])
        assert effect.reviewed == output["needs_review"] == reviewed.sum()
        assert effect.errors == (reviewed & ~evaluated.correct).sum()
        assert effect.accepted.value == pytest.approx(evaluated.correct[~reviewed].mean())
