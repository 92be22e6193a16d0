"""The decision: quorum, method, confidence, tier after tier, over canonical outputs.

Nothing here knows where outputs come from. `decide` is given a function that it asks for a tier's outputs: in an
execution these are what the state machine has collected so far, in process they are made on the spot, in a replay they
are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from stepensemble.core.aggregation.canonical import find_usable
from stepensemble.core.aggregation.classification import ABSTAINED, TIE_TOLERANCE, elect, own_labels
from stepensemble.core.aggregation.pooling import Vote, effective_weights, pool
from stepensemble.core.aggregation.quorum import Status, explain_failure, quorum_status
from stepensemble.core.aggregation.uncertainty import (
    Spread,
    find_pivotal,
    measure_agreement,
    measure_entropies,
    measure_margin,
    measure_spread,
    select_class,
)
from stepensemble.core.arrays import Flags, Floats, Integers
from stepensemble.core.schema.manifest import EnsembleMember, select_voters
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import VOTES, Confidence, Policy, Stacking, name_method
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task

Outputs = Mapping[str, Floats]
"""Canonical outputs by member id; a member that failed is not there, and NaN in the rows in which it failed."""

Ask = Callable[[int, Integers], Outputs | None]
"""Returns what the members of a tier say of these rows; None where they are yet to be asked."""


@dataclass(frozen=True, slots=True)
class ShadowView:
    """How a shadow would have fared, a row.

    Attributes:
        agrees: its own label is the answer's; of a regression: its value is within the range of the voters'.
        flips: with it among the voters, the label would be another one; None for a regression, and where the method
            cannot count it (a stack, which has no coefficient for it; a label where probabilities are averaged).
    """

    agrees: Flags
    flips: Flags | None


@dataclass(frozen=True, slots=True)
class ClassPredictions:
    """What classifications have besides, as arrays over rows.

    Attributes:
        label: index of the class, or `labels.ABSTAINED`.
        probabilities: `(rows, classes)`, pooled.
        pivotal: `(rows, voters)`.
    """

    label: Integers
    probabilities: Floats
    agreement: Floats
    tie: Flags
    margin: Floats
    entropy: Floats
    mean_entropy: Floats
    pivotal: Flags


@dataclass(frozen=True, slots=True)
class RowPredictions:
    """One answer a row, as arrays.

    Attributes:
        value: a regression's number; a binary task's probability of the second class; else the class's index, NaN where
            there is none.
        spread: of the voters' values; of their probabilities for the second (binary) or the best class.
        review: whether a person should look at the row.
        shadows: member id to how it would have fared.
    """

    value: Floats
    spread: Spread
    review: Flags
    shadows: Mapping[str, ShadowView]
    classes: ClassPredictions | None


@dataclass(frozen=True, slots=True)
class DecidedRows:
    """Rows that were decided in one tier, by these voters (their order is that of `pivotal`).

    Attributes:
        missing: the voters of this tier and those before it that have no output for these rows.
    """

    tier: int
    numbers: Integers
    voters: tuple[str, ...]
    missing: tuple[str, ...]
    answers: RowPredictions


@dataclass(frozen=True, slots=True)
class FailedRows:
    """Rows without an answer: the voters that have an output for them do not hold the quorum, and the cause says so."""

    numbers: Integers
    missing: tuple[str, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A decided execution.

    Attributes:
        settled: the rows that are answered.
        failed: the rows that are not, where the voters that answered at all hold the quorum.
        asked: ids of the members, shadows included, that were asked at all.
        weights: voter id to its share in the answer, in the last tier that answered; of a row that all of them have an
            output for. Where one has none, its share is the others' in proportion.
        cause: why there is no quorum whatever the row, since too few voters answered at all; nothing is settled then.
            None where there is one.
    """

    settled: tuple[DecidedRows, ...]
    failed: tuple[FailedRows, ...]
    asked: frozenset[str]
    weights: Mapping[str, float]
    cause: str | None

    @property
    def status(self) -> Status:
        """FAILED where no row is answered; DEGRADED where one is not, or where a voter is missing in one."""
        answered = [part for part in self.settled if len(part.numbers)]
        if not answered:
            return "FAILED"
        return "DEGRADED" if self.failed or any(part.missing for part in answered) else "COMPLETE"


