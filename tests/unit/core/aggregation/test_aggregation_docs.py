"""Every number in docs/aggregation.md is what the core computes from the example beside it.

The page is read from top to bottom. A JSON block with a task and members is a *base*; the table below it has its
members' outputs, a column per row. Every later JSON block is a *change* of the base whose rows the tables below name:
its members are merged by id, its other keys replace the base's. A change may have its own table of some members'
outputs. The first cell of a table is the table's kind: see `COMPUTE`; only those in `PROSE` are not computed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

import asl
from builders import ROOT, Supply, artifact
from stepensemble.core.aggregation.canonical import check_output, convert_output
from stepensemble.core.aggregation.decision import Undecided
from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output import MemberFailure, Prediction
from stepensemble.core.aggregation.output_source import MemberResult, Results
from stepensemble.core.arrays import Integers
from stepensemble.core.errors import InvalidManifest, InvalidOutput
from stepensemble.core.payload import apply_quorum, parse_payload
from stepensemble.core.releases.release import Release, compile_release
from stepensemble.core.schema.outputs import OUTPUT_KINDS, Output
from stepensemble.core.schema.policy import Aggregation, Confidence, Quorum, TieRule
from stepensemble.core.schema.task import BinaryTask
from stepensemble.core.validation.manifest import parse_manifest

PAGE = (ROOT / "docs" / "aggregation.md").read_text(encoding="utf-8")
PROSE = {"your members' outputs", "the worst case"}
FAILS = "fails"
HELD_OUT = re.compile(r"<!-- held-out passengers -->.*<!-- end of held-out passengers -->", re.DOTALL)
"""These tables are made by examples/titanic; its own test holds them."""

NOUNS = ("part", "fruit", "delivery")
"""What the rows of the bases are, in the page's order; the first cell of a table of contracts names one of them."""

Cells = list[str]


@dataclass
class Table:
    heading: str
    head: Cells
    lines: list[Cells]


@dataclass
class Example:
    """A JSON block and everything below it, until the next one."""

    heading: str
    json: dict[str, Any]
    outputs: Table | None = None
    tables: list[Table] = field(default_factory=list)
    error: str | None = None
    payload: dict[str, Any] | None = None


def read_page() -> list[Example]:
    """Return the page's examples, in its order."""
    examples: list[Example] = []
    heading = ""
    parts = re.finditer(
        r"^#+ (?P<heading>[^\n]*)|^```(?P<kind>\w+)\n(?P<block>.*?)^```$|(?P<table>(?:^\|[^\n]*\n)+)",
        HELD_OUT.sub("", PAGE),
        flags=re.MULTILINE | re.DOTALL,
    )
    for part in parts:
        if part["heading"]:
            heading = part["heading"]
        elif part["kind"] == "json":
            data = json.loads(part["block"])
            if "features" in data:
                before = examples[-1]
                examples.append(Example(heading, before.json, before.outputs, payload=data))
            else:
                examples.append(Example(heading, data))
        elif part["kind"] == "text":
            examples[-1].error = part["block"]
        else:
            table = read_table(heading, part["table"])
            if table.head[0] == "member":
                examples[-1].outputs = table
            elif table.head[0] not in PROSE:
                examples[-1].tables.append(table)
    return examples


def read_table(heading: str, text: str) -> Table:
    head, _, *lines = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines())
    return Table(heading, head, lines)


def plain(cell: str) -> str:
    return cell.strip("`*")


EXAMPLES = read_page()
BASES = [example for example in EXAMPLES if {"task", "members"} <= set(example.json)]


def base_of(example: Example) -> Example:
    """Return the base whose rows an example's tables name; the first one where none does."""
    if example in BASES:
        return example
    named = {cell for table in example.tables for cell in table.head}
    (base,) = [base for base in BASES if named & set(rows_of(base))] or BASES[:1]
    return base


def rows_of(base: Example) -> list[str]:
    assert base.outputs is not None
    return base.outputs.head[1:]


def manifest_of(example: Example) -> dict[str, Any]:
    """Return the whole manifest that an example is a piece of."""
    base, change = base_of(example).json, example.json
    members = {member["id"]: member for member in base["members"]}
    for member in change.get("members", []):
        members[member["id"]] = members.get(member["id"], {}) | member
    left_out = {"version": "1", "artifact": "model.tflite"}
    return {
        "schema_version": 1,
        "name": "docs",
        "features": [{"name": "x", "type": "number"}],
        **base,
        **change,
        "members": [member | left_out for member in members.values()],
    }


def release_of(example: Example) -> Release:
    """Compile it, as `ensemble check` would: what a reader copies from the page is valid."""
    manifest = parse_manifest(json.dumps(manifest_of(example)))
    return compile_release(manifest, {member.id: artifact(b"") for member in manifest.members})


