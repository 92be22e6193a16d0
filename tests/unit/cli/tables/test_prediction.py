"""The table of several rows: every member's output as the probability of the predicted label."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from builders import BINARY, REGRESSION, THREE, Supply, release, released
from stepensemble.cli.tables.prediction import render_output
from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output import Output
from stepensemble.core.aggregation.output_source import MemberResult
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.outputs import Label, Logit, Probability, Value
from stepensemble.core.schema.task import BinaryTask


def decided_output(ensemble: Release, rows: int, **outputs: Any) -> Output:
    """Aggregate members' outputs, and return the execution's output as a caller reads it."""
    results = {id_: MemberResult(id_, np.array(values), 1.0, cold=False) for id_, values in outputs.items()}
    result = decide(ensemble, ensemble.policy, rows, Supply(lambda *_: results))
    assert isinstance(result, ExecutionResult)
    return msgspec.json.decode(msgspec.json.encode(result.to_output("p", "0" * 64)), type=Output)


def show(ensemble: Release, rows: int, width: int = 160, **outputs: Any) -> list[str]:
    """Aggregate members' outputs, and return the lines of the table of rows and those after it."""
    output = decided_output(ensemble, rows, **outputs)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render_output(output, ensemble, width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined] of the StringIO
    return [line.rstrip() for line in lines[lines.index(next(line for line in lines if not line.strip())) + 1 :]]


def test_a_member_is_shown_as_its_probability_of_the_predicted_label_or_its_label() -> None:
    ensemble = release(
        BINARY,
        released("plain", "probability"),
        released("logit", Logit(temperature=2.0)),
        released("other", Probability(of="no")),
        released("label", Label(one_hot=True)),
    )
    # A logit of -4 at temperature 2 is 1 / (1 + e^2) = 0.119 for yes, so 0.881 for no; of "no" 0.7 is 0.7.
    lines = show(ensemble, 2, plain=[0.2, 0.9], logit=[-4.0, 4.0], other=[0.7, 0.4], label=[0, 0])
    assert lines[0].split() == ["row", "label", "score", "plain", "logit", "other", "label", "agreement", "spread"]
    assert lines[1].split()[1:7] == ["no", "0.845", "0.800", "0.881", "0.700", "no"]
    assert lines[2].split()[1:7] == ["yes", "0.595", "0.900", "0.881", "0.600", "no"]
    assert "members: the probability of the predicted label, or the member's own label" in lines


def test_of_several_classes_the_probability_is_that_of_the_predicted_label_and_not_of_the_members_best() -> None:
    ensemble = release(THREE, released("a", "probabilities"), released("b", "probabilities"))
    lines = show(ensemble, 2, a=[[0.7, 0.2, 0.1]] * 2, b=[[0.3, 0.6, 0.1]] * 2)
    assert lines[1].split()[1:5] == ["red", "0.500", "0.700", "0.300"]


def test_values_are_shown_in_the_ensembles_unit_and_with_their_digits() -> None:
    ensemble = release(REGRESSION, released("a"), released("b", Value(scale=1e-9)))
    lines = show(ensemble, 2, a=[2.5e-7, 300000.0], b=[250.0, 3e14])
    assert lines[0].split() == ["row", "value", "a", "b", "spread"]
    assert lines[1].split()[1:4] == ["2.5e-07"] * 3
    assert lines[2].split()[1:4] == ["300000"] * 3
    assert not any("–" in line for line in lines)


def test_no_label_is_cut_and_members_that_do_not_fit_are_counted() -> None:
    task = BinaryTask(classes=("benign", "malignant of the rarest kind"))
    names = [f"member_{number}" for number in range(12)]
    ensemble = release(task, *(released(name, "probability") for name in names))
    lines = show(ensemble, 2, 80, **{name: [0.9, 0.1] for name in names})
    row = next(line for line in lines if line.strip().startswith("0 "))
    assert "malignant of the rarest kind" in row
    assert max(map(len, lines)) <= 80
    shown = row.count("0.900") - 1  # the score is 0.900, too
    assert 0 < shown < 12
    assert any(line.startswith(f"and {12 - shown} more members") for line in lines)


def test_the_last_column_stays_where_no_member_fits_beside_a_long_class_name() -> None:
    longest = "".join(map(chr, range(ord("A"), ord("A") + 46)))
    names = [f"member_with_a_long_identifier_{number}" for number in range(4)]
    ensemble = release(BinaryTask(classes=("benign", longest)), *(released(name, "probability") for name in names))
    lines = show(ensemble, 2, 80, **{name: [0.9, 0.5] for name in names})
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["row", "label", "score", "agreement", "spread"]
    row, *_ = [line for line in lines if line.startswith("  1 ")]
    assert row.endswith("tie")
    assert row.split()[1] + lines[lines.index(row) + 1].strip() == longest
    assert "and 4 more members; a wider terminal or --json shows all" in lines
    assert not any(line.startswith("members:") for line in lines)  # none is shown


def test_long_ids_that_differ_at_their_end_can_be_told_apart() -> None:
    names = [f"member_with_a_long_identifier_{number}" for number in range(4)]
    ensemble = release(BINARY, *(released(name, "probability") for name in names))
    table = Console(file=io.StringIO(), width=80, color_system=None)
    table.print(render_output(decided_output(ensemble, 1, **{name: [0.9] for name in names}), ensemble, 80))
    printed = table.file.getvalue()  # type: ignore[attr-defined] of the StringIO
    assert "…" not in printed
    endings = [line.split()[0][-1] for line in printed.splitlines() if line.startswith("dentifier_")]
    assert endings == ["0", "1", "2", "3"]


def test_a_class_name_is_measured_as_it_is_printed() -> None:
    # Two marks of direction, of no cell to Rich, are printed as symbols of one; a bell would be dropped.
    ensemble = release(
        BinaryTask(classes=("benign", "left\u202e\u202eright\nbell\a")),
        *(released(name, "probability") for name in "ab"),
    )
    lines = show(ensemble, 2, 80, a=[0.9, 0.8], b=[0.9, 0.8])
    rows = [line for line in lines if line.startswith(("  0 ", "  1 "))]
    assert [row.split()[1] for row in rows] == ["left\ufffd\ufffdright\u240abell\u2407"] * 2
    places = [line.index(word) + len(word) for line, word in zip(lines, ("score", "0.900", "0.800"), strict=False)]
    assert len(set(places)) == 1
