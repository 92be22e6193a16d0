"""Probes: run every member on the golden rows for the gate, in as few child processes as possible.

One child process for all members of a runtime is enough if everything works. Another one is started to find the batch
at which a member failed, to test whether exchanging any two columns changes its output, and to measure the memory of
one member alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from stepensemble.admission.repeatability import (
    Repeat,
    Repeatability,
    Result,
    are_rows_equal,
    compare_repeats,
    list_repeats,
)
from stepensemble.conversion.sandbox import SandboxRequest, SandboxResult, run_artifacts
from stepensemble.core.arrays import Array
from stepensemble.core.errors import MemberError
from stepensemble.core.preprocessing.columns import Columns, bind_columns
from stepensemble.core.releases.release import ReleasedMember
from stepensemble.core.schema.outputs import Label
from stepensemble.core.slot_capacity import Capacity
from stepensemble.core.tolerance import compare
from stepensemble.runtimes import Signature
from stepensemble.runtimes.model import select_output

MAX_EXCHANGES = 64
"""Pairs of columns that are exchanged one by one, if moving all columns at once changes nothing."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """A member, its model file, and the golden rows it predicts.

    Attributes:
        others: drawn rows to put beside the golden rows, if the golden rows are all equal.
    """

    member: ReleasedMember
    artifact: bytes
    golden: Columns
    others: Columns | None = None

    def request(self, *batches: Columns, min_batches: int | None = None) -> SandboxRequest:
        """Return the request to load it and to predict batches of rows, one call each; see `SandboxRequest`."""
        member = self.member
        return SandboxRequest(
            member.runtime,
            self.artifact,
            member.signature,
            tuple(bind_columns(batch, member.inputs) for batch in batches),
            member.output.name,
            min_batches,
            trusted=member.trusted,
        )

    @property
    def rows_are_equal(self) -> bool:
        """Whether the golden rows are all equal in the columns that it takes."""
        return are_rows_equal(bind_columns(self.golden, self.member.inputs))

    @property
    def movable(self) -> tuple[str, ...]:
        """The columns it takes that could be exchanged: all except tensors."""
        taken = dict.fromkeys(name for names in self.member.inputs.values() for name in names)
        return tuple(name for name in taken if self.golden[name].ndim == 1)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A member's output for the golden rows, with measurements.

    Attributes:
        output: the output that the manifest declares, as the model returns it.
        order_matters: whether exchanging columns changes the output; None if the member takes fewer than two, or if
            its output for the same rows differs from call to call.
        repeatability: how the output compares with that for the same rows alone, in another order and again.
        load_ms: without the runtime's import.
        predict_ms: for the golden rows.
        peak_bytes: the most memory its process used; if that is more than comfortable, measured with nothing else in
            the process. Alone, a model of 95 MiB used 235 MiB, and 243 MiB in the handler that serves it.
    """

    output: Array
    order_matters: bool | None
    repeatability: Repeatability
    load_ms: float
    predict_ms: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class ProbedMember:
    """A member that can be loaded, with its result or its error."""

    signature: Signature
    result: ProbeResult | MemberError


MemberProbe = ProbedMember | MemberError
"""A member that was run, or the error of one that cannot be loaded."""


def probe_members(
    targets: Sequence[ProbeTarget], capacities: Mapping[str, Capacity], notify: Callable[[str], None]
) -> dict[str, MemberProbe]:
    """Run members on the golden rows, unchanged and with columns exchanged.

    Args:
        targets: all are run, even if one of them crashes its process.
        capacities: by runtime; memory is measured exactly only for a member that is not comfortable in its slot.
        notify: called with the name of each slow step.

    Returns:
        Each member's probe, by id; nothing is raised.
    """
    by_id = {target.member.id: target for target in targets}
    notify(f"Running {', '.join(by_id)}")
    probes = _probe_batches(by_id)
    unchanged = [(by_id[id_], result) for id_, result in _list_results(probes) if result.order_matters is False]
    if unchanged:
        notify(f"Exchanging columns of {', '.join(target.member.id for target, _ in unchanged)}")
        probes = _replace_results(probes, _exchange_pairs(unchanged))
    for id_, result in _list_results(probes):
        target = by_id[id_]
        if result.peak_bytes > capacities[target.member.runtime].comfort:
            notify(f"Measuring the memory of {id_}")
            probes = _replace_results(probes, {id_: _measure_memory(target, result)})
    return probes


