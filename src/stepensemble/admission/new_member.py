"""Make a member of a model file.

Two steps. `plan_addition` reads, converts, completes the member's entry, and has the gate examine the manifest as it
would be. `carry_out` writes: the artifact first and the manifest last, each at once or not at
all, so that who is interrupted has changed nothing that is in use.
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

from stepensemble.admission.gate import GateReport, examine
from stepensemble.admission.json_edit import append_item, set_value
from stepensemble.admission.member_checks import WHOLE_REMEDY
from stepensemble.conversion.child_process import run_apart
from stepensemble.conversion.contract_inference import (
    Golden,
    Inputs,
    choose_inputs,
    choose_output,
    deduce_output,
    describe_deduced,
)
from stepensemble.conversion.converter import Converted, Run, convert
from stepensemble.conversion.parity import DRAWN_ROWS, Labels, default_labels
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
"""Of a member's entry, in the order in which the shipped manifest has them."""

DEFAULTS: Mapping[str, Any] = {
    **{field.name: field.default for field in structs.fields(Member) if field.default is not NODEFAULT},
    "weight": 1,  # as people write it
}

LIKELY_KINDS: Mapping[Any, str] = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}
"""What the output of a model for a task most often is; checked before it is written."""

FIRST_VERSION = "1"
EXTENSIONS = {"litert": ".tflite", "tensorflow": ".zip"}

Write = Callable[[Path, bytes], None]
"""Writes a file at once or not at all."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file that shall become a member, and what is said of it.

    Attributes:
        said: what is said of its entry, by the manifest's names; at least the `id`.
        replace: whether it takes the place of the member of that id.
        architecture, trust: as for `convert`.
    """

    file: Path
    said: Mapping[str, Any]
    replace: bool = False
    architecture: Path | None = None
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Addition:
    """What adding a model is going to do.

    Attributes:
        manifest: the file.
        read: its text as it was read.
        text: as it shall be.
        member: as it shall be declared.
        replaced: the version whose place it takes; None where it takes nobody's.
        body: the artifact, where it has to be written; None where it lies there already.
        deduced: what nobody said and the model told, by field: in words.
        report: what the gate found; it refuses no more than other members.
    """

    manifest: Path
    read: str
    text: str
    member: Member
    replaced: str | None
    body: bytes | None
    converted: Converted
    deduced: Mapping[str, str]
    report: GateReport

    @property
    def release(self) -> str:
        """The release that the manifest compiles to then."""
        return self.report.sources.digest

    @property
    def artifact(self) -> Path:
        """Where the artifact lies."""
        return self.manifest.parent / self.member.artifact


