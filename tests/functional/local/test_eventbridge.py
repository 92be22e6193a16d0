"""Events of S3, targets of rules, and nested executions work as on AWS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stepensemble.local.stack import LocalStack

Clients = Callable[[str], Any]
Execute = Callable[..., dict[str, Any]]

PASS = {"Pass": {"Type": "Pass", "End": True}}


@pytest.fixture(scope="module")
def buckets(stack: LocalStack) -> tuple[str, str]:
    """A bucket with versions and one without."""
    return stack.outputs["Things"], stack.outputs["Scraps"]


@pytest.fixture
def machine(stack: LocalStack, client: Clients) -> str:
    """A state machine that does nothing; its executions show their inputs."""
    return create(stack, client, PASS)


def create(stack: LocalStack, client: Clients, states: dict[str, Any]) -> str:
    definition = json.dumps({"StartAt": next(iter(states)), "States": states})
    name = f"test-{time.monotonic_ns()}"
    made = client("stepfunctions").create_state_machine(name=name, definition=definition, roleArn=stack.outputs["Role"])
    return str(made["stateMachineArn"])


@pytest.fixture
def follow(client: Clients, buckets: tuple[str, str]) -> Iterator[Callable[..., None]]:
    """Has both buckets send their events, and a rule send those about a folder's keys to targets."""
    rules, objects = client("events"), client("s3")
    for bucket in buckets:
        configuration = {"EventBridgeConfiguration": {}}
        objects.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
    made: dict[str, list[str]] = {}

    def put(folder: str, *targets: dict[str, Any], state: str = "ENABLED") -> None:
        name = f"rule-{time.monotonic_ns()}"
        pattern = {
            "source": ["aws.s3"],
            "detail-type": ["Object Created", "Object Deleted"],
            "detail": {"object": {"key": [{"prefix": f"{folder}/"}]}},
        }
        rules.put_rule(Name=name, EventPattern=json.dumps(pattern), State=state)
        numbered = [{"Id": str(number), **target} for number, target in enumerate(targets)]
        rules.put_targets(Rule=name, Targets=numbered)
        made[name] = [target["Id"] for target in numbered]

    yield put
    for name, ids in made.items():
        rules.remove_targets(Rule=name, Ids=ids)
        rules.delete_rule(Name=name)
    for bucket in buckets:
        objects.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})


def wait_for_inputs(client: Clients, machine: str, many: int) -> list[Any]:
    """Wait until a state machine was started so often, and return the inputs, the earliest first."""
    machines, deadline = client("stepfunctions"), time.monotonic() + 60
    while True:
        listed = machines.list_executions(stateMachineArn=machine)["executions"]
        if len(listed) >= many:
            break
        assert time.monotonic() < deadline, f"{len(listed)} of {many} executions"
        time.sleep(0.02)
    assert len(listed) == many
    described = [machines.describe_execution(executionArn=one["executionArn"]) for one in listed]
    return [json.loads(one["input"]) for one in described]


# --------------------------------------------------------------------------------------------------- S3's events


def test_an_event_describes_an_object_as_s3_does(
    client: Clients, buckets: tuple[str, str], machine: str, follow: Callable[..., None]
) -> None:
    versioned, plain = buckets
    follow("received", {"Arn": machine})
    objects = client("s3")
    key = "received/a b+%2F#?ü.json"
    written = objects.put_object(Bucket=versioned, Key=key, Body=b"123")
    (event,) = wait_for_inputs(client, machine, 1)
    assert (event["source"], event["detail-type"]) == ("aws.s3", "Object Created")
    assert event["resources"] == [f"arn:aws:s3:::{versioned}"]
    time.strptime(event["time"], "%Y-%m-%dT%H:%M:%SZ")
    detail = event["detail"]
    assert (detail["bucket"], detail["reason"]) == ({"name": versioned}, "PutObject")
    sequencer = detail["object"].pop("sequencer")
    assert int(sequencer, 16) > 0
    assert detail["object"] == {
        "key": key,
        "size": 3,
        "etag": written["ETag"].strip('"'),
        "version-id": written["VersionId"],
    }
    objects.put_object(Bucket=plain, Key=key, Body=b"123")
    events = wait_for_inputs(client, machine, 2)
    (other,) = (one["detail"]["object"] for one in events if one["detail"]["bucket"]["name"] == plain)
    assert "version-id" not in other
    assert int(other["sequencer"], 16) > int(sequencer, 16)


