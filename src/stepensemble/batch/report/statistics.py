"""Counts a shard's rows, predictions and members, and merges the statistics of shards into a run's.

Every field is a sum or a bounded sample, so shards can be merged in any order and any grouping: counts are exact, sums
are exact up to rounding. No feature value is stored, except the edges of histograms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct, structs

from stepensemble.batch.documents import SCHEMA_VERSION
from stepensemble.batch.report.sampling import Sample, merge_samples, take_sample
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
"""Bins of equal width over a probability; `calibration` joins them to bins with about as many rows each."""

MAX_EXAMPLES = 3
"""Rows that are listed for each reason of a rejection."""

MAX_CONFUSION_CLASSES = 50
"""With more classes than these, no confusion matrix is counted."""

MAX_COMPARED_EDGES = 40
"""Up to so many edges, values are compared with each edge, which is faster than a binary search."""

EMPTY = (0,) * CALIBRATION_BINS


class RowLocation(NamedTuple):
    """The name of a file and the number of a row in it."""

    file: str
    row: int


class Histogram(Struct, frozen=True):
    """Counts of values by bins.

    Attributes:
        edges: ascending; a value that equals an edge belongs to the bin above it.
        counts: one more than edges: values below the first edge, between two edges, and from the last edge on.
        missing: values that are missing.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int = 0


class Histograms(Struct, frozen=True):
    """Histograms of the ensemble's prediction, and of features by name; see `count_bins`."""

    prediction: Histogram | None = None
    features: dict[str, Histogram] = {}


class Accuracy(Struct, frozen=True):
    """Sums that compare predictions with the ground truth.

    Attributes:
        rows: rows whose ground truth is known.
        correct: those of them with the right label; 0 for a regression.
        scored: those of them that `error_sum` covers; none for a member whose output is a label only.
        error_sum: sum over rows. Regression: the absolute difference. Binary: the squared difference between the
            probability of the second class and 1 or 0. Multiclass: the sum of these differences over all classes (G. W.
            Brier, Verification of forecasts expressed in terms of probability, 1950).
        counts: rows by bins of a probability: of the second class (binary) or of the predicted label (multiclass).
        probability_sums: the sum of that probability in each bin.
        observed_counts: rows of each bin whose true class is the one that the probability is of.
    """

    rows: int = 0
    correct: int = 0
    scored: int = 0
    error_sum: float = 0.0
    counts: tuple[int, ...] = EMPTY
    probability_sums: tuple[float, ...] = EMPTY
    observed_counts: tuple[int, ...] = EMPTY


