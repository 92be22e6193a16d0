"""The gate's checks of a member: from what it showed to verdicts, each with its figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct, structs

from stepensemble.admission.output_meaning import doubt_meaning
from stepensemble.admission.probes import ProbedMember, ProbeResult, Showed, Subject
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
"""How many times faster than its timeout asks a member should be here. A slot of 1,024 MB has 0.58 of a processor, as
1,769 MB have one (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html), and processors differ."""


class Check(Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        member: its id; None where it is about the ensemble.
        name: what was looked at.
        figure: what was found.
        limit: what the figure should be, or may be at most; None where nothing is asked of it.
        problem: None where the verdict is ok.
    """

    member: str | None
    name: str
    figure: str
    limit: str | None = None
    verdict: Verdict = "ok"
    problem: Problem | None = None


DENIED = "Permission denied"
"""What the system says where a model that is trusted to do more than compute leaves its confinement."""

WHOLE_REMEDY = 'give the manifest "golden" rows with whole numbers where the model takes them'

CONFINED_REMEDY = (
    "the model writes or reads a file when it predicts, which it may not, trusted or not: export it without that"
)


@dataclass(frozen=True, slots=True)
class Applicant:
    """A member at the gate.

    Attributes:
        path: of its entry in the manifest.
        entry: as the manifest has it.
        subject: what it was asked.
        showed: what it showed.
        features: of the manifest.
    """

    path: str
    entry: Member
    subject: Subject
    showed: Showed
    features: Sequence[Feature]

    def check(self, name: str, figure: str, limit: str | None = None) -> Check:
        """Return a check in which nothing is wrong."""
        return Check(self.entry.id, name, figure, limit)

    def doubt(self, check: Check, verdict: Verdict, key: str, reason: str, remedy: str) -> Check:
        """Return a check with what is wrong, at a key of the entry."""
        problem = Problem(f"{self.path}{key}", f"{self.entry.id} ({self.entry.artifact}): {reason}", remedy)
        return structs.replace(check, verdict=verdict, problem=problem)

    def refuse(self, name: str, limit: str | None, error: Exception, key: str, remedy: str, more: str = "") -> Check:
        """Return a check that ended in an error."""
        kind = type(error).__name__
        return self.doubt(self.check(name, kind, limit), "refused", key, f"{kind}: {error}{more}", remedy)


def check_member(applicant: Applicant, task: Task, capacity: Capacity) -> Iterator[Check]:
    """Check a member: what it is, takes and gives, then what it needs of its slot.

    Of one that cannot be loaded or asked, or answers something else than it should, the rest cannot be told.
    """
    entry, artifact = applicant.entry, applicant.subject.member.artifact
    # A file of another digest than the one it is pinned to is not even read.
    yield applicant.check("digest", artifact.digest[:SHORT], None if entry.digest is None else entry.digest[:SHORT])
    match applicant.showed:
        case MemberError() as error:
            yield refuse_artifact(applicant, error)
        case ProbedMember(signature, answer):
            trusted = ", trusted to do more than compute" if applicant.subject.member.trusted else ""
            yield applicant.check("artifact", f"{artifact.size:,} bytes{trusted}")
            checks = list(check_contract(applicant, signature, answer, task))
            if isinstance(answer, ProbeResult) and all(check.verdict != "refused" for check in checks):
                checks.append(check_repetition(applicant, answer))
            yield from checks
            if isinstance(answer, ProbeResult) and all(check.verdict != "refused" for check in checks):
                yield check_order(applicant, answer)
                yield check_memory(applicant, answer, capacity)
                if entry.runtime == "tensorflow":
                    yield check_disk(applicant, capacity)
                yield check_time(applicant, answer, capacity)


def refuse_artifact(applicant: Applicant, error: MemberError) -> Check:
    """Return the check of a member that cannot be loaded, with the one remedy that helps."""
    check = applicant.check("artifact", type(error).__name__, applicant.entry.runtime)
    reason, remedy = str(error), "give a model file of that runtime, and a signature that it has"
    if reason.endswith(f". {TRUST}"):
        reason, remedy = reason.removesuffix(f". {TRUST}"), TRUST[0].lower() + TRUST[1:]
    return applicant.doubt(check, "refused", ".artifact", f"{type(error).__name__}: {reason}", remedy)


