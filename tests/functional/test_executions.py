"""Executions of the deployed state machine on the local stack, started as any client starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings

from builders import X, member, sources
from driving import ROOT, predict, start, wait
from expected_events import list_events, without_volatile
from stepensemble import Ensemble
from stepensemble.cli.execution import run_execution
from stepensemble.cli.stacks import Stack, ensure_published
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.publishing.publish import publish
from stepensemble.storage.keys import artifact_key

TEST_MODELS = ROOT / "tests" / "data" / "models"

PASSENGER: dict[str, Any] = {
    "Pclass": 3,
    "Sex": "male",
    "Age": 22,
    "SibSp": 1,
    "Parch": 0,
    "Fare": 7.25,
    "Embarked": "S",
}

PASSENGERS = st.fixed_dictionaries(
    {
        "Pclass": st.sampled_from([1, 2, 3]),
        "Sex": st.sampled_from(["female", "male"]),
        "Age": st.none() | st.floats(0, 100),
        "SibSp": st.integers(0, 8),
        "Parch": st.integers(0, 9),
        "Fare": st.none() | st.floats(0, 600),
        "Embarked": st.none() | st.sampled_from(["C", "Q", "S"]),
    }
)


@pytest.fixture(scope="module")
def ensemble(shared_project: Path) -> Ensemble:
    return Ensemble.load(shared_project / "models" / "manifest.json")


@pytest.fixture(autouse=True)
def shipped(stack: Stack, shared_project: Path) -> None:
    """Each test begins with the shipped ensemble as the current release."""
    ensure_published(stack, read_sources(shared_project / "models" / "manifest.json"), notify=lambda _: None)


@pytest.mark.parametrize("event", [path.name for path in list_events("passenger")])
def test_the_stack_and_the_process_predict_alike_bit_for_bit(
    stack: Stack, ensemble: Ensemble, shared_project: Path, event: str
) -> None:
    payload = json.loads((shared_project / "events" / event).read_text())
    assert without_volatile(predict(stack, payload)) == without_volatile(ensemble.predict(payload))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(PASSENGERS, min_size=1, max_size=20))
def test_the_stack_and_the_process_predict_alike_on_generated_rows(
    stack: Stack, ensemble: Ensemble, rows: list[dict[str, Any]]
) -> None:
    payload = {"instances": rows}
    assert without_volatile(predict(stack, payload)) == without_volatile(ensemble.predict(payload))


def test_ten_thousand_rows_pass_through_s3_and_predict_alike(stack: Stack, ensemble: Ensemble) -> None:
    ages = np.random.default_rng(7).uniform(0, 90, 10_000).round(1).tolist()
    payload = {"instances": [{**PASSENGER, "Age": age} for age in ages]}
    outcome = run_execution(stack, payload, release=None)
    assert outcome.error is None, outcome.cause
    assert without_volatile(as_json(outcome.to_json())) == without_volatile(ensemble.predict(payload))
    described = stack.step_functions.list_executions(stateMachineArn=stack.state_machine)["executions"]
    (arn,) = [execution["executionArn"] for execution in described if execution["name"] == outcome.execution]
    carried = stack.step_functions.describe_execution(executionArn=arn)
    assert len(carried["input"]) < 1_000
    assert len(carried["output"]) < 10_000
    assert json.loads(carried["output"])["predictions"]["s3"].startswith("s3://")
    record = stack.records.read(outcome.prediction_id)
    assert record.input == payload
    assert record.output == outcome.output


def test_every_member_is_invoked_by_its_own_function_at_once(stack: Stack, tmp_path: Path) -> None:
    # Each takes seconds, so none responds before the others are invoked, whatever the load of the machine.
    publish_frail(stack, tmp_path, 1, *((f"slow-{number}", 50) for number in range(3)))
    arn = start(stack, {"features": {"x": 4}, "release": stack.releases.read_current()[0].release})
    assert wait(stack, arn)["status"] == "SUCCEEDED"
    events = stack.step_functions.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    kinds = [event["type"] for event in events]
    inside = events[kinds.index("MapStateStarted") : kinds.index("MapStateSucceeded")]
    invoked = [
        json.loads(event["taskScheduledEventDetails"]["parameters"])["FunctionName"]
        for event in inside
        if event["type"] == "TaskScheduled"
    ]
    assert len(set(invoked)) == 3
    assert all("-score-" in name for name in invoked)
    tasks = [event["type"] for event in inside if event["type"] in {"TaskStarted", "TaskSucceeded"}]
    assert tasks == ["TaskStarted"] * 3 + ["TaskSucceeded"] * 3


def test_the_same_name_is_recorded_once(stack: Stack) -> None:
    first = predict(stack, {"features": PASSENGER}, name="twice")
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        start(stack, {"features": {**PASSENGER, "Age": 60}}, name="twice")
    assert first["prediction_id"] == "twice"
    assert stack.records.read("twice").input == {"features": PASSENGER}


def test_a_prediction_id_used_again_returns_what_is_recorded(stack: Stack) -> None:
    payload = {"features": PASSENGER, "prediction_id": "passenger-17"}
    assert predict(stack, payload) == predict(stack, payload)
    other = {"features": {**PASSENGER, "Sex": "female"}, "prediction_id": "passenger-17"}
    described = wait(stack, start(stack, other))
    assert (described["status"], described["error"]) == ("FAILED", "PredictionConflict")
    assert stack.records.read("passenger-17").input == {"features": PASSENGER}


def test_a_hundred_executions_are_recorded_once_each(stack: Stack) -> None:
    names = [f"crowd-{number}" for number in range(100)]

    def one(name: str) -> str:
        output = predict(stack, {"features": {**PASSENGER, "Age": int(name[6:]) % 80}}, name)
        return str(output["status"])

    with ThreadPoolExecutor(16) as crowd:
        assert set(crowd.map(one, names)) == {"COMPLETE"}
    kept = [summary.prediction_id for summary in stack.records.latest(1000)]
    assert sorted(kept_id for kept_id in kept if kept_id.startswith("crowd-")) == sorted(names)


def test_the_express_machine_responds_synchronously(stack: Stack, ensemble: Ensemble) -> None:
    done = stack.step_functions.start_sync_execution(
        stateMachineArn=stack.outputs["ExpressStateMachineArn"], input=json.dumps({"features": PASSENGER})
    )
    assert done["status"] == "SUCCEEDED", done.get("cause")
    expected = ensemble.predict({"features": PASSENGER})
    assert without_volatile(json.loads(done["output"])) == without_volatile(expected)


def test_a_rejected_payload_is_neither_recorded_nor_logged(stack: Stack, shared_project: Path) -> None:
    described = wait(stack, start(stack, {"features": {**PASSENGER, "Sex": "sphinx"}}, name="refused"))
    assert (described["status"], described["error"]) == ("FAILED", "InvalidPayload")
    assert '"sphinx" is not in the vocabulary' in described["cause"]
    assert "refused" not in [summary.prediction_id for summary in stack.records.latest(1000)]
    logs = "".join(path.read_text() for path in (shared_project / ".stepensemble" / "logs").iterdir())
    assert "sphinx" not in logs


def test_features_stay_out_of_the_logs(stack: Stack, shared_project: Path) -> None:
    output = predict(stack, {"features": {**PASSENGER, "Fare": 123.456789}, "metadata": {"name": "Braund"}})
    assert stack.records.read(output["prediction_id"]).metadata == {"name": "Braund"}
    logs = "".join(path.read_text() for path in (shared_project / ".stepensemble" / "logs").iterdir())
    assert "123.456789" not in logs
    assert "Braund" not in logs


@pytest.mark.parametrize("payload", [[], "text", 7, {}, {"features": PASSENGER, "instances": [PASSENGER]}])
def test_what_is_not_a_payload_is_rejected(stack: Stack, payload: object) -> None:
    described = wait(stack, start(stack, payload))
    assert (described["status"], described["error"]) == ("FAILED", "InvalidPayload")


def test_an_overwritten_artifact_is_never_served(stack: Stack, local: LocalStack) -> None:
    pointer, _ = stack.releases.read_current()
    release = stack.releases.read_release(pointer.release)
    member, other = release.members[0], release.members[1]
    # The bytes of another member under this one's digest, in an environment that has not loaded it yet.
    sound = stack.releases.read_artifact(member.artifact)
    stack.releases.bucket.write(artifact_key(member.artifact.digest), stack.releases.read_artifact(other.artifact))
    try:
        end_processes(local)
        output = predict(stack, {"features": PASSENGER})
    finally:
        stack.releases.bucket.write(artifact_key(member.artifact.digest), sound)
    assert output["status"] == "DEGRADED"
    failed = [m for m in output["members"] if m["status"] == "failed"]
    assert [(m["id"], m["error"]["type"], m["weight"]) for m in failed] == [(member.id, "ArtifactCorrupt", 0.0)]
    rest = [m["outputs"][0] for m in output["members"] if m["status"] == "ok"]
    assert output["predictions"][0]["value"] == pytest.approx(sum(rest) / 3, rel=1e-12)
    assert stack.records.read(output["prediction_id"]).output.status == "DEGRADED"


# Members that fail, each in its own way. `sigmoid` computes 1 / (1 + exp(-x)), the others what their names state.

SINGLE_COLUMN: dict[str, Any] = {
    "schema_version": 1,
    "name": "frail",
    "task": {"type": "regression"},
    "features": [{"name": "x", "type": "number"}],
    "quorum": {"min_members": 2},
}


def publish_frail(stack: Stack, folder: Path, quorum: int, *members: tuple[str, int]) -> None:
    """Publish an ensemble of test models, each with a timeout in seconds; `slow-2` is another member of `slow`."""
    for name, _ in members:
        shutil.copy(TEST_MODELS / f"{name.split('-')[0]}.tflite", folder)
    manifest = {
        **SINGLE_COLUMN,
        "quorum": {"min_members": quorum},
        "members": [
            {
                "id": name,
                "version": "1",
                "artifact": f"{name.split('-')[0]}.tflite",
                "output": {"kind": "value"},
                "timeout": timeout,
            }
            for name, timeout in members
        ],
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    # Without the gate, which rejects a model that outputs NaN.
    publish(read_sources(path), stack.releases, stack.slots)


def test_nan_and_a_timeout_degrade_the_prediction(stack: Stack, tmp_path: Path) -> None:
    publish_frail(stack, tmp_path, 1, ("half_plus_two", 10), ("logarithm", 10), ("slow", 1))
    output = predict_fresh(stack, {"features": {"x": -4}})
    assert output["status"] == "DEGRADED"
    (prediction,) = output["predictions"]
    assert prediction.pop("missing") == ["logarithm", "slow"]
    assert prediction == {"value": 0.0, "spread": 0.0, "range": 0.0, "decision": "accept"}  # -4 / 2 + 2
    errors = {member["id"]: member["error"] and member["error"]["type"] for member in output["members"]}
    assert errors == {"half_plus_two": None, "logarithm": "InvalidOutput", "slow": "States.Timeout"}
    weights = {member["id"]: member["weight"] for member in output["members"]}
    assert weights == {"half_plus_two": 1.0, "logarithm": 0.0, "slow": 0.0}
    assert stack.records.read(output["prediction_id"]).output.status == "DEGRADED"
    # The slot whose call timed out serves the next call.
    assert predict_fresh(stack, {"features": {"x": 4}})["members"][0]["outputs"] == [4.0]


def test_below_the_quorum_the_execution_fails_and_is_recorded(stack: Stack, tmp_path: Path) -> None:
    publish_frail(stack, tmp_path, 2, ("half_plus_two", 10), ("logarithm", 10))
    outcome = run_execution(stack, {"features": {"x": -4}}, read_sources(tmp_path / "manifest.json").digest)
    assert outcome.error == "QuorumNotMet"
    assert outcome.cause == (
        "1 of 2 voters responded, and the quorum is 2; missing: logarithm; logarithm: its output is not finite"
    )
    record = stack.records.read(outcome.prediction_id)
    assert record.output.status == "FAILED"
    assert record.output.predictions == []
    assert [member.outputs for member in record.output.members] == [[0.0], [None]]
    assert record.failure == outcome.cause


def test_a_member_whose_process_is_killed_twice_fails(stack: Stack, local: LocalStack, tmp_path: Path) -> None:
    publish_frail(stack, tmp_path, 1, ("half_plus_two", 10), ("slow", 20))
    pointer, _ = stack.releases.read_current()
    function = f"{stack.outputs['ScoreFunctionPrefix']}{pointer.slots['slow']}"
    arn = start(stack, {"features": {"x": 4}, "release": pointer.release})
    first = busy_process(local, function)
    os.kill(first, signal.SIGKILL)
    os.kill(busy_process(local, function, other_than=first), signal.SIGKILL)
    described = wait(stack, arn)
    assert described["status"] == "SUCCEEDED", described.get("cause")
    failed = next(m for m in json.loads(described["output"])["members"] if m["id"] == "slow")
    assert failed["error"]["type"] == "Runtime.ExitError"
    assert "signal: killed" in failed["error"]["message"]


@pytest.mark.parametrize("machine", ["StateMachineArn", "ExpressStateMachineArn"])
def test_a_function_whose_process_is_killed_is_invoked_again(stack: Stack, local: LocalStack, machine: str) -> None:
    pointer, _ = stack.releases.read_current()
    payload = {"features": PASSENGER, "release": pointer.release}
    predict(stack, payload)  # each function has a process now
    named = {status.logical_id: status.name for status in local.functions}
    slot = f"{stack.outputs['ScoreFunctionPrefix']}{pointer.slots['deep']}"
    names = [named["NormalizeFunction"], slot, named["AggregateFunction"]]
    # A stopped process takes the call, and is killed with it.
    stopped = {name: stop_processes(local, name) for name in names}
    arguments = {"stateMachineArn": stack.outputs[machine], "input": json.dumps(payload)}
    with ThreadPoolExecutor(1) as caller:
        if machine == "StateMachineArn":
            running = caller.submit(lambda: wait(stack, start(stack, payload)))
        else:
            running = caller.submit(lambda: stack.step_functions.start_sync_execution(**arguments))
        for name in names:
            assert busy_process(local, name) in stopped[name]
            for pid in stopped[name]:
                os.kill(pid, signal.SIGKILL)
        described = running.result()
    assert described["status"] == "SUCCEEDED", described.get("cause")
    assert json.loads(described["output"])["status"] == "COMPLETE"


# ---------------------------------------------------------- tiers, shadows, reviews, and a quorum of the payload's own


BINARY: dict[str, Any] = {
    "task": {"type": "binary", "classes": ["no", "yes"]},
    "features": [X, {**X, "name": "y"}],
    "quorum": {"min_members": 1},
}
SURE, UNSURE, TIED = {"x": 5, "y": 0}, {"x": 0, "y": -5}, {"x": 0, "y": 0}


def publish_members(stack: Stack, folder: Path, *members: dict[str, Any], **more: Any) -> Ensemble:
    """Publish an ensemble of test models, and load it in process too."""
    read = sources(folder, *members, **more)
    publish(read, stack.releases, stack.slots)
    return Ensemble.load(read.path)


def publish_tiers(stack: Stack, folder: Path, **more: Any) -> Ensemble:
    """Publish two members of which the second is invoked where the first is unsure: 1 / (1 + exp(-x)), then of y."""
    first = member("first", "sigmoid", "probability", columns=["x"])
    second = member("second", "sigmoid", "probability", columns=["y"], tier=2)
    return publish_members(stack, folder, first, second, cascade={"min_margin": 0.4}, **BINARY, **more)


def run_watched(stack: Stack, payload: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Predict with the current release; return the output and the execution's history."""
    arn = start(stack, {**payload, "release": stack.releases.read_current()[0].release})
    described = wait(stack, arn)
    assert described["status"] == "SUCCEEDED", described.get("cause")
    history = stack.step_functions.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return json.loads(described["output"]), history