class MemberStatistics(Struct, frozen=True):
    """Statistics of one member.

    Attributes:
        shards: shards in which the member was invoked.
        failures: shards in which it failed, by the name of the error.
        rows: rows for which it has a usable output.
        seconds: time in its functions, in shards where it did not fail.
        cold: shards for which it had to load the model.
        total, squares: sums over its rows of the value (regression) or of the probability of the second class (binary),
            and of its square; 0 for a multiclass task.
        pivotal: rows whose label would be another without the member.
        unusable: rows, in shards where it did not fail, whose output is not what the member declares.
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
    """Rows for which two members both have an output, and those of them where both have the same label."""

    rows: int = 0
    same: int = 0


class Rejection(Struct, frozen=True):
    """Rows that were rejected for one reason, and the first of them as examples."""

    rows: int = 0
    examples: tuple[RowLocation, ...] = ()


class LabelCounts(Struct, frozen=True):
    """Counts of the labels that accepted rows come with.

    Attributes:
        rows: rows with a label.
        unrecognized: those of them whose label is no class as the column is read, or no number.
        case_mismatches: unrecognized labels that differ from a class's name in upper and lower case only.
        other_reading: unrecognized labels that would be a class if the column were read the other way.
    """

    rows: int = 0
    unrecognized: Rejection = Rejection()
    case_mismatches: int = 0
    other_reading: int = 0


class ShardStatistics(Struct, frozen=True):
    """Statistics of a shard or of several; the default is that of no shard.

    Attributes:
        statuses: predicted rows by COMPLETE and DEGRADED.
        decisions, labels, tiers: predicted rows by decision, by predicted class, and by the tier that decided.
        members: by member id.
        agreement: by member id, in the order of the release, and the id of a later member; empty for a regression.
        histograms: of the prediction, and of features as they are in the dataset.
        accuracy: of the ensemble.
        confusion: rows by true class, then by predicted class; of at most `MAX_CONFUSION_CLASSES` classes.
        ground_truth: counts of the labels.
        sample: of a regression's rows.
        rejections: by column and kind of reason; a row may have several. The column is empty for a whole row.
        seconds, bytes: by function, and by kind of object.
    """

    statuses: dict[str, int] = {}
    decisions: dict[str, int] = {}
    labels: dict[str, int] = {}
    tiers: dict[str, int] = {}
    members: dict[str, MemberStatistics] = {}
    agreement: dict[str, dict[str, PairAgreement]] = {}
    histograms: Histograms = Histograms()
    accuracy: Accuracy = Accuracy()
    confusion: dict[str, dict[str, int]] = {}
    ground_truth: LabelCounts = LabelCounts()
    sample: Sample = Sample()
    rejections: dict[str, dict[str, Rejection]] = {}
    seconds: dict[str, float] = {}
    bytes: dict[str, int] = {}


class ShardRead(Struct, frozen=True):
    """What Normalize shard stores for Aggregate shard beside the accepted rows: numbers of rows, and statistics."""

    rows_in: int
    rows_rejected: int
    statistics: ShardStatistics
    schema_version: int = SCHEMA_VERSION


class ShardReport(Struct, frozen=True):
    """The result of a shard; written last, so a shard with a report is finished.

    Attributes:
        rows_in: all of its rows: `rows_out` and `rows_rejected` together.
        status: FAILED without a quorum: then no row has a prediction.
        cause: why there is no quorum; None where there is one.
    """

    number: int
    rows_in: int
    rows_out: int
    rows_rejected: int
    status: Status
    cause: str | None
    statistics: ShardStatistics
    schema_version: int = SCHEMA_VERSION


def merge_statistics(parts: Iterable[ShardStatistics]) -> ShardStatistics:
    """Merge the statistics of several shards.

    Raises:
        ValueError: histograms have different edges.
    """
    return reduce(_merge, parts, ShardStatistics())


def _merge(one: Any, other: Any) -> Any:
    match one:
        case None:
            return other
        case _ if other is None:
            return one
        case dict():
            both = {key: _merge(value, other[key]) for key, value in one.items() if key in other}
            return {**one, **other, **both}
        case tuple():
            return tuple(_merge(*pair) for pair in zip(one, other, strict=True))
        case Histogram() if one.edges != other.edges:
            raise ValueError(f"histograms of different edges: {one.edges} and {other.edges}")
        case Histogram():
            return Histogram(one.edges, _merge(one.counts, other.counts), one.missing + other.missing)
        case Sample():
            return merge_samples(one, other)
        case Rejection():
            examples = tuple(sorted({*one.examples, *other.examples})[:MAX_EXAMPLES])
            return Rejection(one.rows + other.rows, examples)
        case Struct():
            return type(one)(*map(_merge, structs.astuple(one), structs.astuple(other)))
        case _:
            return one + other


def count_rows_read(
    values: Mapping[str, Floats],
    edges: Mapping[str, Sequence[float]],
    wrong: Iterable[tuple[str, str, RowLocation]] = (),
    *,
    ground_truth: LabelCounts = LabelCounts(),  # noqa: B008 frozen
) -> ShardStatistics:
    """Count a shard's rows before they are predicted.

    Args:
        values: of accepted rows, by feature (`frame_encoder.EncodedRows.values`).
        edges: of histograms, by feature; a feature without edges is not counted.
        wrong: column, kind of reason and location of each rejected value, and of each record that is no row.
        ground_truth: counts of the labels.
    """
    rejected: dict[str, dict[str, list[RowLocation]]] = {}
    for column, kind, location in wrong:
        rejected.setdefault(column, {}).setdefault(kind, []).append(location)
    features = {name: count_bins(numbers, edges[name]) for name, numbers in values.items() if name in edges}
    return ShardStatistics(
        histograms=Histograms(features=features),
        ground_truth=ground_truth,
        rejections={
            column: {
                kind: Rejection(len(locations), tuple(sorted(locations)[:MAX_EXAMPLES]))
                for kind, locations in kinds.items()
            }
            for column, kinds in rejected.items()
        },
    )


def count_bins(values: Floats, edges: Sequence[float]) -> Histogram:
    """Count values by ascending edges, each of which belongs to the bin above it; NaN is missing."""
    present = len(values) - int(np.count_nonzero(np.isnan(values)))
    if len(edges) > MAX_COMPARED_EDGES:
        bins = np.searchsorted(edges, values, side="right")  # NaN sorts behind all numbers
        counts = np.bincount(bins, minlength=len(edges) + 1).tolist()
        counts[-1] -= len(values) - present
    else:
        reached = [present, *(int(np.count_nonzero(values >= edge)) for edge in edges), 0]
        counts = [before - after for before, after in pairwise(reached)]
    return Histogram(tuple(edges), tuple(counts), len(values) - present)


def count_predictions(
    release: Release,
    decision: Decision,
    edges: Sequence[float] = (),
    truth: Floats | None = None,
    keys: Hashes | None = None,
) -> ShardStatistics:
    """Count a shard's predictions and members; without a quorum there are no predictions, and only members are counted.

    Args:
        release: the release that predicted.
        decision: the decisions, and the outputs they come from.
        edges: of the prediction's histogram; without edges there is none.
        truth: `(rows,)`, the class's index or the number, NaN where the ground truth is not known.
        keys: `(rows,)`, by which rows are sampled (`sampling.compute_keys`); None for no sample.
    """
    task = release.task
    members = {
        member.id: _measure_member(task, member, decision, truth)
        for member in release.members
        if _was_invoked(member, decision)
    }
    agreement = {} if isinstance(task, RegressionTask) else _count_agreement(task, release, decision)
    parts = [_count_decided(task, part, edges, truth, keys) for part in decision.decided]
    return merge_statistics([*parts, ShardStatistics(members=members, agreement=agreement)])


def _was_invoked(member: ReleasedMember, decision: Decision) -> bool:
    return member.tier in decision.reached and len(decision.reached[member.tier]) > 0


def _count_decided(
    task: Task, part: DecidedRows, edges: Sequence[float], truth: Floats | None, keys: Hashes | None
) -> ShardStatistics:
    predictions, classes = part.predictions, part.predictions.classes
    known = None if truth is None else truth[part.numbers]
    sample = Sample()
    if classes is None:
        sample = sample if keys is None else take_sample(keys[part.numbers], predictions.value, known)
        accuracy = Accuracy() if known is None else _measure_values(predictions.value, known)
        labels, pivotal, confusion = {}, {}, {}
    else:
        confusion = {} if known is None else _count_confusion(task, classes.label, known)
        accuracy = Accuracy() if known is None else _measure_classes(task, classes.label, classes.probabilities, known)
        labels = _count(classes.label[classes.label != ABSTAINED], name_classes(task))
        pivotal = dict(zip(part.voters, map(int, map(np.count_nonzero, classes.pivotal.T)), strict=True))
    return ShardStatistics(
        statuses={"DEGRADED" if part.missing else "COMPLETE": len(part.numbers)} if len(part.numbers) else {},
        decisions=_count(encode_decisions(predictions), DECISIONS),
        labels=labels,
        tiers={str(part.tier): len(part.numbers)},
        members={id_: MemberStatistics(pivotal=rows) for id_, rows in pivotal.items()},
        histograms=Histograms(count_bins(predictions.value, edges) if edges else None),
        accuracy=accuracy,
        confusion=confusion,
        sample=sample,
    )


def _count_confusion(task: Task, labels: Integers, truth: Floats) -> dict[str, dict[str, int]]:
    names = name_classes(task)
    if len(names) > MAX_CONFUSION_CLASSES:
        return {}
    known = ~np.isnan(truth) & (labels != ABSTAINED)
    actual, predicted = truth[known].astype(np.int64), labels[known]
    return {names[index]: _count(predicted[actual == index], names) for index in np.unique(actual).tolist()}


def _count(codes: Integers, names: Sequence[str]) -> dict[str, int]:
    """Count codes by name; names that do not occur are left out."""
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def _measure_member(task: Task, member: ReleasedMember, decision: Decision, truth: Floats | None) -> MemberStatistics:
    result, output = decision.results[member.id], decision.outputs.get(member.id)
    if output is None:
        failure = "NoResult" if result.failure is None else result.failure.type
        return MemberStatistics(shards=1, failures={failure: 1})
    known = None if truth is None else truth[decision.reached[member.tier]]
    rows = len(output)
    if member.id in decision.faults:
        usable = find_usable(output)
        output, known = output[usable], None if known is None else known[usable]
    if isinstance(task, RegressionTask):
        values = output
        accuracy = Accuracy() if known is None else _measure_values(output, known)
    else:
        values = output[:, 1] if len(task.classes) == 2 else np.zeros(0)
        probabilities = None if isinstance(member.output, Label) else output
        labels = own_labels(task, output)
        accuracy = Accuracy() if known is None else _measure_classes(task, labels, probabilities, known)
    return MemberStatistics(
        shards=1,
        rows=len(output),
        seconds=(result.duration_ms or 0.0) / 1000,
        cold=int(bool(result.cold)),
        total=float(values.sum()),
        squares=float(np.square(values).sum()),
        accuracy=accuracy,
        unusable=rows - len(output),
    )


def _measure_values(values: Floats, truth: Floats) -> Accuracy:
    known = ~np.isnan(truth)
    rows = int(np.count_nonzero(known))
    return Accuracy(rows=rows, scored=rows, error_sum=float(np.abs(values[known] - truth[known]).sum()))


def _measure_classes(task: Task, labels: Integers, probabilities: Floats | None, truth: Floats) -> Accuracy:
    """Compare labels, and probabilities if there are any, with the true classes of the rows where these are known."""
    known = np.flatnonzero(~np.isnan(truth))
    labels, actual = labels[known], truth[known].astype(np.int64)
    rows, correct = len(known), int(np.count_nonzero(labels == actual))
    if probabilities is None:
        return Accuracy(rows, correct)
    probabilities = probabilities[known]
    if len(name_classes(task)) == 2:
        predicted, observed = probabilities[:, 1], actual == 1
        error = np.square(predicted - observed).sum()
    else:
        best = np.where(labels == ABSTAINED, probabilities.argmax(axis=1), labels)
        predicted, observed = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0], best == actual
        error = np.square(probabilities - np.eye(probabilities.shape[1])[actual]).sum()
    bins = np.minimum((predicted * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts, hits = (np.bincount(some, minlength=CALIBRATION_BINS).tolist() for some in (bins, bins[observed]))
    sums = np.bincount(bins, predicted, CALIBRATION_BINS).tolist()
    return Accuracy(rows, correct, rows, float(error), tuple(counts), tuple(sums), tuple(hits))


def _count_agreement(task: Any, release: Release, decision: Decision) -> dict[str, dict[str, PairAgreement]]:
    members = [member for member in release.members if member.id in decision.outputs and _was_invoked(member, decision)]
    labels = {member.id: own_labels(task, decision.outputs[member.id]) for member in members}
    counted: dict[str, dict[str, PairAgreement]] = {}
    for one, other in combinations(members, 2):
        # A later tier was invoked with some of the rows of an earlier one.
        both = decision.reached[max(one.tier, other.tier)]
        for member in (one, other):
            if member.id in decision.faults:
                usable = find_usable(decision.outputs[member.id])
                both = both[_select(usable, decision.reached[member.tier], both)]
        first, second = (_select(labels[member.id], decision.reached[member.tier], both) for member in (one, other))
        counted.setdefault(one.id, {})[other.id] = PairAgreement(len(both), int(np.count_nonzero(first == second)))
    return counted


def _select(values: Array, invoked: Integers, rows: Integers) -> Array:
    """Return the values at some of the rows that a member was invoked with."""
    return values if len(rows) == len(invoked) else values[np.searchsorted(invoked, rows)]
