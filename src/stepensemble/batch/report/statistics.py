"""What is counted in a shard, and how shards add up to a run.

Everything here is a sum, so shards add up in any order and any grouping: counts exactly, numbers up to rounding. No
feature's value is in it, but where histograms have their edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from msgspec import Struct, structs

from stepensemble.batch.report.drift import PREDICTION
from stepensemble.batch.report.sampling import Sample, add_samples, take_sample
from stepensemble.core.aggregation.canonical import find_usable
from stepensemble.core.aggregation.classification import ABSTAINED, own_labels
from stepensemble.core.aggregation.decision import DecidedRows, Decision
from stepensemble.core.aggregation.prediction import DECISIONS, encode_decisions
from stepensemble.core.aggregation.quorum import Status
from stepensemble.core.arrays import Array, Floats, Hashes, Integers
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.task import RegressionTask, Task, name_classes

CALIBRATION_BINS = 100
"""Of equal width, of a probability; `summary` joins them to bins of about as many rows each."""

MOST_PLACES = 3
"""Of a reason for rejection, told so that one can look."""

MOST_CONFUSED = 50
"""Classes up to which it is counted which one was answered for which."""

Place = tuple[str, int]
"""File and number of a row in it."""

FEW = 40
"""Edges up to which values are compared with each of them, which takes less time than to search."""

EMPTY = (0,) * CALIBRATION_BINS


class Histogram(Struct, frozen=True):
    """A histogram: values below the first edge, from there on to the next, …, from the last on; and none at all."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int = 0


class Accuracy(Struct, frozen=True):
    """What was said against what was true.

    Attributes:
        rows: whose truth is known.
        right: of them, with the right label; of a regression 0.
        scored: of them, those that `error` is summed over: none of a member that gives labels alone.
        error: sum over rows. Regression: the absolute difference. Binary: the squared difference between 1 or 0 and the
            probability of the second class, else the sum of these over all classes (G. W. Brier, Verification of
            forecasts expressed in terms of probability, 1950).
        counts: rows by bins of a probability: binary, that of the second class; else that of the label.
        said: by the same bins, the sum of that probability.
        true: by the same bins, how often it was so.
    """

    rows: int = 0
    right: int = 0
    scored: int = 0
    error: float = 0.0
    counts: tuple[int, ...] = EMPTY
    said: tuple[float, ...] = EMPTY
    true: tuple[int, ...] = EMPTY


class MemberStatistics(Struct, frozen=True):
    """One member's part.

    Attributes:
        shards: in which it was asked.
        failures: in how many of them it did not answer, by the name of the error.
        rows: that it answered.
        unusable: rows for which its output was not what it declares, in the other shards.
        seconds: in its functions, where it answered.
        cold: shards for which it had to load the model.
        total, squares: sums over its rows of the value (regression) or of the probability of the second class (binary),
            and of its square; of more classes 0.
        pivotal: rows that would be answered otherwise without it.
    """

    shards: int = 0
    failures: dict[str, int] = {}
    rows: int = 0
    seconds: float = 0.0
    cold: int = 0
    total: float = 0.0
    squares: float = 0.0
    pivotal: int = 0
    accuracy: Accuracy = Accuracy()
    unusable: int = 0


class PairAgreement(Struct, frozen=True):
    """Rows that two members both answered, and those in which they alone would give the same label."""

    rows: int = 0
    same: int = 0


class Rejection(Struct, frozen=True):
    """Rows that were rejected for one reason, and where the first of them are."""

    rows: int = 0
    places: tuple[Place, ...] = ()


class LabelCounts(Struct, frozen=True):
    """The labels of accepted rows.

    Attributes:
        given: rows with a label.
        unknown: of them, those whose label is no class by the column's reading, or no number.
        capitals: of these, those that differ from a class's name in capitals alone.
        other: of these, those that mean a class by the other reading.
    """

    given: int = 0
    unknown: Rejection = Rejection()
    capitals: int = 0
    other: int = 0


