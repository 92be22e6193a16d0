"""The fast path for one row: the same prediction as `execution.decide` computes with arrays, in Python's own floats.

Where it is used: `Ensemble.predict` and Aggregate pass it to `execution.decide`, which calls it for a payload of one
row. Why: an array operation on one number takes about as long as twenty operations on Python's own floats, and one row
is what a person or a program sends most often; in process, one row is predicted 17 times as fast.

What depends only on the release is computed once, by the functions for arrays: shares, participation, and the policy as
the output states it. The rest is a row's own arithmetic: the operations of `pooling`, `classification` and
`uncertainty`, in the same order, which give their formulas' sources.
`test_law_the_fast_path_equals_the_arrays_bit_for_bit` (tests/unit/core/aggregation/test_single_row.py) holds that both
paths return equal results, to the last bit.

The fast path is for releases without shadows and cascade, whose method uses neither logarithms nor coefficients, and
for rows for which every voter has a valid output. In every other case it returns None, and the arrays are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, mul
from typing import Literal, TypeVar, assert_never

import numpy as np

from stepensemble.core.aggregation.canonical import check_output, convert_output
from stepensemble.core.aggregation.classification import TIE_TOLERANCE
from stepensemble.core.aggregation.execution import (
    ExecutionResult,
    FastPath,
    count_participation,
    report_member,
    resolve_quorum,
)
from stepensemble.core.aggregation.output import Prediction
from stepensemble.core.aggregation.output_source import Results
from stepensemble.core.aggregation.pooling import LINEAR_METHODS, Vote, effective_weights
from stepensemble.core.aggregation.quorum import quorum_status
from stepensemble.core.arrays import Array
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.number_limits import MAX_VALUE
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.outputs import Output, Probability, Value
from stepensemble.core.schema.policy import (
    VOTES,
    WEIGHTED_METHODS,
    Aggregation,
    Confidence,
    GeometricMean,
    HardVote,
    Max,
    Mean,
    Median,
    Min,
    SoftVote,
    Stacking,
    TrimmedMean,
    WeightedMean,
    WeightedVote,
    name_method,
)
from stepensemble.core.schema.task import BinaryTask, RegressionTask, Task, class_thresholds, name_classes

Numbers = Sequence[float]
"""A number for each voter, or for each class."""

VoterOutputs = Sequence[Numbers]
"""Each voter's probabilities; for a regression a sequence with its value."""

Tied = list[bool]
"""Whether each class is tied for the best."""

_Combine = Callable[[Numbers], float]
"""Combines the voters' numbers into one."""

_Read = Callable[[Array], Numbers | None]
"""Converts a member's raw output for one row to canonical form; None where it is not what was declared."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _VoterGroup:
    """All voters, or all but one.

    Attributes:
        weigh: computes their weighted mean.
        combine: combines their numbers by the method.
    """

    shares: Numbers
    weigh: _Combine
    combine: _Combine


@dataclass(frozen=True, slots=True)
class _Setup:
    """What is the same for every row of a release.

    Attributes:
        voted: labels are counted, not probabilities averaged.
        classes: empty for a regression.
        cut: in a binary task, the probability from which the second class is predicted; else None.
        thresholds: one a class, if they differ; else None.
        voters: their ids, in order.
        group: all voters.
        without: the other voters, by the place of the one that is left out; None where they could not predict.
    """

    method: Aggregation
    voted: bool
    review: Confidence | None
    classes: tuple[str, ...]
    cut: float | None
    thresholds: Numbers | None
    voters: tuple[str, ...]
    group: _VoterGroup
    without: tuple[_VoterGroup | None, ...]


def prepare_fast_path(release: Release) -> FastPath | None:
    """Return the function that predicts one row from its members' results; None if the release has no fast path.

    The function returns None for a row that needs the arrays.
    """
    task, policy, members = release.task, release.policy, release.members
    method, ids = policy.aggregation, tuple(member.id for member in members)
    if release.voters != members or release.tiers > 1 or isinstance(method, GeometricMean | Stacking):
        return None
    group = _group_voters(method, members)
    if group is None or quorum_status(policy, members, ids) != "COMPLETE":
        return None
    setup = _Setup(
        method=method,
        voted=name_method(method) in VOTES,
        review=policy.review,
        classes=name_classes(task),
        cut=task.threshold if isinstance(task, BinaryTask) else None,
        thresholds=None if isinstance(task, RegressionTask) else class_thresholds(task),
        voters=ids,
        group=group,
        without=tuple(_group_voters(method, _leave_out(members, place)) for place in range(len(members))),
    )
    readers = [(member.id, _prepare_reader(task, member.output)) for member in members]
    participation, stated = count_participation(members, ids), resolve_quorum(policy, len(members))
    predict = _predict_class if setup.classes else _predict_value

    def predict_row(results: Results) -> ExecutionResult | None:
        outputs: list[Numbers] = []
        for id_, read in readers:
            result = results.get(id_)
            output = None if result is None or result.outputs is None else read(result.outputs)
            if output is None:
                return None
            outputs.append(output)
        reports = [report_member(one, results[one.id], share) for one, share in zip(members, group.shares, strict=True)]
        return ExecutionResult("COMPLETE", stated, participation, [predict(setup, outputs)], reports, None)

    return predict_row


def _group_voters(aggregation: Aggregation, voters: Sequence[ReleasedMember]) -> _VoterGroup | None:
    if not voters or (name_method(aggregation) in WEIGHTED_METHODS and not any(voter.weight > 0 for voter in voters)):
        return None
    votes = [Vote(voter.id, voter.weight, np.empty(0)) for voter in voters]
    shares: list[float] = effective_weights(aggregation, votes).tolist()
    weigh = _prepare_mean(shares)
    return _VoterGroup(shares, weigh, _prepare_method(aggregation, len(voters)) or weigh)


def _leave_out(everything: Sequence[Item], place: int) -> Sequence[Item]:
    return [*everything[:place], *everything[place + 1 :]]


def _prepare_reader(task: Task, output: Output) -> _Read:
    """Return what converts a member's output to canonical form; see `canonical.convert_output`."""
    convert: Callable[[float], Numbers | None] | None = None
    match task, output:
        case RegressionTask(), Value(scale=1.0, offset=0.0):
            convert = _read_value
        case BinaryTask(), Probability(temperature=1.0):
            convert = _read_first if output.of == task.classes[0] else _read_second

    def read(raw: Array) -> Numbers | None:
        number = raw.item() if convert is not None and raw.shape == (1,) else None
        converted = convert(number) if convert is not None and type(number) is float else None
        if converted is not None:
            return converted
        try:
            listed: list[float] = convert_output(check_output(raw, 1), task, output).ravel().tolist()
        except InvalidOutput:
            return None
        return listed

    return read


