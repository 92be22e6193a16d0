"""From members' outputs to a frame of results: a line a row, with what every member said beside the answer.

What is computed is what a single execution computes, by the same functions; columns of the answer have the names that
an execution's output has (`core.aggregation.output.Prediction`). All names of columns are such as Athena takes:
lower-case letters, digits and underscores; only a column that is carried through keeps the name it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, get_args

import msgspec
import numpy as np
import polars as pl

from stepensemble.batch.documents import Format, LabelValues, Options
from stepensemble.batch.input.labels import TRUTH, read_truth
from stepensemble.core.aggregation.canonical import find_usable
from stepensemble.core.aggregation.classification import own_labels
from stepensemble.core.aggregation.decision import DecidedRows, Decision, Terms, Undecided, decide_rows
from stepensemble.core.aggregation.output_source import OutputSource
from stepensemble.core.aggregation.prediction import DECISIONS, collect_measures, encode_decisions
from stepensemble.core.aggregation.quorum import Status
from stepensemble.core.arrays import Array, Flags, Floats, Integers
from stepensemble.core.problems import show
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.outputs import Label, output_width
from stepensemble.core.schema.policy import Policy
from stepensemble.core.schema.task import RegressionTask, Task, name_classes

ID, FILE, ROW = "id", "file", "row"

CLASS_COLUMNS: Mapping[str, Any] = {
    "value": pl.Float64,
    "label": pl.String,
    "score": pl.Float64,
    "probabilities": pl.List(pl.Float64),
    "agreement": pl.Float64,
    "spread": pl.Float64,
    "range": pl.Float64,
    "margin": pl.Float64,
    "tie": pl.Boolean,
    "entropy": pl.Float64,
    "mean_entropy": pl.Float64,
    "mutual_information": pl.Float64,
    "pivotal": pl.List(pl.String),
}
NUMBER_COLUMNS: Mapping[str, Any] = {"value": pl.Float64, "spread": pl.Float64, "range": pl.Float64}

STATUSES: tuple[Status, ...] = get_args(Status)

MEMBER_COLUMNS = ("output", "value", "label", "status", "agrees", "flips")

RESERVED = frozenset({ID, FILE, ROW, TRUTH, *CLASS_COLUMNS, "decision", "tier", "status"})
"""Names that a column which is carried through cannot have."""


@dataclass(frozen=True, slots=True)
class ShardPredictions:
    """A shard's answer.

    Attributes:
        coded: a line a row, as `result_schema` says, but that names of which there are few are of an `Enum`: such are
            made and written in a fraction of the time. Without lines where there is no quorum in any row.
        decision: what was decided, and from which results; None for a shard without rows.
        unanswered: places of the rows that have no answer, as too few voters have a usable output for them, ascending,
            and why; their lines have the decision and the status of a failure.
    """

    coded: pl.DataFrame
    decision: Decision | None
    unanswered: Mapping[int, str]

    @property
    def frame(self) -> pl.DataFrame:
        """The same, all of it as `result_schema` says."""
        return self.coded.with_columns(pl.col(pl.Enum).cast(pl.String))

    @property
    def answers(self) -> pl.DataFrame:
        """The lines of `coded` that have an answer."""
        if not self.unanswered:
            return self.coded
        kept = np.ones(self.coded.height, dtype=np.bool_)
        kept[list(self.unanswered)] = False
        return self.coded.filter(kept)

    @property
    def status(self) -> Status:
        """Of the shard."""
        return "COMPLETE" if self.decision is None else self.decision.status

    @property
    def cause(self) -> str | None:
        """Why there is no quorum whatever the row; None where there is one."""
        return None if self.decision is None else self.decision.cause


def name_rows(
    raw: pl.DataFrame,
    file: str,
    numbers: Integers,
    options: Options,
    task: Task,
    format_: Format,
    reading: LabelValues = "names",
) -> pl.DataFrame:
    """Return what a row of results begins with: its id, file and number, the columns carried through, and the truth.

    The id is text. Columns carried through have the type they have in Parquet; of a text file they are text, since what
    a shard's values look like may not decide the type of a column that other shards have too.

    Args:
        raw: the accepted rows.
        file: name of the file.
        numbers: of the rows in the file.
        options: with the columns' names; one that the frame has not is null.
        task: that says what a truth is; see `labels.read_truth`.
        format_: of the file.
        reading: of the labels.
    """
    columns: dict[str, pl.Series] = {}
    if options.id is not None:
        columns[ID] = as_text(_find(raw, options.id))
    columns[FILE] = pl.repeat(file, raw.height, eager=True)
    columns[ROW] = pl.Series(numbers, dtype=pl.Int64)
    taken = set(RESERVED)
    for name in options.keep:
        given = _find(raw, name)
        typed = format_ == "parquet" and given.dtype != pl.Null
        columns[_free_name(name, taken, "input_{}".format)] = given if typed else as_text(given)
    if options.label is not None:
        columns[TRUTH] = read_truth(task, _find(raw, options.label), reading)
    return pl.DataFrame(columns)


def _find(raw: pl.DataFrame, name: str) -> pl.Series:
    return raw[name] if name in raw.columns else pl.repeat(None, raw.height, dtype=pl.String, eager=True)


def as_text(given: pl.Series) -> pl.Series:
    """Return text: as it is, anything else as JSON."""
    if given.dtype == pl.Object or given.dtype.is_nested():
        return pl.Series([_write(value) for value in given.to_list()], dtype=pl.String)
    return given.cast(pl.String)


def _write(value: object) -> str | None:
    try:
        return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
    except RecursionError:
        return show(value)


def name_members(members: Iterable[ReleasedMember], columns: Iterable[str] = ()) -> dict[str, str]:
    """Return what the columns of each member begin with: its id, with underscores for dashes.

    Args:
        members: of the release.
        columns: names that other columns have, and members' cannot.
    """
    ends = tuple(f"_{part}" for part in MEMBER_COLUMNS)
    taken = {name.lower().rpartition("_")[0] for name in columns if name.lower().endswith(ends)}
    plain = {member.id: member.id.replace("-", "_") for member in members}
    return {id_: _free_name(f"m_{name}" if name[0].isdigit() else name, taken) for id_, name in plain.items()}


def _free_name(name: str, taken: set[str], other: Callable[[str], str] = str) -> str:
    """Return a name that is not taken, be it in other capitals, and take it."""
    candidates = [name, other(name)]
    number = 2
    while candidates[0].lower() in taken:
        candidates = [*candidates[1:], f"{other(name)}_{number}"]
        number += 1
    taken.add(candidates[0].lower())
    return candidates[0]


def result_schema(release: Release, rows: pl.Schema) -> pl.Schema:
    """Return the columns of results and their types: the same of every shard of a run.

    After what `rows` has (see `name_rows`) there is the answer; a member has its output as it gave it (a label by the
    class's name), its `value` (of a regression, in the ensemble's unit; of a binary task, the probability of the second
    class), the `label` that it alone would give, its `status`, and a shadow how it would have fared.
    """
    task = release.task
    regression = isinstance(task, RegressionTask)
    types: dict[str, Any] = {**rows, **(NUMBER_COLUMNS if regression else CLASS_COLUMNS), "decision": pl.String}
    if release.tiers > 1:
        types["tier"] = pl.Int32
    types["status"] = pl.String
    prefixes = name_members(release.members, rows)
    for member in release.members:
        parts: dict[str, Any] = {"output": _output_type(task, member)}
        if len(name_classes(task)) < 3:
            parts["value"] = pl.Float64
        if not regression:
            parts["label"] = pl.String
        parts["status"] = pl.String
        if member.role == "shadow":
            parts |= {"agrees": pl.Boolean} if regression else {"agrees": pl.Boolean, "flips": pl.Boolean}
        types |= {f"{prefixes[member.id]}_{name}": type_ for name, type_ in parts.items()}
    return pl.Schema(types)


def _output_type(task: Task, member: ReleasedMember) -> Any:
    if isinstance(member.output, Label):
        return pl.String
    return pl.Float64 if output_width(task, member.output) == 1 else pl.List(pl.Float64)


def predict_shard(
    release: Release, policy: Policy, rows: pl.DataFrame, source: OutputSource
) -> ShardPredictions | Undecided:
    """Combine the members' results for a shard's rows, as `core.aggregation.execution.decide` does for an execution.

    Args:
        release: which members there are and what their outputs mean.
        policy: the release's.
        rows: the accepted ones, as `name_rows` returns them.
        source: supplies each tier's results; it is not used where there are no rows.
    """
    schema = result_schema(release, rows.schema)
    if not rows.height:
        return ShardPredictions(pl.DataFrame(schema=schema), None, {})
    decision = decide_rows(Terms(release.task, policy, release.members), rows.height, source)
    if isinstance(decision, Undecided):
        return decision
    if decision.cause is not None:
        return ShardPredictions(pl.DataFrame(schema=schema), decision, {})
    columns = {name: rows[name] for name in rows.columns} | _tabulate_answers(release, decision, rows.height)
    if FILE in columns and (rows[FILE] == (file := rows[FILE][0])).all():
        columns[FILE] = _repeat(file, rows.height)
    prefixes = name_members(release.members, rows.columns)
    for member in release.members:
        parts = _tabulate_member(release.task, member, decision, rows.height)
        columns |= {f"{prefixes[member.id]}_{name}": part for name, part in parts.items()}
    nothing = pl.Series([None]).new_from_index(0, rows.height)
    coded = pl.DataFrame({name: _type(columns.get(name, nothing), dtype) for name, dtype in schema.items()})
    failures = [
        zip(part.numbers.tolist(), decision.explain(part, release.voters), strict=True) for part in decision.failed
    ]
    return ShardPredictions(coded, decision, dict(sorted(chain.from_iterable(failures))))


def _type(given: pl.Series, dtype: pl.DataType) -> pl.Series:
    return given if isinstance(given.dtype, pl.Enum) else given.cast(dtype)


def _tabulate_answers(release: Release, decision: Decision, rows: int) -> dict[str, pl.Series]:
    """Return the answer's columns; those of which no row has a value may be missing."""
    decided = decision.decided
    decisions, standing = np.full(rows, len(DECISIONS)), np.full(rows, STATUSES.index("FAILED"))
    tiers, places = np.full(rows, release.tiers), np.full(rows, -1)
    first = 0
    for part in decided:
        decisions[part.numbers] = encode_decisions(part.predictions)
        standing[part.numbers] = STATUSES.index("DEGRADED" if part.missing else "COMPLETE")
        tiers[part.numbers] = part.tier
        places[part.numbers] = np.arange(first, first + len(part.numbers))
        first += len(part.numbers)
    columns = {
        "decision": _name((*DECISIONS, "failed"), decisions),
        "status": _name(STATUSES, standing),
        "tier": pl.Series(tiers),
    }
    if not decided:
        return columns

    def join(arrays: Iterable[Array]) -> Array:
        parts = list(arrays)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def place(joined: pl.Series) -> pl.Series:
        return joined if len(decided) == 1 and first == rows else _pick(joined, places)

    measured = [collect_measures(part.predictions) for part in decided]
    columns |= {name: place(_to_series(join(arrays[name] for arrays in measured))) for name in measured[0]}
    classes = [part.predictions.classes for part in decided if part.predictions.classes is not None]
    if classes:
        columns["label"] = place(_name(name_classes(release.task), join(part.label for part in classes)))
        voters = [voter.id for voter in release.voters]
        columns["pivotal"] = place(_list_names(join(_find_pivotal(part, voters) for part in decided), voters))
    return columns