def test_sequencers_grow_from_one_version_to_the_next(
    client: Clients, buckets: tuple[str, str], machine: str, follow: Callable[..., None]
) -> None:
    follow("grow", {"Arn": machine, "InputPath": "$.detail.object"})
    versions = [client("s3").put_object(Bucket=buckets[0], Key="grow/a", Body=b"same")["VersionId"] for _ in range(5)]
    received = sorted(wait_for_inputs(client, machine, 5), key=lambda one: one["sequencer"])
    assert [one["version-id"] for one in received] == versions
    assert len({one["sequencer"] for one in received}) == 5
    assert {len(one["sequencer"]) for one in received} == {16}


def test_parts_copies_and_removals_send_one_event_each(
    client: Clients, buckets: tuple[str, str], machine: str, follow: Callable[..., None]
) -> None:
    follow("kinds", {"Arn": machine})
    objects = client("s3")
    place = {"Bucket": buckets[0], "Key": "kinds/parts"}
    upload = {**place, "UploadId": objects.create_multipart_upload(**place)["UploadId"]}
    part = objects.upload_part(**upload, PartNumber=1, Body=b"1")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    objects.complete_multipart_upload(**upload, MultipartUpload=parts)
    objects.copy_object(Bucket=buckets[1], Key="kinds/copy", CopySource=place)
    objects.delete_object(Bucket=buckets[1], Key="kinds/copy")
    received = wait_for_inputs(client, machine, 3)
    received.sort(key=lambda one: one["detail"]["object"]["sequencer"])
    assert [(one["detail-type"], one["detail"]["reason"]) for one in received][:2] == [
        ("Object Created", "CompleteMultipartUpload"),
        ("Object Created", "CopyObject"),
    ]
    assert received[2]["detail-type"] == "Object Deleted"


def test_an_object_is_deleted_with_its_versions_and_may_come_again(client: Clients, buckets: tuple[str, str]) -> None:
    objects, place = client("s3"), {"Bucket": buckets[0], "Key": "again/a"}
    for body in (b"1", b"2"):
        objects.put_object(**place, Body=body)
    objects.delete_object(**place)
    with pytest.raises(objects.exceptions.NoSuchKey):
        objects.get_object(**place)
    objects.delete_objects(Bucket=place["Bucket"], Delete={"Objects": [{"Key": "again/a"}, {"Key": "again/b"}]})
    objects.put_object(**place, Body=b"3")
    assert objects.get_object(**place)["Body"].read() == b"3"


# ---------------------------------------------------------------------------------------------- rules and targets


def test_a_target_receives_the_event_a_part_of_it_or_its_own_input(
    client: Clients, buckets: tuple[str, str], machine: str, follow: Callable[..., None]
) -> None:
    own = {"Arn": machine, "Input": '{"own": ["words"]}'}
    follow("chosen", {"Arn": machine}, {"Arn": machine, "InputPath": "$.detail.object.key"}, own)
    client("s3").put_object(Bucket=buckets[0], Key="chosen/a", Body=b"1")
    received = wait_for_inputs(client, machine, 3)
    assert {"own": ["words"]} in received
    assert "chosen/a" in received
    (whole,) = (one for one in received if "source" in one)
    assert whole["detail"]["object"]["key"] == "chosen/a"