def outputs_in(example: Example) -> dict[str, Cells]:
    """Return each member's outputs, a cell per row."""
    tables = [table for table in (base_of(example).outputs, example.outputs) if table is not None]
    return {line[0]: line[1:] for table in tables for line in table.lines}


def predict_example(example: Example, failing: tuple[str, ...] = ()) -> ExecutionResult:
    """Predict an example's rows from its members' outputs, by the public core."""
    release, outputs = release_of(example), outputs_in(example)
    policy = release.policy
    if example.payload is not None:
        policy = apply_quorum(parse_payload(example.payload), policy, release.members)

    def invoke_tier(tier: int, numbers: Integers) -> Results:
        return {
            member.id: respond(member.id, [outputs[member.id][row] for row in numbers], failing=member.id in failing)
            for member in release.in_tier(tier)
        }

    decided = decide(release, policy, len(rows_of(base_of(example))), Supply(invoke_tier))
    assert not isinstance(decided, Undecided)
    return decided


def respond(id_: str, cells: Cells, *, failing: bool) -> MemberResult:
    if failing or FAILS in cells:
        return MemberResult(id_, failure=MemberFailure("Unavailable", "it is down"))
    return MemberResult(id_, check_output(read_raw(cells), len(cells)))


def read_raw(cells: Cells) -> np.ndarray:
    """Read a model's outputs for some rows: names, or numbers, one or several per row."""
    if any(cell.isalpha() for cell in cells):
        return np.array(cells)
    return np.array([[float(number) for number in cell.split()] for cell in cells])


Computed = Iterator[tuple[str, Any]]
"""A column of a table's line, and what belongs there; other columns are prose."""


def compute_fields(example: Example, table: Table, line: Cells) -> Computed:
    """A line per field of `Prediction`, a column per row."""
    predictions = predict_example(example).predictions
    for place, row in enumerate(rows_of(base_of(example))):
        if row in table.head:
            value: Any = msgspec.to_builtins(predictions[place])
            for key in plain(line[0]).split("."):
                value = value[key]
            yield row, value


def compute_methods(_: Example, table: Table, line: Cells) -> Computed:
    """A line per method, a column per row: the value, in bold where the second class is predicted."""
    rows = table.head[1:]
    for row, prediction in zip(rows, predict_example(find_method(plain(line[0]), rows)).predictions, strict=True):
        yield row, Bold(prediction.value, prediction.label == "faulty")


def find_method(method: str, rows: Cells) -> Example:
    """Return a method's own example of these rows; of the parts `soft_vote` has none, it is `weighted_mean` there."""
    if method == "soft_vote":
        weighted = find_method("weighted_mean", rows)
        return replace(weighted, json=weighted.json | {"aggregation": {"method": "soft_vote"}})
    (found,) = (
        example
        for example in EXAMPLES
        if example.heading == method and any(table.head[1:] == rows for table in example.tables)
    )
    return found


def compute_shares(example: Example, table: Table, line: Cells) -> Computed:
    """A line per set of members that fail: the status, the shares, the value of the last column's row, the cause."""
    decided = predict_example(example, () if line[0] == "none" else tuple(line[0].split(", ")))
    failed = decided.status == "FAILED"
    computed: dict[str, Any] = {"status": decided.status, "why it fails": decided.cause}
    computed |= {member.id: "" if failed else member.weight for member in decided.members}
    rows = rows_of(base_of(example))
    computed |= {row: "" if failed else decided.predictions[rows.index(row)].value for row in rows if row in table.head}
    yield from ((column, computed[column]) for column in table.head[1:])


def compute_participation(example: Example, _: Table, line: Cells) -> Computed:
    participation = {str(role): counted for role, counted in predict_example(example).participation.items()}
    yield from msgspec.structs.asdict(participation[line[0]]).items()


def compute_transitions(example: Example, _: Table, line: Cells) -> Computed:
    """What the deployed state machine enters, alone or tier after tier."""
    release = release_of(example)
    first, second = (len(release.in_tier(tier)) for tier in (1, 2))
    for column, tiers in {
        "without cascade": [first + second],
        "decided in tier 1": [first],
        "sent on to tier 2": [first, second],
    }.items():
        entered = enter_states(tiers)
        yield column, {"invocations of members": entered.count("Score"), "state transitions": len(entered)}[line[0]]


