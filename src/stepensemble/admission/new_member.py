"""Adds a model file to a manifest as a member.

There are two steps. `plan_addition` reads and converts the file, completes the member's entry, and runs the gate on the
resulting manifest. `write_addition` writes the artifact first and the manifest last, each file at once or not at all,
so an interruption changes nothing that is in use.
"""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, UnsetType, structs

from stepensemble.admission.gate import GateReport, run_gate
from stepensemble.admission.json_edit import append_item, set_value
from stepensemble.admission.member_checks import WHOLE_REMEDY
from stepensemble.conversion.child_process import run_in_child
from stepensemble.conversion.contract_inference import (
    GoldenColumns,
    Inputs,
    choose_inputs,
    choose_output,
    describe_inferred,
    infer_output,
)
from stepensemble.conversion.converter import ConversionOptions, Converted, JobRunner, convert
from stepensemble.conversion.parity import DRAWN_ROWS, Labels, choose_labels
from stepensemble.core.aggregation.canonical import check_output, convert_output
from stepensemble.core.aggregation.classification import own_labels
from stepensemble.core.arrays import Array
from stepensemble.core.errors import AdditionRefused, InputMismatch, InvalidManifest, InvalidOutput
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.releases.release import digest_of
from stepensemble.core.schema.manifest import Feature, Manifest, Member
from stepensemble.core.schema.outputs import Output, name_kind
from stepensemble.core.schema.task import RegressionTask, Task
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.publishing.golden import draw_rows, read_golden
from stepensemble.publishing.manifest_loader import read_artifacts
from stepensemble.runtimes.model import NO_WHOLE
from stepensemble.runtimes.precision import DOUBLES, WHOLES, list_narrowed, widen

FIELDS = (
    "id",
    "version",
    "artifact",
    "runtime",
    "output",
    "weight",
    "role",
    "tier",
    "timeout",
    "columns",
    "inputs",
    "signature",
    "varies",
    "digest",
    "trusted",
)
"""The fields of a member's entry, in the order of the shipped manifest."""

DEFAULTS: Mapping[str, Any] = {
    **{field.name: field.default for field in structs.fields(Member) if field.default is not NODEFAULT},
    "weight": 1,  # not 1.0
}

LIKELY_KINDS: Mapping[Any, str] = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}
"""The most frequent kind of output for each task; it is checked before it is written."""

FIRST_VERSION = "1"
EXTENSIONS = {"litert": ".tflite", "tensorflow": ".zip"}

Write = Callable[[Path, bytes], None]
"""Writes a file at once or not at all."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file to add, and the fields that the caller declares for it.

    Attributes:
        fields: declared fields of its entry, by the manifest's names; at least the `id`.
        replace: whether it replaces the member of that id.
        architecture, trust: as for `ConversionOptions`.
    """

    file: Path
    fields: Mapping[str, Any]
    replace: bool = False
    architecture: Path | None = None
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Addition:
    """What adding a model will write.

    Attributes:
        manifest: the manifest file.
        old_text: its text as it was read.
        new_text: its text with the member.
        member: the member as the new text declares it.
        replaced: the version that it replaces; None if it is a new member.
        body: the artifact to write; None if the file exists already.
        inferred: descriptions, by field, of what was inferred from the model because the caller did not declare it.
        report: the gate's report; its problems, if any, are of other members.
    """

    manifest: Path
    old_text: str
    new_text: str
    member: Member
    replaced: str | None
    body: bytes | None
    converted: Converted
    inferred: Mapping[str, str]
    report: GateReport

    @property
    def release(self) -> str:
        """The digest of the release that the new manifest compiles to."""
        return self.report.sources.digest

    @property
    def artifact(self) -> Path:
        """The path of the artifact."""
        return self.manifest.parent / self.member.artifact