def check_contract(
    applicant: Applicant, signature: Signature, answer: ProbeResult | MemberError, task: Task
) -> Iterator[Check]:
    """Check what a model takes and gives, up to the first thing that is wrong."""
    output = applicant.entry.output
    kind = f'"{name_kind(output)}"'
    try:
        tensor = select_output(signature, output.name)
    except InputMismatch as error:
        yield applicant.refuse("output", kind, error, ".output.name", "name one of them")
        return
    inputs = check_inputs(applicant, signature, answer)
    yield inputs
    if inputs.problem is not None:
        return
    rows = len(next(iter(applicant.subject.golden.values())))
    try:
        if isinstance(answer, MemberError):
            raise answer
        said = check_output(answer.output, rows)
        yield applicant.check("golden rows", describe_answers(said))
    except MemberError as error:
        yield applicant.refuse("golden rows", None, error, "", "mend the model, or the golden rows")
        return
    try:
        convert_output(said, task, output)
    except MemberError as error:
        yield applicant.refuse("output", kind, error, ".output", "mend the model, or say what its output means")
        return
    check, doubt = applicant.check("output", describe_tensor(tensor), kind), doubt_meaning(said, output)
    yield check if doubt is None else applicant.doubt(check, "warning", ".output.kind", *doubt)


def check_inputs(applicant: Applicant, signature: Signature, answer: ProbeResult | MemberError) -> Check:
    """Check that a model takes what its columns give, any number of rows of it."""
    entry, subject = applicant.entry, applicant.subject
    takes, gives = describe_inputs(signature), describe_columns(subject)
    key = ".inputs" if entry.inputs is not None else ".columns" if entry.columns is not None else ""
    remedy = 'name the columns it takes in "columns", or in "inputs" for each input by name, or mend the model'
    check = applicant.check("inputs", gives, takes)
    if signature.batch not in (None, 1):
        reason = f"it takes exactly {signature.batch} rows at once, and is asked about any number"
        return applicant.doubt(check, "refused", ".artifact", reason, "convert it with a batch that is free, or 1")
    if isinstance(answer, InputMismatch) and subject.member.trusted and DENIED in str(answer):
        return applicant.refuse("inputs", takes, answer, ".artifact", CONFINED_REMEDY)
    if isinstance(answer, InputMismatch) and NO_WHOLE in str(answer):
        return applicant.refuse("inputs", takes, answer, key, WHOLE_REMEDY)
    if isinstance(answer, InputMismatch):
        more = f" (it takes {takes}; its columns give {gives})"
        if all(array.ndim > 1 for array in subject.golden.values()):  # nothing but tensors and pictures
            remedy = SHAPE_REMEDY
        return applicant.refuse("inputs", takes, answer, key, remedy, more)
    narrowed = list_narrowed(signature, subject.member.inputs, applicant.features, DOUBLES)
    if narrowed:
        names = enumerate_values(narrowed)
        reason = f"it takes float64, and is given {names} in float32, in which 16777217 is 16777216"
        remedy = f'give the features {names} "dtype": "float64", or "float32" where seven digits are enough'
        return applicant.doubt(check, "refused", key, reason, remedy)
    return check


def check_repetition(applicant: Applicant, answer: ProbeResult) -> Check:
    """Check that a row's answer does not depend on the rows beside it, on their order or on the call."""
    repetition, entry = answer.repetition, applicant.entry
    check = applicant.check("repetition", "same in every way", "same")
    if repetition.failures:
        check = structs.replace(check, figure="fails")
        reason = f"it does not answer the same rows in every way: {'; '.join(repetition.failures)}"
        return applicant.doubt(check, "refused", "", reason, "export it for any number of rows")
    if repetition.differences:
        check = structs.replace(check, figure="differs")
        reason = f"it does not answer the same rows alike: {'; '.join(repetition.differences)}"
        if entry.varies:
            remedy = 'ignore this if its answers are meant to vary, else remove "varies"'
            return applicant.doubt(check, "warning", ".varies", reason, remedy)
        remedy = (
            "export it for inference: BatchNormalization and Dropout with training=False, no statistics over the "
            'batch, no state; or declare "varies": true (add --varies) if its answers are meant to vary'
        )
        return applicant.doubt(check, "refused", "", reason, remedy)
    if repetition.untried:
        ways = ", ".join(repetition.untried)
        check = structs.replace(check, figure=f"not tried {ways}")
        reason = f"whether it answers the same rows alike {ways} was not tried"
        remedy = 'give two "golden" rows that differ' if repetition.untried == (BESIDE,) else "use a faster model"
        return applicant.doubt(check, "warning", "", reason, remedy)
    return check


