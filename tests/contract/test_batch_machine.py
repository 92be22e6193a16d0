"""The batch's state machine and its handlers: each state's output is the input that the next one reads."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

import asl
from batch import DATASET, MACHINE, MemoryBatch
from builders import X, member, sources
from memory import MemoryStack
from stepensemble.batch.documents import BinEdges, RunPlan
from stepensemble.batch.report.summary import Drift, Summary
from stepensemble.handlers.batch.aggregate_shard import ShardAggregator
from stepensemble.handlers.batch.plan import MAX_LABEL_ATTEMPTS, MAX_SAMPLE_ATTEMPTS, Planner
from stepensemble.handlers.batch.run_documents import Runs
from stepensemble.storage.keys import claim_key, labelling_key, plan_key, result_key, sampling_key
from stepensemble.storage.objects import Bucket

ENSEMBLE = json.loads((Path(asl.__file__).parents[1] / "statemachine" / "ensemble.asl.json").read_text())["States"]
SHARD = MACHINE["States"]["Run shards"]["ItemProcessor"]["States"]


def batch(folder: Path, *members: dict[str, Any], **more: Any) -> MemoryBatch:
    stack = MemoryStack()
    stack.publish(sources(folder, *members or (member("a"), member("b")), **more))
    return MemoryBatch(stack)


def parts(stack: MemoryStack, output: dict[str, Any], name: str = "results") -> pl.DataFrame:
    """Read the results that a run has published."""
    folder = output[name].removeprefix("s3://data/")
    found = sorted(one.key for one in stack.data.list(folder) if one.key.endswith(".parquet"))
    return pl.concat([pl.read_parquet(io.BytesIO(stack.data.read(key))) for key in found])


def lines(rows: range, column: str = "x") -> str:
    return f"{column}\n" + "".join(f"{row}\n" for row in rows)


SMALL = {"shard_size": 1024}
"""Shards of about 250 rows of `lines`."""


def test_a_dataset_becomes_results_row_by_row(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("a.csv", lines(range(1000)))
    output = run.run(options=SMALL)
    assert (output["rows_in"], output["rows_out"], output["rows_rejected"]) == (1000, 1000, 0)
    found = parts(run.stack, output)
    assert found["row"].to_list() == list(range(1, 1001))
    # The output of both members is x / 2 + 2.
    assert found["value"].to_list() == [row / 2 + 2 for row in range(1000)]
    assert len(set(found["file"])) == 1


def test_a_successful_run_leaves_its_plan_claim_and_result(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("a.csv", lines(range(1000)))
    name = run.run(options=SMALL)["run"]
    left = {one.key for one in run.stack.data.list("batch/")}
    assert left == {plan_key(name), claim_key(name), result_key(name)}


def test_rejected_rows_are_stored_with_their_reasons(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("a.csv", "x\n1\nmany\n3\n4,5\n")
    output = run.run()
    assert (output["rows_in"], output["rows_out"], output["rows_rejected"]) == (4, 2, 2)
    rejected = parts(run.stack, output, "rejected")
    assert rejected.select("row", "column", "value").rows() == [(2, "x", "many"), (4, "", "4,5")]
    assert parts(run.stack, output)["row"].to_list() == [1, 3]


def test_a_shard_without_an_accepted_row_invokes_no_member(tmp_path: Path) -> None:
    run, entered = batch(tmp_path), []
    run.put("a.csv", "x\nmany\n")
    output = run.run("run-1", entered, options={"max_rejected": 1})
    assert (output["rows_in"], output["rows_out"], output["rows_rejected"]) == (1, 0, 1)
    assert entered == [
        *("Plan", "Planned?", "Run shards"),
        *("Normalize shard", "Any rows?", "Aggregate shard", "Next tier?", "Shard ended"),
        *("Summarize", "Summarized?", "Succeed"),
    ]


def labelled(folder: Path, *labels: str) -> MemoryBatch:
    """Return a binary ensemble that predicts "2" for x = 1, with a file of two rows for each two labels."""
    run = batch(
        folder, member("sign", "sigmoid", "probability"), task={"type": "binary", "classes": ["1", "2"]}, features=[X]
    )
    for number, (first, second) in enumerate(zip(labels[::2], labels[1::2], strict=True)):
        run.put(f"{number}.csv", f"x,y\n-1,{first}\n1,{second}\n")
    return run


def test_labels_are_read_in_the_same_way_in_all_shards(tmp_path: Path) -> None:
    # Each file is a shard; the labels of the first could be read as names too.
    run = labelled(tmp_path, "1", "1", "0", "1")
    output = run.run(options={"label": "y"})
    assert parts(run.stack, output)["truth"].to_list() == ["2", "2", "1", "2"]
    labels = read_summary(run, output).ground_truth
    assert labels is not None
    assert (labels.label_values, labels.rows, labels.unrecognized) == ("indexes", 4, 0)
    assert labels.confusion == {"1": {"1": 1}, "2": {"1": 1, "2": 2}}


def test_labels_that_can_be_read_both_ways_need_the_callers_choice(tmp_path: Path) -> None:
    run = labelled(tmp_path, "1", "1")
    with pytest.raises(asl.Failed, match="--label-values names or --label-values indexes") as failed:
        run.run("run-1", options={"label": "y"})
    assert failed.value.error == "DatasetRefused"
    for reading, truth in (("names", ["1", "1"]), ("indexes", ["2", "2"])):
        output = run.run(f"run-{reading}", options={"label": "y", "label_values": reading})
        assert parts(run.stack, output)["truth"].to_list() == truth


def test_unknown_labels_are_in_the_summary_with_their_rows(tmp_path: Path) -> None:
    run = labelled(tmp_path, "1", "2", "7", "2", "0", "")
    output = run.run(options={"label": "y", "label_values": "names"})
    labels = read_summary(run, output).ground_truth
    assert labels is not None
    assert (labels.rows, labels.unrecognized, labels.other_reading) == (5, 2, 1)
    assert labels.examples == (("1.csv", 1), ("2.csv", 1))


@pytest.mark.parametrize(("died", "chosen"), [(1, False), (2, False), (2, True)])
def test_a_plan_that_ended_while_reading_labels_retries_once_and_then_needs_a_choice(
    tmp_path: Path, died: int, chosen: bool
) -> None:
    run = labelled(tmp_path, "1", "2")
    options = {"label": "y"} | ({"label_values": "names"} if chosen else {})
    name = run.run("run-1", options=options)["run"]
    data = run.stack.data
    data.delete([one.key for prefix in ("batch/", "results/", "results-reports/") for one in data.list(prefix)])
    for attempt in range(died):
        data.write(labelling_key(name, attempt), b"")
    if died < 2 or chosen:
        assert run.run("run-2", options=options)["rows_out"] == 2
        return
    with pytest.raises(asl.Failed, match=r"ended the process repeatedly; .*--label-values names") as failed:
        run.run("run-2", options=options)
    assert failed.value.error == "DatasetRefused"


def test_an_empty_dataset_is_a_run_of_no_rows(tmp_path: Path) -> None:
    run, entered = batch(tmp_path), []
    run.put("a.csv", "x\n")
    output = run.run("run-1", entered)
    assert (output["rows_in"], output["rows_out"]) == (0, 0)
    assert entered == ["Plan", "Planned?", "Summarize", "Summarized?", "Succeed"]


@pytest.mark.parametrize(
    ("request_", "error", "cause"),
    [
        ({"date": "2026-02-30"}, "InvalidPayload", r"\$\.date"),
        ({"dataset": "s3://data/datasets/none.csv"}, "DatasetMissing", "none.csv does not exist"),
        ({"dataset": "s3://data/records/a.csv"}, "InvalidPayload", "store it under s3://data/datasets/"),
        ({"release": "12345678"}, "ReleaseNotCurrent", "12345678"),
        ({"dataset": "s3://data/datasets/other/"}, "DatasetRefused", "feature x: is not a column"),
    ],
)
def test_a_rejected_request_fails_with_the_errors_name_and_cause(
    tmp_path: Path, request_: dict[str, Any], error: str, cause: str
) -> None:
    run = batch(tmp_path)
    run.put("a.csv", lines(range(3)))
    run.put("other/a.csv", lines(range(3), "y"))
    with pytest.raises(asl.Failed, match=cause) as failed:
        run.run(**request_)
    assert failed.value.error == error


def test_shadows_and_tiers_are_invoked_as_in_a_single_execution(tmp_path: Path) -> None:
    members = [
        member("a", "sigmoid", "probability", columns=["x"]),
        member("b", "sigmoid", "probability", columns=["y"]),
        member("c", "sigmoid", "probability", columns=["x"], tier=2),
        member("s", "sigmoid", "probability", columns=["x"], role="shadow"),
    ]
    more: dict[str, Any] = {
        "task": {"type": "binary", "classes": ["no", "yes"]},
        "features": [X, {**X, "name": "y"}],
        "cascade": {"max_spread": 0.1},
        "quorum": {"min_members": 1},
    }
    run, entered = batch(tmp_path, *members, **more), []
    # The first two agree on the first row and not on the second, for which the third is invoked.
    run.put("a.csv", "x,y\n1,1\n3,-3\n")
    output = run.run("run-1", entered)
    found = parts(run.stack, output)
    assert found["tier"].to_list() == [1, 2]
    assert found["c_status"].to_list() == ["skipped", "ok"]
    assert found["s_status"].to_list() == ["ok", "ok"]
    assert entered.count("Aggregate shard") == 2
    assert entered.count("Score a shadow") == 1


def test_a_members_failure_degrades_the_shard_and_no_other(tmp_path: Path) -> None:
    run = batch(tmp_path, member("half"), member("log", "logarithm"), quorum={"min_members": 1})
    run.put("a.csv", "x\n-1\n")
    run.put("b.csv", "x\n1\n")
    found = parts(run.stack, run.run())
    assert dict(zip(found["file"], found["status"], strict=True)) == {"a.csv": "DEGRADED", "b.csv": "COMPLETE"}
    assert found["log_status"].to_list() == ["failed", "ok"]


@pytest.mark.parametrize("voters", [2, 3])
def test_one_invalid_output_affects_only_its_row_at_any_shard_size(tmp_path: Path, voters: int) -> None:
    members = [member("half"), member("log", "logarithm"), member("other")][:voters]
    run = batch(tmp_path, *members)
    # A row has 1,026 bytes, so that a shard of 1,024 has one.
    long = ["x,id,text", *(f"{-1 if row == 5 else row:5},{row:5},{'t' * 1013}" for row in range(1, 15))]
    run.put("a.csv", "\n".join([*long, f"{'text'},{99:5},{'t' * 1014}", ""]))
    found, rejected, counted = [], [], []
    for size in (1024, 7 * 1024, 1_000_000):
        # The rows without a quorum are stored beside the row that Normalize rejects.
        output = run.run(f"run-{size}", options={"shard_size": size, "id": "id", "format": "parquet"})
        summary = msgspec.json.decode(run.stack.data.read(output["summary"].removeprefix("s3://data/")), type=Summary)
        found.append(parts(run.stack, output).sort("row"))
        rejected.append(parts(run.stack, output, "rejected").sort("row"))
        counted.append(
            (summary.shards, summary.statuses, {one.id: (one.rows, one.unusable) for one in summary.members})
        )
    assert [shards for shards, _, _ in counted] == [15, 3, 1]
    assert found[0].equals(found[2])
    assert found[1].equals(found[2])
    assert rejected[0].equals(rejected[2])
    assert rejected[1].equals(rejected[2])
    assert counted[0][1:] == counted[1][1:] == counted[2][1:]
    assert counted[0][2]["log"] == (13, 1)
    if voters == 3:
        assert counted[0][1] == {"COMPLETE": 13, "DEGRADED": 1}
        poisoned = found[0].row(4, named=True)
        assert (poisoned["status"], poisoned["log_status"], poisoned["value"]) == ("DEGRADED", "failed", 1.5)
        assert rejected[0]["row"].to_list() == [15]
    else:
        assert counted[0][1] == {"COMPLETE": 13}
        assert found[0]["row"].to_list() == [1, 2, 3, 4, *range(6, 15)]
        line = rejected[0].row(0, named=True)
        assert (line["row"], line["id"].strip(), line["column"], line["value"]) == (5, "5", "", None)
        assert line["reason"] == (
            "has no prediction: 1 of 2 voters responded, and the quorum is 2; missing: log; log: its output is not "
            "finite"
        )


def test_a_shard_that_is_aggregated_twice_stores_its_failed_rows_once(tmp_path: Path) -> None:
    run = batch(tmp_path, member("half"), member("log", "logarithm"))
    run.put("a.csv", "x\n1\n2\n3\n-1\nx\n")
    aggregate = ShardAggregator(Runs(run.stack.releases, run.stack.data))

    def aggregate_before(event: Any) -> None:
        aggregate(event)

    run.breaks["${AggregateShardFunctionArn}"] = aggregate_before
    output = run.run()
    assert parts(run.stack, output, "rejected")["row"].to_list() == [4, 5]
    assert (output["rows_in"], output["rows_out"], output["rows_rejected"]) == (5, 3, 2)


def test_a_shard_without_quorum_fails_the_run_and_is_predicted_again_by_the_next(tmp_path: Path) -> None:
    run = batch(tmp_path, member("half"), member("other"))
    run.put("a.csv", "x\n-1\n")
    run.put("b.csv", "x\n1\n")
    run.breaks[next(name for name in run.stack.slots)] = lambda event: (
        MemoryError("killed") if "/000000/" in json.dumps(event) else None
    )
    with pytest.raises(asl.Failed, match=r"1 of 2 voters responded.*; half: MemoryError: killed") as failed:
        run.run("run-1")
    assert failed.value.error == "BatchFailed"
    entered: list[str] = []
    with pytest.raises(asl.Failed):
        run.run("run-2", entered)
    assert entered.count("Normalize shard") == 1  # the other one is finished


def test_a_function_that_ends_in_a_shard_fails_the_run_and_the_next_resumes_it(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("a.csv", lines(range(1000)))
    run.breaks["${AggregateShardFunctionArn}"] = lambda event: (
        MemoryError("killed") if event["shard"]["number"] == 1 and "error" not in event else None
    )
    with pytest.raises(asl.Failed, match="MemoryError") as failed:
        run.run("run-1", options=SMALL)
    assert failed.value.error == "BatchFailed"
    run.breaks.clear()
    entered: list[str] = []
    output = run.run("run-2", entered, options=SMALL)
    assert entered.count("Normalize shard") == 1
    assert output["rows_out"] == 1000
    assert parts(run.stack, output)["row"].to_list() == list(range(1, 1001))


def test_a_file_that_changes_during_a_run_fails_it_and_the_next_run_reads_the_new_version(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("a.csv", lines(range(10)))
    run.put("b.csv", lines(range(10)))

    def change(event: Any) -> None:
        if event["shard"]["number"] == 1:
            run.put("b.csv", lines(range(20)))

    run.breaks["${NormalizeShardFunctionArn}"] = change
    with pytest.raises(
        asl.Failed, match=r"1 of 2 shards found their file changed .*, the first b\.csv; start"
    ) as failed:
        run.run("run-1", options={"max_failed_shards": 1})
    assert failed.value.error == "DatasetChanged"
    assert "max_failed_shards" not in str(failed.value)
    run.breaks.clear()
    assert run.run("run-2", options={"max_failed_shards": 1})["rows_out"] == 30


def test_the_cause_names_the_remedy_for_a_function_that_ended(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("a.csv", lines(range(10)))
    died = type("Runtime.ExitError", (Exception,), {})
    run.breaks["${NormalizeShardFunctionArn}"] = lambda _: died("Runtime exited with error: signal: killed")
    with pytest.raises(asl.Failed, match=r"a\.csv, from row 1 on: .*killed; take smaller shards .*BatchMemorySize"):
        run.run()


def read_plan(run: MemoryBatch, name: str) -> RunPlan:
    return msgspec.json.decode(run.stack.data.read(plan_key(name)), type=RunPlan)


def read_summary(run: MemoryBatch, output: dict[str, Any]) -> Summary:
    return msgspec.json.decode(run.stack.data.read(output["summary"].removeprefix("s3://data/")), type=Summary)


def test_plans_notes_on_columns_are_in_the_plan_and_in_the_summary(tmp_path: Path) -> None:
    members = member("a", columns=["x"]), member("b", columns=["y"])
    run = batch(tmp_path, *members, features=[X, {**X, "name": "y", "missing": 0}])
    run.put("a.csv", "x,z\n1,2\n")
    output = run.run()
    unused, missing = read_plan(run, output["run"]).notes
    assert unused.startswith('not used: "z"')
    assert missing.startswith('"y" is in no file')
    assert read_summary(run, output).notes == (unused, missing)


def test_a_new_feature_gets_edges_and_the_others_keep_those_of_the_run_before(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("dt=2026-03-01/a.csv", "x,y\n" + "".join(f"{row},{row}\n" for row in range(100)))
    run.put("dt=2026-03-02/a.csv", "x,y\n" + "".join(f"{5 * row},{row}\n" for row in range(100)))
    first = read_plan(run, run.run("run-1", date="2026-03-01")["run"])
    more = sources(tmp_path, member("a", columns=["x"]), member("b", columns=["y"]), features=[X, {**X, "name": "y"}])
    run.stack.publish(more)
    output = run.run("run-2", date="2026-03-02")
    second = read_plan(run, output["run"])
    assert list(first.edges.features) == ["x"]
    assert len(first.edges.features["x"]) == 9  # between ten bins
    assert second.edges.prediction == first.edges.prediction
    assert second.edges.features == {**first.edges.features, "y": first.edges.features["x"]}
    drift = read_summary(run, output).drift
    assert drift is not None
    assert drift.features["x"] is not None
    assert drift.features["x"] > 1
    assert drift.features["y"] is None


@pytest.mark.parametrize("died", [1, 2])
def test_a_plan_that_ended_while_sampling_samples_again_or_notes_the_drift_that_is_not_measured(
    tmp_path: Path, died: int
) -> None:
    run = batch(tmp_path)
    run.put("dt=2026-03-01/a.csv", lines(range(1000)))
    run.put("dt=2026-03-02/a.csv", lines(range(1000)))
    run.put("dt=2026-03-03/a.csv", lines(range(1000)))
    name = run.run("run-1", date="2026-03-01", options=SMALL)["run"]
    first = read_plan(run, name)
    data = run.stack.data
    data.delete([one.key for prefix in ("batch/", "results/", "results-reports/") for one in data.list(prefix)])
    data.write(sampling_key(name), str(died).encode())  # how often sampling began and did not finish
    output = run.run("run-2", date="2026-03-01", options=SMALL)
    again = read_plan(run, name)
    assert output["rows_out"] == 1000
    assert again.notes == read_summary(run, output).notes
    if died < MAX_SAMPLE_ATTEMPTS:
        assert (again.edges, again.notes) == (first.edges, ())
        return
    assert again.edges == BinEdges(first.edges.prediction)
    (note,) = again.notes
    assert note.startswith('the drift of "x" is not measured in this run: ')
    second = run.run("run-3", date="2026-03-02", options=SMALL)
    assert read_plan(run, second["run"]).edges == first.edges
    (note,) = read_summary(run, second).notes
    assert note == 'the drift of "x" is measured from the next run on: the previous one had no bins'
    third = read_summary(run, run.run("run-4", date="2026-03-03", options=SMALL))
    assert (third.notes, third.drift) == ((), Drift(0.0, {"x": 0.0}))


class Ended(BaseException):
    """The end of a process, which no handler catches."""


class EndingBucket(Bucket):
    """A bucket as one process sees it, which ends where it reads rows after its sampling has begun.

    From then on no call reaches the bucket, so nothing that is written while the error is raised is stored.
    """

    __slots__ = ("ended", "sampling")

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket.name, bucket.store)
        object.__setattr__(self, "sampling", False)
        object.__setattr__(self, "ended", False)

    def write(self, key: str, body: bytes) -> Any:
        if self.ended:
            raise Ended
        if key.endswith("/sampling"):
            object.__setattr__(self, "sampling", True)
        return super().write(key, body)

    def read_range(self, *arguments: Any) -> bytes:
        if self.sampling:
            object.__setattr__(self, "ended", True)
            raise Ended
        return super().read_range(*arguments)


def test_plan_is_retried_often_enough_to_reject_labels_that_end_its_process(tmp_path: Path) -> None:
    (rule,) = [one for one in MACHINE["States"]["Plan"]["Retry"] if "Runtime.ExitError" in one["ErrorEquals"]]
    run = labelled(tmp_path, "1", "2")
    execution = {"id": "arn:run-1", "name": "run-1", "started_at": asl.STARTED_AT}
    event = {"request": {"dataset": DATASET, "options": {"label": "y"}}, "execution": execution}
    responses = []
    for _ in range(1 + rule["MaxAttempts"]):
        with suppress(Ended):
            responses.append(
                Planner(run.stack.releases, EndingBucket(run.stack.data), run.running.__contains__, 4)(event)
            )
    assert rule["MaxAttempts"] == MAX_SAMPLE_ATTEMPTS + MAX_LABEL_ATTEMPTS  # neither too few nor more than needed
    (response,) = responses
    assert response["failure"]["error"] == "DatasetRefused"
    assert "reading the labels ended the process repeatedly" in response["failure"]["cause"]


def test_a_sample_that_was_read_does_not_count_as_one_that_ended_plan(tmp_path: Path) -> None:
    run = labelled(tmp_path, "1", "1")
    execution = {"id": "arn:run-1", "name": "run-1", "started_at": asl.STARTED_AT}
    event = {"request": {"dataset": DATASET, "options": {"label": "y"}}, "execution": execution}
    planner = Planner(run.stack.releases, run.stack.data, run.running.__contains__, 4)
    for _ in range(MAX_SAMPLE_ATTEMPTS + 1):
        assert planner(event)["failure"]["error"] == "DatasetRefused"  # for its labels, which are read after the sample
    (key,) = [one.key for one in run.stack.data.list("batch/") if one.key.endswith("/sampling")]
    assert run.stack.data.read(key) == b"0"


def test_a_run_that_has_succeeded_returns_its_result_without_invoking_a_member(tmp_path: Path) -> None:
    run, entered = batch(tmp_path), []
    run.put("a.csv", lines(range(10)))
    first = run.run("run-1")
    assert run.run("run-2", entered) == first
    assert entered == ["Plan", "Planned?", "Succeed"]


def test_an_execution_waits_for_another_one_of_the_same_run(tmp_path: Path) -> None:
    run, entered = batch(tmp_path), []
    run.put("a.csv", lines(range(1000)))
    run.running.add("arn:run-1")
    first: list[dict[str, Any]] = []
    run.breaks["${SummarizeFunctionArn}"] = lambda _: RuntimeError()
    with pytest.raises(asl.Failed):
        run.run("run-1")  # holds the claim
    run.breaks.clear()

    def finish() -> None:
        first.append(run.run("run-1"))
        run.running.clear()

    run.meanwhile = finish
    assert run.run("run-2", entered) == first[0]
    assert entered[:4] == ["Plan", "Planned?", "Wait for the other execution", "Plan"]
    assert len(run.waits) == 1


def test_a_missing_list_of_shards_fails_the_run_with_its_error(tmp_path: Path) -> None:
    run = batch(tmp_path)
    run.put("a.csv", lines(range(10)))
    functions = run.functions()

    def gone(_: Any) -> Any:
        raise FileNotFoundError

    with pytest.raises(asl.Failed) as failed:
        asl.run(MACHINE, functions | {asl.GET_OBJECT: gone}, {"dataset": "s3://data/datasets/"})
    assert failed.value.error == "BatchFailed"


def test_a_shard_is_scored_by_the_states_of_an_execution() -> None:
    for name in ("Score members", "Score members and shadows"):
        mine = {key: value for key, value in SHARD[name].items() if key != "Catch"}
        assert mine | {"Next": "Aggregate"} == ENSEMBLE[name]
    assert SHARD["Normalize shard"]["Retry"] == SHARD["Aggregate shard"]["Retry"] == ENSEMBLE["Normalize"]["Retry"]


@pytest.mark.parametrize(
    "name", [name for name, state in SHARD.items() if state["Type"] in ("Task", "Map", "Parallel")]
)
def test_every_failure_in_a_shard_is_stored(name: str) -> None:
    if name != "Store the failure":
        assert SHARD[name]["Catch"] == [
            {"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Store the failure"}
        ]
