"""Where the members' results come from, and how they are checked.

`decision.decide_rows` needs each tier's results and gets them from an `OutputSource`. Four places have one:

- an execution: what the state machine has collected (`handlers.prediction.member_results.StateResults`), of a payload
  and of a batch's shard alike
- in process: members that are invoked at once (`stepensemble.ensemble`)
- a replay: recorded outputs (`core.replay.recorded_outputs.RecordedOutputs`)
- results that are at hand: `CollectedResults`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from msgspec import Struct, structs

from stepensemble.core.aggregation.canonical import Faults, read_output, shape_output
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.arrays import Array, Floats, Integers
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.payload import Pointer
from stepensemble.core.schema.manifest import EnsembleMember
from stepensemble.core.schema.task import Task


class MemberResult(Struct, frozen=True):
    """One member's result for the rows of its tier: outputs, or a failure.

    Attributes:
        outputs: raw, `(rows,)` or `(rows, numbers)`; None where the member failed.
        pointer: where the outputs are stored, when they are too large to travel.
        canonical: the outputs in canonical form, from a source that has checked them already (see
            `canonical.read_output`); else None.
    """

    id: str
    outputs: Array | None = None
    duration_ms: float | None = None
    cold: bool | None = None
    failure: MemberFailure | None = None
    pointer: Pointer | None = None
    canonical: Floats | None = None


Results = Mapping[str, MemberResult]
"""Results by member id; an invoked member that is missing from them has failed."""


class OutputSource(Protocol):
    """Supplies the members' results, tier by tier."""

    def get_results(self, tier: int, rows: Integers) -> Results | None:
        """Return the results of a tier's members for some rows; None where they have not been computed yet.

        Args:
            tier: counted from 1.
            rows: numbers of the rows that reach this tier, ascending.
        """


@dataclass(frozen=True, slots=True)
class CollectedResults:
    """Results that are at hand: an `OutputSource` with the results of the first tiers, in order."""

    tiers: Sequence[Results]

    def get_results(self, tier: int, rows: Integers) -> Results | None:  # noqa: ARG002 (every row of a tier is there)
        """Return a tier's results; None beyond the last one."""
        return self.tiers[tier - 1] if tier <= len(self.tiers) else None


class CheckedResult(NamedTuple):
    """A member's result, checked against its declared output.

    Attributes:
        result: as it was supplied; a failure where the whole output is not what was declared.
        output: canonical, NaN in the rows that are not what was declared; None where the member failed.
        faults: these rows; None where there are none.
    """

    result: MemberResult
    output: Floats | None
    faults: Faults | None


def check_results(members: Iterable[EnsembleMember], task: Task, rows: int, results: Results) -> list[CheckedResult]:
    """Check the results of a tier's members, and convert their outputs to canonical form.

    Args:
        members: the tier's.
        task: what is predicted.
        rows: how many rows the members were invoked with.
        results: by member id.
    """
    return [_check_result(member, task, rows, results.get(member.id)) for member in members]


def _check_result(member: EnsembleMember, task: Task, rows: int, result: MemberResult | None) -> CheckedResult:
    if result is None:
        failure = MemberFailure("NoResult", "the member returned no result")
        return CheckedResult(MemberResult(member.id, failure=failure), None, None)
    if result.canonical is not None or result.outputs is None:
        return CheckedResult(result, result.canonical, None)
    try:
        return CheckedResult(result, *read_output(shape_output(result.outputs, rows), task, member.output))
    except InvalidOutput as error:
        return CheckedResult(structs.replace(result, failure=report_invalid(str(error))), None, None)


def report_invalid(message: str) -> MemberFailure:
    """Return the failure of a member whose output is not what it declares."""
    return MemberFailure(InvalidOutput.__name__, message)
