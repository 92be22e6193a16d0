"""What is strange about answers and labels is said, and nothing else is."""

from __future__ import annotations

from stepensemble.batch.report.confusion import find_suspicion

TWO = ("benign", "malignant")
THREE = ("red", "green", "blue")


def counted(classes: tuple[str, ...], *rows: tuple[int, ...]) -> dict[str, dict[str, int]]:
    return {true: dict(zip(classes, row, strict=True)) for true, row in zip(classes, rows, strict=True)}


def test_two_classes_that_are_reversed_are_reported() -> None:
    doubt = find_suspicion(TWO, counted(TWO, (5, 95), (90, 10)))
    # 185 of 200 rows would be right the other way round, 15 are as it is.
    assert doubt == (
        "labels and classes seem to be in different orders: with benign as malignant, malignant as benign 92.5% would "
        "be right instead of 7.5%"
    )


def test_classes_of_which_two_are_swapped_are_reported_though_most_answers_are_right() -> None:
    doubt = find_suspicion(THREE, counted(THREE, (300, 0, 0), (2, 8, 40), (0, 45, 5)))
    assert doubt is not None
    assert "with green as blue, blue as green 96.2% would be right instead of 78.2%" in doubt


def test_answers_that_are_worse_than_chance_are_reported() -> None:
    # One class is always answered wrongly, and no order of the classes explains it: half is right by chance, 30 % are.
    doubt = find_suspicion(TWO, counted(TWO, (0, 0), (70, 30)))
    assert doubt is None  # one class alone: its share by chance is what is right
    worse = find_suspicion(THREE, counted(THREE, (10, 45, 45), (45, 10, 45), (40, 50, 10)))
    assert worse is not None
    assert worse.startswith("10.0% right is less than the 33.")


def test_good_poor_and_few_answers_are_not() -> None:
    assert find_suspicion(TWO, {}) is None
    assert find_suspicion(TWO, counted(TWO, (95, 5), (10, 90))) is None
    assert find_suspicion(TWO, counted(TWO, (100, 0), (100, 0))) is None  # the first class always
    assert find_suspicion(TWO, counted(TWO, (48, 52), (51, 49))) is None  # a coin
    assert find_suspicion(TWO, counted(TWO, (0, 3), (3, 0))) is None  # too few to say