class ShardStatistics(Struct, frozen=True):
    """What is counted; the default is that of no shard.

    Attributes:
        statuses: answered rows by COMPLETE and DEGRADED.
        decisions, labels, tiers: answered rows by what was decided, by the answered class, by the tier that decided.
        members: by id.
        agreement: by id, in the order of the release, and the id of one after it; empty for a regression.
        histograms: of features as they were given, and of the prediction; see `count_bins`.
        accuracy: of the answers.
        confusion: rows by the true class and, within that, by the answered one; of at most `MOST_CONFUSED` classes.
        truth: what was read of the labels.
        sample: of a regression's rows.
        rejected: by column and kind of reason; a row may have several.
        seconds, bytes: by what took them.
    """

    statuses: dict[str, int] = {}
    decisions: dict[str, int] = {}
    labels: dict[str, int] = {}
    tiers: dict[str, int] = {}
    members: dict[str, MemberStatistics] = {}
    agreement: dict[str, dict[str, PairAgreement]] = {}
    histograms: dict[str, Histogram] = {}
    accuracy: Accuracy = Accuracy()
    confusion: dict[str, dict[str, int]] = {}
    truth: LabelCounts = LabelCounts()
    sample: Sample = Sample()
    rejected: dict[str, dict[str, Rejection]] = {}
    seconds: dict[str, float] = {}
    bytes: dict[str, int] = {}


class ShardReport(Struct, frozen=True):
    """What became of a shard; written last, so a shard that has one is finished.

    Attributes:
        rows_in: all of its rows: `rows_out` and `rows_rejected` together.
        status: FAILED where there was no quorum: then no row is answered.
        cause: why there was none.
    """

    number: int
    rows_in: int
    rows_out: int
    rows_rejected: int
    status: Status
    cause: str | None
    tally: ShardStatistics


def add(tallies: Iterable[ShardStatistics]) -> ShardStatistics:
    """Add tallies up.

    Raises:
        ValueError: histograms have different edges.
    """
    return reduce(_add, tallies, ShardStatistics())


def _add(one: Any, other: Any) -> Any:
    match one:
        case dict():
            both = {key: _add(value, other[key]) for key, value in one.items() if key in other}
            return {**one, **other, **both}
        case tuple():
            return tuple(_add(*pair) for pair in zip(one, other, strict=True))
        case Histogram() if one.edges != other.edges:
            raise ValueError(f"histograms of different edges: {one.edges} and {other.edges}")
        case Histogram():
            return Histogram(one.edges, _add(one.counts, other.counts), one.missing + other.missing)
        case Sample():
            return add_samples(one, other)
        case Rejection():
            places = tuple(sorted({*one.places, *other.places})[:MOST_PLACES])
            return Rejection(one.rows + other.rows, places)
        case Struct():
            return type(one)(*map(_add, structs.astuple(one), structs.astuple(other)))
        case _:
            return one + other


def count_rows_read(
    values: Mapping[str, Floats],
    edges: Mapping[str, Sequence[float]],
    wrong: Iterable[tuple[str, str, Place]] = (),
    *,
    truth: LabelCounts = LabelCounts(),  # noqa: B008 frozen
) -> ShardStatistics:
    """Count a shard's rows before they are answered.

    Args:
        values: of accepted rows, by feature (`encoding.Encoded.values`).
        edges: of histograms, by feature; a feature without them is not counted.
        wrong: column, kind of reason and place of each rejected value, or of each record that is no row.
        truth: what was read of the labels.
    """
    rejected: dict[str, dict[str, list[Place]]] = {}
    for column, kind, place in wrong:
        rejected.setdefault(column, {}).setdefault(kind, []).append(place)
    return ShardStatistics(
        histograms={name: count_bins(numbers, edges[name]) for name, numbers in values.items() if name in edges},
        truth=truth,
        rejected={
            column: {
                kind: Rejection(len(places), tuple(sorted(places)[:MOST_PLACES])) for kind, places in kinds.items()
            }
            for column, kinds in rejected.items()
        },
    )


