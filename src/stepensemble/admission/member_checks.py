"""The gate's checks of a member: verdicts on its probe, each with a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct, structs

from stepensemble.admission.output_meaning import suspect_kind
from stepensemble.admission.probes import MemberProbe, ProbedMember, ProbeResult, ProbeTarget
from stepensemble.admission.repeatability import BESIDE
from stepensemble.conversion.contract_inference import SHAPE_REMEDY
from stepensemble.core.aggregation.canonical import check_output, convert_output
from stepensemble.core.arrays import Array
from stepensemble.core.errors import InputMismatch, MemberError
from stepensemble.core.preprocessing.columns import bind_columns
from stepensemble.core.problems import Problem, enumerate_values, show
from stepensemble.core.releases.release import SHORT
from stepensemble.core.schema.manifest import Feature, Member
from stepensemble.core.schema.outputs import name_kind
from stepensemble.core.schema.task import Task
from stepensemble.core.slot_capacity import MEBIBYTE, RESERVE, Capacity
from stepensemble.runtimes import Signature, Tensor
from stepensemble.runtimes.archives import measure_archive
from stepensemble.runtimes.graph_checks import TRUST
from stepensemble.runtimes.model import NO_WHOLE, select_output
from stepensemble.runtimes.precision import DOUBLES, list_narrowed

Verdict = Literal["ok", "warning", "refused"]

MARGIN = 2
"""How many times faster than its timeout a member should be here. A slot of 1,024 MB has 0.58 of a processor, as
1,769 MB have one (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html), and processors differ."""


class Check(Struct, frozen=True):
    """One check of the gate.

    Attributes:
        member: the member's id; None for a check of the ensemble.
        name: what was checked.
        figure: what was found.
        limit: what the figure should be, or its maximum; None if any figure passes.
        problem: None if the verdict is ok.
    """

    member: str | None
    name: str
    figure: str
    limit: str | None = None
    verdict: Verdict = "ok"
    problem: Problem | None = None


DENIED = "Permission denied"
"""The system's error when a model that is trusted to do more than compute leaves its confinement."""

WHOLE_REMEDY = 'give the manifest "golden" rows with whole numbers for the features that the model takes as integers'

CONFINED_REMEDY = (
    "the model writes or reads a file when it predicts, which it may not, trusted or not: export it without that"
)


@dataclass(frozen=True, slots=True)
class CheckedMember:
    """A member that the gate checks.

    Attributes:
        path: the JSON path of its entry in the manifest.
        entry: its entry in the manifest.
        target: the compiled member, with the model file and the golden rows.
        probe: the result of running it.
        features: of the manifest.
    """

    path: str
    entry: Member
    target: ProbeTarget
    probe: MemberProbe
    features: Sequence[Feature]

    def check(self, name: str, figure: str, limit: str | None = None) -> Check:
        """Return a check that passed."""
        return Check(self.entry.id, name, figure, limit)

    def with_problem(self, check: Check, verdict: Verdict, key: str, reason: str, remedy: str) -> Check:
        """Return a check with a problem at a key of the entry."""
        problem = Problem(f"{self.path}{key}", f"{self.entry.id} ({self.entry.artifact}): {reason}", remedy)
        return structs.replace(check, verdict=verdict, problem=problem)

    def reject(self, name: str, limit: str | None, error: Exception, key: str, remedy: str, more: str = "") -> Check:
        """Return a check that failed with an error."""
        kind = type(error).__name__
        return self.with_problem(self.check(name, kind, limit), "refused", key, f"{kind}: {error}{more}", remedy)


def check_member(checked: CheckedMember, task: Task, capacity: Capacity) -> Iterator[Check]:
    """Check a member: its file, inputs and outputs, then what it needs of its slot.

    The later checks need a member that can be loaded and run, and whose outputs are valid.
    """
    entry, artifact = checked.entry, checked.target.member.artifact
    # A file whose digest differs from the pinned one has been rejected before, when it was read.
    yield checked.check("digest", artifact.digest[:SHORT], None if entry.digest is None else entry.digest[:SHORT])
    match checked.probe:
        case MemberError() as error:
            yield reject_artifact(checked, error)
        case ProbedMember(signature, result):
            trusted = ", trusted to do more than compute" if checked.target.member.trusted else ""
            yield checked.check("artifact", f"{artifact.size:,} bytes{trusted}")
            checks = list(check_contract(checked, signature, result, task))
            if isinstance(result, ProbeResult) and all(check.verdict != "refused" for check in checks):
                checks.append(check_repeatability(checked, result))
            yield from checks
            if isinstance(result, ProbeResult) and all(check.verdict != "refused" for check in checks):
                yield check_order(checked, result)
                yield check_memory(checked, result, capacity)
                if entry.runtime == "tensorflow":
                    yield check_disk(checked, capacity)
                yield check_time(checked, result, capacity)