def _read_value(number: float) -> Numbers | None:
    return (number,) if -MAX_VALUE <= number <= MAX_VALUE else None


def _read_second(number: float) -> Numbers | None:
    return (1.0 - number, number) if 0.0 <= number <= 1.0 else None


def _read_first(number: float) -> Numbers | None:
    return _read_second(1.0 - number)


def _predict_value(setup: _Setup, outputs: VoterOutputs) -> Prediction:
    values = [value for (value,) in outputs]
    std, extent = _measure_spread(values)
    return Prediction(
        value=setup.group.combine(values),
        spread=std,
        range=extent,
        decision="accept" if setup.review is None or _meets(setup.review, std) else "review",
    )


def _predict_class(setup: _Setup, outputs: VoterOutputs) -> Prediction:
    own = [_find_tied(setup, probabilities) for probabilities in outputs]
    pooled = _pool(setup, setup.group, outputs, own)
    label, best, tie = _elect(setup, setup.group, pooled, outputs)
    std, extent = _measure_spread([probabilities[best if setup.cut is None else 1] for probabilities in outputs])
    agreement = [_first(setup, tied) for tied in own].count(best) / len(own)
    *_, next_, highest = sorted(pooled if setup.voted else _divide_by_thresholds(setup, pooled))
    margin = highest - next_
    entropy, mean_entropy = _measure_entropies(outputs, setup.group.weigh)
    decision: Literal["accept", "abstain", "review"] = "accept" if label is not None else "abstain"
    if setup.review is not None and (label is None or not _meets(setup.review, std, agreement, margin)):
        decision = "review"
    return Prediction(
        value=pooled[1] if setup.cut is not None else None if label is None else float(label),
        spread=std,
        range=extent,
        decision=decision,
        label=None if label is None else setup.classes[label],
        score=None if label is None else pooled[label],
        probabilities=pooled,
        agreement=agreement,
        tie=tie,
        margin=margin,
        entropy=entropy,
        mean_entropy=mean_entropy,
        mutual_information=entropy - mean_entropy,
        pivotal=_find_pivotal(setup, outputs, own, label),
    )


def _meets(bounds: Confidence, std: float, agreement: float = 1.0, margin: float = 1.0) -> bool:
    """Return whether a prediction with a label meets every given bound; see `row_predictions.meets_confidence`."""
    return (
        (bounds.max_spread is None or std <= bounds.max_spread + TIE_TOLERANCE)
        and (bounds.min_agreement is None or agreement >= bounds.min_agreement - TIE_TOLERANCE)
        and (bounds.min_margin is None or margin >= bounds.min_margin - TIE_TOLERANCE)
    )


def _pool(setup: _Setup, group: _VoterGroup, outputs: VoterOutputs, own: Sequence[Tied]) -> list[float]:
    """Pool the voters' probabilities; see `pooling.pool`."""
    combine = group.combine
    if setup.voted:
        places = range(len(setup.classes))
        outputs = [[float(place == _first(setup, tied)) for place in places] for tied in own]
    if setup.cut is not None:
        second = combine([probabilities[1] for probabilities in outputs])
        return [1.0 - second, second]
    pooled = [combine(numbers) for numbers in zip(*outputs, strict=True)]
    return pooled if setup.voted or isinstance(setup.method, LINEAR_METHODS) else _normalize(pooled)