def count_bins(values: Floats, edges: Sequence[float]) -> Histogram:
    """Count values by edges, ascending, each of which belongs to the bin above it; NaN is missing."""
    given = len(values) - int(np.count_nonzero(np.isnan(values)))
    if len(edges) > FEW:
        places = np.searchsorted(edges, values, side="right")  # NaN's is behind all others
        counts = np.bincount(places, minlength=len(edges) + 1).tolist()
        counts[-1] -= len(values) - given
    else:
        reached = [given, *(int(np.count_nonzero(values >= edge)) for edge in edges), 0]
        counts = [before - after for before, after in pairwise(reached)]
    return Histogram(tuple(edges), tuple(counts), len(values) - given)


def count_predictions(
    release: Release,
    decision: Decision,
    edges: Mapping[str, Sequence[float]],
    truth: Floats | None = None,
    keys: Hashes | None = None,
) -> ShardStatistics:
    """Count a shard's answers; without a quorum there are none, and members alone are counted.

    Args:
        release: that answered.
        decision: what was decided, and from which results.
        edges: of histograms; of the prediction under `PREDICTION`.
        truth: a row, the class's index or the number, NaN where it is not known.
        keys: of the rows, by which some are sampled (`sampling.draw_keys`); None for no sample.
    """
    task, decided = release.task, decision.decided
    members = {
        member.id: _tally_member(task, member, decision, truth)
        for member in release.members
        if _was_asked(member, decision)
    }
    parts = [_tally_settled(task, part, edges, truth, keys) for part in decided]
    return add(
        [
            *parts,
            ShardStatistics(
                members=members,
                agreement={} if isinstance(task, RegressionTask) else _count_agreement(task, release, decision),
            ),
        ]
    )


def _was_asked(member: ReleasedMember, decision: Decision) -> bool:
    return member.tier in decision.reached and len(decision.reached[member.tier]) > 0


def _tally_settled(
    task: Task, part: DecidedRows, edges: Mapping[str, Sequence[float]], truth: Floats | None, keys: Hashes | None
) -> ShardStatistics:
    answers, classes = part.predictions, part.predictions.classes
    histograms = {PREDICTION: count_bins(answers.value, edges[PREDICTION])} if PREDICTION in edges else {}
    known = None if truth is None else truth[part.numbers]
    sample = Sample()
    if classes is None:
        sample = sample if keys is None else take_sample(keys[part.numbers], answers.value, known)
        accuracy = Accuracy() if known is None else _measure_values(answers.value, known)
        labels, pivotal, confusion = {}, {}, {}
    else:
        confusion = {} if known is None else _count_confusion(task, classes.label, known)
        accuracy = Accuracy() if known is None else _measure_classes(task, classes.label, classes.probabilities, known)
        labels = _count(classes.label[classes.label != ABSTAINED], name_classes(task))
        pivotal = dict(zip(part.voters, map(int, map(np.count_nonzero, classes.pivotal.T)), strict=True))
    return ShardStatistics(
        statuses={"DEGRADED" if part.missing else "COMPLETE": len(part.numbers)} if len(part.numbers) else {},
        decisions=_count(encode_decisions(answers), DECISIONS),
        labels=labels,
        tiers={str(part.tier): len(part.numbers)},
        members={id_: MemberStatistics(pivotal=rows) for id_, rows in pivotal.items()},
        histograms=histograms,
        accuracy=accuracy,
        confusion=confusion,
        sample=sample,
    )


def _count_confusion(task: Task, labels: Integers, truth: Floats) -> dict[str, dict[str, int]]:
    names = name_classes(task)
    if len(names) > MOST_CONFUSED:
        return {}
    known = ~np.isnan(truth) & (labels != ABSTAINED)
    true, answered = truth[known].astype(np.int64), labels[known]
    return {names[place]: _count(answered[true == place], names) for place in np.unique(true).tolist()}


