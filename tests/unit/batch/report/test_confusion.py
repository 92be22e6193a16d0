"""A confusion matrix gets a warning if it is unusual, and only then."""

from __future__ import annotations

from stepensemble.batch.report.confusion import find_warning

TWO = ("benign", "malignant")
THREE = ("red", "green", "blue")


def counted(classes: tuple[str, ...], *rows: tuple[int, ...]) -> dict[str, dict[str, int]]:
    return {true: dict(zip(classes, row, strict=True)) for true, row in zip(classes, rows, strict=True)}


def test_two_reversed_classes_are_reported() -> None:
    warning = find_warning(TWO, counted(TWO, (5, 95), (90, 10)))
    # 185 of 200 rows would be right the other way round, 15 are as it is.
    assert warning == (
        "labels and classes seem to be in different orders: with benign as malignant, malignant as benign, "
        "92.5% of the predictions would be right instead of 7.5%"
    )


def test_two_swapped_classes_are_reported_even_if_most_predictions_are_right() -> None:
    warning = find_warning(THREE, counted(THREE, (300, 0, 0), (2, 8, 40), (0, 45, 5)))
    assert warning is not None
    assert "with green as blue, blue as green, 96.2% of the predictions would be right instead of 78.2%" in warning


def test_predictions_worse_than_chance_are_reported() -> None:
    # Only one class has labels, and 30 % of its rows are right: as many as by chance.
    warning = find_warning(TWO, counted(TWO, (0, 0), (70, 30)))
    assert warning is None
    worse = find_warning(THREE, counted(THREE, (10, 45, 45), (45, 10, 45), (40, 50, 10)))
    assert worse is not None
    assert worse.startswith("10.0% of the predictions are right, fewer than the 33.")


def test_good_poor_and_few_predictions_are_not_reported() -> None:
    assert find_warning(TWO, {}) is None
    assert find_warning(TWO, counted(TWO, (95, 5), (10, 90))) is None
    assert find_warning(TWO, counted(TWO, (100, 0), (100, 0))) is None  # always the first class
    assert find_warning(TWO, counted(TWO, (48, 52), (51, 49))) is None  # a coin toss
    assert find_warning(TWO, counted(TWO, (0, 3), (3, 0))) is None  # too few rows