class _ManifestParts(Struct, frozen=True):
    """The parts of a manifest, valid or not, that are needed to change it."""

    name: Any = None
    task: Any = None
    members: list[dict[str, Any]] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class _EntryPosition:
    """A manifest file, and the position of the candidate's entry in it.

    Attributes:
        index: of the entry among the members; one past the end if it is new.
    """

    manifest: Path
    text: str
    data: _ManifestParts
    index: int

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """The entries of all members, as the file has them."""
        return self.data.members or ()

    @property
    def replaced(self) -> Mapping[str, Any] | None:
        """The entry to replace; None if the member is new."""
        return self.entries[self.index] if self.index < len(self.entries) else None

    def put(self, entry: Mapping[str, Any]) -> str:
        """Return the manifest's text with an entry at this position.

        A replaced entry keeps its text except for the fields that differ. A new one gets the fields that differ from
        the defaults, and those that other entries write.
        """
        text = self.text
        if self.replaced is not None:
            for name in FIELDS:
                if self.replaced.get(name, DEFAULTS.get(name)) != entry[name]:
                    text = set_value(text, ("members", self.index, name), entry[name])
            return text
        written = {name for other in self.entries for name in other if entry.get(name) is not None}
        added = {name: entry[name] for name in FIELDS if name in written or entry[name] != DEFAULTS.get(name)}
        if self.data.members is UNSET:
            text = set_value(text, ("members",), [])
        return append_item(text, ("members",), added)


def plan_addition(
    manifest: Path, candidate: Candidate, notify: Callable[[str], None] = lambda _: None, run: JobRunner = run_in_child
) -> Addition:
    """Read and convert a model file, complete its entry and run the gate; write nothing.

    Args:
        manifest: the manifest file, which may have no member yet.
        candidate: the model file to add.
        notify: called with the name of each slow step.
        run: as for `convert`.

    Raises:
        AdditionRefused: the id is taken or unknown, or a field must be declared that cannot be inferred.
        InvalidManifest: with every problem that the manifest would have; most are found before the model is read.
            Problems of other members stay in the report, so that members can be fixed one by one.
        ModelFileError, MemberError, TensorFlowMissing: as `convert`.
    """
    position = _find_position(manifest, candidate)
    entry = _merge_fields(position, candidate)
    draft = _read_draft(position, entry)
    # In float64, since it is not known yet what the model takes; a model that takes float32 still gets float32.
    exact = tuple(map(widen, draft.features))
    columns = read_golden(exact, draft.golden or draw_rows(draft.features, DRAWN_ROWS))
    output = draft.members[position.index].output if "output" in entry else None
    bound: Inputs | None = entry["inputs"] or (None if entry["columns"] is None else {"": entry["columns"]})
    notify(f"Reading {candidate.file.name}" + ("" if candidate.file.suffix == ".tflite" else " and converting it"))

    def convert_with(inputs: Inputs | None) -> Converted:
        return convert(
            candidate.file,
            ConversionOptions(entry["signature"], candidate.architecture, candidate.trust),
            golden=GoldenColumns(columns, inputs),
            labels=_make_label_reader(draft.task, output),
            run=run,
        )

    try:
        converted = convert_with(bound)
    except InputMismatch as error:
        if NO_WHOLE in str(error) and not draft.golden:
            raise InputMismatch(f"{error}; the rows were drawn from the features: {WHOLE_REMEDY}") from None
        if bound is None or candidate.fields.keys() & {"columns", "inputs"}:
            raise
        # The entry names the columns of the replaced model; the new one takes others, as features have changed since.
        converted, bound = convert_with(None), None
    inferred: dict[str, str] = {}
    if bound is None:
        taken, inferred["columns"] = _name_columns(converted, columns)
        entry |= taken
    values = choose_output(converted.outputs, None if output is None else output.name, _likely_kind(position))
    if output is None:
        output = infer_output(draft.task, values)
        entry["output"], inferred["output"] = {"kind": name_kind(output)}, describe_inferred(draft.task, output, values)
    widened = list_narrowed(
        converted.signature, entry["inputs"] or {"": entry["columns"]}, draft.features, DOUBLES | WHOLES
    )
    if widened:
        inferred["features"] = f"{enumerate_values(widened)} in float64 from now on, as the model needs more digits"
    entry, exists = _complete(position, candidate, entry, converted)
    text = _widen(position.put(entry), draft.features, widened)
    report = run_gate(read_artifacts(manifest, parse_manifest(text), {entry["artifact"]: converted.artifact}), notify)
    own = [problem for problem in report.problems if not _is_of_other_member(problem, position.index)]
    if own:
        raise InvalidManifest(own)
    return Addition(
        manifest=manifest,
        old_text=position.text,
        new_text=text,
        member=report.sources.manifest.members[position.index],
        replaced=None if position.replaced is None else position.replaced["version"],
        body=None if exists else converted.artifact,
        converted=converted,
        inferred=inferred,
        report=report,
    )


