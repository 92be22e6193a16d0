"""One row's answer by itself: what `answer.decide` says of it, in Python's own floats, and many times sooner.

What depends on the release alone is worked out once, by the functions for arrays: shares, participation, the policy as
it is published. What is left is a row's own arithmetic. It is that of `aggregation`, operation by operation in the same
order, and so are its numbers, to the last bit; sources are named there.

It is for releases without shadows and cascade, whose method takes neither logarithms nor coefficients, and for rows
that every voter has answered as it should. Where something is wrong there is no answer here, and `decide` says what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, mul
from typing import Literal, TypeVar

import numpy as np

from stepensemble.core.aggregation.canonical import canonical, check_output
from stepensemble.core.aggregation.classification import TIE_TOLERANCE
from stepensemble.core.aggregation.pooling import LINEAR, Vote, effective_weights
from stepensemble.core.aggregation.prediction import (
    ExecutionResult,
    Prediction,
    Results,
    count_participation,
    report_member,
    state_policy,
)
from stepensemble.core.aggregation.quorum import quorum_status
from stepensemble.core.arrays import Array
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.number_limits import MOST_VALUE
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.outputs import Output, Probability, Value
from stepensemble.core.schema.policy import (
    VOTES,
    WEIGHTED_METHODS,
    Aggregation,
    Confidence,
    GeometricMean,
    Max,
    Median,
    Min,
    Stacking,
    TrimmedMean,
    name_method,
)
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, class_thresholds, name_classes

PredictRow = Callable[[Results], ExecutionResult | None]
"""From what came back of the members to the answer under the release's own policy; None where something is wrong."""

Floats = Sequence[float]
"""A number for each voter, or for each class."""

Said = Sequence[Floats]
"""Each voter's probabilities; of a regression its value, alone."""

Flags = list[bool]
"""Of each class, whether it shares the best place."""

_Combine = Callable[[Floats], float]
"""From what each voter says of one thing to what all say."""

_Read = Callable[[Array], Floats | None]
"""From a member's output, one row of it, to what it said; None where it is not what was declared."""

Anything = TypeVar("Anything")


@dataclass(frozen=True, slots=True)
class _Bench:
    """Some of the voters together.

    Attributes:
        weigh: their weighted mean.
        combine: how the method brings together what they say.
    """

    shares: Floats
    weigh: _Combine
    combine: _Combine


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of every row.

    Attributes:
        voted: labels are counted, not probabilities.
        classes: none for a regression.
        cut: of two classes, from which probability the second one is answered; None of other numbers of classes.
        thresholds: one a class, where they are not alike.
        voters: ids of all of them, in their order.
        bench: all of them together.
        without: the other voters, by who is left out; None where nothing could be answered then.
    """

    method: Aggregation
    voted: bool
    review: Confidence | None
    classes: tuple[str, ...]
    cut: float | None
    thresholds: Floats | None
    voters: tuple[str, ...]
    bench: _Bench
    without: tuple[_Bench | None, ...]


def prepare_prediction(release: Release) -> PredictRow | None:
    """Return what answers a row; None where the release is of a kind that is not answered here."""
    task, policy, members = release.task, release.policy, release.members
    method, ids = policy.aggregation, tuple(member.id for member in members)
    if release.voters != members or release.tiers > 1 or isinstance(method, GeometricMean | Stacking):
        return None
    bench = _seat(method, members)
    if bench is None or quorum_status(policy, members, ids) != "COMPLETE":
        return None
    question = _Question(
        method=method,
        voted=name_method(method) in VOTES,
        review=policy.review,
        classes=name_classes(task),
        cut=task.threshold if isinstance(task, BinaryTask) else None,
        thresholds=None if isinstance(task, RegressionTask) else class_thresholds(task),
        voters=ids,
        bench=bench,
        without=tuple(_seat(method, _leave_out(members, place)) for place in range(len(members))),
    )
    readings = [(member.id, _prepare_reading(task, member.output)) for member in members]
    participation, stated = count_participation(members, ids), state_policy(policy, len(members))

    def answer_row(results: Results) -> ExecutionResult | None:
        said: list[Floats] = []
        for id_, read in readings:
            result = results.get(id_)
            output = None if result is None or result.outputs is None else read(result.outputs)
            if output is None:
                return None
            said.append(output)
        answer = _answer_class if question.classes else _answer_number
        reports = [report_member(one, results[one.id], share) for one, share in zip(members, bench.shares, strict=True)]
        return ExecutionResult("COMPLETE", stated, participation, [answer(question, said)], reports, None)

    return answer_row


def _seat(aggregation: Aggregation, voters: Sequence[ReleasedMember]) -> _Bench | None:
    if not voters or (name_method(aggregation) in WEIGHTED_METHODS and not any(voter.weight > 0 for voter in voters)):
        return None
    votes = [Vote(voter.id, voter.weight, np.empty(0)) for voter in voters]
    shares: list[float] = effective_weights(aggregation, votes).tolist()
    weigh = _prepare_mean(shares)
    return _Bench(shares, weigh, _prepare_method(aggregation, len(voters)) or weigh)


def _leave_out(everyone: Sequence[Anything], place: int) -> Sequence[Anything]:
    return [*everyone[:place], *everyone[place + 1 :]]


def _prepare_reading(task: Task, output: Output) -> _Read:
    """Return what brings a member's output to the form that all share; see `outputs.canonical`."""
    plain: Callable[[float], Floats | None] | None = None
    match task, output:
        case RegressionTask(), Value(scale=1.0, offset=0.0):
            plain = _read_value
        case BinaryTask(), Probability(temperature=1.0):
            plain = _read_first if output.of == task.classes[0] else _read_second

    def read(raw: Array) -> Floats | None:
        number = raw.item() if plain is not None and raw.shape == (1,) else None
        said = plain(number) if plain is not None and type(number) is float else None
        if said is not None:
            return said
        try:
            listed: list[float] = canonical(check_output(raw, 1), task, output).ravel().tolist()
        except InvalidOutput:
            return None
        return listed

    return read


