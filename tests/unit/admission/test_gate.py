"""The gate: what it lets through, and everything that it stops."""

from __future__ import annotations

import json
import math
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

import asl
from builders import BINARY, ROOT, X, member, model, release, released, sources
from in_process import run_in_process
from memory import SLOTS, Clock, MemoryStack
from stepensemble.admission.ensemble_checks import check_deadline, check_states, count_inline
from stepensemble.admission.gate import GateReport, enforce_gate, run_gate
from stepensemble.admission.member_checks import Check
from stepensemble.admission.output_meaning import suspect_kind
from stepensemble.conversion import sandbox
from stepensemble.core.aggregation.output import Output as ExecutionOutput
from stepensemble.core.errors import InvalidManifest
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.schema.manifest import NumberFeature
from stepensemble.core.schema.outputs import Label, Logit, Logits, Output, Probability, Value
from stepensemble.core.schema.policy import Confidence, Stacking
from stepensemble.core.schema.task import MulticlassTask
from stepensemble.core.slot_capacity import (
    AGGREGATE_SECONDS,
    CAPACITIES,
    EXECUTION_SECONDS,
    MEBIBYTE,
    NORMALIZE_SECONDS,
    RESERVE,
    REVIEW_SECONDS,
    Capacity,
    execution_seconds,
)
from stepensemble.core.state_size import STATE_BYTES, inline_bytes
from stepensemble.publishing.golden import GOLDEN_ROWS, draw_rows
from stepensemble.publishing.manifest_loader import Sources, read_sources
from stepensemble.publishing.publish import publish
from stepensemble.publishing.verification import verify
from stepensemble.runtimes import load_model

ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
BINARY_TASK = {"type": "binary", "classes": ["no", "yes"]}
COLOURS = {"type": "multiclass", "classes": ["red", "green", "blue"]}
Y, Z = {**X, "name": "y"}, {**X, "name": "z"}
IMAGE = {"name": "image", "type": "tensor", "shape": [2, 2]}


@pytest.fixture
def child() -> None:
    """Requested by a test of the child process: its models are tried in a real one."""