def _widen(text: str, features: Sequence[Feature], names: Collection[str]) -> str:
    """Declare features as float64; members that take float32 still get float32."""
    for index, feature in enumerate(features):
        if feature.name in names:
            text = set_value(text, ("features", index, "dtype"), "float64")
    return text


def _is_of_other_member(problem: Problem, index: int) -> bool:
    found = re.match(r"\$\.members\[(\d+)\]", problem.path)
    return found is not None and int(found[1]) != index


def _find_position(manifest: Path, candidate: Candidate) -> _EntryPosition:
    text = _read(manifest)
    try:
        data = msgspec.json.decode(text, type=_ManifestParts)
    except msgspec.MsgspecError:
        parse_manifest(text)  # raises with the problems
        raise
    ids = [entry.get("id") for entry in data.members or ()]
    id_ = candidate.fields["id"]
    if candidate.replace and id_ not in ids:
        raise _error("--replace", f"there is no member {show(id_)}{suggest(id_, ids)}", "leave it out to add one")
    if not candidate.replace and id_ in ids:
        remedy = "give another id, or --replace to replace that model"
        raise _error("--id", f"{show(id_)} is a member already", remedy)
    return _EntryPosition(manifest, text, data, ids.index(id_) if candidate.replace else len(ids))


def _read(manifest: Path) -> str:
    try:
        return manifest.read_bytes().decode()
    except OSError as error:
        raise _error(str(manifest), f"cannot be read: {error.strerror}", "give the path of a manifest") from None
    except UnicodeDecodeError as error:
        raise InvalidManifest(
            [Problem("$", f"is not UTF-8: {error.reason} at byte {error.start}", "save it in UTF-8")]
        ) from None


def _merge_fields(position: _EntryPosition, candidate: Candidate) -> dict[str, Any]:
    """Return the known fields of the entry: those declared now, else those of the replaced entry, else the defaults."""
    fields = {"version": candidate.fields.get("version") or _next_version(position.replaced), **candidate.fields}
    if "columns" in fields or "inputs" in fields:
        fields = {"columns": None, "inputs": None, **fields}  # one replaces the other
    return {**DEFAULTS, **(position.replaced or {}), **fields}


def _next_version(replaced: Mapping[str, Any] | None) -> str:
    """Return the version after that of the replaced entry; the first version if none is replaced."""
    if replaced is None:
        return FIRST_VERSION
    version = str(replaced.get("version"))
    if not re.fullmatch("[0-9]+", version):
        raise _error("--version", f"there is no number after {show(version)}", "give the version of the new model")
    return str(int(version) + 1)


def _read_draft(position: _EntryPosition, entry: Mapping[str, Any]) -> Manifest:
    """Check the manifest before the model is read, with likely values for fields that are not known yet.

    Whether the model takes all columns is not known yet, so a problem with that is ignored.
    """
    likely = {"artifact": "not known yet", "output": {"kind": _likely_kind(position)}}
    text = position.put({**likely, **entry})
    try:
        return parse_manifest(text)
    except InvalidManifest as error:
        problems = [problem for problem in error.problems if problem.path != f"$.members[{position.index}]"]
        if problems:
            raise InvalidManifest(problems) from None
    return msgspec.json.decode(text, type=Manifest)


def _likely_kind(position: _EntryPosition) -> str:
    task = position.data.task
    return LIKELY_KINDS.get(task.get("type") if isinstance(task, dict) else None, "value")