def _find_pivotal(part: DecidedRows, voters: Sequence[str]) -> Flags:
    """Return `(rows, voters)` for all voters of the release: those of a part are some of these, in the same order."""
    if part.predictions.classes is not None and part.voters == tuple(voters):
        return part.predictions.classes.pivotal
    flags = np.zeros((len(part.numbers), len(voters)), dtype=np.bool_)
    if part.predictions.classes is not None:
        flags[:, [voters.index(id_) for id_ in part.voters]] = part.predictions.classes.pivotal
    return flags


def _list_names(flags: Flags, names: Sequence[str]) -> pl.Series:
    """Return of each row the names whose flag is set; each pattern of flags, of which there are few, is listed once."""
    some = np.flatnonzero(np.logical_or.reduce(list(flags.T)))  # most rows have none
    packed = np.packbits(flags[some], axis=1)
    _, first, codes = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    listed = [[name for name, flag in zip(names, flags[row], strict=True) if flag] for row in some[first]]
    places = np.zeros(len(flags), dtype=np.int64)
    places[some] = codes + 1
    return pl.Series([[], *listed], dtype=pl.List(pl.String))[places]


def _tabulate_member(task: Task, member: ReleasedMember, decision: Decision, rows: int) -> dict[str, pl.Series]:
    result, said, numbers = (
        decision.results.get(member.id),
        decision.outputs.get(member.id),
        decision.reached.get(member.tier),
    )
    whole = numbers is not None and len(numbers) == rows and member.id not in decision.faults
    if whole:
        places, columns = None, {"status": _repeat("failed" if said is None else "ok", rows)}
    else:
        states, places = np.zeros(rows, dtype=np.int64), np.full(rows, -1)  # of each row among those it was asked
        if numbers is not None:
            usable = np.zeros(len(numbers), dtype=np.bool_) if said is None else find_usable(said)
            states[numbers] = np.where(usable, 1, 2)
            places[numbers[usable]] = np.flatnonzero(usable)
        columns = {"status": _name(("skipped", "ok", "failed"), states)}
    if result is not None and result.outputs is not None and said is not None:
        parts = _tabulate_output(task, member, result.outputs, said)
        columns |= parts if places is None else {name: _pick(part, places) for name, part in parts.items()}
        if member.role == "shadow":
            columns |= _tabulate_shadow(member.id, decision.decided, rows)
    nothing = pl.Series([None]).new_from_index(0, rows)
    return {name: columns.get(name, nothing) for name in MEMBER_COLUMNS}


