"""Repeat a prediction: by many clients at once, by repeated events, by versions of one object.

Promises: one prediction for an id, however many clients send it; one response for each version of an object.

    python campaigns/repeats.py --clients 20 --events 10 --versions 10
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

from laboratory import Findings, read_size, start_stack, wait_for_end

from stepensemble.cli.stacks import Stack

PASSENGER = {"Pclass": 3, "Sex": "male", "Age": 22, "SibSp": 1, "Parch": 0, "Fare": 7.25, "Embarked": "S"}
WAIT_SECONDS = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and report."""
    size = read_size(__doc__, arguments, clients=20, events=10, versions=10)
    found = Findings("repeats", vars(size))
    with start_stack() as (local, stack, _):
        assert local.http is not None  # noqa: S101 (the template has an HTTP API)
        send_one_id(found, stack, local.http.removeprefix("http://"), size.clients)
        repeat_event(found, stack, size.events)
        put_versions(found, stack, size.versions)
    return found.report()


def send_one_id(found: Findings, stack: Stack, address: str, clients: int) -> None:
    """Send one prediction id from many clients at once."""
    body = json.dumps({"features": PASSENGER, "prediction_id": "shared"})
    busy = Counter[int]()

    def send(_: int) -> tuple[int, bytes]:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            connection = HTTPConnection(address, timeout=WAIT_SECONDS)
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            received = response.read()
            if response.status != 503 or time.monotonic() > deadline:
                return response.status, received
            busy[503] += 1
            time.sleep(float(response.headers["Retry-After"]))

    with ThreadPoolExecutor(clients) as crowd:
        responses = list(crowd.map(send, range(clients)))
    statuses = Counter(str(status) for status, _ in responses)
    found.counts |= {"statuses of clients": dict(statuses), "sent again after 503": busy[503]}
    found.expect(statuses == {"200": clients}, f"clients got the statuses {dict(statuses)}")
    found.expect(len({response for _, response in responses}) == 1, "clients got different responses")
    found.expect(count_records(stack, "shared") == 1, "the shared id is not recorded once")


def repeat_event(found: Findings, stack: Stack, events: int) -> None:
    """Start the inbox repeatedly with the same event."""
    version = put(stack, "repeated.json", PASSENGER)
    wait_for_responses(stack, "repeated.json", [version])
    client = stack.step_functions
    (first,) = client.list_executions(stateMachineArn=stack.inbox_machine)["executions"]
    event = client.describe_execution(executionArn=first["executionArn"])["input"]
    before = len(stack.records.latest(10_000))
    with ThreadPoolExecutor(events) as crowd:
        arns = list(
            crowd.map(
                lambda _: client.start_execution(stateMachineArn=stack.inbox_machine, input=event)["executionArn"],
                range(events),
            )
        )
        ended = list(crowd.map(lambda arn: wait_for_end(stack, arn), arns))
    statuses = Counter("lost" if one is None else str(one["status"]) for one in ended)
    found.counts["repeated events"] = dict(statuses)
    found.expect(statuses == {"SUCCEEDED": events}, f"repeated events ended as {dict(statuses)}")
    found.expect(len(stack.records.latest(10_000)) == before, "a repeated event was predicted again")
    responses = [one.key for one in stack.data.list("outbox/") if one.key.startswith("outbox/repeated.json.")]
    # The version's response, and the latest one.
    found.expect(len(responses) == 2, f"a repeated event has the responses {responses}")


def put_versions(found: Findings, stack: Stack, versions: int) -> None:
    """Put one key repeatedly, faster than responses are written."""
    before = len(stack.records.latest(10_000))
    with ThreadPoolExecutor(versions) as crowd:
        bodies = [{**PASSENGER, "Age": 20 + number} for number in range(versions)]
        kept = list(crowd.map(lambda body: put(stack, "versions.json", body), bodies))
    delivered = wait_for_responses(stack, "versions.json", kept)
    found.counts["versions with a response"] = len(delivered)
    found.expect(len(delivered) == versions, f"{versions} versions have {len(delivered)} responses")
    found.expect(len(stack.records.latest(10_000)) - before == versions, "versions are not recorded once each")
    named_versions = {response["object"]["version_id"] for response in delivered}
    found.expect(named_versions == set(kept), "a response names a version that is not its own")


def put(stack: Stack, name: str, features: Any) -> str:
    """Put an object into the inbox, and return its version."""
    objects = stack.session.client("s3", endpoint_url=stack.endpoint)
    body = json.dumps({"features": features}).encode()
    return str(objects.put_object(Bucket=stack.data.name, Key=f"inbox/{name}", Body=body)["VersionId"])


def wait_for_responses(stack: Stack, name: str, versions: Sequence[str]) -> list[Any]:
    """Wait for the responses to these versions, and return them."""
    wanted = {f"outbox/{name}.{version}.json" for version in versions}
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        there = {one.key for one in stack.data.list("outbox/")} & wanted
        if there == wanted:
            break
        time.sleep(0.2)
    return [json.loads(stack.data.read(key)) for key in sorted(there)]


def count_records(stack: Stack, prediction_id: str) -> int:
    """Return how many records have an id."""
    return sum(one.prediction_id == prediction_id for one in stack.records.latest(10_000))


if __name__ == "__main__":
    sys.exit(main())
