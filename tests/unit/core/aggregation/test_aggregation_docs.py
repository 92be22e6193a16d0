"""Every number in docs/aggregation.md is what the core computes from the example beside it.

The page is read from top to bottom. A JSON block with a task and members is a *ground*; the table below it holds what
its members say, a column a row. Every later JSON block is a *change* of the ground whose rows the tables below it name:
its members are merged by id, its other keys replace the ground's. A change may have its own table of what some members
say. The first cell of a table tells what is in it: see `COMPUTE`; only those in `PROSE` are not computed.
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
PROSE = {"what your members give", "what is worst"}
SILENT = "fails"
HELD_OUT = re.compile(r"<!-- held-out passengers -->.*<!-- end of held-out passengers -->", re.DOTALL)
"""These tables are made by examples/titanic; its own test holds them."""

NOUNS = ("part", "fruit", "delivery")
"""What the rows of the grounds are, in the page's order; a table of contracts begins with one of them."""

Cells = list[str]


@dataclass
class Table:
    heading: str
    head: Cells
    lines: list[Cells]


@dataclass
class Example:
    """A JSON block and what stands below it, until the next one."""

    heading: str
    json: dict[str, Any]
    said: Table | None = None
    tables: list[Table] = field(default_factory=list)
    refusal: str | None = None
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
                examples.append(Example(heading, before.json, before.said, payload=data))
            else:
                examples.append(Example(heading, data))
        elif part["kind"] == "text":
            examples[-1].refusal = part["block"]
        else:
            table = read_table(heading, part["table"])
            if table.head[0] == "member":
                examples[-1].said = table
            elif table.head[0] not in PROSE:
                examples[-1].tables.append(table)
    return examples


def read_table(heading: str, text: str) -> Table:
    head, _, *lines = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines())
    return Table(heading, head, lines)


def plain(cell: str) -> str:
    return cell.strip("`*")


EXAMPLES = read_page()
GROUNDS = [example for example in EXAMPLES if {"task", "members"} <= set(example.json)]


def ground_of(example: Example) -> Example:
    """Return the ground whose rows an example's tables name; the first one where none does."""
    if example in GROUNDS:
        return example
    named = {cell for table in example.tables for cell in table.head}
    (ground,) = [ground for ground in GROUNDS if named & set(rows_of(ground))] or GROUNDS[:1]
    return ground


def rows_of(ground: Example) -> list[str]:
    assert ground.said is not None
    return ground.said.head[1:]


def manifest_of(example: Example) -> dict[str, Any]:
    """Return the whole manifest that an example is a piece of."""
    ground, change = ground_of(example).json, example.json
    members = {member["id"]: member for member in ground["members"]}
    for member in change.get("members", []):
        members[member["id"]] = members.get(member["id"], {}) | member
    left_out = {"version": "1", "artifact": "model.tflite"}
    return {
        "schema_version": 1,
        "name": "docs",
        "features": [{"name": "x", "type": "number"}],
        **ground,
        **change,
        "members": [member | left_out for member in members.values()],
    }


def release_of(example: Example) -> Release:
    """Compile it, as `ensemble check` would: what a reader copies from the page is sound."""
    manifest = parse_manifest(json.dumps(manifest_of(example)))
    return compile_release(manifest, {member.id: artifact(b"") for member in manifest.members})


def said_in(example: Example) -> dict[str, Cells]:
    """Return what each member says, a cell a row."""
    tables = [table for table in (ground_of(example).said, example.said) if table is not None]
    return {line[0]: line[1:] for table in tables for line in table.lines}


def answer(example: Example, silent: tuple[str, ...] = ()) -> ExecutionResult:
    """Decide an example's rows from what its members say, by way of the public core."""
    release, said = release_of(example), said_in(example)
    policy = release.policy
    if example.payload is not None:
        policy = apply_quorum(parse_payload(example.payload), policy, release.members)

    def ask(tier: int, numbers: Integers) -> Results:
        return {
            member.id: say(member.id, [said[member.id][row] for row in numbers], silent=member.id in silent)
            for member in release.in_tier(tier)
        }

    decided = decide(release, policy, len(rows_of(ground_of(example))), Supply(ask))
    assert not isinstance(decided, Undecided)
    return decided


def say(id_: str, cells: Cells, *, silent: bool) -> MemberResult:
    if silent or SILENT in cells:
        return MemberResult(id_, failure=MemberFailure("Unavailable", "it is down"))
    return MemberResult(id_, check_output(read_raw(cells), len(cells)))