def _make_label_reader(task: Task, output: Output | None) -> Labels | None:
    """Return what reads labels from the model's outputs, if the output is declared or inferred; None for regression."""
    if isinstance(task, RegressionTask):
        return None

    def read_labels(values: Array) -> Array:
        try:
            numbers = convert_output(check_output(values, len(values)), task, output or infer_output(task, values))
        except (InvalidOutput, AdditionRefused):
            return choose_labels(values)
        return own_labels(task, numbers)

    return read_labels


def _name_columns(converted: Converted, columns: Columns) -> tuple[dict[str, Any], str]:
    """Return the entry's fields for the columns that a model takes, and a description.

    They are written by name even if they are all columns, so that a later change of the features' order has no effect.
    """
    chosen = choose_inputs(converted.signature, columns)
    if chosen == {"": tuple(columns)}:
        return {"columns": list(columns), "inputs": None}, "all, as many as the model takes"
    listed = {name: list(taken) for name, taken in chosen.items()}
    if "" in listed:
        return {"columns": listed[""], "inputs": None}, "those with the name of the model's input"
    return {"columns": None, "inputs": listed}, "those with the names of the model's inputs"


def _complete(
    position: _EntryPosition, candidate: Candidate, entry: Mapping[str, Any], converted: Converted
) -> tuple[dict[str, Any], bool]:
    """Return the whole entry, and whether the artifact file exists already."""
    digest, version = digest_of(converted.artifact), entry["version"]
    if (
        "version" not in candidate.fields
        and position.replaced is not None
        and position.replaced.get("digest") == digest
    ):
        version = position.replaced["version"]  # it is the same model
    entry = {**entry, "version": version, "runtime": converted.runtime, "digest": digest}
    entry["trusted"] = digest if converted.needs_trust else None
    artifact, exists = _choose_path(position, candidate.file, converted, entry)
    return {**entry, "artifact": artifact}, exists


def _choose_path(
    position: _EntryPosition, file: Path, converted: Converted, entry: Mapping[str, Any]
) -> tuple[str, bool]:
    """Return the artifact's path, relative to the manifest, and whether the file exists already."""
    folder, body = position.manifest.parent, converted.artifact
    given = file.resolve()
    if given.is_relative_to(folder.resolve()) and given.is_file() and given.read_bytes() == body:
        return given.relative_to(folder.resolve()).as_posix(), True
    parents = Counter(str(PurePosixPath(other["artifact"]).parent) for other in position.entries if "artifact" in other)
    parent = PurePosixPath(parents.most_common(1)[0][0] if parents else position.data.name)
    version = re.sub(r"[^\w.-]+", "-", entry["version"])
    for stem in (entry["id"], f"{entry['id']}-{version}"):
        artifact = parent / f"{stem}{EXTENSIONS[converted.runtime]}"
        path = folder / artifact
        if not path.exists():
            return str(artifact), False
        if path.is_file() and path.read_bytes() == body:
            return str(artifact), True
    raise _error(
        "--version", f"{folder / artifact} exists with other content", "give another version, or remove the file"
    )


def write_addition(addition: Addition, write: Write | None = None) -> None:
    """Write a planned addition.

    Args:
        addition: the plan.
        write: writes a file; `write_file` by default.

    Raises:
        AdditionRefused: the manifest was changed since it was read, or a file cannot be written.
    """
    write = write or write_file
    _reject_if_changed(addition)
    if addition.body is not None:
        write(addition.artifact, addition.body)
        _reject_if_changed(addition)
    if addition.new_text != addition.old_text:
        write(addition.manifest, addition.new_text.encode())


def _reject_if_changed(addition: Addition) -> None:
    if _read(addition.manifest) != addition.old_text:
        raise _error(str(addition.manifest), "was changed while the model was read", "add the model again")


def write_file(path: Path, body: bytes) -> None:
    """Write a file at once or not at all; an existing file keeps its mode.

    Raises:
        AdditionRefused: it cannot be written.
    """
    target = path.resolve()  # the target of a link is replaced, not the link
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with fresh.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                fresh.chmod(target.stat().st_mode)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise _error(str(path), f"cannot be written: {error.strerror}", "fix that, and add the model again") from None


def _error(path: str, reason: str, remedy: str) -> AdditionRefused:
    return AdditionRefused([Problem(path, reason, remedy)])