@dataclass(frozen=True, slots=True)
class Undecided:
    """Rows for which the next tier must be asked first."""

    tier: int
    numbers: Integers


def decide(task: Task, policy: Policy, members: Sequence[EnsembleMember], rows: int, ask: Ask) -> Decision | Undecided:
    """Decide every row, tier after tier.

    A row has the voters that gave a usable output for it. Where these, of a tier and those before, hold the quorum, the
    tier decides the row if its answer shows the cascade's confidence; the last tier decides all that are left. Without
    a cascade there is one tier.
    """
    last = max(member.tier for member in members)
    numbers = np.arange(rows)
    heard: dict[str, tuple[Integers, Floats]] = {}
    settled: list[DecidedRows] = []
    weights: dict[str, float] = {}
    for tier in range(1, last + 1):
        said = ask(tier, numbers)
        if said is None:
            return Undecided(tier, numbers)
        heard |= {id_: (numbers, output) for id_, output in said.items()}
        reached = [member for member in members if member.tier <= tier]
        voters = select_voters(reached)
        said_now = {member.id: _select_rows(*heard[member.id], numbers) for member in reached if member.id in heard}
        counted: set[str] = set()
        short: list[tuple[Integers, tuple[str, ...]]] = []
        unsure: list[Integers] = []
        for places, usable in _divide_by_presence(said_now, len(numbers)):
            if quorum_status(policy, voters, usable) == "FAILED":
                short.append((numbers[places], tuple(usable)))
                continue
            votes = [Vote(voter.id, voter.weight, usable[voter.id]) for voter in voters if voter.id in usable]
            shadows = [(one, usable[one.id]) for one in reached if one.role == "shadow" and one.id in usable]
            answers = predict_rows(task, policy, votes, shadows)
            ids, missing = tuple(vote.id for vote in votes), _name_missing(voters, usable)
            counted.update(ids)
            kept = numbers[places]
            if tier < last and policy.cascade is not None:
                enough = meets_confidence(policy.cascade, answers)
                unsure.append(kept[~enough])
                kept, answers = kept[enough], _take(answers, enough)
            settled.append(DecidedRows(tier, kept, ids, missing, answers))
        if counted:
            sharing = [Vote(voter.id, voter.weight, np.empty(0)) for voter in voters if voter.id in counted]
            shares = effective_weights(policy.aggregation, sharing).tolist()
            weights = dict(zip((vote.id for vote in sharing), shares, strict=True))
        numbers = np.sort(np.concatenate([*unsure, *(some for some, _ in short)])) if unsure or short else numbers[:0]
        if not len(numbers):
            break
    asked = frozenset(member.id for member in reached)
    if len(numbers) and quorum_status(policy, voters, heard) == "FAILED":
        return Decision((), (), asked, {}, explain_failure(policy, voters, heard))
    failed = [FailedRows(some, _name_missing(voters, ids), explain_failure(policy, voters, ids)) for some, ids in short]
    return Decision(tuple(settled), tuple(failed), asked, weights, None)


def _name_missing(voters: Sequence[EnsembleMember], present: Collection[str]) -> tuple[str, ...]:
    return tuple(voter.id for voter in voters if voter.id not in present)


