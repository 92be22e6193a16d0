from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from stepensemble.core.errors import CanaryConflict, NoCanary, ReleaseNotCurrent
from stepensemble.core.releases.pointer import (
    HISTORY,
    abort_canary,
    begin_canary,
    choose,
    find_previous,
    promote_canary,
    refuse_canary,
    serves,
    succeed,
)
from stepensemble.core.releases.release import Canary, PastRelease, ReleasePointer

A, B, C = "a" * 64, "b" * 64, "c" * 64
ONE, TWO = {"m": "1"}, {"m": "1", "n": "2"}


def test_the_first_release_has_no_history() -> None:
    assert succeed(None, A, ONE, "t1") == ReleasePointer(A, ONE, "t1", (), None)


def test_what_was_current_goes_to_the_top_of_the_history() -> None:
    second = succeed(succeed(None, A, ONE, "t1"), B, TWO, "t2")
    assert second == ReleasePointer(B, TWO, "t2", (PastRelease(A, "t1", "t2"),))
    third = succeed(second, A, ONE, "t3")
    assert third == ReleasePointer(A, ONE, "t3", (PastRelease(B, "t2", "t3"), PastRelease(A, "t1", "t2")))


def test_the_same_release_in_other_slots_goes_on_being_current() -> None:
    second = succeed(succeed(None, A, ONE, "t1"), B, ONE, "t2")
    assert succeed(second, B, TWO, "t3") == ReleasePointer(B, TWO, "t2", second.history)


def test_the_history_has_an_end() -> None:
    current = succeed(None, "0", ONE, "t0")
    for number in range(1, HISTORY + 10):
        current = succeed(current, str(number), ONE, f"t{number}")
    assert HISTORY == 20
    assert [term.release for term in current.history] == [str(HISTORY + 8 - back) for back in range(HISTORY)]


def test_the_previous_release_is_the_last_other_one() -> None:
    first = succeed(None, A, ONE, "t1")
    assert find_previous(first) is None
    second = succeed(first, B, ONE, "t2")
    assert find_previous(second) == A
    assert find_previous(succeed(second, A, ONE, "t3")) == B


def test_a_pointer_of_an_earlier_version_is_read() -> None:
    old = msgspec.json.decode(b'{"release": "abc", "slots": {"m": "1"}}', type=ReleasePointer)
    assert old == ReleasePointer("abc", ONE, None, (), None)
    assert succeed(old, B, ONE, "t2").history == (PastRelease("abc", None, "t2"),)
    assert choose(old, "any") == ("abc", ONE)


def test_a_pointer_comes_back_from_json() -> None:
    current = begin_canary(succeed(succeed(None, A, ONE, "t1"), B, ONE, "t2"), C, TWO, 10, "t3")
    assert msgspec.json.decode(msgspec.json.encode(current), type=ReleasePointer) == current


CURRENT = succeed(None, A, ONE, "t1")
WITH_CANARY = begin_canary(CURRENT, B, TWO, 10, "t2")


def test_a_canary_leaves_the_current_release_alone() -> None:
    expected = ReleasePointer(A, ONE, "t1", (), Canary(B, TWO, 10, "t2"))
    assert expected == WITH_CANARY


def test_a_canarys_share_changes_and_its_beginning_does_not() -> None:
    assert begin_canary(WITH_CANARY, B, TWO, 50, "t3").canary == Canary(B, TWO, 50, "t2")


def test_one_canary_at_a_time() -> None:
    with pytest.raises(CanaryConflict, match=r"release bbbbbbbbbbbb is the canary and serves 10%; end it first"):
        begin_canary(WITH_CANARY, C, TWO, 10, "t3")
    with pytest.raises(CanaryConflict):
        refuse_canary(WITH_CANARY)
    refuse_canary(CURRENT)


def test_a_promoted_canary_is_current_in_its_slots() -> None:
    assert promote_canary(WITH_CANARY, "t3") == ReleasePointer(B, TWO, "t3", (PastRelease(A, "t1", "t3"),))