def reject_artifact(checked: CheckedMember, error: MemberError) -> Check:
    """Return the check of a member that cannot be loaded, with the remedy for its error."""
    check = checked.check("artifact", type(error).__name__, checked.entry.runtime)
    reason, remedy = str(error), "give a model file of that runtime, and a signature that it has"
    if reason.endswith(f". {TRUST}"):
        reason, remedy = reason.removesuffix(f". {TRUST}"), TRUST[0].lower() + TRUST[1:]
    return checked.with_problem(check, "refused", ".artifact", f"{type(error).__name__}: {reason}", remedy)


def check_contract(
    checked: CheckedMember, signature: Signature, result: ProbeResult | MemberError, task: Task
) -> Iterator[Check]:
    """Check a model's inputs and outputs, up to the first problem."""
    output = checked.entry.output
    kind = f'"{name_kind(output)}"'
    try:
        tensor = select_output(signature, output.name)
    except InputMismatch as error:
        yield checked.reject("output", kind, error, ".output.name", "name one of them")
        return
    inputs = check_inputs(checked, signature, result)
    yield inputs
    if inputs.problem is not None:
        return
    rows = len(next(iter(checked.target.golden.values())))
    try:
        if isinstance(result, MemberError):
            raise result
        values = check_output(result.output, rows)
        yield checked.check("golden rows", describe_outputs(values))
    except MemberError as error:
        yield checked.reject("golden rows", None, error, "", "fix the model, or the golden rows")
        return
    try:
        convert_output(values, task, output)
    except MemberError as error:
        yield checked.reject("output", kind, error, ".output", "fix the model, or declare what its output means")
        return
    check, suspicion = checked.check("output", describe_tensor(tensor), kind), suspect_kind(values, output)
    yield check if suspicion is None else checked.with_problem(check, "warning", ".output.kind", *suspicion)


def check_inputs(checked: CheckedMember, signature: Signature, result: ProbeResult | MemberError) -> Check:
    """Check that a model takes the shapes and dtypes of its columns, for any number of rows."""
    entry, target = checked.entry, checked.target
    takes, gives = describe_inputs(signature), describe_columns(target)
    key = ".inputs" if entry.inputs is not None else ".columns" if entry.columns is not None else ""
    remedy = 'name the columns it takes in "columns", or in "inputs" for each input by name, or fix the model'
    check = checked.check("inputs", gives, takes)
    if signature.batch not in (None, 1):
        reason = f"it takes exactly {signature.batch} rows at once, and gets any number"
        return checked.with_problem(check, "refused", ".artifact", reason, "convert it with a batch that is free, or 1")
    if isinstance(result, InputMismatch) and target.member.trusted and DENIED in str(result):
        return checked.reject("inputs", takes, result, ".artifact", CONFINED_REMEDY)
    if isinstance(result, InputMismatch) and NO_WHOLE in str(result):
        return checked.reject("inputs", takes, result, key, WHOLE_REMEDY)
    if isinstance(result, InputMismatch):
        more = f" (it takes {takes}; its columns give {gives})"
        if all(array.ndim > 1 for array in target.golden.values()):  # only tensors and images
            remedy = SHAPE_REMEDY
        return checked.reject("inputs", takes, result, key, remedy, more)
    narrowed = list_narrowed(signature, target.member.inputs, checked.features, DOUBLES)
    if narrowed:
        names = enumerate_values(narrowed)
        reason = f"it takes float64, and gets {names} in float32, in which 16777217 is 16777216"
        remedy = f'give the features {names} "dtype": "float64", or "float32" where seven digits are enough'
        return checked.with_problem(check, "refused", key, reason, remedy)
    return check


def check_repeatability(checked: CheckedMember, result: ProbeResult) -> Check:
    """Check that a row's output does not depend on the rows beside it, on their order or on the call."""
    repeatability, entry = result.repeatability, checked.entry
    check = checked.check("repetition", "same in every way", "same")
    if repeatability.failures:
        check = structs.replace(check, figure="fails")
        reason = f"it does not predict the same rows in every way: {'; '.join(repeatability.failures)}"
        return checked.with_problem(check, "refused", "", reason, "export it for any number of rows")
    if repeatability.differences:
        check = structs.replace(check, figure="differs")
        reason = f"its outputs for the same rows differ: {'; '.join(repeatability.differences)}"
        if entry.varies:
            remedy = 'ignore this if its outputs are meant to vary, else remove "varies"'
            return checked.with_problem(check, "warning", ".varies", reason, remedy)
        remedy = (
            "export it for inference: BatchNormalization and Dropout with training=False, no statistics over the "
            'batch, no state; or declare "varies": true (add --varies) if its outputs are meant to vary'
        )
        return checked.with_problem(check, "refused", "", reason, remedy)
    if repeatability.untested:
        ways = ", ".join(repeatability.untested)
        check = structs.replace(check, figure=f"not tested {ways}")
        reason = f"whether its outputs for the same rows are the same {ways} was not tested"
        remedy = 'give two "golden" rows that differ' if repeatability.untested == (BESIDE,) else "use a faster model"
        return checked.with_problem(check, "warning", "", reason, remedy)
    return check