@dataclass(frozen=True, slots=True)
class _ProbePlan:
    """What a member predicts after the golden rows: these with columns moved, if it has several, and repeated."""

    moved: Sequence[Columns]
    repeats: Sequence[Repeat]

    @property
    def batches(self) -> tuple[Columns, ...]:
        """All of it, one call each."""
        return (*self.moved, *(repeat.columns for repeat in self.repeats))

    @property
    def min_batches(self) -> int:
        """The calls that must be made: the golden rows, these with columns moved, and the first repeat."""
        return len(self.moved) + 2


def _probe_batches(targets: Mapping[str, ProbeTarget]) -> dict[str, MemberProbe]:
    """Predict the golden rows, then with every column in another one's place, and then every repeat."""
    plans = {id_: _ProbePlan(_rotate(one), list_repeats(one.golden, one.others)) for id_, one in targets.items()}
    first = _run(
        {
            id_: one.request(one.golden, *plans[id_].batches, min_batches=plans[id_].min_batches)
            for id_, one in targets.items()
        }
    )
    # A member may have failed at any batch. Its signature (no batch) and the golden rows alone (one batch) show which.
    failed = [id_ for id_, result in first.items() if isinstance(result, MemberError)]
    again = _run(
        {(id_, rows): targets[id_].request(*[targets[id_].golden] * rows) for id_ in failed for rows in (0, 1)}
    )
    single = _run(
        {
            (id_, number): targets[id_].request(targets[id_].golden, batch)
            for id_ in failed
            if isinstance(again[id_, 1], SandboxResult)
            for number, batch in enumerate(plans[id_].batches)
        }
    )
    probes: dict[str, MemberProbe] = {}
    for id_, target in targets.items():
        loaded, predicted = again.get((id_, 0), first[id_]), again.get((id_, 1), first[id_])
        if isinstance(loaded, MemberError):
            probes[id_] = loaded
            continue
        result: ProbeResult | MemberError
        if isinstance(predicted, MemberError):
            result = predicted
        else:
            numbers = range(len(plans[id_].batches))
            outputs = [
                _BatchOutput(single[id_, n], 1) if (id_, n) in single else _BatchOutput(predicted, n + 1)
                for n in numbers
            ]
            result = _read_result(target, plans[id_], predicted, outputs)
        probes[id_] = ProbedMember(loaded.signature, result)
    return probes


class _BatchOutput(NamedTuple):
    """The run in which a batch was predicted, and the batch's place among the outputs of that run."""

    run: SandboxResult | MemberError
    place: int

    def read(self, name: str) -> Result:
        """Return the output of that name."""
        if isinstance(self.run, MemberError):
            return self.run
        return self.run.outputs[self.place][name] if self.place < len(self.run.outputs) else None