def as_json(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document after a round trip through JSON."""
    return dict(json.loads(json.dumps(document)))


def entered(history: list[dict[str, Any]]) -> list[str]:
    """Name the states that were entered, in order: what AWS counts as transitions."""
    return [event["stateEnteredEventDetails"]["name"] for event in history if "stateEnteredEventDetails" in event]


def test_a_plain_execution_enters_six_states_and_one_a_member(stack: Stack, ensemble: Ensemble) -> None:
    _, history = run_watched(stack, {"features": PASSENGER})
    members = ["Score"] * len(ensemble.release.members)
    others = ["Aggregate", "Next tier or events?", "Succeed"]
    assert entered(history) == ["Normalize", "Accepted?", "Score members", *members, *others]


def test_a_cascade_invokes_the_second_tier_for_undecided_rows_only(stack: Stack, tmp_path: Path) -> None:
    in_process = publish_tiers(stack, tmp_path)
    payload = {"instances": [SURE, UNSURE, TIED, SURE]}
    output, history = run_watched(stack, payload)
    assert [one["tier"] for one in output["predictions"]] == [1, 2, 2, 1]
    assert [len(one["outputs"]) for one in output["members"]] == [4, 2]
    assert without_volatile(output) == without_volatile(in_process.predict(payload))
    assert stack.records.read(output["prediction_id"]).input == payload
    again = ["Score members", "Score", "Aggregate", "Next tier or events?"]
    assert entered(history) == ["Normalize", "Accepted?", *again, *again, "Succeed"]


def test_a_cascade_that_is_sure_at_once_invokes_no_further_tier(stack: Stack, tmp_path: Path) -> None:
    publish_tiers(stack, tmp_path)
    output, history = run_watched(stack, {"features": SURE})
    assert [one["status"] for one in output["members"]] == ["ok", "skipped"]
    assert entered(history).count("Score") == 1


def test_a_cascade_of_ten_thousand_rows_predicts_alike_by_pointer(stack: Stack, tmp_path: Path) -> None:
    in_process = publish_tiers(stack, tmp_path)
    drawn = np.random.default_rng(11).normal(0, 2, (10_000, 2)).round(3).tolist()
    payload = {"instances": [{"x": x, "y": y} for x, y in drawn]}
    outcome = run_execution(stack, payload, in_process.digest)
    assert outcome.error is None, outcome.cause
    assert without_volatile(as_json(outcome.to_json())) == without_volatile(in_process.predict(payload))
    assert outcome.output is not None
    first, second = outcome.output.members
    assert isinstance(first.outputs, list)
    assert isinstance(second.outputs, list)
    assert 1_000 < len(second.outputs) < len(first.outputs) == 10_000


def test_the_express_machine_cascades_and_requests_reviews_too(stack: Stack, tmp_path: Path) -> None:
    in_process = publish_tiers(stack, tmp_path, review={"min_margin": 0.1})
    payload = {"instances": [SURE, UNSURE, TIED], "release": in_process.digest}
    done = stack.step_functions.start_sync_execution(
        stateMachineArn=stack.outputs["ExpressStateMachineArn"], input=json.dumps(payload)
    )
    assert done["status"] == "SUCCEEDED", done.get("cause")
    output = json.loads(done["output"])
    assert without_volatile(output) == without_volatile(in_process.predict(payload))
    (event,) = [one for one in stack.reviews.latest(1000) if one.prediction_id == output["prediction_id"]]
    assert (event.needs_review, event.execution) == (1, done["executionArn"])


def test_a_slow_shadow_times_out_and_is_not_invoked_again(stack: Stack, tmp_path: Path) -> None:
    # "slow" takes more than three seconds.
    shadow = member("shadow", "slow", role="shadow", timeout=1)
    publish_members(stack, tmp_path, member("half"), member("other"), shadow)
    output, history = run_watched(stack, {"features": {"x": 4}})
    assert (output["status"], output["predictions"][0]["value"]) == ("COMPLETE", 4.0)
    assert output["members"][2]["error"]["type"] == "States.Timeout"
    assert output["participation"]["shadow"] == {"invoked": 1, "responded": 0, "weight": 0.0}
    assert entered(history).count("Score a shadow") == 1
    pointer, _ = stack.releases.read_current()
    slot = f"{stack.outputs['ScoreFunctionPrefix']}{pointer.slots['shadow']}"
    scheduled = [event["taskScheduledEventDetails"] for event in history if event["type"] == "TaskScheduled"]
    invoked = [json.loads(details["parameters"])["FunctionName"] for details in scheduled]
    assert invoked.count(slot) == 1
    assert [event["type"] for event in history].count("TaskTimedOut") == 1


def test_a_failing_shadow_leaves_the_prediction_complete(stack: Stack, tmp_path: Path) -> None:
    shadow = member("shadow", "logarithm", role="shadow")
    in_process = publish_members(stack, tmp_path, member("half"), shadow)
    output, history = run_watched(stack, {"features": {"x": -4}})
    assert (output["status"], output["members"][1]["error"]["type"]) == ("COMPLETE", "InvalidOutput")
    assert without_volatile(output) == without_volatile(in_process.predict({"features": {"x": -4}}))
    assert entered(history)[2:-3].count("Score a shadow") == 1
    assert len(entered(history)) == 6 + 2 + 2  # two transitions for having shadows


def test_a_review_is_sent_to_eventbridge_once_and_kept(stack: Stack, tmp_path: Path) -> None:
    publish_tiers(stack, tmp_path, review={"min_margin": 0.1})
    payload = {"instances": [SURE, UNSURE, TIED], "prediction_id": "for-a-person"}
    output, history = run_watched(stack, payload)
    assert [one["decision"] for one in output["predictions"]] == ["accept", "accept", "review"]
    assert entered(history)[-2:] == ["Request review", "Succeed"]
    (event,) = [one for one in stack.reviews.latest(1000) if one.prediction_id == "for-a-person"]
    assert (event.needs_review, event.status, event.release) == (1, "COMPLETE", output["release"])
    # The same payload in another execution returns the recorded output and requests the review again.
    assert run_watched(stack, payload)[0] == output
    latest, first = [one for one in stack.reviews.latest(1000) if one.prediction_id == "for-a-person"]
    assert first == event
    assert latest.execution != first.execution
    assert latest.time >= first.time


def test_what_needs_no_review_sends_no_event(stack: Stack, tmp_path: Path) -> None:
    publish_tiers(stack, tmp_path, review={"min_margin": 0.1})
    output, history = run_watched(stack, {"features": SURE})
    assert output["needs_review"] == 0
    assert "Request review" not in entered(history)
    assert output["prediction_id"] not in [one.prediction_id for one in stack.reviews.latest(1000)]


def test_a_rule_keeps_the_reviews_of_this_stack_in_its_log_group(stack: Stack) -> None:
    events = stack.session.client("events", endpoint_url=stack.endpoint)
    (rule,) = [rule for rule in events.list_rules()["Rules"] if rule["Name"].endswith("-reviews")]
    pattern = json.loads(rule["EventPattern"])
    assert (pattern["detail-type"], pattern["detail"]) == (["PredictionNeedsReview"], {"stack": [stack.name]})
    (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    group = stack.outputs["ReviewLogGroupName"]
    assert target["Arn"].endswith(f":log-group:{group}")
    logs = stack.session.client("logs", endpoint_url=stack.endpoint)
    (found,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert str(found["retentionInDays"]) == "14"
    before = len(stack.reviews.latest(1000))
    entry = {"Source": "stepensemble", "DetailType": "PredictionNeedsReview", "Detail": '{"stack": "another"}'}
    assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0
    assert len(stack.reviews.latest(1000)) == before


def test_the_latest_reviews_come_first_and_as_many_as_requested(stack: Stack, tmp_path: Path) -> None:
    publish_tiers(stack, tmp_path, review={"min_margin": 0.1})
    ids = [run_watched(stack, {"features": TIED})[0]["prediction_id"] for _ in range(3)]
    assert [one.prediction_id for one in stack.reviews.latest(2)] == [ids[2], ids[1]]


def test_a_quorum_in_a_payload_applies_to_that_execution_only(stack: Stack, tmp_path: Path) -> None:
    publish_frail(stack, tmp_path, 2, ("half_plus_two", 10), ("logarithm", 10))
    payload = {"features": {"x": -4}, "quorum": {"min_members": 1, "required": ["half_plus_two"]}}
    output = predict_fresh(stack, payload)
    assert (output["status"], output["policy"]["quorum"]["min_members"]) == ("DEGRADED", 1)
    described = wait(stack, start(stack, {**payload, "quorum": {"min_members": 3}}))
    assert (described["status"], described["error"]) == ("FAILED", "InvalidPayload")
    assert "$.quorum.min_members: 3 is more than the 2 voters" in described["cause"]


def predict_fresh(stack: Stack, payload: dict[str, Any]) -> dict[str, Any]:
    """Predict with the current release, whatever pointer Normalize has cached."""
    return predict(stack, {**payload, "release": stack.releases.read_current()[0].release})


def end_processes(local: LocalStack) -> None:
    """End every function's processes, so that the next call loads its model."""
    ended = {pid for status in local.functions for pid in status.pids}
    for pid in ended:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(ended & set(status.pids) for status in local.functions):
        assert time.monotonic() < deadline, "killed processes are still listed"
        time.sleep(0.02)


def stop_processes(local: LocalStack, function: str) -> list[int]:
    """Pause a function's processes, and return them."""
    (pids,) = [status.pids for status in local.functions if status.name == function]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def busy_process(local: LocalStack, function: str, seconds: float = 60, other_than: int | None = None) -> int:
    """Return the process that works on a call of this function, as soon as one does."""
    deadline = time.monotonic() + seconds
    while True:
        busy = [pid for status in local.functions if status.name == function for pid in status.busy]
        busy = [pid for pid in busy if pid != other_than]
        if busy:
            return busy[0]
        assert time.monotonic() < deadline, f"{function} is not called"
        time.sleep(0.02)