def _read_value(number: float) -> Floats | None:
    return (number,) if -MOST_VALUE <= number <= MOST_VALUE else None


def _read_second(number: float) -> Floats | None:
    return (1.0 - number, number) if 0.0 <= number <= 1.0 else None


def _read_first(number: float) -> Floats | None:
    return _read_second(1.0 - number)


def _answer_number(question: _Question, said: Said) -> Prediction:
    values = [value for (value,) in said]
    std, extent = _spread(values)
    return Prediction(
        value=question.bench.combine(values),
        spread=std,
        range=extent,
        decision="accept" if question.review is None or _meets(question.review, std) else "review",
    )


def _answer_class(question: _Question, said: Said) -> Prediction:
    own = [_find_tied(question, probabilities) for probabilities in said]
    pooled = _pool(question, question.bench, said, own)
    label, best, tie = _elect(question, question.bench, pooled, said)
    std, extent = _spread([probabilities[best if question.cut is None else 1] for probabilities in said])
    agreement = [_first(question, tied) for tied in own].count(best) / len(own)
    *_, next_, highest = sorted(pooled if question.voted else _divide_by_thresholds(question, pooled))
    margin = highest - next_
    entropy, mean_entropy = _entropies(said, question.bench.weigh)
    decision: Literal["accept", "abstain", "review"] = "accept" if label is not None else "abstain"
    if question.review is not None and (label is None or not _meets(question.review, std, agreement, margin)):
        decision = "review"
    return Prediction(
        value=pooled[1] if question.cut is not None else None if label is None else float(label),
        spread=std,
        range=extent,
        decision=decision,
        label=None if label is None else question.classes[label],
        score=None if label is None else pooled[label],
        probabilities=pooled,
        agreement=agreement,
        tie=tie,
        margin=margin,
        entropy=entropy,
        mean_entropy=mean_entropy,
        mutual_information=entropy - mean_entropy,
        pivotal=_find_pivotal(question, said, own, label),
    )


def _meets(bounds: Confidence, std: float, agreement: float = 1.0, margin: float = 1.0) -> bool:
    """Say whether an answer that has a label meets every bound that is given; see `decision.shows`."""
    return (
        (bounds.max_spread is None or std <= bounds.max_spread + TIE_TOLERANCE)
        and (bounds.min_agreement is None or agreement >= bounds.min_agreement - TIE_TOLERANCE)
        and (bounds.min_margin is None or margin >= bounds.min_margin - TIE_TOLERANCE)
    )


def _pool(question: _Question, bench: _Bench, said: Said, own: Sequence[Flags]) -> list[float]:
    """Pool the voters' probabilities; see `pooling.pool`."""
    combine = bench.combine
    if question.voted:
        places = range(len(question.classes))
        said = [[float(place == _first(question, tied)) for place in places] for tied in own]
    if question.cut is not None:
        second = combine([probabilities[1] for probabilities in said])
        return [1.0 - second, second]
    pooled = [combine(numbers) for numbers in zip(*said, strict=True)]
    return pooled if question.voted or isinstance(question.method, LINEAR) else _normalize(pooled)


