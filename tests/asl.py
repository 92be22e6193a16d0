"""The part of the Amazon States Language that the project's state machines use, in a page.

It takes no side effects of the real engines (no retries, no timeouts, one member after another), and is strict where
they are late: every value between states must be JSON and within what a state may carry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stepensemble.core.limits import STATE_BYTES

Function = Callable[[Any], Any]
STARTED_AT = "2026-03-01T11:59:59.000Z"


@dataclass
class Failed(Exception):
    """An execution's end in a Fail state, or in an error that nobody catches."""

    error: str
    cause: str


def run(definition: Mapping[str, Any], functions: Mapping[str, Function], payload: object, name: str = "run-1") -> Any:
    """Run an execution and return its output."""
    context = {"Execution": {"Id": f"arn:{name}", "Name": name, "Input": payload, "StartTime": STARTED_AT}}
    return _run(definition, functions, payload, context)


def _run(machine: Mapping[str, Any], functions: Mapping[str, Function], data: Any, context: dict[str, Any]) -> Any:
    name = machine["StartAt"]
    while True:
        state = machine["States"][name]
        data = _carry(data)
        match state["Type"]:
            case "Choice":
                name = _choose(state, data)
                continue
            case "Succeed":
                return data
            case "Fail":
                raise Failed(_at(state["ErrorPath"], data, context), _at(state["CausePath"], data, context))
            case "Pass":
                data = _fill(state["Parameters"], data, context)
            case "Task":
                try:
                    data = _invoke(state, functions, data, context)
                except Failed as failed:
                    if "Catch" not in state:
                        raise
                    (catch,) = state["Catch"]
                    assert catch["ErrorEquals"] == ["States.ALL"]
                    data = _put(catch["ResultPath"], data, {"Error": failed.error, "Cause": failed.cause})
                    name = catch["Next"]
                    continue
            case "Map":
                assert state["ItemProcessor"]["ProcessorConfig"]["Mode"] == "INLINE"
                results = []
                for index, value in enumerate(_at(state["ItemsPath"], data, context)):
                    inner = context | {"Map": {"Item": {"Index": index, "Value": value}}}
                    item = _fill(state["ItemSelector"], data, inner)
                    results.append(_run(state["ItemProcessor"], functions, item, inner))
                data = _put(state["ResultPath"], data, results)
        if state.get("End"):
            return _carry(data)
        name = state["Next"]


def _invoke(state: Mapping[str, Any], functions: Mapping[str, Function], data: Any, context: dict[str, Any]) -> Any:
    assert state["Resource"] == "arn:aws:states:::lambda:invoke"
    if "TimeoutSecondsPath" in state:
        assert isinstance(_at(state["TimeoutSecondsPath"], data, context), int)
    asked = _carry(_fill(state["Parameters"], data, context))
    try:
        answer = functions[asked["FunctionName"]](asked["Payload"])
    except Exception as error:
        details = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}
        raise Failed(type(error).__name__, json.dumps(details)) from error
    return _at(state["OutputPath"], {"Payload": _carry(answer), "StatusCode": 200}, context)


def _choose(state: Mapping[str, Any], data: Any) -> str:
    for rule in state["Choices"]:
        try:
            _at(rule["Variable"], data, {})
        except KeyError:
            continue
        assert rule["IsPresent"] is True
        return str(rule["Next"])
    return str(state["Default"])


def _fill(template: Any, data: Any, context: dict[str, Any]) -> Any:
    if not isinstance(template, dict):
        return template
    return {
        key.removesuffix(".$"): _at(value, data, context) if key.endswith(".$") else _fill(value, data, context)
        for key, value in template.items()
    }


def _at(path: str, data: Any, context: dict[str, Any]) -> Any:
    """Follow a reference path; KeyError where it leads nowhere, as the engine's States.ParameterPathFailure."""
    assert re.fullmatch(r"\$\$?(\.[A-Za-z_]+)*", path), path
    root, *names = path.split(".")
    found = context if root == "$$" else data
    for name in names:
        found = found[name]
    return found


def _put(path: str, data: dict[str, Any], value: Any) -> dict[str, Any]:
    root, name = path.split(".")
    assert root == "$"
    return {**data, name: value}


def _carry(data: Any) -> Any:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert len(text.encode()) <= STATE_BYTES
    return json.loads(text)