def _tabulate_output(task: Task, member: ReleasedMember, raw: Array, said: Floats) -> dict[str, pl.Series]:
    """Return a member's part in the rows it was asked."""
    columns: dict[str, pl.Series] = {}
    if isinstance(task, RegressionTask):
        columns["value"] = pl.Series(said)
    else:
        columns["label"] = _name(task.classes, own_labels(task, said))
        columns["value"] = pl.Series(said[:, 1])
    if isinstance(member.output, Label):  # which has become certainty for its class
        columns["output"] = _name(name_classes(task), said.argmax(axis=1))
    else:
        numbers = raw.astype(np.float64).reshape(len(said), output_width(task, member.output))
        columns["output"] = _to_series(numbers[:, 0] if numbers.shape[1] == 1 else numbers)
    return columns


def _tabulate_shadow(id_: str, decided: Sequence[DecidedRows], rows: int) -> dict[str, pl.Series]:
    """Return how a shadow would have fared; nothing where the row was settled before it was asked."""
    agrees, flips = np.full(rows, -1), np.full(rows, -1)  # places in `(False, True)`
    for part in decided:
        view = part.predictions.shadows.get(id_)
        if view is not None:
            agrees[part.numbers] = view.agrees
            flips[part.numbers] = -1 if view.flips is None else view.flips
    return {"agrees": _pick((False, True), agrees), "flips": _pick((False, True), flips)}


def _to_series(array: Array) -> pl.Series:
    """Return numbers, null for NaN, or a list of numbers a row."""
    return pl.Series(array, nan_to_null=True) if array.ndim == 1 else pl.Series(array).cast(pl.List(pl.Float64))


def _name(names: Sequence[str], codes: Array) -> pl.Series:
    """Return these of the names, as an `Enum`; null where the code is negative."""
    return _pick(pl.Series(names, dtype=pl.Enum(names)), codes)


def _repeat(name: str, rows: int) -> pl.Series:
    return pl.Series([name], dtype=pl.Enum((name,))).new_from_index(0, rows)


def _pick(values: Sequence[Any] | pl.Series, places: Array) -> pl.Series:
    """Return the values at these places; null where the place is negative."""
    given = pl.Series(values)
    if places.min(initial=0) >= 0:
        return given[places]
    index = pl.Series(places)
    return given.gather(pl.select(pl.when(index >= 0).then(index)).to_series())