def _prepare_method(method: Aggregation, voters: int) -> _Combine | None:
    """Return what combines numbers of so many voters; None where that is their weighted mean."""
    match method:
        case Median():
            return _median
        case TrimmedMean(trim=trim):
            cut = int(trim * voters)
            return lambda numbers: _mean(sorted(numbers)[cut : voters - cut])
        case Min():
            return min
        case Max():
            return max
        case _:
            return None


def _prepare_mean(shares: Floats) -> _Combine:
    if shares.count(shares[0]) == len(shares):
        return _mean

    def weigh(numbers: Floats) -> float:
        total = _sum([number * share for number, share in zip(numbers, shares, strict=True)])
        counted = [number for number, share in zip(numbers, shares, strict=True) if share > 0]
        return min(max(total, min(counted)), max(counted))

    return weigh


def _median(numbers: Floats) -> float:
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _mean(numbers: Floats) -> float:
    mean, least, most = _sum(numbers) / len(numbers), min(numbers), max(numbers)
    return least if mean < least else most if mean > most else mean


def _sum(numbers: Floats) -> float:
    """Add from first to last, as arrays are; Python's own `sum` loses less on its way, from 3.12 on."""
    return reduce(add, numbers)


def _normalize(supports: Floats) -> list[float]:
    total = _sum(supports)
    return [support / total for support in supports] if total else [1.0 / len(supports)] * len(supports)


def _divide_by_thresholds(question: _Question, probabilities: Floats) -> Floats:
    if question.thresholds is None:
        return probabilities
    return _normalize([one / threshold for one, threshold in zip(probabilities, question.thresholds, strict=True)])


def _find_tied(question: _Question, probabilities: Floats) -> Flags:
    if question.cut is not None:
        beyond = probabilities[1] - question.cut
        return [beyond <= TIE_TOLERANCE, beyond >= -TIE_TOLERANCE]
    return _find_best(_divide_by_thresholds(question, probabilities))


def _find_best(supports: Floats) -> Flags:
    least = max(supports) - TIE_TOLERANCE
    return [support >= least for support in supports]


def _first(question: _Question, tied: Flags) -> int:
    return int(tied[1]) if question.cut is not None else tied.index(True)


def _elect(question: _Question, bench: _Bench, pooled: Floats, said: Said) -> tuple[int | None, int, bool]:
    """Return label, best class, and whether there was a tie; see `labels.elect`."""
    tied = _find_best(pooled) if question.voted else _find_tied(question, pooled)
    best = tied.index(True) if question.voted else _first(question, tied)
    tie = tied.count(True) > 1
    if tie and question.method.tie == "abstain":
        return None, best, tie
    if tie and question.method.tie == "highest_mean":
        means = [
            _sum([one * share for one, share in zip(numbers, bench.shares, strict=True)])
            for numbers in zip(*said, strict=True)
        ]
        highest = _find_best([mean if among else -1.0 for mean, among in zip(means, tied, strict=True)])
        if highest.count(True) == 1:
            best = highest.index(True)
    return best, best, tie


def _spread(numbers: Floats) -> tuple[float, float]:
    mean = _mean(numbers)
    variance = _mean([(number - mean) * (number - mean) for number in numbers])
    return math.sqrt(variance), max(numbers) - min(numbers)


def _entropies(said: Said, weigh: _Combine) -> tuple[float, float]:
    """Return that of the mean distribution, and the mean one; see `uncertainty.measure_entropies`."""
    mean = [weigh(numbers) for numbers in zip(*said, strict=True)]
    # NumPy's logarithms, which may differ in their last bit from those of `math`: all at once. 0 ln 0 is 0.
    flat = [number for probabilities in (mean, *said) for number in probabilities]
    parts = list(map(mul, flat, np.log(np.array([number or 1.0 for number in flat])).tolist()))
    width = len(mean)
    totals = parts[::width]
    for place in range(1, width):
        totals = list(map(add, totals, parts[place::width]))
    of_mean, *own = map(abs, totals)
    return of_mean, min(weigh(own), of_mean)


def _find_pivotal(question: _Question, said: Said, own: Sequence[Flags], label: int | None) -> list[str]:
    """Name the voters without any one of whom the label would be another; see `uncertainty.find_pivotal`."""
    if len(said) == 1 or (own[0].count(True) == 1 and own.count(own[0]) == len(own)):
        return []
    pivotal = []
    for place, (voter, bench) in enumerate(zip(question.voters, question.without, strict=True)):
        if bench is not None:
            others = _leave_out(said, place)
            pooled = _pool(question, bench, others, _leave_out(own, place))
            if _elect(question, bench, pooled, others)[0] != label:
                pivotal.append(voter)
    return pivotal
