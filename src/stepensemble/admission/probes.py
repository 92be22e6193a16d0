"""Ask every member what the gate wants to know: in child processes, and in as few of them as it takes.

One child for all members of a runtime is enough where nothing is wrong. Another is started for what needs a second
look: at which of its questions a member failed, whether it notices any exchange of columns, how much memory it fills by
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from stepensemble.admission.repeatability import Repeat, Repetition, Result, are_alike, compare_repeats, list_repeats
from stepensemble.conversion.sandbox import Attempt, Tried, try_artifacts
from stepensemble.core.arrays import Array
from stepensemble.core.errors import MemberError
from stepensemble.core.preprocessing.columns import Columns, bind_columns
from stepensemble.core.releases.release import ReleasedMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.slot_capacity import Capacity
from stepensemble.core.tolerance import compare
from stepensemble.runtimes import Signature
from stepensemble.runtimes.model import select_output

MOST_EXCHANGES = 64
"""Pairs of columns that are exchanged one by one, where moving all of them shows nothing."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Subject:
    """A member, its model file, and the golden rows it is asked about.

    Attributes:
        others: drawn rows that the golden rows are put beside, where these are all alike.
    """

    member: ReleasedMember
    artifact: bytes
    golden: Columns
    others: Columns | None = None

    def ask(self, *rows: Columns, must: int | None = None) -> Attempt:
        """Return the attempt to load it and to ask about rows, one call each; see `Attempt`."""
        member = self.member
        batches = tuple(bind_columns(one, member.inputs) for one in rows)
        return Attempt(
            member.runtime, self.artifact, member.signature, batches, member.output.name, must, trusted=member.trusted
        )

    @property
    def alike(self) -> bool:
        """Whether the golden rows are all the same to it."""
        return are_alike(bind_columns(self.golden, self.member.inputs))

    @property
    def movable(self) -> tuple[str, ...]:
        """The columns it takes that could stand in each other's place: all but tensors."""
        taken = dict.fromkeys(name for names in self.member.inputs.values() for name in names)
        return tuple(name for name in taken if self.golden[name].ndim == 1)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a member said of the golden rows.

    Attributes:
        output: the one that is wanted, as the model gives it.
        notices: whether columns in each other's place change it; None where it takes fewer than two, or answers the
            same rows otherwise at each call.
        repetition: how it compares with what the member says of the same rows alone, in another order and again.
        load_ms: without the runtime's import.
        predict_ms: for the golden rows.
        peak_bytes: the most memory its process filled; if that is not comfortable, with nothing else in the process. By
            itself, a model of 95 MiB filled 235 MiB, and 243 MiB in the handler that serves it.
    """

    output: Array
    notices: bool | None
    repetition: Repetition
    load_ms: float
    predict_ms: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class ProbedMember:
    """A member that can be loaded, and its answer, or why it has none."""

    signature: Signature
    answer: ProbeResult | MemberError


Showed = ProbedMember | MemberError
"""What a member showed; of one that cannot be loaded, why."""


def screen(
    subjects: Sequence[Subject], capacities: Mapping[str, Capacity], notify: Callable[[str], None]
) -> dict[str, Showed]:
    """Ask members about the golden rows, as they are and with columns in each other's place.

    Args:
        subjects: all are asked, whatever one of them does to its process.
        capacities: by runtime; where a member is comfortable in its slot, its memory is not measured exactly.
        notify: told what takes a while.

    Returns:
        What each showed, by id; nothing is raised.
    """
    known = {one.member.id: one for one in subjects}
    notify(f"Trying {', '.join(known)}")
    showed = _look(known)
    unmoved = [(known[id_], answer) for id_, answer in _answers(showed) if answer.notices is False]
    if unmoved:
        notify(f"Exchanging columns of {', '.join(one.member.id for one, _ in unmoved)}")
        showed = _with_answers(showed, _exchange_pairs(unmoved))
    for id_, answer in _answers(showed):
        one = known[id_]
        if answer.peak_bytes > capacities[one.member.runtime].comfort:
            notify(f"Measuring {id_}")
            showed = _with_answers(showed, {id_: _weigh(one, answer)})
    return showed


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a member predicts after the golden rows: these with columns moved, if it has several, and repeated."""

    moved: Sequence[Columns]
    repeats: Sequence[Repeat]

    @property
    def batches(self) -> tuple[Columns, ...]:
        """All of it, a call each."""
        return (*self.moved, *(repeat.columns for repeat in self.repeats))

    @property
    def must(self) -> int:
        """How many calls there has to be time for: the golden rows, these with columns moved, and the first repeat."""
        return len(self.moved) + 2


