"""The part of the Amazon States Language that the project's state machines use.

Unlike the real engines it has no retries and no timeouts, and invokes one member after another. It is stricter: every
value between states must be JSON and within the size that a state may carry.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from stepensemble.core.state_size import STATE_BYTES

Function = Callable[[Any], Any]
PUT_EVENTS = "events:putEvents"
"""The name under which `run` looks for the function that puts events."""

GET_OBJECT = "s3:getObject"
"""The name under which `run` looks for the function that reads a Distributed Map's list: parameters to the list."""

WAIT = "wait"
"""The name under which `run` looks for the function that waits: seconds to nothing."""

FORMAT = re.compile(r"States\.Format\('([^']*)', (\S+)\)")
"""The only intrinsic function that the state machines use."""

STARTED_AT = "2026-03-01T11:59:59.000Z"


@dataclass
class Failed(Exception):
    """An execution's end in a Fail state, or in an error that no state catches."""

    error: str
    cause: str


def list_waits(rule: Mapping[str, Any]) -> list[float]:
    """Return a retrier's longest waits in seconds, one for each attempt, with the defaults of the language."""
    interval, rate = rule.get("IntervalSeconds", 1), rule.get("BackoffRate", 2)
    waits = [interval * rate**attempt for attempt in range(rule.get("MaxAttempts", 3))]
    return [min(wait, rule.get("MaxDelaySeconds", math.inf)) for wait in waits]


def run(
    definition: Mapping[str, Any],
    functions: Mapping[str, Function],
    payload: object,
    name: str = "run-1",
    entered: list[str] | None = None,
) -> Any:
    """Run an execution and return its output; append the names of the states that it enters to `entered`."""
    context = {
        "Execution": {"Id": f"arn:{name}", "Name": name, "Input": payload, "StartTime": STARTED_AT},
        "entered": [] if entered is None else entered,
    }
    return _run(definition, functions, payload, context)


def _run(  # noqa: C901 - one case for each type of state
    machine: Mapping[str, Any], functions: Mapping[str, Function], data: Any, context: dict[str, Any]
) -> Any:
    name = machine["StartAt"]
    while True:
        state = machine["States"][name]
        context["entered"].append(name)
        data = _carry(data)
        match state["Type"]:
            case "Choice":
                name = _choose(state, data)
                continue
            case "Succeed":
                return _carry(_at(state.get("OutputPath", "$"), data, context))
            case "Wait":
                functions[WAIT](state["Seconds"])
            case "Fail":
                raise Failed(_at(state["ErrorPath"], data, context), _at(state["CausePath"], data, context))
            case "Pass":
                data = _fill(state["Parameters"], data, context)
            case "Task":
                try:
                    data = _invoke(state, functions, data, context)
                except Failed as failed:
                    data, name = _catch(state, data, failed)
                    continue
            case "Map" if "ItemReader" in state:
                try:
                    _run_distributed(state, functions, data, context)
                except Failed as failed:
                    data, name = _catch(state, data, failed)
                    continue
                assert state["ResultPath"] is None
            case "Map":
                assert state["ItemProcessor"]["ProcessorConfig"]["Mode"] == "INLINE"
                results = []
                for index, value in enumerate(_at(state["ItemsPath"], data, context)):
                    inner = context | {"Map": {"Item": {"Index": index, "Value": value}}}
                    item = _fill(state["ItemSelector"], data, inner)
                    results.append(_run(state["ItemProcessor"], functions, item, inner))
                data = _take(state, data, results, context)
            case "Parallel":
                branches = [_run(branch, functions, data, context) for branch in state["Branches"]]
                data = _take(state, data, branches, context)
        if state.get("End"):
            return _carry(data)
        name = state["Next"]


def _catch(state: Mapping[str, Any], data: Any, failed: Failed) -> tuple[Any, str]:
    if "Catch" not in state:
        raise failed
    (catch,) = state["Catch"]
    assert catch["ErrorEquals"] == ["States.ALL"]
    return _put(catch["ResultPath"], data, {"Error": failed.error, "Cause": failed.cause}), catch["Next"]


