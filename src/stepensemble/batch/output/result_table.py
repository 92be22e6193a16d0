"""Makes the table of results from members' outputs: for each row, the prediction and every member's output.

The numbers are those of a single execution, computed by the same functions, and the prediction's columns have the names
that an execution's output has (`core.aggregation.output.Prediction`). All names of columns are valid in Athena:
lower-case letters, digits and underscores. Only a column that is copied from the dataset keeps its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, get_args

import msgspec
import numpy as np
import polars as pl

from stepensemble.batch.documents import File, LabelValues, Options
from stepensemble.batch.input.labels import TRUTH, read_ground_truth
from stepensemble.core.aggregation.canonical import find_usable
from stepensemble.core.aggregation.classification import own_labels
from stepensemble.core.aggregation.decision import DecidedRows, Decision, DecisionRules, Undecided, decide_rows
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
"""Names that a column copied from the dataset cannot have."""


@dataclass(frozen=True, slots=True)
class ShardPredictions:
    """The predictions of a shard.

    Attributes:
        coded: one line for each row, with the schema `result_schema`, except that columns with few distinct names are
            of type `Enum`, which is made and written several times as fast. Empty if there is no quorum in any row.
        decision: the decisions, and the outputs they come from; None for a shard without rows.
        failed: rows without a prediction, because too few voters have a usable output for them: the row's index,
            ascending, and the reason. Their lines have the decision and the status of a failure.
    """

    coded: pl.DataFrame
    decision: Decision | None
    failed: Mapping[int, str]

    @property
    def frame(self) -> pl.DataFrame:
        """The same lines with exactly the schema `result_schema`."""
        return self.coded.with_columns(pl.col(pl.Enum).cast(pl.String))

    @property
    def predictions(self) -> pl.DataFrame:
        """The lines of `coded` that have a prediction."""
        if not self.failed:
            return self.coded
        kept = np.ones(self.coded.height, dtype=np.bool_)
        kept[list(self.failed)] = False
        return self.coded.filter(kept)

    @property
    def status(self) -> Status:
        """The status of the shard."""
        return "COMPLETE" if self.decision is None else self.decision.status

    @property
    def cause(self) -> str | None:
        """Why there is no quorum in any row; None if there is one in some row."""
        return None if self.decision is None else self.decision.cause


@dataclass(frozen=True, slots=True)
class RowNaming:
    """What the first columns of results depend on.

    Attributes:
        file: that the rows are in.
        options: with the names of columns; a column that the rows do not have is null.
        task: of the release; see `labels.read_ground_truth`.
        reading: of the labels.
    """

    file: File
    options: Options
    task: Task
    reading: LabelValues = "names"


def name_rows(raw: pl.DataFrame, numbers: Integers, naming: RowNaming) -> pl.DataFrame:
    """Return the first columns of results: a row's id, file and number, the copied columns, and the ground truth.

    The id is text. Columns copied from Parquet keep their type. Columns copied from a text file are text, since the
    values of one shard must not decide the type of a column in all shards.

    Args:
        raw: the accepted rows.
        numbers: of the rows in the file.
        naming: file, options, task and reading of the labels.
    """
    options = naming.options
    columns: dict[str, pl.Series] = {}
    if options.id is not None:
        columns[ID] = to_text(_find(raw, options.id))
    columns[FILE] = pl.repeat(naming.file.name, raw.height, eager=True)
    columns[ROW] = pl.Series(numbers, dtype=pl.Int64)
    taken = set(RESERVED)
    for name in options.keep:
        column = _find(raw, name)
        typed = naming.file.format == "parquet" and column.dtype != pl.Null
        columns[_free_name(name, taken, "input_{}".format)] = column if typed else to_text(column)
    if options.label is not None:
        columns[TRUTH] = read_ground_truth(naming.task, _find(raw, options.label), naming.reading)
    return pl.DataFrame(columns)


def _find(raw: pl.DataFrame, name: str) -> pl.Series:
    return raw[name] if name in raw.columns else pl.repeat(None, raw.height, dtype=pl.String, eager=True)


def to_text(column: pl.Series) -> pl.Series:
    """Return a column as text; values without a text of their own as JSON."""
    if column.dtype == pl.Object or column.dtype.is_nested():
        return pl.Series([_write(value) for value in column.to_list()], dtype=pl.String)
    return column.cast(pl.String)


def _write(value: object) -> str | None:
    try:
        return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
    except RecursionError:
        return show(value)


def name_members(members: Iterable[ReleasedMember], columns: Iterable[str] = ()) -> dict[str, str]:
    """Return the prefix of each member's columns: its id, with underscores for dashes.

    Args:
        members: of the release.
        columns: names that other columns have.
    """
    ends = tuple(f"_{part}" for part in MEMBER_COLUMNS)
    taken = {name.lower().rpartition("_")[0] for name in columns if name.lower().endswith(ends)}
    plain = {member.id: member.id.replace("-", "_") for member in members}
    return {id_: _free_name(f"m_{name}" if name[0].isdigit() else name, taken) for id_, name in plain.items()}


def _free_name(name: str, taken: set[str], other: Callable[[str], str] = str) -> str:
    """Return a name that is not taken, ignoring case, and take it."""
    candidates = [name, other(name)]
    number = 2
    while candidates[0].lower() in taken:
        candidates = [*candidates[1:], f"{other(name)}_{number}"]
        number += 1
    taken.add(candidates[0].lower())
    return candidates[0]


def result_schema(release: Release, rows: pl.Schema) -> pl.Schema:
    """Return the columns of results and their types, which are the same for every shard of a run.

    After the columns of `rows` (see `name_rows`) comes the prediction. Then each member has its output as it returned
    it (a label as the class's name); its `value` (regression: in the ensemble's unit; binary: the probability of the
    second class); its own `label`; its `status`; and for a shadow, whether it agrees and would change the label.
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
    """Combine the members' outputs for a shard's rows, as `core.aggregation.execution` does for an execution.

    Args:
        release: the members, and what their outputs mean.
        policy: of the release.
        rows: the accepted rows, as `name_rows` returns them.
        source: supplies the results of each tier; not used if there are no rows.
    """
    schema = result_schema(release, rows.schema)
    if not rows.height:
        return ShardPredictions(pl.DataFrame(schema=schema), None, {})
    decision = decide_rows(DecisionRules(release.task, policy, release.members), rows.height, source)
    if isinstance(decision, Undecided):
        return decision
    if decision.cause is not None:
        return ShardPredictions(pl.DataFrame(schema=schema), decision, {})
    columns = {name: rows[name] for name in rows.columns} | _tabulate_predictions(release, decision, rows.height)
    if FILE in columns and (rows[FILE] == (file := rows[FILE][0])).all():
        columns[FILE] = _repeat(file, rows.height)
    prefixes = name_members(release.members, rows.columns)
    for member in release.members:
        parts = _tabulate_member(release.task, member, decision, rows.height)
        columns |= {f"{prefixes[member.id]}_{name}": part for name, part in parts.items()}
    nulls = pl.Series([None]).new_from_index(0, rows.height)
    coded = pl.DataFrame({name: _cast(columns.get(name, nulls), dtype) for name, dtype in schema.items()})
    failures = [
        zip(part.numbers.tolist(), decision.explain(part, release.voters), strict=True) for part in decision.failed
    ]
    return ShardPredictions(coded, decision, dict(sorted(chain.from_iterable(failures))))


