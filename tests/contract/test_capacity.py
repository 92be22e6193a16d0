"""The gate's limits are those of the templates and state machines; an ensemble that passes it fits into a state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samcli.yamlhelper import yaml_parse

import asl
from builders import ROOT, X, member, sources
from memory import MemoryStack
from stepensemble.core.slot_capacity import (
    AGGREGATE_SECONDS,
    CAPACITIES,
    MEBIBYTE,
    NORMALIZE_SECONDS,
    REVIEW_SECONDS,
    TIMEOUT_ATTEMPTS,
    TIMEOUT_WAIT,
)
from stepensemble.core.state_size import INPUT_BYTES, STATE_BYTES, invoked_bytes, pointer_bytes
from stepensemble.publishing.manifest_loader import Sources

ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
STATES = ENSEMBLE["States"]
LAMBDA_DISK = 512
"""MB in /tmp if a template sets no size: https://docs.aws.amazon.com/lambda/latest/dg/configuration-ephemeral-storage.html."""


def score_function(template: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a template's parameters, and the properties of its slots."""
    document = yaml_parse((ROOT / template).read_text())
    _, _, bodies = document["Resources"]["Fn::ForEach::ScoreFunctions"]
    return document["Parameters"], bodies["Score${Slot}"]["Properties"]


def test_a_slot_has_the_memory_and_disk_that_its_template_gives_it() -> None:
    _, slot = score_function("template.yaml")
    litert = CAPACITIES["litert"]
    assert litert.memory == litert.most == slot["MemorySize"] * MEBIBYTE
    assert litert.disk == slot.get("EphemeralStorage", {"Size": LAMBDA_DISK})["Size"] * MEBIBYTE


def test_a_slot_for_tensorflow_has_the_memory_of_its_templates_parameter() -> None:
    parameters, slot = score_function("template-tensorflow.yaml")
    size, tensorflow = parameters["MemorySize"], CAPACITIES["tensorflow"]
    assert slot["MemorySize"] == slot["EphemeralStorage"]["Size"] == {"Ref": "MemorySize"}
    assert tensorflow.memory == tensorflow.disk == size["Default"] * MEBIBYTE
    assert tensorflow.most == size["MaxValue"] * MEBIBYTE


def test_the_state_machine_waits_as_long_as_the_gate_assumes() -> None:
    waits = {name: STATES[name]["TimeoutSeconds"] for name in ("Normalize", "Aggregate", "Request review")}
    assert waits == {
        "Normalize": NORMALIZE_SECONDS,
        "Aggregate": AGGREGATE_SECONDS,
        "Request review": REVIEW_SECONDS,
    }
    # Only one of the three runs in an execution.
    assert {STATES[name]["TimeoutSeconds"] for name in ("Announce", "Request review and announce")} == {REVIEW_SECONDS}


def test_a_voter_that_times_out_is_invoked_as_often_as_the_gate_assumes() -> None:
    score = STATES["Score members"]["ItemProcessor"]["States"]["Score"]
    (rule,) = [rule for rule in score["Retry"] if "States.Timeout" in rule["ErrorEquals"]]
    assert (
        1 + rule["MaxAttempts"] == TIMEOUT_ATTEMPTS == 2
    )  # so there is one wait, and the backoff rate does not matter
    assert asl.list_waits(rule) == [TIMEOUT_WAIT]


def wide(folder: Path, columns: int, members: int = 4) -> Sources:
    """Return an ensemble whose members list many columns."""
    names = [f"column-{number}" for number in range(columns)]
    return sources(
        folder,
        *(member(f"m{number}", "free_width", timeout=50) for number in range(members)),
        features=[{**X, "name": name, "missing": 0} for name in names],
    )


def test_the_list_of_members_takes_no_more_of_a_state_than_the_gate_assumes(tmp_path: Path) -> None:
    read = wide(tmp_path, 3)
    stack = MemoryStack()
    stack.publish(read)
    rows = stack.data.write("payloads/rows.json", json.dumps([{}] * 10_000).encode())  # so that outputs have keys
    execution = {"id": "arn", "name": "n" * 80}
    output = stack.normalize({"payload": {"instances": {"s3": rows.s3}}, "execution": execution})
    assert output["members"][0]["outputs_key"] is not None
    assert len(json.dumps(output["members"])) <= invoked_bytes(read.release)[1]


@pytest.mark.slow
def test_the_largest_ensemble_that_passes_the_gate_can_be_invoked(tmp_path: Path) -> None:
    # The list of members takes most of a state: 4 members, 4,100 column names.
    assert pointer_bytes(wide(tmp_path, 4_200).release) > STATE_BYTES
    read = wide(tmp_path, 4_100)
    assert 0.97 * STATE_BYTES < pointer_bytes(read.release) <= STATE_BYTES
    stack = MemoryStack()
    stack.publish(read)
    functions: dict[str, Any] = {
        **stack.slots,
        "${NormalizeFunctionArn}": stack.normalize,
        "${AggregateFunctionArn}": stack.aggregate,
    }
    # As much as our own client sends inline.
    payload = {"instances": [{}], "metadata": {"text": "m" * (INPUT_BYTES - 100)}}
    assert asl.run(ENSEMBLE, functions, payload)["status"] == "COMPLETE"
