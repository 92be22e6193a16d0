from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stepensemble.core.problems import (
    SHOWN_VALUE_LENGTH,
    Problem,
    enumerate_values,
    list_problems,
    show,
    suggest,
)

PROBLEMS = st.lists(st.builds(Problem, st.text(max_size=80), st.text(max_size=80), st.text(max_size=80)), min_size=1)


def test_problems_are_listed_a_line_each_under_their_count() -> None:
    problems = [Problem("$.a", "is missing", "add it"), Problem("$.b", "3 is not a string", "write a string")]
    assert list_problems(problems) == (
        "2 problems:\n- $.a: is missing; add it\n- $.b: 3 is not a string; write a string"
    )
    assert list_problems(problems[:1]).startswith("1 problem:\n")


def test_what_does_not_fit_is_counted() -> None:
    problems = [Problem(f"$.{number}", "is wrong", "mend it") for number in range(100)]
    text = list_problems(problems, max_bytes=200)
    shown = text.count("is wrong")
    assert text.startswith("100 problems:")
    assert 0 < shown < 100
    assert text.endswith(f"- and {100 - shown} more")


@given(PROBLEMS, st.integers(100, 1000))
def test_law_a_bounded_list_keeps_its_bound(problems: list[Problem], most: int) -> None:
    assert len(list_problems(problems, max_bytes=most).encode()) <= most


@given(PROBLEMS)
def test_law_an_unbounded_list_shows_everything(problems: list[Problem]) -> None:
    text = list_problems(problems)
    assert all(str(problem) in text for problem in problems)
    assert list_problems(problems, max_bytes=len(text.encode()) + 100) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a", '"a"'), (1, "1"), (True, "true"), (None, "null"), ("ä", '"ä"'), (math.nan, "NaN"), ({1}, "{1}")],
)
def test_a_value_is_shown_as_json(value: object, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a\x1b[31m", r'"a\u001b[31m"'), ("\x9b1m", r'"\u009b1m"'), ("\ufeffa", r'"\ufeffa"'), ("1\xa0€", r'"1\u00a0€"')],
)
def test_a_character_that_cannot_be_seen_is_shown_by_its_number(value: str, shown: str) -> None:
    assert show(value) == shown


def test_a_long_value_is_cut() -> None:
    assert len(show("x" * 1000)) == SHOWN_VALUE_LENGTH
    assert show("x" * 1000).endswith("…")


def test_a_value_that_python_does_not_write_is_described() -> None:
    circular: list[object] = []
    circular.append(circular)
    assert show(10**5000) == "a int too long to write"
    assert show(circular) == "a list too long to write"
    nested: list[object] = []
    for _ in range(200_000):
        nested = [nested]
    assert show(nested) == "a list nested too deeply to write"


def test_many_allowed_values_are_counted() -> None:
    assert enumerate_values(["a", 2]) == '"a", 2'
    assert enumerate_values(range(100), most=3) == "0, 1, 2, … (100 in all)"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("wieght", ', did you mean "weight"?'),
        ("WEIGHT", ', did you mean "weight"?'),
        ("zzz", ""),
        (7, ""),
        (["weight"], ""),
    ],
)
def test_a_near_word_is_suggested(word: object, hint: str) -> None:
    assert suggest(word, ["weight", "role"]) == hint
