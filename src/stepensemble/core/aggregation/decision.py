"""Decides rows, tier after tier: whether the voters hold the quorum, and whether a prediction is certain enough.

`decide_rows` gets each tier's results from an `OutputSource`, checks them (`output_source.check_results`), and calls
`row_predictions.predict_rows` for the rows whose voters hold the quorum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stepensemble.core.aggregation.canonical import Faults, find_usable
from stepensemble.core.aggregation.output_source import MemberResult, OutputSource, Results, check_results
from stepensemble.core.aggregation.pooling import Vote, effective_weights
from stepensemble.core.aggregation.quorum import Status, explain_failure, quorum_status
from stepensemble.core.aggregation.row_predictions import (
    RowPredictions,
    ShadowOutput,
    meets_confidence,
    predict_rows,
    select_predictions,
)
from stepensemble.core.arrays import Floats, Integers
from stepensemble.core.schema.manifest import EnsembleMember, select_voters
from stepensemble.core.schema.policy import Policy
from stepensemble.core.schema.task import Task

Outputs = Mapping[str, Floats]
"""Canonical outputs by member id. A failed member is left out; NaN stands in the rows in which a member failed."""


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """By what rows are decided: the task, the policy, and every member that may be invoked."""

    task: Task
    policy: Policy
    members: Sequence[EnsembleMember]

    @property
    def voters(self) -> tuple[EnsembleMember, ...]:
        """The members that count."""
        return select_voters(self.members)

    @property
    def tiers(self) -> int:
        """How many tiers there are; 1 without a cascade."""
        return max(member.tier for member in self.members)


@dataclass(frozen=True, slots=True)
class DecidedRows:
    """Rows that were decided in one tier, by these voters (`pivotal` has their order).

    Attributes:
        missing: the voters of this tier and those before it that have no output for these rows.
    """

    tier: int
    numbers: Integers
    voters: tuple[str, ...]
    missing: tuple[str, ...]
    predictions: RowPredictions


@dataclass(frozen=True, slots=True)
class FailedRows:
    """Rows without a prediction: the voters with an output for them do not hold the quorum, for the stated cause."""

    numbers: Integers
    missing: tuple[str, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for each row, and from which results.

    Attributes:
        decided: the rows that have a prediction.
        failed: the rows that have none, where the voters that responded at all hold the quorum.
        weights: voter id to its share in the prediction, in the last tier in which a row had a quorum; of a row for
            which all of them have an output. Where one has none, its share is divided among the others in proportion.
        cause: why there is no quorum in any row, since too few voters responded at all; `decided` is then empty. None
            where there is a quorum.
        reached: numbers of the rows that each tier's members were invoked for, by tier.
        results: of every invoked member; one whose output as a whole is not what it declared has failed.
        outputs: canonical, of the members that did not fail; NaN in rows that are not what was declared.
        faults: which rows these are, of the members that have some.
    """

    decided: tuple[DecidedRows, ...]
    failed: tuple[FailedRows, ...]
    weights: Mapping[str, float]
    cause: str | None
    reached: Mapping[int, Integers]
    results: Results
    outputs: Outputs
    faults: Mapping[str, Faults]

    @property
    def status(self) -> Status:
        """FAILED where no row has a prediction; DEGRADED where one has none, or misses a voter; else COMPLETE."""
        predicted = [part for part in self.decided if len(part.numbers)]
        if not predicted:
            return "FAILED"
        return "DEGRADED" if self.failed or any(part.missing for part in predicted) else "COMPLETE"

    def explain(self, part: FailedRows, voters: Sequence[EnsembleMember]) -> list[str]:
        """Return for each of these rows why it has no prediction: the quorum's cause, and the faults of outputs."""
        reasons: list[list[str]] = [[part.cause] for _ in part.numbers]
        for voter in voters:
            faults, rows = self.faults.get(voter.id), self.reached.get(voter.tier)
            if faults is None or rows is None or voter.id not in part.missing:
                continue
            explained = faults.explain(np.searchsorted(rows, part.numbers))
            for listed, reason in zip(reasons, explained, strict=True):
                listed += [] if reason is None else [f"{voter.id}: {reason}"]
        return ["; ".join(listed) for listed in reasons]


@dataclass(frozen=True, slots=True)
class Undecided:
    """Rows that need the results of a tier whose members have not been invoked yet."""

    tier: int
    numbers: Integers