def test_a_disabled_rule_sends_nothing(
    client: Clients, buckets: tuple[str, str], machine: str, follow: Callable[..., None]
) -> None:
    open_target = {"Arn": machine, "Input": '"enabled"'}
    follow("closed", {"Arn": machine, "Input": '"disabled"'}, state="DISABLED")
    follow("closed", open_target)
    follow("elsewhere", {"Arn": machine, "Input": '"elsewhere"'})
    for number in range(2):
        client("s3").put_object(Bucket=buckets[0], Key=f"closed/{number}", Body=b"1")
    assert wait_for_inputs(client, machine, 2) == ["enabled", "enabled"]


def test_a_failing_target_affects_neither_other_targets_nor_s3(
    client: Clients, buckets: tuple[str, str], machine: str, follow: Callable[..., None]
) -> None:
    gone = [
        {"Arn": f"{machine}-gone"},
        {"Arn": "arn:aws:lambda:us-east-1:111111111111:function:gone"},
        {"Arn": "arn:aws:logs:us-east-1:111111111111:log-group:/aws/events/gone"},
        {"Arn": "arn:aws:sqs:us-east-1:111111111111:gone"},
    ]
    follow("broken", *gone, {"Arn": machine, "InputPath": "$.detail.object.key"})
    written = client("s3").put_object(Bucket=buckets[0], Key="broken/a", Body=b"1")
    assert written["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert wait_for_inputs(client, machine, 1) == ["broken/a"]


# ------------------------------------------------------------------------------- executions that start executions


def starting(machine: str, **more: Any) -> dict[str, Any]:
    """Return a state that starts an execution and waits for its end."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.sync:2",
        "Parameters": {"StateMachineArn": machine, "Name.$": "$.name", "Input.$": "$.input"},
        "End": True,
        **more,
    }


CAUGHT = {"Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Caught"}]}
CATCH_END = {"Caught": {"Type": "Pass", "End": True}}


def test_the_output_of_a_nested_execution_is_json(execute: Execute, machine: str) -> None:
    value = {"name": f"child-{time.monotonic_ns()}", "input": {"rows": [1, "ü", None]}}
    described = execute({"Start": starting(machine)}, value)
    assert described["status"] == "SUCCEEDED", described
    output = json.loads(described["output"])
    assert (output["Output"], output["Status"]) == (value["input"], "SUCCEEDED")
    assert (output["Name"], output["StateMachineArn"]) == (value["name"], machine)
    assert output["ExecutionArn"].endswith(f":{value['name']}")


def test_a_failed_nested_execution_is_described_in_the_cause(
    stack: LocalStack, client: Clients, execute: Execute
) -> None:
    fails = create(stack, client, {"Fail": {"Type": "Fail", "Error": "Nonsense", "Cause": "one\n- two"}})
    value = {"name": f"child-{time.monotonic_ns()}", "input": {}}
    described = execute({"Start": starting(fails, **CAUGHT), **CATCH_END}, value)
    error = json.loads(described["output"])["error"]
    assert error["Error"] == "States.TaskFailed"
    received = json.loads(error["Cause"])
    assert (received["Error"], received["Cause"], received["Status"]) == ("Nonsense", "one\n- two", "FAILED")
    assert received["Name"] == value["name"]
    uncaught = execute({"Start": starting(fails)}, {**value, "name": f"child-{time.monotonic_ns()}"})
    assert (uncaught["status"], uncaught["error"]) == ("FAILED", "States.TaskFailed")


def test_a_name_that_exists_is_caught_by_the_name_of_the_error(execute: Execute, client: Clients, machine: str) -> None:
    value = {"name": f"child-{time.monotonic_ns()}", "input": {"number": 1}}
    catch = {"ErrorEquals": ["StepFunctions.ExecutionAlreadyExistsException"], "ResultPath": None, "Next": "Caught"}
    states = {"Start": starting(machine, Catch=[catch]), **CATCH_END}
    assert execute(states, value)["status"] == "SUCCEEDED"
    again = execute(states, value)
    assert (again["status"], json.loads(again["output"])) == ("SUCCEEDED", value)
    assert len(client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]) == 1