def test_an_aborted_canary_leaves_no_trace() -> None:
    assert abort_canary(WITH_CANARY) == CURRENT


def test_no_canary_is_neither_promoted_nor_aborted() -> None:
    with pytest.raises(NoCanary, match="ensemble publish --canary"):
        promote_canary(CURRENT, "t3")
    with pytest.raises(NoCanary):
        abort_canary(CURRENT)


def test_without_a_canary_the_current_release_serves_everything() -> None:
    assert {choose(CURRENT, f"id-{number}")[0] for number in range(100)} == {A}


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_a_canary_serves_its_share(percent: int) -> None:
    current = begin_canary(CURRENT, B, TWO, percent, "t2")
    chosen = [choose(current, f"20261121-{number:06}") for number in range(10_000)]
    canaries = sum(release == B for release, _ in chosen)
    # A binomial's standard deviation is sqrt(n p (1 - p)); 5 of them are exceeded once in 1.7 million.
    share = percent / 100
    assert abs(canaries - 10_000 * share) < 5 * (10_000 * share * (1 - share)) ** 0.5
    assert {(release, tuple(slots.items())) for release, slots in chosen} == {
        (A, tuple(ONE.items())),
        (B, tuple(TWO.items())),
    }


def test_another_canary_serves_other_ids() -> None:
    other = begin_canary(CURRENT, C, TWO, 10, "t2")
    ids = [f"id-{number}" for number in range(1000)]
    first = {id_ for id_ in ids if choose(WITH_CANARY, id_)[0] == B}
    second = {id_ for id_ in ids if choose(other, id_)[0] == C}
    assert first != second
    assert len(first & second) < len(first) / 2  # a tenth of them by chance


@given(st.text(), st.integers(1, 99))
def test_law_the_same_id_gets_the_same_release_and_a_greater_share_keeps_it_with_the_canary(
    prediction_id: str, percent: int
) -> None:
    current = begin_canary(CURRENT, B, TWO, percent, "t2")
    assert choose(current, prediction_id) == choose(current, prediction_id)
    more = begin_canary(current, B, TWO, 99, "t3")
    if choose(current, prediction_id)[0] == B:
        assert choose(more, prediction_id)[0] == B


@pytest.mark.parametrize("digits", [8, 12, 64])
def test_a_requested_release_serves_whatever_the_id(digits: int) -> None:
    for number in range(100):
        assert choose(WITH_CANARY, f"id-{number}", B[:digits]) == (B, TWO)
        assert choose(WITH_CANARY, f"id-{number}", A[:digits]) == (A, ONE)


def test_another_release_is_refused_and_those_there_are_are_named() -> None:
    assert [serves(WITH_CANARY, one) for one in (A, B, C)] == [True, True, False]
    with pytest.raises(ReleaseNotCurrent, match="cccccccccccc is not the current one, aaaaaaaaaaaa is; publish"):
        choose(CURRENT, "id", C)
    with pytest.raises(ReleaseNotCurrent, match="aaaaaaaaaaaa is, and bbbbbbbbbbbb is the canary; publish it"):
        choose(WITH_CANARY, "id", C)


@pytest.mark.parametrize(
    ("prediction_id", "part"),
    # The first eight bytes that `printf "$B:id-4" | sha256sum` prints, and of "id-0".
    [("id-4", 0x6809B91A6486E104 % 10_000), ("id-0", 0x2E3825D51FE48DF4 % 10_000)],
)
def test_the_bucket_of_an_id_is_what_sha256sum_computes(prediction_id: str, part: int) -> None:
    predicted = [choose(begin_canary(CURRENT, B, TWO, percent, "t2"), prediction_id)[0] for percent in range(1, 100)]
    # The canary answers from the first percent on whose hundred parts include this one.
    assert predicted.index(B) + 1 == part // 100 + 1
