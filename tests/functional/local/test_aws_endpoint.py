"""The endpoint of every AWS API: responses of Lambda and Step Functions are those of AWS, others are moto's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from stepensemble.local.moto_patches.patch import LARGE_BODY
from stepensemble.local.stack import LocalStack

Clients = Callable[[str], Any]
Invoke = Callable[..., tuple[str | None, Any]]


def rejected(call: Callable[..., Any], **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_the_stack_is_described_with_its_outputs(stack: LocalStack, client: Clients):
    (described,) = client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"]

    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    assert outputs == stack.outputs
    assert outputs["Names"] == "A,B"


def test_a_function_is_invoked_with_its_environment(stack: LocalStack, invoke: Invoke):
    error, payload = invoke("echo", environment=True)

    assert error is None
    environment = payload["environment"]
    assert environment["GREETING"] == "hello"
    assert environment["BUCKET"] == stack.outputs["Things"]
    assert environment["AWS_ENDPOINT_URL"] == stack.endpoint
    assert environment["AWS_LAMBDA_LOG_GROUP_NAME"] == "/toy/echo"
    assert "leaked" not in environment.values()


def test_the_ways_to_invoke(client: Clients):
    functions = client("lambda")
    name = "stepensemble-local-echo"

    response = functions.invoke(FunctionName=name, Payload=b'{"echo": 1}')
    assert (response["StatusCode"], response["ExecutedVersion"]) == (200, "$LATEST")
    payload = json.loads(response["Payload"].read())
    assert payload["request_id"] == response["ResponseMetadata"]["RequestId"]
    assert functions.invoke(FunctionName=payload["arn"], Payload=b"{}")["StatusCode"] == 200
    assert functions.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204

    begun = time.monotonic()
    assert functions.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"sleep": 20}')["StatusCode"] == 202
    assert time.monotonic() - begun < 20, "the response waited for the function"


def test_what_lambda_rejects(client: Clients):
    invoke = client("lambda").invoke
    name = "stepensemble-local-echo"

    assert rejected(invoke, FunctionName="missing", Payload=b"{}") == ("ResourceNotFoundException", 404)
    assert rejected(invoke, FunctionName=name, Payload=b"{") == ("InvalidRequestContentException", 400)
    large = json.dumps("x" * (6 * 1024 * 1024 - 1)).encode()
    assert rejected(invoke, FunctionName=name, Payload=large) == ("RequestTooLargeException", 413)


def test_processes_are_listed(stack: LocalStack, invoke: Invoke):
    pid = invoke("worker-A")[1]["pid"]
    address = urlsplit(stack.endpoint)
    connection = HTTPConnection(address.hostname or "", address.port)

    connection.request("GET", "/_stack/functions")
    seen = json.loads(connection.getresponse().read())

    assert {"WorkerA", "WorkerB", "Echo"} < {status["logical_id"] for status in seen}
    worker = next(status for status in seen if status["name"] == "stepensemble-local-worker-A")
    assert worker["pids"] == [pid]
    assert [status.name for status in stack.functions] == [status["name"] for status in seen]


def test_only_the_loopback_interface_is_served(stack: LocalStack):
    port = urlsplit(stack.endpoint).port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the interface of the outside
        except OSError:
            pytest.skip("this machine has no other interface")
        outside = probe.getsockname()[0]
    if outside.startswith("127."):
        pytest.skip("this machine has no other interface")

    with pytest.raises(OSError), socket.create_connection((outside, port), timeout=1):  # noqa: PT011
        pass


def test_ranges_of_a_large_object_are_of_its_latest_content(stack: LocalStack, client: Clients):
    objects, place = client("s3"), {"Bucket": stack.outputs["Things"], "Key": "large"}
    for letters in (b"ab", b"cd"):
        objects.put_object(**place, Body=b"".join(letter.to_bytes() * LARGE_BODY for letter in letters))
        for _ in range(2):
            around = objects.get_object(**place, Range=f"bytes={LARGE_BODY - 2}-{LARGE_BODY}")["Body"].read()
            assert around == letters[:1] * 2 + letters[1:]
    objects.delete_object(**place)
    with pytest.raises(objects.exceptions.NoSuchKey):
        objects.get_object(**place, Range="bytes=0-1")


def test_synchronous_executions(stack: LocalStack, client: Clients):
    machines = client("stepfunctions")
    machine = stack.outputs["ExpressMachine"]

    response = machines.start_sync_execution(stateMachineArn=machine, name="mine", input='{"sleep": 0, "value": "é"}')

    assert response["status"] == "SUCCEEDED"
    assert response["name"] == "mine"
    assert response["stateMachineArn"] == machine
    assert ":express:stepensemble-local-machine-express:mine:" in response["executionArn"]
    output = json.loads(response["output"])
    assert output["name"] == "mine"
    assert output["echo"] == {"sleep": 0, "value": "é"}
    assert response["billingDetails"]["billedMemoryUsedInMB"] == 64
    assert response["billingDetails"]["billedDurationInMilliseconds"] % 100 == 0
    assert response["startDate"] <= response["stopDate"]
    # Unlike those of STANDARD machines, names may repeat.
    assert (
        machines.start_sync_execution(stateMachineArn=machine, name="mine", input='{"sleep": 0}')["status"]
        == "SUCCEEDED"
    )


def test_synchronous_executions_fail_as_data(stack: LocalStack, client: Clients):
    failure = {"error": "Refused", "cause": "because"}

    response = client("stepfunctions").start_sync_execution(
        stateMachineArn=stack.outputs["ExpressMachine"], input=json.dumps({"sleep": 0, "failure": failure})
    )

    assert (response["status"], response["error"], response["cause"]) == ("FAILED", "Refused", "because")
    assert "output" not in response


def test_what_synchronous_executions_reject(stack: LocalStack, client: Clients):
    start = client("stepfunctions").start_sync_execution
    machine = stack.outputs["ExpressMachine"]

    assert rejected(start, stateMachineArn=machine + "x") == ("StateMachineDoesNotExist", 400)
    assert rejected(start, stateMachineArn=stack.outputs["Machine"]) == ("StateMachineTypeNotSupported", 400)
    assert rejected(start, stateMachineArn=machine, input="{") == ("InvalidExecutionInput", 400)
    assert rejected(start, stateMachineArn=machine, name="a b") == ("InvalidName", 400)


def test_boto3_needs_one_setting_for_synchronous_executions(stack: LocalStack):
    script = (
        "import boto3;"
        f"print(boto3.client('stepfunctions').start_sync_execution(stateMachineArn={stack.outputs['ExpressMachine']!r},"
        "input='{\"sleep\": 0}')['status'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "AWS_ENDPOINT_URL": stack.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
    }

    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )

    assert printed.stdout.strip() == "SUCCEEDED", printed.stderr


def test_a_name_is_for_one_execution(stack: LocalStack, client: Clients):
    start = client("stepfunctions").start_execution
    machine = stack.outputs["Machine"]
    name = f"once-{time.monotonic_ns()}"
    first = start(stateMachineArn=machine, name=name, input='{"sleep": 5}')["executionArn"]

    assert start(stateMachineArn=machine, name=name, input='{"sleep": 5}')["executionArn"] == first
    other = {"stateMachineArn": machine, "name": name, "input": '{"sleep": 0}'}
    assert rejected(start, **other) == ("ExecutionAlreadyExists", 400)
    while client("stepfunctions").describe_execution(executionArn=first)["status"] == "RUNNING":
        time.sleep(0.05)
    assert rejected(start, **other | {"input": '{"sleep": 5}'}) == ("ExecutionAlreadyExists", 400)


def test_an_execution_without_a_name_gets_one(stack: LocalStack, client: Clients):
    start = client("stepfunctions").start_execution

    arns = {start(stateMachineArn=stack.outputs["Machine"], input='{"sleep": 0}')["executionArn"] for _ in range(3)}

    assert len(arns) == 3


def test_a_name_that_many_clients_start_at_the_same_time_runs_once(stack: LocalStack, client: Clients):
    machines = client("stepfunctions")
    machine = stack.outputs["Machine"]
    name = f"race-{time.monotonic_ns()}"

    def start(_: int) -> str:
        return str(machines.start_execution(stateMachineArn=machine, name=name, input='{"sleep": 5}')["executionArn"])

    with ThreadPoolExecutor(12) as threads:
        assert len(set(threads.map(start, range(12)))) == 1
    executions = machines.list_executions(stateMachineArn=machine)["executions"]
    assert sum(execution["name"] == name for execution in executions) == 1


def test_what_starting_an_execution_rejects(stack: LocalStack, client: Clients):
    start = client("stepfunctions").start_execution
    machine = stack.outputs["Machine"]

    assert rejected(start, stateMachineArn=machine, input="{") == ("InvalidExecutionInput", 400)
    assert rejected(start, stateMachineArn=machine, name="a/b") == ("InvalidName", 400)
    assert rejected(start, stateMachineArn=machine, name="x" * 81) == ("InvalidName", 400)
    assert rejected(start, stateMachineArn=machine, input=json.dumps("x" * 262_144)) == ("ValidationException", 400)
    assert rejected(start, stateMachineArn=machine + "x") == ("StateMachineDoesNotExist", 400)


def test_conditional_writes_of_objects(stack: LocalStack, client: Clients):
    objects = client("s3")
    where = {"Bucket": stack.outputs["Things"], "Key": f"pointer-{time.monotonic_ns()}"}
    first = objects.put_object(**where, Body=b"1", IfNoneMatch="*")["ETag"]

    assert rejected(objects.put_object, **where, Body=b"2", IfNoneMatch="*") == ("PreconditionFailed", 412)
    second = objects.put_object(**where, Body=b"2", IfMatch=first)["ETag"]
    assert rejected(objects.put_object, **where, Body=b"3", IfMatch=first) == ("PreconditionFailed", 412)
    assert second != first
    assert objects.get_object(**where)["Body"].read() == b"2"


def test_of_many_conditional_writers_one_succeeds(stack: LocalStack, client: Clients):
    items, objects = client("dynamodb"), client("s3")
    key = f"race-{time.monotonic_ns()}"

    def put_item(number: int) -> bool:
        try:
            items.put_item(
                TableName=stack.outputs["Facts"],
                Item={"id": {"S": key}, "number": {"N": str(number)}},
                ConditionExpression="attribute_not_exists(id)",
            )
        except items.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def put_object(number: int) -> bool:
        try:
            objects.put_object(Bucket=stack.outputs["Scraps"], Key=key, Body=b"%d" % number, IfNoneMatch="*")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(12) as threads:
        assert sum(threads.map(put_item, range(12))) == 1
        assert sum(threads.map(put_object, range(12))) == 1


def test_bodies_of_any_size_and_kind_arrive(stack: LocalStack, client: Clients):
    objects = client("s3")
    where = {"Bucket": stack.outputs["Scraps"], "Key": "folder/a name with spaces & ünïcode.bin"}
    body = os.urandom(9_000_000)

    objects.put_object(**where, Body=body, Metadata={"with_underscore": "1"})
    found = objects.get_object(**where)

    assert found["Body"].read() == body
    assert found["Metadata"] == {"with_underscore": "1"}
    assert objects.head_object(**where)["ContentLength"] == len(body)
    objects.upload_fileobj(BytesIO(body), where["Bucket"], "parts")
    assert objects.head_object(Bucket=where["Bucket"], Key="parts")["ContentLength"] == len(body)


def test_a_connection_serves_many_requests(stack: LocalStack):
    address = urlsplit(stack.endpoint)
    connection = HTTPConnection(address.hostname or "", address.port)
    connection.connect()
    kept = connection.sock

    for _ in range(3):
        connection.request("POST", "/2015-03-31/functions/stepensemble-local-echo/invocations", b"{}")
        response = connection.getresponse()
        assert response.status == 200
        response.read()

    assert connection.sock is kept


def test_services_outside_the_template_still_work(client: Clients):
    queues = client("sqs")
    url = queues.create_queue(QueueName="mine")["QueueUrl"]
    queues.send_message(QueueUrl=url, MessageBody="hello")

    assert queues.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "hello"


# ------------------------------------------------------------------------- malformed, incomplete and foreign requests

DYNAMODB, STATES, EVENTS = "DynamoDB_20120810", "AWSStepFunctions", "AWSEvents"


def request(stack: LocalStack, verb: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """Send a request as no client of AWS does; header names with underscores for hyphens."""
    connection = HTTPConnection(urlsplit(stack.endpoint).netloc, timeout=60)
    connection.request(verb, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.read()


def scope(service: str) -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential=test/20260301/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=a"
    )


@pytest.mark.parametrize(
    ("target", "body", "code"),
    [
        (f"{DYNAMODB}.GetItem", b"{", "SerializationException"),
        (f"{DYNAMODB}.GetItem", b"[]", "SerializationException"),
        (f"{DYNAMODB}.GetItem", b"{}", "ValidationException"),
        (f"{DYNAMODB}.GetItem", b'{"TableName": 1, "Key": 5}', "ValidationException"),
        (f"{DYNAMODB}.Nothing", b"{}", "UnknownOperationException"),
        ("nothing", b"{}", "UnknownOperationException"),
        (f"{STATES}.StartExecution", b"{", "SerializationException"),
        (f"{STATES}.StartExecution", b"[]", "SerializationException"),
        (f"{STATES}.StartExecution", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "SerializationException"),
        (f"{DYNAMODB}.GetItem", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "SerializationException"),
        (f"{STATES}.StartExecution", b"{}", "ValidationException"),
        (f"{STATES}.StartSyncExecution", b'{"stateMachineArn": "x", "input": 5}', "ValidationException"),
        (f"{STATES}.DescribeExecution", b"\xff", "SerializationException"),
        (f"{EVENTS}.PutEvents", b"x", "SerializationException"),
    ],
)
def test_a_malformed_request_is_a_client_error_with_the_name_that_aws_uses(
    stack: LocalStack, target: str, body: bytes, code: str
) -> None:
    service = {DYNAMODB: "dynamodb", STATES: "states", EVENTS: "events"}.get(target.partition(".")[0], "dynamodb")
    status, response = request(stack, "POST", "/", body, X_Amz_Target=target, Authorization=scope(service))
    assert (status, json.loads(response)["__type"]) == (400, code)


@pytest.mark.parametrize(
    ("verb", "path", "headers", "status", "code"),
    [
        ("POST", "/things", {}, 400, b"InvalidArgument"),
        ("POST", "/things", {"Content_Type": "application/x-www-form-urlencoded"}, 400, b"InvalidArgument"),
        ("POST", "/things?delete", {}, 400, b"MalformedXML"),
        ("PUT", "/things/key?uploadId=1&partNumber=x", {}, 400, b"InvalidArgument"),
        ("GET", "/", {"Authorization": "x"}, 400, b"AuthorizationHeaderMalformed"),
        ("POST", "/", {"Authorization": scope("dynamodb")}, 400, b"MissingAction"),
        ("POST", "/", {"Authorization": scope("nothing")}, 400, b"UnknownServiceException"),
        ("PUT", "/things/key", {"Content_Length": "536870913"}, 413, b"EntityTooLarge"),
        (
            "PUT",
            "/things/key",
            {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"},
            411,
            b"MissingContentLength",
        ),
    ],
)
def test_a_malformed_request_to_s3_is_a_client_error(
    stack: LocalStack, verb: str, path: str, headers: dict[str, str], status: int, code: bytes
) -> None:
    response = request(stack, verb, path, b"a=1", **headers)
    assert (response[0], code in response[1]) == (status, True)


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", "/moto-api/reset"),
        ("POST", "/%6doto-api/reset"),
        ("GET", "/moto-api/data.json"),
        ("GET", "/latest/meta-data/iam/security-credentials/x"),
    ],
)
def test_the_emulators_own_routes_are_closed(stack: LocalStack, client: Clients, verb: str, path: str) -> None:
    assert request(stack, verb, path)[0] == 404
    assert stack.outputs["Things"] in {bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]}


@pytest.mark.parametrize(
    "headers",
    [{"Host": "rebound.example.com"}, {"Origin": "https://example.com"}, {"Sec_Fetch_Site": "cross-site"}],
)
@pytest.mark.parametrize(
    "path", ["/", "/_stack/functions", "/2015-03-31/functions/stepensemble-local-echo/invocations"]
)
def test_pages_of_other_origins_are_rejected(stack: LocalStack, path: str, headers: dict[str, str]) -> None:
    status, response = request(stack, "POST", path, b"{}", **headers)
    assert status == 403
    assert b"local stack" in response


def test_a_form_of_another_page_uploads_nothing(stack: LocalStack, client: Clients) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nforged\r\n--x--\r\n'
    kind = {"Content_Type": "multipart/form-data; boundary=x", "Origin": "https://example.com"}
    assert request(stack, "POST", f"/{stack.outputs['Scraps']}", form, **kind)[0] == 403
    assert "forged" not in list_keys(stack, client)


def list_keys(stack: LocalStack, client: Clients) -> set[str]:
    listed = client("s3").list_objects_v2(Bucket=stack.outputs["Scraps"])
    return {found["Key"] for found in listed.get("Contents", ())}


def test_a_client_may_name_the_bucket_in_the_host(stack: LocalStack, client: Clients) -> None:
    client("s3").put_object(Bucket=stack.outputs["Scraps"], Key="by-host", Body=b"here")
    host = f"{stack.outputs['Scraps']}.localhost:{urlsplit(stack.endpoint).port}"
    assert request(stack, "GET", "/by-host", Host=host, Authorization=scope("s3")) == (200, b"here")


CHUNKS = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
STREAMED = b"x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-decoded-content-length: 5\r\n"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (b"Content-Length: 10\r\n", b"123456789", 400),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\n12345\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n12345", 400),
        (STREAMED + b"Content-Length: 16\r\n", CHUNKS[:16], 400),
        (STREAMED + b"Content-Length: 10\r\n", CHUNKS[:8] + b"0\r\n\r\n", 400),
        (b"", b"", 411),
        (b"Content-Length: 5\r\nContent-MD5: kAFQmDzST7DWlj99KOF/cg==\r\n", b"12345", 400),
        (STREAMED + b"Content-Length: %d\r\n" % len(CHUNKS), CHUNKS, 200),
    ],
    ids=[
        "cut",
        "no last chunk",
        "endless chunk",
        "no last chunk of S3",
        "fewer than announced",
        "no length",
        "another digest",
        "whole",
    ],
)
def test_an_incomplete_upload_is_not_stored(
    stack: LocalStack, client: Clients, headers: bytes, body: bytes, status: int
) -> None:
    place = f"/{stack.outputs['Scraps']}/cut-{time.monotonic_ns()}"
    sent = f"PUT {place} HTTP/1.1\r\nHost: localhost\r\n".encode() + headers + b"\r\n" + body
    address = urlsplit(stack.endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(12) == b"HTTP/1.1 %d" % status
    assert (place.rpartition("/")[2] in list_keys(stack, client)) == (status == 200)