class _Data(Struct, frozen=True):
    """What has to be known of a manifest to change it, sound or not."""

    name: Any = None
    task: Any = None
    members: list[dict[str, Any]] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class _Place:
    """A manifest file, and where in it the candidate's entry goes.

    Attributes:
        index: of the entry among the members; one past the end where it is new.
    """

    manifest: Path
    text: str
    data: _Data
    index: int

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """The entries of all members, as they are written."""
        return self.data.members or ()

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The entry that is replaced."""
        return self.entries[self.index] if self.index < len(self.entries) else None

    def put(self, entry: Mapping[str, Any]) -> str:
        """Return the manifest's text with an entry in this place.

        Of one that is replaced only what differs is written; a new one gets what differs from the defaults, and what
        the others write out.
        """
        text = self.text
        if self.before is not None:
            for name in FIELDS:
                if self.before.get(name, DEFAULTS.get(name)) != entry[name]:
                    text = set_value(text, ("members", self.index, name), entry[name])
            return text
        written = {name for other in self.entries for name in other if entry.get(name) is not None}
        added = {name: entry[name] for name in FIELDS if name in written or entry[name] != DEFAULTS.get(name)}
        if self.data.members is UNSET:
            text = set_value(text, ("members",), [])
        return append_item(text, ("members",), added)


def plan_addition(
    manifest: Path, candidate: Candidate, notify: Callable[[str], None] = lambda _: None, run: Run = run_apart
) -> Addition:
    """Read, convert, complete and check; nothing is written.

    Args:
        manifest: the file, which may have no member yet.
        candidate: what shall become a member.
        notify: told what takes a while.
        run: as for `convert`.

    Raises:
        AdditionRefused: the id is taken or unknown, or something has to be said that the model does not tell.
        InvalidManifest: with every problem that the manifest would have, before the model is read as far as that can be
            told. What the gate finds of other members is left in the report: one after the other can be mended.
        ModelFileError, MemberError, TensorFlowMissing: as `convert`.
    """
    place = _find_place(manifest, candidate)
    said = _gather(place, candidate)
    draft = _read_draft(place, said)
    # With all their digits, since what the model takes is not known yet; what takes float32 is given that.
    exact = tuple(map(widen, draft.features))
    columns = read_golden(exact, draft.golden or draw_rows(draft.features, DRAWN_ROWS))
    output = draft.members[place.index].output if "output" in said else None
    bound: Inputs | None = said["inputs"] or (None if said["columns"] is None else {"": said["columns"]})
    notify(f"Reading {candidate.file.name}" + ("" if candidate.file.suffix == ".tflite" else " and converting it"))

    def convert_with(inputs: Inputs | None) -> Converted:
        return convert(
            candidate.file,
            signature=said["signature"],
            architecture=candidate.architecture,
            trust=candidate.trust,
            golden=Golden(columns, inputs),
            labels=_tell_labels(draft.task, output),
            run=run,
        )

    try:
        converted = convert_with(bound)
    except InputMismatch as error:
        if NO_WHOLE in str(error) and not draft.golden:
            raise InputMismatch(f"{error}; the rows were drawn from the features: {WHOLE_REMEDY}") from None
        if bound is None or candidate.said.keys() & {"columns", "inputs"}:
            raise
        # The entry names what the model before took; features came or went since, and the new one takes others.
        converted, bound = convert_with(None), None
    deduced: dict[str, str] = {}
    if bound is None:
        taken, deduced["columns"] = _name_columns(converted, columns)
        said |= taken
    meant = choose_output(converted.outputs, None if output is None else output.name, _likely_kind(place))
    if output is None:
        output = deduce_output(draft.task, meant)
        said["output"], deduced["output"] = {"kind": name_kind(output)}, describe_deduced(draft.task, output, meant)
    widened = list_narrowed(
        converted.signature, said["inputs"] or {"": said["columns"]}, draft.features, DOUBLES | WHOLES
    )
    if widened:
        deduced["features"] = f"{enumerate_values(widened)} in float64 from now on, as the model needs more digits"
    entry, is_there = _complete(place, candidate, said, converted)
    text = _widen(place.put(entry), draft.features, widened)
    report = examine(read_artifacts(manifest, parse_manifest(text), {entry["artifact"]: converted.artifact}), notify)
    mine = [problem for problem in report.refused if not _is_of_another(problem, place.index)]
    if mine:
        raise InvalidManifest(mine)
    return Addition(
        manifest=manifest,
        read=place.text,
        text=text,
        member=report.sources.manifest.members[place.index],
        replaced=None if place.before is None else place.before["version"],
        body=None if is_there else converted.artifact,
        converted=converted,
        deduced=deduced,
        report=report,
    )


def _widen(text: str, features: Sequence[Feature], names: Collection[str]) -> str:
    """Let features be given in float64; members that take float32 are still given that."""
    for index, feature in enumerate(features):
        if feature.name in names:
            text = set_value(text, ("features", index, "dtype"), "float64")
    return text


def _is_of_another(problem: Problem, index: int) -> bool:
    found = re.match(r"\$\.members\[(\d+)\]", problem.path)
    return found is not None and int(found[1]) != index


def _find_place(manifest: Path, candidate: Candidate) -> _Place:
    text = _read(manifest)
    try:
        data = msgspec.json.decode(text, type=_Data)
    except msgspec.MsgspecError:
        parse_manifest(text)  # says what is wrong
        raise
    ids = [entry.get("id") for entry in data.members or ()]
    id_ = candidate.said["id"]
    if candidate.replace and id_ not in ids:
        raise _refuse("--replace", f"there is no member {show(id_)}{suggest(id_, ids)}", "leave it out to add one")
    if not candidate.replace and id_ in ids:
        remedy = "give another, or --replace to put this model in its place"
        raise _refuse("--id", f"{show(id_)} is a member already", remedy)
    return _Place(manifest, text, data, ids.index(id_) if candidate.replace else len(ids))


def _read(manifest: Path) -> str:
    try:
        return manifest.read_bytes().decode()
    except OSError as error:
        raise _refuse(str(manifest), f"cannot be read: {error.strerror}", "give the path of a manifest") from None
    except UnicodeDecodeError as error:
        raise InvalidManifest(
            [Problem("$", f"is not UTF-8: {error.reason} at byte {error.start}", "save it in UTF-8")]
        ) from None


def _gather(place: _Place, candidate: Candidate) -> dict[str, Any]:
    """Return every field of the entry that is known so far: what is said now, what was before, what is by default."""
    said = {"version": candidate.said.get("version") or _count_up(place.before), **candidate.said}
    if "columns" in said or "inputs" in said:
        said = {"columns": None, "inputs": None, **said}  # the one takes the place of the other
    return {**DEFAULTS, **(place.before or {}), **said}


def _count_up(before: Mapping[str, Any] | None) -> str:
    """Return the version after that of the model which is replaced; the first one where none is."""
    if before is None:
        return FIRST_VERSION
    version = str(before.get("version"))
    if not re.fullmatch("[0-9]+", version):
        raise _refuse("--version", f"there is none after {show(version)}", "give the version of the new model")
    return str(int(version) + 1)


def _read_draft(place: _Place, entry: Mapping[str, Any]) -> Manifest:
    """Check all that can be known before the model is read: with something likely for what is not.

    Whether the model takes all columns cannot be known: a problem of that is none yet.
    """
    likely = {"artifact": "not known yet", "output": {"kind": _likely_kind(place)}}
    text = place.put({**likely, **entry})
    try:
        return parse_manifest(text)
    except InvalidManifest as error:
        problems = [problem for problem in error.problems if problem.path != f"$.members[{place.index}]"]
        if problems:
            raise InvalidManifest(problems) from None
    return msgspec.json.decode(text, type=Manifest)


def _likely_kind(place: _Place) -> str:
    task = place.data.task
    return LIKELY_KINDS.get(task.get("type") if isinstance(task, dict) else None, "value")


def _tell_labels(task: Task, output: Output | None) -> Labels | None:
    """Return what tells the labels of the model's outputs, as far as its output is known or can be deduced."""
    if isinstance(task, RegressionTask):
        return None

    def tell(said: Array) -> Array:
        try:
            numbers = convert_output(check_output(said, len(said)), task, output or deduce_output(task, said))
        except (InvalidOutput, AdditionRefused):
            return default_labels(said)
        return own_labels(task, numbers)

    return tell