def enter_states(tiers: Sequence[int]) -> list[str]:
    """Return the states of an execution that invokes so many members, tier after tier."""
    states = {"columns", "rows", "prediction_id", "release", "inline", "earlier", "cascade", "results"}
    undecided = [
        {"members": [{"function": "score", "timeout": 1}] * members, "undecided": True, **dict.fromkeys(states)}
        for members in tiers
    ]
    replies = iter([*undecided, {"status": "COMPLETE", "needs_review": 0}])
    functions: Mapping[str, Callable[[Any], Any]] = {
        "${NormalizeFunctionArn}": lambda _: next(replies),
        "score": lambda _: None,
        "${AggregateFunctionArn}": lambda _: next(replies),
    }
    entered: list[str] = []
    definition = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text(encoding="utf-8"))
    asl.run(definition, functions, {}, entered=entered)
    return entered


def compute_contract(_: Example, table: Table, line: Cells) -> Computed:
    """A line per output and declaration: the canonical output, or why it is rejected."""
    noun = table.head[0].removeprefix("output for a ")
    task = release_of(BASES[NOUNS.index(noun)]).task
    try:
        declared = msgspec.json.decode(plain(line[1]), type=Output)
        meant = convert_output(check_output(read_raw(line[:1]), 1), task, declared)[0]
    except InvalidOutput as error:
        yield table.head[2], Refused(str(error))
        return
    yield table.head[2], float(meant[1]) if isinstance(task, BinaryTask) else meant.tolist()


COMPUTE: Mapping[str, Callable[[Example, Table, Cells], Computed]] = {
    "": compute_fields,
    "method": compute_methods,
    "no output from": compute_shares,
    "participation": compute_participation,
    "an execution": compute_transitions,
    **{f"output for a {noun}": compute_contract for noun in NOUNS},
}


@dataclass(frozen=True)
class Bold:
    """A number that is set in bold, or not."""

    number: Any
    bold: bool


@dataclass(frozen=True)
class Refused:
    """The error of a failed member."""

    message: str


def is_shown(computed: Any, cell: str) -> bool:
    """Compare a computed value with a cell, to the cell's digits."""
    match computed:
        case Bold():
            return cell.startswith("**") == computed.bold and is_shown(computed.number, plain(cell))
        case Refused():
            return cell.startswith("refused: ") and cell.removeprefix("refused: ") in computed.message
        case bool():
            return cell == ("yes" if computed else "no")
        case None:
            return cell == "none"
        case int() | float():
            digits = len(cell.partition(".")[2])
            return bool(abs(float(cell) - computed) <= 0.5 * 10**-digits + 1e-9)
        case []:
            return cell == "none"
        case [str(), *_]:
            return cell == ", ".join(computed)
        case [*numbers]:
            shown = cell.split()
            return len(shown) == len(numbers) and all(map(is_shown, numbers, shown))
        case _:
            return cell == str(computed)


LINES = [
    pytest.param(example, table, line, id=f"{table.heading}: {plain(table.head[0])} {plain(line[0])}")
    for example in EXAMPLES
    for table in example.tables
    for line in table.lines
]


@pytest.mark.parametrize(("example", "table", "line"), LINES)
def test_a_line_shows_what_its_example_computes(example: Example, table: Table, line: Cells) -> None:
    computed = dict(COMPUTE[table.head[0]](example, table, line))
    assert computed
    wrong = {
        column: (line[table.head.index(column)], number)
        for column, number in computed.items()
        if not is_shown(number, line[table.head.index(column)])
    }
    assert not wrong


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example.error])
def test_check_rejects_with_the_shown_error(example: Example) -> None:
    with pytest.raises(InvalidManifest) as refused:
        release_of(example)
    assert str(refused.value).splitlines() == (example.error or "").splitlines()


def test_every_method_has_an_example_under_its_own_heading() -> None:
    methods = {str(method.__struct_config__.tag) for method in get_args(Aggregation)}
    shown = {example.heading for example in EXAMPLES if example.tables and not example.error}
    assert methods <= shown
    (compared,) = (table for example in BASES for table in example.tables if table.head[0] == "method")
    assert {plain(line[0]) for line in compared.lines} == methods


def test_every_kind_of_output_has_a_table_of_its_own() -> None:
    declared = {
        table.heading: [json.loads(plain(line[1])) for line in table.lines]
        for example in EXAMPLES
        for table in example.tables
        if table.head[1] == "declared as"
    }
    assert set(declared) == frozenset().union(*OUTPUT_KINDS.values())
    for kind, shown in declared.items():
        assert {"kind": kind} in shown


def test_every_bound_every_rule_for_ties_and_every_field_of_a_prediction_is_shown() -> None:
    shown = {plain(line[0]) for example in EXAMPLES for table in example.tables for line in table.lines}
    words = {"shadows"} | set(re.findall(r"`(\w+)`", PAGE))
    assert set(Prediction.__struct_fields__) <= shown | words
    assert set(Confidence.__struct_fields__) <= words
    assert set(Quorum.__struct_fields__) <= words
    assert set(get_args(get_args(TieRule)[0])) <= words