def _look(subjects: Mapping[str, Subject]) -> dict[str, Showed]:
    """Predict the golden rows, then with every column in another one's place, and again in every other way."""
    plans = {id_: _Plan(_rotate(one), list_repeats(one.golden, one.others)) for id_, one in subjects.items()}
    first = _try({id_: one.ask(one.golden, *plans[id_].batches, must=plans[id_].must) for id_, one in subjects.items()})
    # Who fails may have failed at any batch; and the signature says what would have been taken.
    failed = [id_ for id_, result in first.items() if isinstance(result, MemberError)]
    again = _try({(id_, rows): subjects[id_].ask(*[subjects[id_].golden] * rows) for id_ in failed for rows in (0, 1)})
    apart = _try(
        {
            (id_, number): subjects[id_].ask(subjects[id_].golden, batch)
            for id_ in failed
            if isinstance(again[id_, 1], Tried)
            for number, batch in enumerate(plans[id_].batches)
        }
    )
    showed: dict[str, Showed] = {}
    for id_, one in subjects.items():
        loaded, asked = again.get((id_, 0), first[id_]), again.get((id_, 1), first[id_])
        if isinstance(loaded, MemberError):
            showed[id_] = loaded
            continue
        answer: ProbeResult | MemberError
        if isinstance(asked, MemberError):
            answer = asked
        else:
            numbers = range(len(plans[id_].batches))
            tried = [(apart[id_, n], 1) if (id_, n) in apart else (asked, n + 1) for n in numbers]
            answer = _read(one, plans[id_], asked, tried)
        showed[id_] = ProbedMember(loaded.signature, answer)
    return showed


def _read(
    subject: Subject, plan: _Plan, asked: Tried, tried: Sequence[tuple[Tried | MemberError, int]]
) -> ProbeResult | MemberError:
    """Read what a member said of the golden rows, and of what it predicted after them.

    Args:
        subject: the member.
        plan: what it predicted after them.
        asked: its first output is that of the golden rows.
        tried: for each of the plan's batches, what was tried, and the place of the batch's output in it.
    """
    try:
        name = select_output(asked.signature, subject.member.output.name).name
    except MemberError as error:
        return error
    output, labels = asked.outputs[0][name], isinstance(subject.member.output, Label)
    results = [_find_result(one, place, name) for one, place in tried]
    moved, repeated = results[: len(plan.moved)], results[len(plan.moved) :]
    repetition = Repetition()
    if output.shape[:1] == (len(next(iter(subject.golden.values()))),):  # else it is refused for that
        repetition = compare_repeats(output, list(zip(plan.repeats, repeated, strict=True)), labels=labels)
    notices = None
    if moved and not repetition.differences:
        notices = not isinstance(moved[0], np.ndarray) or _differ(subject, output, moved[0])
    return ProbeResult(output, notices, repetition, asked.load_ms, asked.predict_ms[0], asked.peak_bytes)


def _find_result(tried: Tried | MemberError, place: int, name: str) -> Result:
    if isinstance(tried, MemberError):
        return tried
    return tried.outputs[place][name] if place < len(tried.outputs) else None


def _exchange_pairs(unmoved: Sequence[tuple[Subject, ProbeResult]]) -> dict[str, ProbeResult]:
    """Ask about the golden rows with columns exchanged pair by pair."""
    results = _try({one.member.id: one.ask(_exchange(one)) for one, _ in unmoved})
    looked: dict[str, ProbeResult] = {}
    for one, answer in unmoved:
        result = results[one.member.id]
        notices = isinstance(result, MemberError) or any(
            _differ(one, answer.output, output) for output in result.outputs[0].values()
        )
        looked[one.member.id] = replace(answer, notices=notices)
    return looked


def _weigh(subject: Subject, answer: ProbeResult) -> ProbeResult:
    """Measure memory with nothing else in the process."""
    (alone,) = try_artifacts([subject.ask(subject.golden)])
    return answer if isinstance(alone, MemberError) else replace(answer, peak_bytes=alone.peak_bytes)


def _answers(showed: Mapping[str, Showed]) -> list[tuple[str, ProbeResult]]:
    return [
        (id_, one.answer)
        for id_, one in showed.items()
        if isinstance(one, ProbedMember) and isinstance(one.answer, ProbeResult)
    ]


def _with_answers(showed: Mapping[str, Showed], answers: Mapping[str, ProbeResult]) -> dict[str, Showed]:
    return {
        id_: replace(one, answer=answers[id_]) if id_ in answers and isinstance(one, ProbedMember) else one
        for id_, one in showed.items()
    }


def _rotate(subject: Subject) -> list[Columns]:
    """Return the golden rows with every column in another one's place; none where there are fewer than two."""
    names, golden = subject.movable, subject.golden
    if len(names) < 2:
        return []
    return [{**golden, **{name: golden[other] for name, other in zip(names, (*names[1:], names[0]), strict=True)}}]


def _exchange(subject: Subject) -> Columns:
    """Return the golden rows once for each pair of neighbours, with these two columns exchanged."""
    golden = subject.golden
    exchanged = [
        {**golden, one: golden[other], other: golden[one]}
        for one, other in list(pairwise(subject.movable))[:MOST_EXCHANGES]
    ]
    taken = {name for names in subject.member.inputs.values() for name in names}
    return {name: np.concatenate([columns[name] for columns in exchanged]) for name in taken}


def _differ(subject: Subject, expected: Array, actual: Array) -> bool:
    """Tell whether an answer, as often as it was asked for, is another one, as `ensemble verify` would find it."""
    repeated = np.concatenate([expected] * (len(actual) // len(expected)))
    labels = isinstance(subject.member.output, Label)
    return bool(compare(repeated.tolist(), actual.tolist(), labels=labels))


def _try(attempts: Mapping[Key, Attempt]) -> dict[Key, Tried | MemberError]:
    """Try artifacts, those of one runtime in one child."""
    results: dict[Key, Tried | MemberError] = {}
    for runtime in sorted({attempt.runtime for attempt in attempts.values()}):
        group = {key: attempt for key, attempt in attempts.items() if attempt.runtime == runtime}
        results |= zip(group, try_artifacts(list(group.values())), strict=True)
    return results