def _run_distributed(
    state: Mapping[str, Any], functions: Mapping[str, Function], data: Any, context: dict[str, Any]
) -> None:
    """Run the items of a Distributed Map, each an execution of its own; the failure of one affects no other."""
    assert state["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert state["ItemReader"]["Resource"] == f"arn:aws:states:::{GET_OBJECT}"
    assert state["ItemReader"]["ReaderConfig"] == {"InputType": "JSON"}
    assert state["ToleratedFailurePercentage"] == 100
    assert state["ResultWriter"]["Resource"] == "arn:aws:states:::s3:putObject"
    assert set(_fill(state["ResultWriter"]["Parameters"], data, context)) == {"Bucket", "Prefix"}
    assert _at(state["MaxConcurrencyPath"], data, context) > 0
    try:
        items = functions[GET_OBJECT](_fill(state["ItemReader"]["Parameters"], data, context))
    except Exception as error:
        raise Failed("States.ItemReaderFailed", str(error)) from error
    for index, value in enumerate(items):
        inner = context | {"Map": {"Item": {"Index": index, "Value": value}}}
        with suppress(Failed):
            _run(state["ItemProcessor"], functions, _fill(state["ItemSelector"], data, inner), inner)


def _take(state: Mapping[str, Any], data: Any, result: Any, context: dict[str, Any]) -> Any:
    selected = _fill(state["ResultSelector"], result, context) if "ResultSelector" in state else result
    return _put(state["ResultPath"], data, selected) if "ResultPath" in state else selected


def _invoke(state: Mapping[str, Any], functions: Mapping[str, Function], data: Any, context: dict[str, Any]) -> Any:
    request = _carry(_fill(state["Parameters"], data, context))
    if state["Resource"] == f"arn:aws:states:::{PUT_EVENTS}":
        assert state["ResultPath"] is None
        functions[PUT_EVENTS](request)
        return data
    assert state["Resource"] == "arn:aws:states:::lambda:invoke"
    if "TimeoutSecondsPath" in state:
        assert isinstance(_at(state["TimeoutSecondsPath"], data, context), int)
    try:
        response = functions[request["FunctionName"]](request["Payload"])
    except Exception as error:
        details = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}
        raise Failed(type(error).__name__, json.dumps(details)) from error
    return _at(state["OutputPath"], {"Payload": _carry(response), "StatusCode": 200}, context)


def _choose(state: Mapping[str, Any], data: Any) -> str:
    return str(next((rule["Next"] for rule in state["Choices"] if _holds(rule, data)), state["Default"]))


def _holds(rule: Mapping[str, Any], data: Any) -> bool:
    if "And" in rule:
        return all(_holds(part, data) for part in rule["And"])
    if "IsPresent" in rule:
        assert rule["IsPresent"] is True
        try:
            _at(rule["Variable"], data, {})
        except KeyError:
            return False
        return True
    if "StringMatches" in rule:
        return fnmatchcase(_at(rule["Variable"], data, {}), rule["StringMatches"])
    if "StringEquals" in rule:
        return bool(_at(rule["Variable"], data, {}) == rule["StringEquals"])
    return bool(_at(rule["Variable"], data, {}) > rule["NumericGreaterThan"])


def _fill(template: Any, data: Any, context: dict[str, Any]) -> Any:
    if isinstance(template, list):
        return [_fill(item, data, context) for item in template]
    if not isinstance(template, dict):
        return template
    return {
        key.removesuffix(".$"): _at(value, data, context) if key.endswith(".$") else _fill(value, data, context)
        for key, value in template.items()
    }


def _at(path: str, data: Any, context: dict[str, Any]) -> Any:
    """Follow a reference path; KeyError where it leads nowhere, as the engine's States.ParameterPathFailure."""
    if (called := FORMAT.fullmatch(path)) is not None:
        return called[1].replace("{}", str(_at(called[2], data, context)))
    assert re.fullmatch(r"\$\$?(\[\d\]|\.[A-Za-z_]+)*", path), path
    found = context if path.startswith("$$") else data
    for index, name in re.findall(r"\[(\d)\]|\.([A-Za-z_]+)", path):
        found = found[int(index) if index else name]
    return found


def _put(path: str, data: dict[str, Any], value: Any) -> dict[str, Any]:
    root, name = path.split(".")
    assert root == "$"
    return {**data, name: value}


def _carry(data: Any) -> Any:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert len(text.encode()) <= STATE_BYTES
    return json.loads(text)