@pytest.fixture(autouse=True)
def in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try models in this process, without the start of a child for each test, except where a test requests one."""
    if "child" not in request.fixturenames:
        monkeypatch.setattr(sandbox, "run_in_child", run_in_process)


def verdicts(report: GateReport, id_: str | None) -> dict[str, str]:
    return {check.name: check.verdict for check in report.checks if check.member == id_}


def find(report: GateReport, id_: str | None, name: str) -> Check:
    (found,) = [check for check in report.checks if (check.member, check.name) == (id_, name)]
    return found


# What is let through


@pytest.mark.usefixtures("child")
def test_valid_members_pass_every_check(tmp_path: Path) -> None:
    steps: list[str] = []
    report = run_gate(sources(tmp_path, member("a"), member("b", "fixed_batch_one")), steps.append)
    assert (report.problems, report.warnings, steps) == ((), (), ["Running a, b"])
    for id_ in ("a", "b"):
        assert list(verdicts(report, id_).items()) == [
            (name, "ok")
            for name in (
                "digest",
                "artifact",
                "inputs",
                "golden rows",
                "output",
                "repetition",
                "column order",
                "memory",
                "time",
            )
        ]
        assert report.results[id_].load_ms > 0
        assert report.results[id_].predict_ms > 0
    assert verdicts(report, None) == {"state": "ok", "deadline": "ok"}


def test_every_check_has_a_figure(tmp_path: Path) -> None:
    golden = [{"x": -4}, {"x": 4}, {"x": 1}]
    digest = sources(tmp_path).release.members[0].artifact.digest
    report = run_gate(sources(tmp_path, member("half", digest=digest, timeout=7), golden=golden))
    figures = {check.name: (check.figure, check.limit) for check in report.checks}
    assert figures["digest"] == (digest[:12], digest[:12])  # as pinned
    assert figures["artifact"] == (f"{len(model('half_plus_two')):,} bytes", None)
    assert figures["inputs"] == ("float32 [1]", "float32 [1]")
    assert figures["golden rows"] == ("3 rows, from 0 to 4", None)  # -4 / 2 + 2 and 4 / 2 + 2
    assert figures["output"] == ("float32 [1]", '"value"')
    assert figures["column order"] == ("one column", None)
    assert figures["memory"][1] == "1,024 MiB"
    assert figures["time"][1] == "7 s"
    assert figures["deadline"] == ("75 s", "300 s")  # 30 + (7 + 1 + 7) + 30


def test_a_report_is_plain_data(tmp_path: Path) -> None:
    document = run_gate(sources(tmp_path, member("a"), member("b", "softmax"))).to_json()
    assert set(document) == {"ok", "release", "members", "checks", "warnings", "problems"}
    assert json.loads(json.dumps(document)).keys() == document.keys()
    assert (document["ok"], len(document["warnings"])) == (False, 0)
    assert [one["id"] for one in document["members"]] == ["a"]
    assert {one["verdict"] for one in document["checks"]} == {"ok", "refused"}
    (problem,) = document["problems"]
    assert problem in [one["problem"] for one in document["checks"]]


def test_a_member_may_name_inputs_signature_and_output(tmp_path: Path) -> None:
    named: dict[str, Any] = {"inputs": {"a": ["x"], "b": ["y", "z"]}}
    report = run_gate(
        sources(
            tmp_path,
            member("total", "named", output={"kind": "value", "name": "total"}, **named),
            member("first", "named", output={"kind": "value", "name": "first"}, **named),
            member("double", "signatures", columns=["x"], signature="double"),
            features=[X, Y, Z],
            golden=[{"x": 1, "y": 2, "z": 4}, {"x": 3, "y": 5, "z": 9}],
        )
    )
    assert report.problems == ()
    assert find(report, "total", "inputs").figure == '"a" float32 [1], "b" float32 [2]'
    outputs = {id_: result.output[:, 0].tolist() for id_, result in report.results.items() if id_ != "double"}
    assert outputs == {"total": [7.0, 17.0], "first": [1.0, 3.0]}
    assert report.results["double"].output.ravel().tolist() == [2.0, 6.0]


# Members that contradict the manifest


@pytest.mark.parametrize(
    ("entry", "more", "check", "path", "expected"),
    [
        (member("a", "one_number"), {}, "artifact", ".artifact", 'ModelRefused: the input "x" is a single number'),
        (
            member("a", "signatures", signature="triple"),
            {},
            "artifact",
            ".artifact",
            'ModelRefused: the model has no signature "triple", but "double", "half"',
        ),
        (
            member("a", "signatures"),
            {},
            "artifact",
            ".artifact",
            'ModelRefused: the model has the signatures "double", "half"; choose one of them',
        ),
        (
            member("a", "named", inputs={"a": ["x"], "b": ["x", "y"]}),
            {"features": [X, Y]},
            "output",
            ".output.name",
            'InputMismatch: the model has the outputs "first", "total"; choose one of them',
        ),
        (
            member("a", "named", inputs={"a": ["x"], "b": ["x", "y"]}, output={"kind": "value", "name": "totla"}),
            {"features": [X, Y]},
            "output",
            ".output.name",
            'InputMismatch: the model has no output "totla", but "first", "total", did you mean "total"?',
        ),
        (
            member("a", "two_inputs"),
            {},
            "inputs",
            "",
            'InputMismatch: the model has the inputs "a", "b"; list the columns that each of them takes (it takes "a" '
            'float32 [1], "b" float32 [1]; its columns give float32 [1])',
        ),
        (
            member("a", "two_inputs", inputs={"a": ["x"], "c": ["x"]}),
            {},
            "inputs",
            ".inputs",
            'InputMismatch: the model has no input "c", but "a", "b"',
        ),
        (
            member("a", "softmax", columns=["x"]),
            {},
            "inputs",
            ".columns",
            "InputMismatch: the model takes [2] numbers a row, and its columns give [1] (it takes float32 [2]; its "
            "columns give float32 [1])",
        ),
        (
            member("a", "two_by_two", columns=["image"]),
            {"features": [X, {**IMAGE, "dtype": "uint8"}]},
            "inputs",
            ".columns",
            "InputMismatch: the model takes float32, and its columns are uint8",
        ),
        (
            member("a", "fixed_batch_two"),
            {"golden": [{"x": 1}, {"x": 2}]},
            "inputs",
            ".artifact",
            "it takes exactly 2 rows at once, and gets any number",
        ),
        (
            member("a", "one_row_inside"),
            {"golden": [{"x": 1}]},
            "inputs",
            "",
            "InputMismatch: LiteRT cannot run the model on 2 rows",
        ),
        (
            member("a", "logarithm"),
            {"golden": [{"x": 1}, {"x": -1}]},
            "golden rows",
            "",
            "InvalidOutput: the output of row 1 is not finite (1 of 2 rows)",
        ),
        (
            member("a", kind="probability"),
            {"task": BINARY_TASK},
            "output",
            ".output",
            "is outside [0, 1]",
        ),
        (
            member("a", "softmax", kind="probability"),
            {"task": BINARY_TASK, "features": [X, Y]},
            "output",
            ".output",
            'InvalidOutput: the output has 3 numbers a row, and "probability" means 1',
        ),
        (
            member("a", "text", output={"kind": "value", "name": "label"}),
            {},
            "output",
            ".output",
            'InvalidOutput: the output is text, and "value" means numbers',
        ),
    ],
)
def test_a_member_that_contradicts_the_manifest_is_rejected(
    tmp_path: Path, entry: dict[str, Any], more: dict[str, Any], check: str, path: str, expected: str
) -> None:
    report = run_gate(sources(tmp_path, entry, **more))
    (found,) = report.problems
    assert found.path == f"$.members[0]{path}"
    assert found.message.startswith(f"a ({entry['artifact']}): ")
    assert expected in found.message
    rejected = find(report, "a", check)
    assert (rejected.verdict, rejected.problem) == ("refused", found)
    assert [one for one in report.checks if one.member == "a"][-1] == rejected  # later checks need this one to pass
    with pytest.raises(InvalidManifest):
        report.raise_if_rejected()


def test_every_member_that_fails_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest) as rejected:
        enforce_gate(sources(tmp_path, member("a", "two_inputs"), member("b"), member("c", "softmax")))
    assert [problem.path for problem in rejected.value.problems] == ["$.members[0]", "$.members[2]"]


@pytest.mark.usefixtures("child")
@pytest.mark.slow
def test_a_model_that_crashes_its_process_is_rejected_and_the_others_are_checked(tmp_path: Path) -> None:
    # Of the files with one flipped bit these end the process of LiteRT 2.3; another version may find out in time.
    path = sources(tmp_path, member("a", "softmax"), member("b", columns=["x"]), features=[X, Y]).path
    whole = model("softmax")
    for bit in (5863, 5865):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "softmax.tflite").write_bytes(bytes(broken))
        report = run_gate(read_sources(path))
        (found,) = report.problems
        assert (found.path, found.message[:26]) == ("$.members[0].artifact", "a (softmax.tflite): ModelR")
        assert set(verdicts(report, "b").values()) == {"ok"}
        assert list(report.results) == ["b"]


# Columns in the wrong order


def test_exchanged_columns_are_detected_all_of_them_or_two(tmp_path: Path) -> None:
    moved = member("moved", "named", inputs={"a": ["x"], "b": ["y", "z"]}, output={"kind": "value", "name": "first"})
    report = run_gate(
        sources(tmp_path, moved, member("cyclic", "cyclic"), features=[X, Y, Z], golden=[{"x": 1, "y": 2, "z": 3}])
    )
    # a b^2 + b c^2 + c a^2 is 25 for 1, 2, 3 and for 2, 3, 1, and 23 for 2, 1, 3.
    assert find(report, "cyclic", "golden rows").figure == "2 rows, from 25 to 25"
    assert {find(report, id_, "column order").figure for id_ in ("moved", "cyclic")} == {"detected"}


def test_a_model_that_takes_columns_in_any_order_passes_with_a_warning(tmp_path: Path) -> None:
    symmetric = member("sum", "two_inputs", inputs={"a": ["x"], "b": ["y"]})
    report = run_gate(sources(tmp_path, symmetric, member("half", columns=["x"]), features=[X, Y]))
    assert report.problems == ()
    (warning,) = report.warnings
    assert warning.path == "$.members[0]"
    assert "its outputs stay the same when its 2 columns are exchanged" in warning.message
    assert 'give "golden" rows for which the order matters' in warning.remedy
    assert verdicts(report, "sum")["column order"] == "warning"
    assert len(report.fingerprint().members) == 2


def test_golden_rows_that_do_not_detect_the_order_give_a_warning(tmp_path: Path) -> None:
    entry = member("a", "softmax", "probabilities")
    equal_rows = sources(tmp_path, entry, task=COLOURS, features=[X, Y], golden=[{"x": 2, "y": 2}])
    assert verdicts(run_gate(equal_rows), "a")["column order"] == "warning"
    other = sources(tmp_path, entry, task=COLOURS, features=[X, Y], golden=[{"x": 2, "y": 2}, {"x": 1, "y": 2}])
    assert verdicts(run_gate(other), "a")["column order"] == "ok"


def test_a_model_that_fails_on_another_order_detects_it(tmp_path: Path) -> None:
    # i + x is the same for x + i; but no fraction is taken for an index.
    entry = member("a", "indexed", inputs={"i": ["x"], "x": ["y"]})
    report = run_gate(sources(tmp_path, entry, features=[X, Y], golden=[{"x": 1, "y": 0.5}, {"x": 2, "y": 0.25}]))
    assert report.problems == ()
    assert find(report, "a", "golden rows").figure == "2 rows, from 1.5 to 2.25"
    assert find(report, "a", "column order").figure == "detected"


def test_tensors_have_no_column_order(tmp_path: Path) -> None:
    report = run_gate(sources(tmp_path, member("a", "two_by_two", columns=["image"]), features=[X, IMAGE]))
    assert report.problems == ()
    assert find(report, "a", "column order").figure == "only tensors"


# Outputs that depend on more than the row


@pytest.mark.parametrize(
    ("artifact", "kind", "task", "ways"),
    [
        # The mean of 4, -20 and 20 is 4/3: for x = 4 the model returns 0.935 among them, and 0.5 alone.
        ("batch_mean", "probability", BINARY_TASK, {"alone": "row 0 is 0.5, not 0.93"}),
        (
            "running_sum",
            "value",
            {"type": "regression"},
            {"alone": "row 1 is -20.0, not -16.0", "in another order": ""},
        ),
        ("counting", "value", {"type": "regression"}, {"alone": "", "again": "", "in another order": ""}),
        ("noisy", "value", {"type": "regression"}, {"alone": "", "again": "", "in another order": ""}),
    ],
)
def test_a_member_whose_outputs_depend_on_more_than_the_row_is_rejected_unless_declared(
    tmp_path: Path, artifact: str, kind: str, task: dict[str, Any], ways: dict[str, str]
) -> None:
    more: dict[str, Any] = {"task": task, "golden": [{"x": x} for x in (4, -20, 20)]}
    report = run_gate(sources(tmp_path, member("a", artifact, kind), member("b", artifact, kind, varies=True), **more))
    (rejected,), (warned,) = report.problems, report.warnings
    assert (rejected.path, warned.path) == ("$.members[0]", "$.members[1].varies")
    steps = rejected.message.partition("for the same rows differ: ")[2]
    for way in ("alone", "again", "in another order"):
        assert (f"{way}, row " in steps) == (way in ways), (way, steps)
        assert ways.get(way, "") in steps
    assert "; 0.0001 of their scale" in steps
    assert '"varies": true' in rejected.remedy
    assert find(report, "a", "repetition").verdict == "refused"
    # What is declared is let through, and the rest of it is looked at.
    assert list(verdicts(report, "b"))[-4:] == ["repetition", "column order", "memory", "time"]
    assert find(report, "b", "column order").figure == "unknown, as its outputs vary"


@pytest.mark.parametrize("golden", [[{"x": 4}], [{"x": 4}, {"x": 4}]])
def test_equal_golden_rows_are_put_beside_drawn_ones(tmp_path: Path, golden: list[dict[str, Any]]) -> None:
    read = sources(
        tmp_path,
        member("a", "batch_mean", "probability"),
        member("b", "sigmoid", "probability"),
        task=BINARY_TASK,
        golden=golden,
    )
    report = run_gate(read)
    (rejected,) = report.problems
    assert "differ: beside other rows, row 0 is " in rejected.message
    assert verdicts(report, "b")["repetition"] == "ok"


def test_drawn_rows_that_a_model_rejects_give_a_warning_only(tmp_path: Path) -> None:
    # Drawn are numbers between -1 and 1, and the input takes whole ones.
    entry = member("a", "indexed", inputs={"i": ["x"], "x": ["y"]})
    report = run_gate(sources(tmp_path, entry, features=[X, Y], golden=[{"x": 1, "y": 2}]))
    assert report.problems == ()
    assert [one.remedy for one in report.warnings if "was not tested" in one.message] == [
        'give two "golden" rows that differ'
    ]


# Numbers that look like something else than what is declared


@pytest.mark.parametrize(
    ("artifact", "kind", "task", "remedy"),
    [
        ("sigmoid", "logit", BINARY_TASK, 'declare "probability" if the sigmoid is part of the model'),
        ("softmax", "logits", COLOURS, 'declare "probabilities" if the softmax is part of the model'),
        ("sign_label", "probability", BINARY_TASK, 'declare "label" if it is the index of a class'),
    ],
)
def test_outputs_that_look_like_another_kind_give_a_warning(
    tmp_path: Path, artifact: str, kind: str, task: dict[str, Any], remedy: str
) -> None:
    features = [X, Y] if artifact == "softmax" else [X]
    report = run_gate(sources(tmp_path, member("a", artifact, kind), task=task, features=features))
    (warning,) = report.warnings
    assert (warning.path, report.problems) == ("$.members[0].output.kind", ())
    assert remedy in warning.remedy
    assert (find(report, "a", "output").verdict, find(report, "a", "time").verdict) == ("warning", "ok")


@pytest.mark.parametrize(
    ("values", "output"),
    [
        (np.array([0.2, 1.5]), Logit()),
        (np.array([-0.1, 0.9]), Logit()),
        (np.array([[0.5, 0.25], [0.5, 0.5]]), Logits()),
        (np.log([[0.5, 0.5], [0.1, 0.9]]), Logits()),  # whose softmax is the probabilities again
        (np.array([0.0, 1.0, 0.5]), Probability()),
        (np.array(["no", "yes"]), Label()),
        (np.array([0.5, 0.7]), Value()),
    ],
)
def test_plausible_outputs_give_no_warning(values: Any, output: Output) -> None:
    assert suspect_kind(values, output) is None


# What a slot and an execution cannot bear


def test_a_model_too_slow_for_its_timeout_is_rejected_and_one_close_to_it_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def load_slow(*arguments: Any, **options: Any) -> SimpleNamespace:
        loaded = load_model(*arguments, **options)

        def predict(*inputs: Any) -> Any:
            clock.seconds += 2
            return loaded.predict(*inputs)

        return SimpleNamespace(signature=loaded.signature, predict=predict)

    with monkeypatch.context() as patched:
        patched.setattr(sandbox, "time", SimpleNamespace(perf_counter=clock))
        patched.setattr(sandbox, "load_model", load_slow)
        slow = run_gate(sources(tmp_path, member("slow", timeout=1)))
    (found,) = slow.problems
    assert found.path == "$.members[0].timeout"
    assert "s here to start, load and predict 8 rows, and its timeout is 1 s" in found.message
    near = Capacity(*_sizes(), start=9.0)
    warned = run_gate(
        sources(tmp_path, member("near", timeout=10), member("far", timeout=20)), capacities={"litert": near}
    )
    (warning,) = warned.warnings
    assert warning.path == "$.members[0].timeout"
    assert "its timeout is 10 s; a slot has about half a processor, so it should be 2 times faster" in warning.message


def _sizes() -> tuple[int, int, int]:
    litert = CAPACITIES["litert"]
    return litert.memory, litert.most, litert.disk


@pytest.mark.usefixtures("child")
def test_a_model_too_large_for_its_slot_is_rejected_and_one_that_leaves_little_memory_gives_a_warning(
    tmp_path: Path,
) -> None:
    # Python, NumPy and LiteRT alone are some 45 MiB.
    read, steps = sources(tmp_path, member("a"), member("b")), []
    small = {"litert": Capacity(10 * MEBIBYTE, 10 * MEBIBYTE, 0, 0.0)}
    report = run_gate(read, steps.append, small)
    assert [problem.path for problem in report.problems] == ["$.members[0].artifact", "$.members[1].artifact"]
    assert "and its slot has 10 MiB, of which 192 MiB should be left for more rows" in report.problems[0].message
    assert steps == ["Running a, b", "Measuring the memory of a", "Measuring the memory of b"]
    tight = {"litert": Capacity(RESERVE, 1024 * MEBIBYTE, 0, 0.0)}
    report = run_gate(read, capacities=tight)
    assert (report.problems, len(report.warnings)) == ((), 2)
    assert "or deploy its slots with a greater MemorySize" in report.warnings[0].remedy


@pytest.mark.usefixtures("child")
def test_the_memory_of_this_process_does_not_count_as_a_models(tmp_path: Path) -> None:
    held = np.ones(40 * MEBIBYTE, dtype=np.float64)  # 320 MiB, filled
    report = run_gate(sources(tmp_path))
    assert 20 * MEBIBYTE < report.results["half"].peak_bytes < held.nbytes / 2


def test_the_longest_execution_is_computed_from_the_timeouts() -> None:
    members = [
        released("a", timeout=10),
        released("b", timeout=20),
        released("s", timeout=50, role="shadow"),
        released("c", timeout=5, tier=2),
    ]
    frame = NORMALIZE_SECONDS + 2 * AGGREGATE_SECONDS
    cascade = Confidence(min_margin=0.5)
    # Tier 1: b twice and a second between, less than the shadow once; tier 2: c twice and a second between.
    plain = release(BINARY, *members, cascade=cascade)
    assert execution_seconds(plain) == frame + 50 + 11
    reviewed = release(BINARY, *members[:2], members[3], cascade=cascade, review=Confidence(min_margin=0.1))
    assert execution_seconds(reviewed) == frame + 41 + 11 + REVIEW_SECONDS
    check = check_deadline(plain)
    assert (check.figure, check.limit, check.verdict) == ("151 s", f"{EXECUTION_SECONDS} s", "ok")


def test_timeouts_longer_than_an_execution_are_rejected() -> None:
    members = [released(id_, timeout=50, tier=tier) for tier, id_ in enumerate("abc", start=1)]
    check = check_deadline(release(BINARY, *members, cascade=Confidence(min_margin=0.5)))
    assert (check.figure, check.verdict) == ("423 s", "refused")  # 30 + 3 * (50 + 1 + 50) + 3 * 30
    assert check.problem is not None
    assert "101 + 101 + 101 s for a, b, c" in check.problem.message
    default = [released(id_, tier=tier) for tier, id_ in enumerate("abcd", start=1)]
    assert check_deadline(release(BINARY, *default, cascade=Confidence(min_margin=0.5))).verdict == "ok"


def test_a_policy_too_large_for_a_state_is_rejected() -> None:
    # Eight voters, a hundred classes: 80,000 coefficients, which every output would contain.
    classes = tuple(f"class-{number}" for number in range(100))
    members = [released(id_, "probabilities") for id_ in "abcdefgh"]
    square = tuple(tuple(row) for row in np.full((100, 100), 1 / 300).tolist())
    stack = Stacking(coefficients=dict.fromkeys("abcdefgh", square), missing="refuse")
    large = release(MulticlassTask(classes), *members, aggregation=stack)
    rows = draw_rows(large.features, GOLDEN_ROWS)
    columns: Columns = {"x": np.zeros(GOLDEN_ROWS, dtype=np.float32)}
    check = check_states(large, columns, rows)
    assert (check.verdict, check.limit) == ("refused", "256 KiB")
    assert check.problem is not None
    assert check.problem.path == "$.aggregation"
    assert check.figure.endswith("; 0 rows inline")
    plain = check_states(release(MulticlassTask(classes), *members), columns, rows)
    assert plain.verdict == "ok"


def test_the_number_of_inline_rows_follows_from_the_sizes_of_states() -> None:
    one = release(BINARY, released("a", "probability"), released("b", "probability"))
    rows, columns = [{"x": 0.25}], {"x": np.zeros(1, dtype=np.float32)}
    count = count_inline(one, columns, rows)

    def heaviest(rows: int) -> int:
        # {"x":0.25} and a comma; a number of 26 bytes for each row; the column's name and frame.
        return inline_bytes(
            one,
            one.policy,
            input_bytes=11 * rows,
            columns_bytes=26 * rows + 65,
            members_bytes={1: 2000},
            rows=rows,
        )

    assert heaviest(count) <= STATE_BYTES < heaviest(count + 1)


def test_an_image_too_large_for_a_state_is_stored_in_s3() -> None:
    features = (NumberFeature("x"),)
    columns: Columns = {"x": np.zeros((2, 224, 224, 3), dtype=np.float32)}
    check = check_states(release(BINARY, released("a", "probability"), features=features), columns, [{"x": 0}])
    assert (check.verdict, check.figure.split("; ")[1]) == ("ok", "0 rows inline")


# The fingerprint


def test_the_fingerprint_has_the_gates_outputs_for_the_manifests_golden_rows(tmp_path: Path) -> None:
    golden = [{"x": 1}, {"x": -4}]
    read = sources(tmp_path, member("a"), member("b", "sigmoid"), golden=golden)
    stack = MemoryStack()
    taken = run_gate(read).fingerprint(lambda: stack.now)
    assert (taken.release, taken.taken_at) == (read.digest, "2026-03-01T12:00:00.000+00:00")
    assert list(taken.instances) == golden
    assert list(taken.members["a"].outputs) == [2.5, 0.0]  # x / 2 + 2
    assert taken.members["b"].outputs == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(4))], rel=1e-6)


def test_one_golden_row_is_stored_once(tmp_path: Path) -> None:
    taken = run_gate(sources(tmp_path, golden=[{"x": 3}])).fingerprint()
    assert (list(taken.instances), list(taken.members["half"].outputs)) == ([{"x": 3}], [3.5])


def test_golden_rows_are_drawn_by_default(tmp_path: Path) -> None:
    read = sources(tmp_path)
    assert list(run_gate(read).fingerprint().instances) == draw_rows(read.release.features, GOLDEN_ROWS)


def test_a_rejected_release_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest):
        run_gate(sources(tmp_path, member("a", "softmax"))).fingerprint()


def verify_on(stack: MemoryStack, read: Sources, run: str, **replaced: Any) -> list[str]:
    """Verify a stack in memory, some of whose functions are others; return the members' verdicts."""
    functions = {**stack.slots, "${NormalizeFunctionArn}": stack.normalize, "${AggregateFunctionArn}": stack.aggregate}

    numbers = count(1)

    def execute(payload: dict[str, Any]) -> tuple[ExecutionOutput | None, str]:
        run_ = f"{run}-{next(numbers)}"
        return msgspec.convert(asl.run(ENSEMBLE, functions | replaced, payload, run_), ExecutionOutput), ""

    done = verify(read.release, stack.releases.read_fingerprint(read.digest), execute)
    return [verdict.status for verdict in done.members]


def test_verify_detects_columns_exchanged_on_a_stack(tmp_path: Path) -> None:
    read = sources(tmp_path, member("a", "softmax", "probabilities"), task=COLOURS, features=[X, Y])
    stack = MemoryStack()
    publish(read, stack.releases, SLOTS, fingerprint=enforce_gate(read).fingerprint())

    def exchange(event: dict[str, Any]) -> dict[str, Any]:
        columns = event["columns"]
        return stack.slots["stack-score-1"]({**event, "columns": {"x": columns["y"], "y": columns["x"]}})

    assert verify_on(stack, read, "as-published") == ["same"]
    assert verify_on(stack, read, "exchanged", **{"stack-score-1": exchange}) == ["differs"]