def _read_result(
    target: ProbeTarget, plan: _ProbePlan, predicted: SandboxResult, batch_outputs: Sequence[_BatchOutput]
) -> ProbeResult | MemberError:
    """Return a member's output for the golden rows, compared with its outputs for the plan's batches.

    Args:
        target: the member.
        plan: what it predicted after the golden rows.
        predicted: its first output is that of the golden rows.
        batch_outputs: one for each of the plan's batches.
    """
    try:
        name = select_output(predicted.signature, target.member.output.name).name
    except MemberError as error:
        return error
    output, labels = predicted.outputs[0][name], isinstance(target.member.output, Label)
    results = [one.read(name) for one in batch_outputs]
    moved, repeated = results[: len(plan.moved)], results[len(plan.moved) :]
    repeatability = Repeatability()
    if output.shape[:1] == (len(next(iter(target.golden.values()))),):  # any other shape is rejected later
        repeatability = compare_repeats(output, list(zip(plan.repeats, repeated, strict=True)), labels=labels)
    order_matters = None
    if moved and not repeatability.differences:
        order_matters = not isinstance(moved[0], np.ndarray) or _differs(target, output, moved[0])
    return ProbeResult(
        output, order_matters, repeatability, predicted.load_ms, predicted.predict_ms[0], predicted.peak_bytes
    )


def _exchange_pairs(unchanged: Sequence[tuple[ProbeTarget, ProbeResult]]) -> dict[str, ProbeResult]:
    """Predict the golden rows with columns exchanged pair by pair."""
    runs = _run({target.member.id: target.request(_exchange(target)) for target, _ in unchanged})
    updated: dict[str, ProbeResult] = {}
    for target, result in unchanged:
        run = runs[target.member.id]
        order_matters = isinstance(run, MemberError) or any(
            _differs(target, result.output, output) for output in run.outputs[0].values()
        )
        updated[target.member.id] = replace(result, order_matters=order_matters)
    return updated


def _measure_memory(target: ProbeTarget, result: ProbeResult) -> ProbeResult:
    """Measure memory with nothing else in the process."""
    (alone,) = run_artifacts([target.request(target.golden)])
    return result if isinstance(alone, MemberError) else replace(result, peak_bytes=alone.peak_bytes)


def _list_results(probes: Mapping[str, MemberProbe]) -> list[tuple[str, ProbeResult]]:
    return [
        (id_, probe.result)
        for id_, probe in probes.items()
        if isinstance(probe, ProbedMember) and isinstance(probe.result, ProbeResult)
    ]


def _replace_results(probes: Mapping[str, MemberProbe], results: Mapping[str, ProbeResult]) -> dict[str, MemberProbe]:
    return {
        id_: replace(probe, result=results[id_]) if id_ in results and isinstance(probe, ProbedMember) else probe
        for id_, probe in probes.items()
    }


def _rotate(target: ProbeTarget) -> list[Columns]:
    """Return the golden rows with every column in another one's place; nothing if there are fewer than two."""
    names, golden = target.movable, target.golden
    if len(names) < 2:
        return []
    return [{**golden, **{name: golden[other] for name, other in zip(names, (*names[1:], names[0]), strict=True)}}]


def _exchange(target: ProbeTarget) -> Columns:
    """Return the golden rows once for each pair of neighbours, with these two columns exchanged."""
    golden = target.golden
    exchanged = [
        {**golden, one: golden[other], other: golden[one]}
        for one, other in list(pairwise(target.movable))[:MAX_EXCHANGES]
    ]
    taken = {name for names in target.member.inputs.values() for name in names}
    return {name: np.concatenate([columns[name] for columns in exchanged]) for name in taken}


def _differs(target: ProbeTarget, expected: Array, actual: Array) -> bool:
    """Return whether an output, repeated to the length of another, differs from it by the rule of `ensemble verify`."""
    repeated = np.concatenate([expected] * (len(actual) // len(expected)))
    labels = isinstance(target.member.output, Label)
    return bool(compare(repeated.tolist(), actual.tolist(), labels=labels))


def _run(requests: Mapping[Key, SandboxRequest]) -> dict[Key, SandboxResult | MemberError]:
    """Run artifacts, all those of one runtime in one child process."""
    results: dict[Key, SandboxResult | MemberError] = {}
    for runtime in sorted({request.runtime for request in requests.values()}):
        group = {key: request for key, request in requests.items() if request.runtime == runtime}
        results |= zip(group, run_artifacts(list(group.values())), strict=True)
    return results