def check_order(applicant: Applicant, answer: ProbeResult) -> Check:
    """Check that exchanged columns change an answer, so that the fingerprint tells of them."""
    columns = len(applicant.subject.movable)
    if answer.repetition.differences:
        return applicant.check("column order", "unknown, as its answers vary")
    if answer.notices is None:
        return applicant.check("column order", "one column" if columns else "no column but tensors")
    check = applicant.check("column order", "noticed" if answer.notices else "not noticed", "noticed")
    if answer.notices:
        return check
    reason = f"its answers stay the same when its {columns} columns are exchanged, so nothing tells a wrong order"
    remedy = 'ignore this if it takes them in any order, else give "golden" rows for which the order matters'
    return applicant.doubt(check, "warning", "", reason, remedy)


def check_memory(applicant: Applicant, answer: ProbeResult, capacity: Capacity) -> Check:
    """Check that a member fits into its slot beside an invocation's rows."""
    needed = answer.peak_bytes
    check = applicant.check("memory", show_mebibytes(needed), show_mebibytes(capacity.memory))
    if needed <= capacity.comfort:
        return check
    verdict: Verdict = "refused" if needed > capacity.most else "warning"
    reason = (
        f"it fills {show_mebibytes(needed)} when it is loaded and asked {count_rows(applicant)}, and its slot has "
        f"{show_mebibytes(capacity.memory)}, of which {show_mebibytes(RESERVE)} should be left for more rows"
    )
    remedy = "make it smaller, with float16 or quantized weights for example"
    if capacity.most > capacity.memory:
        remedy += ", or deploy its slots with a greater MemorySize"
    return applicant.doubt(check, verdict, ".artifact", reason, remedy)


def check_disk(applicant: Applicant, capacity: Capacity) -> Check:
    """Check that a SavedModel can be unpacked in its slot."""
    limit, size = show_mebibytes(capacity.disk), measure_archive(applicant.subject.artifact)
    check = applicant.check("disk", show_mebibytes(size), limit)
    if size <= capacity.disk:
        return check
    reason = f"it unpacks to {show_mebibytes(size)}, and its slot has a disk of {limit}"
    return applicant.doubt(check, "refused", ".artifact", reason, "make it smaller")


def check_time(applicant: Applicant, answer: ProbeResult, capacity: Capacity) -> Check:
    """Check that a member's first answer in a new environment comes before its timeout, and well before."""
    timeout = applicant.entry.timeout
    taken = capacity.start + (answer.load_ms + answer.predict_ms) / 1000
    check = applicant.check("time", f"{taken:.2f} s", f"{timeout} s")
    if taken * MARGIN <= timeout:
        return check
    reason = (
        f"it takes {taken:.2f} s here to start, load and answer {count_rows(applicant)}, and its timeout is {timeout} s"
    )
    remedy = "raise the timeout, to 50 at most, or use a faster model"
    if taken > timeout:
        return applicant.doubt(check, "refused", ".timeout", reason, remedy)
    more = f"; a slot has about half a processor, so it should be {MARGIN} times faster"
    return applicant.doubt(check, "warning", ".timeout", reason + more, remedy)


def describe_inputs(signature: Signature) -> str:
    """Say what a model takes a row."""
    if len(signature.inputs) == 1:
        return describe_tensor(signature.inputs[0])
    return ", ".join(f"{show(tensor.name)} {describe_tensor(tensor)}" for tensor in signature.inputs)


def describe_columns(subject: Subject) -> str:
    """Say what a member's columns give a row, input by input."""
    given = bind_columns(subject.golden, subject.member.inputs)
    return ", ".join(
        f"{show(name) if name else ''} {array.dtype.name} {list(array.shape[1:])}".strip()
        for name, array in given.items()
    )


def describe_tensor(tensor: Tensor) -> str:
    """Say of what type and shape a tensor is a row."""
    shape = "of any shape"
    if tensor.shape is not None:
        shape = "[" + ", ".join("any" if size is None else str(size) for size in tensor.shape) + "]"
    return f"{tensor.dtype} {shape}{'' if tensor.quantization is None else ', quantized'}"


def describe_answers(said: Array) -> str:
    """Say between what a member's answers lie."""
    if said.dtype.kind == "U":
        return f"{len(said)} rows, {len(set(said.ravel().tolist()))} names"
    return f"{len(said)} rows, from {said.min():.4g} to {said.max():.4g}"


def count_rows(applicant: Applicant) -> str:
    """Say about how many rows a member was asked."""
    rows = len(next(iter(applicant.subject.golden.values())))
    return f"{rows} rows"


def show_mebibytes(size: int) -> str:
    """Return bytes in a person's unit."""
    return f"{size / MEBIBYTE:,.0f} MiB" if size >= MEBIBYTE else f"{size / MEBIBYTE:.2f} MiB"