def _cast(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    return column if isinstance(column.dtype, pl.Enum) else column.cast(dtype)


def _tabulate_predictions(release: Release, decision: Decision, rows: int) -> dict[str, pl.Series]:
    """Return the prediction's columns; columns without any value may be missing."""
    decided = decision.decided
    decisions, statuses = np.full(rows, len(DECISIONS)), np.full(rows, STATUSES.index("FAILED"))
    tiers, places = np.full(rows, release.tiers), np.full(rows, -1)
    first = 0
    for part in decided:
        decisions[part.numbers] = encode_decisions(part.predictions)
        statuses[part.numbers] = STATUSES.index("DEGRADED" if part.missing else "COMPLETE")
        tiers[part.numbers] = part.tier
        places[part.numbers] = np.arange(first, first + len(part.numbers))
        first += len(part.numbers)
    columns = {
        "decision": _name((*DECISIONS, "failed"), decisions),
        "status": _name(STATUSES, statuses),
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
    """Return `(rows, voters)` for all voters of the release; a part has some of these voters, in the same order."""
    if part.predictions.classes is not None and part.voters == tuple(voters):
        return part.predictions.classes.pivotal
    flags = np.zeros((len(part.numbers), len(voters)), dtype=np.bool_)
    if part.predictions.classes is not None:
        flags[:, [voters.index(id_) for id_ in part.voters]] = part.predictions.classes.pivotal
    return flags


def _list_names(flags: Flags, names: Sequence[str]) -> pl.Series:
    """Return for each row the names whose flag is set; each of the few patterns of flags is made into a list once."""
    some = np.flatnonzero(np.logical_or.reduce(list(flags.T)))  # most rows have none
    packed = np.packbits(flags[some], axis=1)
    _, first, codes = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    listed = [[name for name, flag in zip(names, flags[row], strict=True) if flag] for row in some[first]]
    places = np.zeros(len(flags), dtype=np.int64)
    places[some] = codes + 1
    return pl.Series([[], *listed], dtype=pl.List(pl.String))[places]


def _tabulate_member(task: Task, member: ReleasedMember, decision: Decision, rows: int) -> dict[str, pl.Series]:
    result, output = decision.results.get(member.id), decision.outputs.get(member.id)
    numbers = decision.reached.get(member.tier)
    if numbers is not None and len(numbers) == rows and member.id not in decision.faults:
        places, columns = None, {"status": _repeat("failed" if output is None else "ok", rows)}
    else:
        states, places = np.zeros(rows, dtype=np.int64), np.full(rows, -1)  # places among the rows it was invoked with
        if numbers is not None:
            usable = np.zeros(len(numbers), dtype=np.bool_) if output is None else find_usable(output)
            states[numbers] = np.where(usable, 1, 2)
            places[numbers[usable]] = np.flatnonzero(usable)
        columns = {"status": _name(("skipped", "ok", "failed"), states)}
    if result is not None and result.outputs is not None and output is not None:
        parts = _tabulate_output(task, member, result.outputs, output)
        columns |= parts if places is None else {name: _pick(part, places) for name, part in parts.items()}
        if member.role == "shadow":
            columns |= _tabulate_shadow(member.id, decision.decided, rows)
    nulls = pl.Series([None]).new_from_index(0, rows)
    return {name: columns.get(name, nulls) for name in MEMBER_COLUMNS}


def _tabulate_output(task: Task, member: ReleasedMember, raw: Array, output: Floats) -> dict[str, pl.Series]:
    """Return a member's columns for the rows that it was invoked with, from its raw and its canonical output."""
    columns: dict[str, pl.Series] = {}
    if isinstance(task, RegressionTask):
        columns["value"] = pl.Series(output)
    else:
        columns["label"] = _name(task.classes, own_labels(task, output))
        columns["value"] = pl.Series(output[:, 1])
    if isinstance(member.output, Label):  # the canonical output is 1 for its class
        columns["output"] = _name(name_classes(task), output.argmax(axis=1))
    else:
        numbers = raw.astype(np.float64).reshape(len(output), output_width(task, member.output))
        columns["output"] = _to_series(numbers[:, 0] if numbers.shape[1] == 1 else numbers)
    return columns


def _tabulate_shadow(id_: str, decided: Sequence[DecidedRows], rows: int) -> dict[str, pl.Series]:
    """Return whether a shadow agrees and flips the label; null where the row was decided before the shadow's tier."""
    agrees, flips = np.full(rows, -1), np.full(rows, -1)  # places in `(False, True)`
    for part in decided:
        view = part.predictions.shadows.get(id_)
        if view is not None:
            agrees[part.numbers] = view.agrees
            flips[part.numbers] = -1 if view.flips is None else view.flips
    return {"agrees": _pick((False, True), agrees), "flips": _pick((False, True), flips)}


def _to_series(array: Array) -> pl.Series:
    """Return numbers, null for NaN, or for each row a list of numbers."""
    return pl.Series(array, nan_to_null=True) if array.ndim == 1 else pl.Series(array).cast(pl.List(pl.Float64))


def _name(names: Sequence[str], codes: Array) -> pl.Series:
    """Return the names with these codes, as an `Enum`; null where the code is negative."""
    return _pick(pl.Series(names, dtype=pl.Enum(names)), codes)


def _repeat(name: str, rows: int) -> pl.Series:
    return pl.Series([name], dtype=pl.Enum((name,))).new_from_index(0, rows)


def _pick(values: Sequence[Any] | pl.Series, places: Array) -> pl.Series:
    """Return the values at these places; null where the place is negative."""
    series = pl.Series(values)
    if places.min(initial=0) >= 0:
        return series[places]
    index = pl.Series(places)
    return series.gather(pl.select(pl.when(index >= 0).then(index)).to_series())