def _prepare_method(method: Aggregation, voters: int) -> _Combine | None:
    """Return what combines the numbers of so many voters; None where that is their weighted mean."""
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
        case Mean() | WeightedMean() | SoftVote() | HardVote() | WeightedVote() | GeometricMean() | Stacking():
            return None
        case _:
            assert_never(method)


def _prepare_mean(shares: Numbers) -> _Combine:
    if shares.count(shares[0]) == len(shares):
        return _mean

    def weigh(numbers: Numbers) -> float:
        total = _sum([number * share for number, share in zip(numbers, shares, strict=True)])
        counted = [number for number, share in zip(numbers, shares, strict=True) if share > 0]
        return min(max(total, min(counted)), max(counted))

    return weigh


def _median(numbers: Numbers) -> float:
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _mean(numbers: Numbers) -> float:
    mean, least, most = _sum(numbers) / len(numbers), min(numbers), max(numbers)
    return least if mean < least else most if mean > most else mean


def _sum(numbers: Numbers) -> float:
    """Add from first to last, as arrays do; from Python 3.12 on, `sum` rounds less on the way."""
    return reduce(add, numbers)


def _normalize(supports: Numbers) -> list[float]:
    total = _sum(supports)
    return [support / total for support in supports] if total else [1.0 / len(supports)] * len(supports)


def _divide_by_thresholds(setup: _Setup, probabilities: Numbers) -> Numbers:
    if setup.thresholds is None:
        return probabilities
    return _normalize([one / threshold for one, threshold in zip(probabilities, setup.thresholds, strict=True)])


def _find_tied(setup: _Setup, probabilities: Numbers) -> Tied:
    if setup.cut is not None:
        beyond = probabilities[1] - setup.cut
        return [beyond <= TIE_TOLERANCE, beyond >= -TIE_TOLERANCE]
    return _find_best(_divide_by_thresholds(setup, probabilities))


def _find_best(supports: Numbers) -> Tied:
    least = max(supports) - TIE_TOLERANCE
    return [support >= least for support in supports]


def _first(setup: _Setup, tied: Tied) -> int:
    return int(tied[1]) if setup.cut is not None else tied.index(True)


# The functions below return plain tuples: to create named ones would take a noticeable part of a row's time.


def _elect(setup: _Setup, group: _VoterGroup, pooled: Numbers, outputs: VoterOutputs) -> tuple[int | None, int, bool]:
    """Return label (None where a tie is left unbroken), best class, and whether there was a tie.

    See `classification.elect`.
    """
    tied = _find_best(pooled) if setup.voted else _find_tied(setup, pooled)
    best = tied.index(True) if setup.voted else _first(setup, tied)
    tie = tied.count(True) > 1
    if tie and setup.method.tie == "abstain":
        return None, best, tie
    if tie and setup.method.tie == "highest_mean":
        means = [
            _sum([one * share for one, share in zip(numbers, group.shares, strict=True)])
            for numbers in zip(*outputs, strict=True)
        ]
        highest = _find_best([mean if among else -1.0 for mean, among in zip(means, tied, strict=True)])
        if highest.count(True) == 1:
            best = highest.index(True)
    return best, best, tie


def _measure_spread(numbers: Numbers) -> tuple[float, float]:
    """Return the population standard deviation, and the greatest less the smallest."""
    mean = _mean(numbers)
    variance = _mean([(number - mean) * (number - mean) for number in numbers])
    return math.sqrt(variance), max(numbers) - min(numbers)


def _measure_entropies(outputs: VoterOutputs, weigh: _Combine) -> tuple[float, float]:
    """Return the entropy of the mean distribution, and the mean entropy; see `uncertainty.measure_entropies`."""
    mean = [weigh(numbers) for numbers in zip(*outputs, strict=True)]
    # NumPy's logarithms, all in one call: those of `math` may differ in the last bit. 0 ln 0 is 0.
    flat = [number for probabilities in (mean, *outputs) for number in probabilities]
    parts = list(map(mul, flat, np.log(np.array([number or 1.0 for number in flat])).tolist()))
    width = len(mean)
    totals = parts[::width]
    for place in range(1, width):
        totals = list(map(add, totals, parts[place::width]))
    of_mean, *own = map(abs, totals)
    return of_mean, min(weigh(own), of_mean)


def _find_pivotal(setup: _Setup, outputs: VoterOutputs, own: Sequence[Tied], label: int | None) -> list[str]:
    """Name the voters without any one of whom the label would be another; see `uncertainty.find_pivotal`."""
    if len(outputs) == 1 or (own[0].count(True) == 1 and own.count(own[0]) == len(own)):
        return []
    pivotal = []
    for place, (voter, group) in enumerate(zip(setup.voters, setup.without, strict=True)):
        if group is not None:
            others = _leave_out(outputs, place)
            pooled = _pool(setup, group, others, _leave_out(own, place))
            if _elect(setup, group, pooled, others)[0] != label:
                pivotal.append(voter)
    return pivotal
