"""Run many executions at once while functions' processes are killed and paused and a member's artifact is corrupt.

Promises: none is lost, none is recorded twice, every failure has a name and a cause, every DEGRADED prediction names
the members that failed, and every COMPLETE one equals that of the ensemble in process, to the bit.

    python campaigns/executions.py --executions 1000 --at-once 64
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

from laboratory import Findings, choose, read_size, resident_megabytes, start_stack, wait_for_end

from stepensemble import Ensemble
from stepensemble.cli.stacks import Stack
from stepensemble.local.stack import LocalStack
from stepensemble.storage.keys import artifact_key

PASSENGER = {"Pclass": 3, "Sex": "male", "SibSp": 1, "Parch": 0, "Fare": 7.25, "Embarked": "S"}
AGES = 60
FAULT_SECONDS = (0.2, 1.2)
PAUSE_SECONDS = (0.2, 3.0)
KILLS = 0.4
"""The share of faults that are kills; the others are pauses."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and report."""
    size = read_size(__doc__, arguments, executions=400, at_once=64)
    found = Findings("executions", vars(size))
    with start_stack() as (local, stack, project):
        ensemble = Ensemble.load(project / "models" / "manifest.json")
        expected = [ensemble.predict({"features": make_passenger(age)})["predictions"] for age in range(AGES)]
        names = [f"campaign-{number:06}" for number in range(size.executions)]
        before, began = resident_megabytes(), time.monotonic()
        with disturb(local, choose(size.seed)) as faults, ThreadPoolExecutor(size.at_once) as crowd:
            half = len(names) // 2
            ended = list(crowd.map(lambda name: run(stack, name), names[:half]))
            with corrupted(stack):
                ended += crowd.map(lambda name: run(stack, name), names[half : half + len(names) // 4])
            ended += crowd.map(lambda name: run(stack, name), names[half + len(names) // 4 :])
        found.counts |= dict(faults) | {
            "seconds": round(time.monotonic() - began),
            "megabytes": f"{before} to {resident_megabytes()}",
        }
        examine(found, stack, dict(zip(names, ended, strict=True)), expected)
    return found.report()


def make_passenger(age: int) -> dict[str, Any]:
    """Return the features of a passenger of this age, in years."""
    return {**PASSENGER, "Age": age}


def run(stack: Stack, name: str) -> Mapping[str, Any] | None:
    """Run an execution under a name, which also selects the passenger; None if it does not end."""
    payload = {"features": make_passenger(int(name[-6:]) % AGES)}
    started = stack.step_functions.start_execution(
        stateMachineArn=stack.state_machine, name=name, input=json.dumps(payload)
    )
    return wait_for_end(stack, started["executionArn"])


@contextmanager
def disturb(local: LocalStack, random: Random) -> Iterator[Counter[str]]:
    """Kill and pause functions' processes while the block lasts; count them."""
    faults: Counter[str] = Counter()
    over = threading.Event()

    def strike() -> None:
        while not over.wait(random.uniform(*FAULT_SECONDS)):
            pids = [pid for status in local.functions for pid in status.pids]
            if not pids:
                continue
            pid = random.choice(pids)
            kind = signal.SIGKILL if random.random() < KILLS else signal.SIGSTOP
            with suppress(ProcessLookupError):
                os.kill(pid, kind)
                faults["killed" if kind is signal.SIGKILL else "paused"] += 1
            if kind is signal.SIGSTOP:
                threading.Timer(random.uniform(*PAUSE_SECONDS), resume, [pid]).start()

    def resume(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield faults
    finally:
        over.set()
        thread.join()


@contextmanager
def corrupted(stack: Stack) -> Iterator[None]:
    """Corrupt the first member's artifact while the block lasts."""
    release = stack.releases.read_release(stack.releases.read_current()[0].release)
    original = stack.releases.read_artifact(release.members[0].artifact)
    key = artifact_key(release.members[0].artifact.digest)
    stack.releases.bucket.write(key, b"corrupt" + original)
    try:
        yield
    finally:
        stack.releases.bucket.write(key, original)


def examine(
    found: Findings, stack: Stack, ended: Mapping[str, Mapping[str, Any] | None], expected: Sequence[Any]
) -> None:
    """Count the executions' ends, and check every promise."""
    statuses: Counter[str] = Counter()
    recorded = Counter(one.prediction_id for one in stack.records.latest(2 * len(ended)))
    for name, described in ended.items():
        if described is None:
            found.broken.append(f"{name} did not end")
            continue
        found.expect(recorded[name] <= 1, f"{name} is recorded {recorded[name]} times")
        if described["status"] != "SUCCEEDED":
            statuses[f"failed: {described.get('error')}"] += 1
            found.expect(described.get("error") and described.get("cause"), f"{name} failed without a reason")
            continue
        output = json.loads(described["output"])
        statuses[output["status"]] += 1
        found.expect(recorded[name] == 1, f"{name} succeeded and is not recorded")
        failed = [one for one in output["members"] if one["status"] == "failed"]
        if output["status"] == "DEGRADED":
            named = failed and all(one["error"]["type"] and one["error"]["message"] for one in failed)
            found.expect(named, f"{name} is DEGRADED and names no failed member")
            statuses.update(f"member: {one['error']['type']}" for one in failed)
        else:
            equal = output["predictions"] == expected[int(name[-6:]) % AGES] and not failed
            found.expect(equal, f"{name} is COMPLETE and differs from the prediction in process")
    found.counts |= dict(sorted(statuses.items()))


if __name__ == "__main__":
    sys.exit(main())