def _name_columns(converted: Converted, columns: Columns) -> tuple[dict[str, Any], str]:
    """Return what the entry says of the columns that a model takes, and the same in words.

    They are written by name even where they are all: features that are put in another order later then move nothing.
    """
    chosen = choose_inputs(converted.signature, columns)
    if chosen == {"": tuple(columns)}:
        return {"columns": list(columns), "inputs": None}, "all, as many as the model takes"
    listed = {name: list(taken) for name, taken in chosen.items()}
    if "" in listed:
        return {"columns": listed[""], "inputs": None}, "those that the model's input is named after"
    return {"columns": None, "inputs": listed}, "those that the model's inputs are named after"


def _complete(
    place: _Place, candidate: Candidate, said: Mapping[str, Any], converted: Converted
) -> tuple[dict[str, Any], bool]:
    """Return the whole entry, and whether the artifact lies there already."""
    digest, version = digest_of(converted.artifact), said["version"]
    if "version" not in candidate.said and place.before is not None and place.before.get("digest") == digest:
        version = place.before["version"]  # it is the same model
    entry = {**said, "version": version, "runtime": converted.runtime, "digest": digest}
    entry["trusted"] = digest if converted.needs_trust else None
    artifact, is_there = _find_room(place, candidate.file, converted, entry)
    return {**entry, "artifact": artifact}, is_there


def _find_room(place: _Place, file: Path, converted: Converted, entry: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the artifact's path, relative to the manifest, and whether the artifact lies there already."""
    folder, body = place.manifest.parent, converted.artifact
    given = file.resolve()
    if given.is_relative_to(folder.resolve()) and given.is_file() and given.read_bytes() == body:
        return given.relative_to(folder.resolve()).as_posix(), True
    homes = Counter(str(PurePosixPath(other["artifact"]).parent) for other in place.entries if "artifact" in other)
    home = PurePosixPath(homes.most_common(1)[0][0] if homes else place.data.name)
    version = re.sub(r"[^\w.-]+", "-", entry["version"])
    for stem in (entry["id"], f"{entry['id']}-{version}"):
        artifact = home / f"{stem}{EXTENSIONS[converted.runtime]}"
        path = folder / artifact
        if not path.exists():
            return str(artifact), False
        if path.is_file() and path.read_bytes() == body:
            return str(artifact), True
    raise _refuse("--version", f"{folder / artifact} is there, with other content", "give another, or remove the file")


def carry_out(addition: Addition, write: Write | None = None) -> None:
    """Write what was planned.

    Args:
        addition: as planned.
        write: writes a file; `write_file` by default.

    Raises:
        AdditionRefused: the manifest was changed since it was read, or a file cannot be written.
    """
    write = write or write_file
    _refuse_changed(addition)
    if addition.body is not None:
        write(addition.artifact, addition.body)
        _refuse_changed(addition)
    if addition.text != addition.read:
        write(addition.manifest, addition.text.encode())


def _refuse_changed(addition: Addition) -> None:
    if _read(addition.manifest) != addition.read:
        raise _refuse(str(addition.manifest), "was changed while the model was read", "add the model again")


def write_file(path: Path, body: bytes) -> None:
    """Write a file at once or not at all; one that is there keeps its mode.

    Raises:
        AdditionRefused: it cannot be written.
    """
    target = path.resolve()  # what a link leads to is replaced, not the link
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
        raise _refuse(str(path), f"cannot be written: {error.strerror}", "mend that, and add the model again") from None


def _refuse(path: str, reason: str, remedy: str) -> AdditionRefused:
    return AdditionRefused([Problem(path, reason, remedy)])