def check_order(checked: CheckedMember, result: ProbeResult) -> Check:
    """Check that exchanging columns changes the outputs, so that the fingerprint detects a wrong order."""
    columns = len(checked.target.movable)
    if result.repeatability.differences:
        return checked.check("column order", "unknown, as its outputs vary")
    if result.order_matters is None:
        return checked.check("column order", "one column" if columns else "only tensors")
    check = checked.check("column order", "detected" if result.order_matters else "not detected", "detected")
    if result.order_matters:
        return check
    reason = f"its outputs stay the same when its {columns} columns are exchanged, so a wrong order is not detected"
    remedy = 'ignore this if it takes them in any order, else give "golden" rows for which the order matters'
    return checked.with_problem(check, "warning", "", reason, remedy)


def check_memory(checked: CheckedMember, result: ProbeResult, capacity: Capacity) -> Check:
    """Check that a member fits into the memory of its slot, with an invocation's rows."""
    needed = result.peak_bytes
    check = checked.check("memory", show_mebibytes(needed), show_mebibytes(capacity.memory))
    if needed <= capacity.comfort:
        return check
    verdict: Verdict = "refused" if needed > capacity.most else "warning"
    reason = (
        f"it uses {show_mebibytes(needed)} to load and to predict {count_rows(checked)}, and its slot has "
        f"{show_mebibytes(capacity.memory)}, of which {show_mebibytes(RESERVE)} should be left for more rows"
    )
    remedy = "make it smaller, with float16 or quantized weights for example"
    if capacity.most > capacity.memory:
        remedy += ", or deploy its slots with a greater MemorySize"
    return checked.with_problem(check, verdict, ".artifact", reason, remedy)


def check_disk(checked: CheckedMember, capacity: Capacity) -> Check:
    """Check that a SavedModel can be unpacked in its slot."""
    limit, size = show_mebibytes(capacity.disk), measure_archive(checked.target.artifact)
    check = checked.check("disk", show_mebibytes(size), limit)
    if size <= capacity.disk:
        return check
    reason = f"it unpacks to {show_mebibytes(size)}, and its slot has a disk of {limit}"
    return checked.with_problem(check, "refused", ".artifact", reason, "make it smaller")


def check_time(checked: CheckedMember, result: ProbeResult, capacity: Capacity) -> Check:
    """Check that a member's first response in a new environment is well within its timeout."""
    timeout = checked.entry.timeout
    taken = capacity.start + (result.load_ms + result.predict_ms) / 1000
    check = checked.check("time", f"{taken:.2f} s", f"{timeout} s")
    if taken * MARGIN <= timeout:
        return check
    reason = (
        f"it takes {taken:.2f} s here to start, load and predict {count_rows(checked)}, and its timeout is {timeout} s"
    )
    remedy = "raise the timeout, to 50 at most, or use a faster model"
    if taken > timeout:
        return checked.with_problem(check, "refused", ".timeout", reason, remedy)
    more = f"; a slot has about half a processor, so it should be {MARGIN} times faster"
    return checked.with_problem(check, "warning", ".timeout", reason + more, remedy)


def describe_inputs(signature: Signature) -> str:
    """Describe what a model takes for a row."""
    if len(signature.inputs) == 1:
        return describe_tensor(signature.inputs[0])
    return ", ".join(f"{show(tensor.name)} {describe_tensor(tensor)}" for tensor in signature.inputs)


def describe_columns(target: ProbeTarget) -> str:
    """Describe what a member's columns hold for a row, input by input."""
    given = bind_columns(target.golden, target.member.inputs)
    return ", ".join(
        f"{show(name) if name else ''} {array.dtype.name} {list(array.shape[1:])}".strip()
        for name, array in given.items()
    )


def describe_tensor(tensor: Tensor) -> str:
    """Describe a tensor's dtype and its shape for a row."""
    shape = "of any shape"
    if tensor.shape is not None:
        shape = "[" + ", ".join("any" if size is None else str(size) for size in tensor.shape) + "]"
    return f"{tensor.dtype} {shape}{'' if tensor.quantization is None else ', quantized'}"


def describe_outputs(values: Array) -> str:
    """Describe the range of a member's outputs."""
    if values.dtype.kind == "U":
        return f"{len(values)} rows, {len(set(values.ravel().tolist()))} names"
    return f"{len(values)} rows, from {values.min():.4g} to {values.max():.4g}"


def count_rows(checked: CheckedMember) -> str:
    """Return how many rows a member predicted."""
    rows = len(next(iter(checked.target.golden.values())))
    return f"{rows} rows"


def show_mebibytes(size: int) -> str:
    """Return a size in bytes as text, in MiB."""
    return f"{size / MEBIBYTE:,.0f} MiB" if size >= MEBIBYTE else f"{size / MEBIBYTE:.2f} MiB"