def decide_rows(terms: DecisionRules, rows: int, source: OutputSource) -> Decision | Undecided:
    """Decide every row, tier after tier.

    The voters of a row are those with a usable output for it. Where they hold the quorum, among the voters of a tier
    and of those before it, the tier decides the row if the prediction meets the cascade's bounds. The last tier decides
    all rows that are left. Without a cascade there is one tier.

    Args:
        terms: task, policy and members.
        rows: how many there are.
        source: supplies each tier's results.

    Returns:
        `Undecided` if the source does not have the results of a tier that is needed.
    """
    open_rows = np.arange(rows)
    reached: dict[int, Integers] = {}
    results: dict[str, MemberResult] = {}
    outputs: dict[str, Floats] = {}
    faults: dict[str, Faults] = {}
    tiers: list[_DecidedTier] = []
    for tier in range(1, terms.tiers + 1):
        supplied = source.get_results(tier, open_rows)
        if supplied is None:
            return Undecided(tier, open_rows)
        reached[tier] = open_rows
        members = [member for member in terms.members if member.tier == tier]
        for result, output, wrong in check_results(members, terms.task, len(open_rows), supplied):
            results[result.id] = result
            if output is not None:
                outputs[result.id] = output
            if wrong is not None:
                faults[result.id] = wrong
        tiers.append(_decide_tier(terms, tier, reached, outputs))
        open_rows = tiers[-1].list_open()
        if not len(open_rows):
            break
    decided = tuple(part for one in tiers for part in one.decided)
    failed: tuple[FailedRows, ...] = ()
    weights = _share_weights(terms, tiers)
    cause: str | None = None
    if len(open_rows):
        voters = [voter for voter in terms.voters if voter.tier in reached]
        if quorum_status(terms.policy, voters, outputs) == "FAILED":
            decided, weights, cause = (), {}, explain_failure(terms.policy, voters, outputs)
        else:
            failed = tuple(_fail_rows(terms.policy, voters, part) for part in tiers[-1].without_quorum)
    return Decision(decided, failed, weights, cause, reached, results, outputs, faults)


class _RowsPresent(NamedTuple):
    """Rows for which the same members have an output."""

    numbers: Integers
    present: tuple[str, ...]


class _DecidedTier(NamedTuple):
    """What one tier decided.

    Attributes:
        without_quorum: rows whose voters so far do not hold the quorum.
        uncertain: rows whose predictions miss a bound of the cascade.
    """

    decided: list[DecidedRows]
    without_quorum: list[_RowsPresent]
    uncertain: list[Integers]

    def list_open(self) -> Integers:
        """Return the rows that are left for the next tier, ascending."""
        parts = [*self.uncertain, *(part.numbers for part in self.without_quorum)]
        return np.sort(np.concatenate(parts)) if parts else np.arange(0)


def _decide_tier(terms: DecisionRules, tier: int, reached: Mapping[int, Integers], outputs: Outputs) -> _DecidedTier:
    """Decide the rows that reached a tier, by its outputs and those of the tiers before it."""
    policy, numbers = terms.policy, reached[tier]
    members = [member for member in terms.members if member.tier <= tier]
    voters, shadows = select_voters(members), [member for member in members if member.role == "shadow"]
    selected = {
        member.id: _select_rows(outputs[member.id], reached[member.tier], numbers)
        for member in members
        if member.id in outputs
    }
    result = _DecidedTier([], [], [])
    for places, usable in _divide_by_presence(selected, len(numbers)):
        if quorum_status(policy, voters, usable) == "FAILED":
            result.without_quorum.append(_RowsPresent(numbers[places], tuple(usable)))
            continue
        votes = [Vote(voter.id, voter.weight, usable[voter.id]) for voter in voters if voter.id in usable]
        seen = [ShadowOutput(shadow, usable[shadow.id]) for shadow in shadows if shadow.id in usable]
        predictions, certain = predict_rows(terms.task, policy, votes, seen), numbers[places]
        if tier < terms.tiers and policy.cascade is not None:
            enough = meets_confidence(policy.cascade, predictions)
            result.uncertain.append(certain[~enough])
            certain, predictions = certain[enough], select_predictions(predictions, enough)
        ids = tuple(vote.id for vote in votes)
        result.decided.append(DecidedRows(tier, certain, ids, _list_missing(voters, usable), predictions))
    return result


def _share_weights(terms: DecisionRules, tiers: Sequence[_DecidedTier]) -> dict[str, float]:
    """Return each voter's share, in the last tier in which a row had a quorum."""
    for tier in reversed(tiers):
        counted = {id_ for part in tier.decided for id_ in part.voters}
        if counted:
            votes = [Vote(voter.id, voter.weight, np.empty(0)) for voter in terms.voters if voter.id in counted]
            shares = effective_weights(terms.policy.aggregation, votes).tolist()
            return dict(zip((vote.id for vote in votes), shares, strict=True))
    return {}


def _fail_rows(policy: Policy, voters: Sequence[EnsembleMember], part: _RowsPresent) -> FailedRows:
    cause = explain_failure(policy, voters, part.present)
    return FailedRows(part.numbers, _list_missing(voters, part.present), cause)


def _list_missing(voters: Sequence[EnsembleMember], present: Collection[str]) -> tuple[str, ...]:
    return tuple(voter.id for voter in voters if voter.id not in present)


def _divide_by_presence(outputs: Outputs, rows: int) -> Iterator[tuple[Integers, Outputs]]:
    """Yield the rows for which the same members have an output: their places, and these members' outputs of them."""
    usable = [find_usable(output) for output in outputs.values()]
    if all(flags.all() for flags in usable):
        yield np.arange(rows), outputs
        return
    patterns, belongs = np.unique(np.stack(usable, axis=1), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        places = np.flatnonzero(belongs.reshape(-1) == number)
        present = [id_ for id_, there in zip(outputs, pattern, strict=True) if there]
        yield places, {id_: outputs[id_][places] for id_ in present}


def _select_rows(output: Floats, rows: Integers, numbers: Integers) -> Floats:
    """Return a member's output for some of the rows that it was invoked for."""
    return output if len(rows) == len(numbers) else output[np.searchsorted(rows, numbers)]