def _count(codes: Integers, names: Sequence[str]) -> dict[str, int]:
    """Count by name what occurs at all."""
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def _tally_member(task: Task, member: ReleasedMember, decision: Decision, truth: Floats | None) -> MemberStatistics:
    result, said = decision.results[member.id], decision.outputs.get(member.id)
    if said is None:
        failure = "NoResult" if result.failure is None else result.failure.type
        return MemberStatistics(shards=1, failures={failure: 1})
    known = None if truth is None else truth[decision.reached[member.tier]]
    asked = len(said)
    if member.id in decision.faults:
        usable = find_usable(said)
        said, known = said[usable], None if known is None else known[usable]
    if isinstance(task, RegressionTask):
        values = said
        accuracy = Accuracy() if known is None else _measure_values(said, known)
    else:
        values = said[:, 1] if len(task.classes) == 2 else np.zeros(0)
        stated = None if isinstance(member.output, Label) else said
        accuracy = Accuracy() if known is None else _measure_classes(task, own_labels(task, said), stated, known)
    return MemberStatistics(
        shards=1,
        rows=len(said),
        seconds=(result.duration_ms or 0.0) / 1000,
        cold=int(bool(result.cold)),
        total=float(values.sum()),
        squares=float(np.square(values).sum()),
        accuracy=accuracy,
        unusable=asked - len(said),
    )


def _measure_values(values: Floats, truth: Floats) -> Accuracy:
    known = ~np.isnan(truth)
    rows = int(np.count_nonzero(known))
    return Accuracy(rows=rows, scored=rows, error=float(np.abs(values[known] - truth[known]).sum()))


def _measure_classes(task: Task, labels: Integers, probabilities: Floats | None, truth: Floats) -> Accuracy:
    """Compare labels, and probabilities where there are some, with the classes that are true, where they are known."""
    known = np.flatnonzero(~np.isnan(truth))
    labels, true = labels[known], truth[known].astype(np.int64)
    rows, right = len(known), int(np.count_nonzero(labels == true))
    if probabilities is None:
        return Accuracy(rows, right)
    probabilities = probabilities[known]
    if len(name_classes(task)) == 2:
        said, so = probabilities[:, 1], true == 1
        error = np.square(said - so).sum()
    else:
        best = np.where(labels == ABSTAINED, probabilities.argmax(axis=1), labels)
        said, so = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0], best == true
        error = np.square(probabilities - np.eye(probabilities.shape[1])[true]).sum()
    places = np.minimum((said * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)

    counts, hits = (np.bincount(some, minlength=CALIBRATION_BINS).tolist() for some in (places, places[so]))
    sums = np.bincount(places, said, CALIBRATION_BINS).tolist()
    return Accuracy(rows, right, rows, float(error), tuple(counts), tuple(sums), tuple(hits))


def _count_agreement(task: Any, release: Release, decision: Decision) -> dict[str, dict[str, PairAgreement]]:
    heard_of = [member for member in release.members if member.id in decision.outputs and _was_asked(member, decision)]
    labels = {member.id: own_labels(task, decision.outputs[member.id]) for member in heard_of}
    counted: dict[str, dict[str, PairAgreement]] = {}
    for one, other in combinations(heard_of, 2):
        # A later tier was asked about some of the rows of an earlier one.
        both = decision.reached[max(one.tier, other.tier)]
        for member in (one, other):
            if member.id in decision.faults:
                usable = find_usable(decision.outputs[member.id])
                both = both[_select(usable, decision.reached[member.tier], both)]
        first, second = (_select(labels[member.id], decision.reached[member.tier], both) for member in (one, other))
        counted.setdefault(one.id, {})[other.id] = PairAgreement(len(both), int(np.count_nonzero(first == second)))
    return counted


def _select(said: Array, asked: Integers, rows: Integers) -> Array:
    """Return what was said of some of the rows that were asked about."""
    return said if len(rows) == len(asked) else said[np.searchsorted(asked, rows)]