def _divide_by_presence(outputs: Outputs, rows: int) -> Iterator[tuple[Integers, Outputs]]:
    """Yield the rows for which the same members have an output: their places, and those outputs of them."""
    usable = [find_usable(output) for output in outputs.values()]
    if all(flags.all() for flags in usable):
        yield np.arange(rows), outputs
        return
    patterns, belongs = np.unique(np.stack(usable, axis=1), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        places = np.flatnonzero(belongs.reshape(-1) == number)
        present = [id_ for id_, there in zip(outputs, pattern, strict=True) if there]
        yield places, {id_: outputs[id_][places] for id_ in present}


def predict_rows(
    task: Task, policy: Policy, votes: Sequence[Vote], shadows: Sequence[tuple[EnsembleMember, Floats]] = ()
) -> RowPredictions:
    """Answer rows from what the voters say of them; see `RowPredictions`.

    Args:
        task: what is asked.
        policy: of which the method and what needs review are used.
        votes: of the voters that answered, at least one.
        shadows: each shadow that answered, with its canonical output.
    """
    if isinstance(task, RegressionTask):
        outputs = [vote.output for vote in votes]
        low, high = np.minimum.reduce(outputs), np.maximum.reduce(outputs)
        views = {shadow.id: ShadowView((low <= said) & (said <= high), None) for shadow, said in shadows}
        value = pool(task, policy.aggregation, votes)
        answers = RowPredictions(value, measure_spread(outputs), np.zeros(len(value), dtype=np.bool_), views, None)
    else:
        answers = _answer_classes(task, policy, votes, shadows)
    return answers if policy.review is None else replace(answers, review=~meets_confidence(policy.review, answers))


def _answer_classes(
    task: BinaryTask | MulticlassTask,
    policy: Policy,
    votes: Sequence[Vote],
    shadows: Sequence[tuple[EnsembleMember, Floats]],
) -> RowPredictions:
    method, outputs = policy.aggregation, [vote.output for vote in votes]
    shares = effective_weights(method, votes)
    pooled = pool(task, method, votes)
    elected = elect(task, method, pooled, outputs, shares)
    label, best = elected.label, elected.best
    if isinstance(task, BinaryTask):
        value, spread = pooled[:, 1], measure_spread([output[:, 1] for output in outputs])
    else:
        value, spread = np.where(label == ABSTAINED, np.nan, label), measure_spread(select_class(outputs, best))
    of_mean, mean = measure_entropies(outputs, shares)
    classes = ClassPredictions(
        label=label,
        probabilities=pooled,
        agreement=measure_agreement(task, outputs, best),
        tie=elected.tie,
        margin=measure_margin(task, pooled, voted=name_method(method) in VOTES),
        entropy=of_mean,
        mean_entropy=mean,
        pivotal=find_pivotal(task, method, votes, label),
    )
    views = {shadow.id: _view_shadow(task, policy, votes, label, shadow, said) for shadow, said in shadows}
    return RowPredictions(value, spread, np.zeros(len(label), dtype=np.bool_), views, classes)


def _view_shadow(
    task: BinaryTask | MulticlassTask,
    policy: Policy,
    votes: Sequence[Vote],
    label: Integers,
    shadow: EnsembleMember,
    said: Floats,
) -> ShadowView:
    agrees = own_labels(task, said) == label
    method = policy.aggregation
    uncounted = isinstance(shadow.output, Label) and not shadow.output.one_hot and name_method(method) not in VOTES
    if uncounted or isinstance(method, Stacking):
        return ShadowView(agrees, None)
    with_it = [*votes, Vote(shadow.id, shadow.weight, said)]
    shares = effective_weights(method, with_it)
    counted = elect(task, method, pool(task, method, with_it), [vote.output for vote in with_it], shares)
    return ShadowView(agrees, counted.label != label)


def meets_confidence(confidence: Confidence, answers: RowPredictions) -> Flags:
    """Say of each row whether its answer meets every bound that is given, rounding aside; without a label none does."""
    enough = np.ones(len(answers.value), dtype=np.bool_)
    if confidence.max_spread is not None:
        enough &= answers.spread.std <= confidence.max_spread + TIE_TOLERANCE
    if answers.classes is not None:
        enough &= answers.classes.label != ABSTAINED
        if confidence.min_agreement is not None:
            enough &= answers.classes.agreement >= confidence.min_agreement - TIE_TOLERANCE
        if confidence.min_margin is not None:
            enough &= answers.classes.margin >= confidence.min_margin - TIE_TOLERANCE
    return enough


def _select_rows(asked: Integers, output: Floats, numbers: Integers) -> Floats:
    """Return a member's output for some of the rows it was asked."""
    return output if len(asked) == len(numbers) else output[np.searchsorted(asked, numbers)]


Arrays = TypeVar("Arrays")


def _take(arrays: Arrays, rows: Flags) -> Arrays:
    """Return the same structure with these rows of each of its arrays."""
    taken: dict[str, Any] = {}
    for field in fields(arrays):  # type: ignore[arg-type] # any of the structures above
        part = getattr(arrays, field.name)
        if part is None or isinstance(part, np.ndarray):
            taken[field.name] = part if part is None else part[rows]
        elif isinstance(part, Mapping):
            taken[field.name] = {key: _take(one, rows) for key, one in part.items()}
        else:
            taken[field.name] = _take(part, rows)
    return type(arrays)(**taken)