def read_raw(cells: Cells) -> np.ndarray:
    """Read what a model says of some rows: names, or numbers, one or several of each row."""
    if any(cell.isalpha() for cell in cells):
        return np.array(cells)
    return np.array([[float(number) for number in cell.split()] for cell in cells])


Computed = Iterator[tuple[str, Any]]
"""A column of a table's line, and what belongs there; other columns are prose."""


def compute_fields(example: Example, table: Table, line: Cells) -> Computed:
    """A line a field of `Prediction`, a column a row."""
    predictions = answer(example).predictions
    for place, row in enumerate(rows_of(ground_of(example))):
        if row in table.head:
            value: Any = msgspec.to_builtins(predictions[place])
            for key in plain(line[0]).split("."):
                value = value[key]
            yield row, value


def compute_methods(_: Example, table: Table, line: Cells) -> Computed:
    """A line a method, a column a row: the value, in bold where the second class is answered."""
    rows = table.head[1:]
    for row, prediction in zip(rows, answer(find_method(plain(line[0]), rows)).predictions, strict=True):
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
    """A line a set of members that fail: the status, the shares, the value of the row in the last column, the cause."""
    decided = answer(example, () if line[0] == "nobody" else tuple(line[0].split(", ")))
    failed = decided.status == "FAILED"
    computed: dict[str, Any] = {"status": decided.status, "why it fails": decided.cause}
    computed |= {member.id: "" if failed else member.weight for member in decided.members}
    rows = rows_of(ground_of(example))
    computed |= {row: "" if failed else decided.predictions[rows.index(row)].value for row in rows if row in table.head}
    yield from ((column, computed[column]) for column in table.head[1:])


def compute_participation(example: Example, _: Table, line: Cells) -> Computed:
    participation = {str(role): counted for role, counted in answer(example).participation.items()}
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
        yield column, {"calls of members": entered.count("Score"), "state transitions": len(entered)}[line[0]]


def enter_states(tiers: Sequence[int]) -> list[str]:
    """Return the states of an execution that asks so many members, tier after tier; its functions answer no more."""
    states = {"columns", "rows", "prediction_id", "release", "inline", "earlier", "cascade", "results"}
    asking = [
        {"members": [{"function": "score", "timeout": 1}] * members, "undecided": True, **dict.fromkeys(states)}
        for members in tiers
    ]
    replies = iter([*asking, {"status": "COMPLETE", "needs_review": 0}])
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
    """A line an output and a declaration: what becomes of it, or why it is refused."""
    noun = table.head[0].removeprefix("of a ").removesuffix(" the model says")
    task = release_of(GROUNDS[NOUNS.index(noun)]).task
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
    **{f"of a {noun} the model says": compute_contract for noun in NOUNS},
}


@dataclass(frozen=True)
class Bold:
    """A number that is set in bold, or not."""

    number: Any
    bold: bool


@dataclass(frozen=True)
class Refused:
    """What a failed member's report says."""

    message: str


def is_shown(computed: Any, cell: str) -> bool:
    """Compare what was computed with what a cell shows, to its digits."""
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
            return cell == "nobody"
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


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example.refusal])
def test_what_check_refuses_is_told_as_shown(example: Example) -> None:
    with pytest.raises(InvalidManifest) as refused:
        release_of(example)
    assert str(refused.value).splitlines() == (example.refusal or "").splitlines()


def test_every_method_has_an_example_under_its_own_heading() -> None:
    methods = {str(method.__struct_config__.tag) for method in get_args(Aggregation)}
    shown = {example.heading for example in EXAMPLES if example.tables and not example.refusal}
    assert methods <= shown
    (compared,) = (table for example in GROUNDS for table in example.tables if table.head[0] == "method")
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


def test_every_bound_every_rule_for_ties_and_every_field_of_an_answer_is_shown() -> None:
    shown = {plain(line[0]) for example in EXAMPLES for table in example.tables for line in table.lines}
    words = {"shadows"} | set(re.findall(r"`(\w+)`", PAGE))
    assert set(Prediction.__struct_fields__) <= shown | words
    assert set(Confidence.__struct_fields__) <= words
    assert set(Quorum.__struct_fields__) <= words
    assert set(get_args(get_args(TieRule)[0])) <= words
