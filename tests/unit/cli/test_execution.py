"""The error and the cause of a failed execution, as the command line prints them."""

from __future__ import annotations

import json

import pytest

from stepensemble.cli.execution import explain_end


@pytest.mark.parametrize(
    ("name", "remedy"), [("Runtime.OutOfMemory", "send fewer rows"), ("Runtime.ExitError", "see its log")]
)
def test_the_cause_of_a_function_whose_process_ended_has_a_remedy(name: str, remedy: str) -> None:
    cause = json.dumps({"errorType": name, "errorMessage": "Runtime exited with error: signal: killed"})
    error, explained = explain_end({"status": "FAILED", "error": name, "cause": cause})
    assert error == name
    assert explained.startswith("Runtime exited with error: signal: killed; ")
    assert remedy in explained


def test_the_cause_of_an_error_of_this_project_is_not_changed() -> None:
    described = {"status": "FAILED", "error": "QuorumNotMet", "cause": "1 of 2 voters responded; missing: log"}
    assert explain_end(described) == ("QuorumNotMet", "1 of 2 voters responded; missing: log")


def test_the_error_of_a_stopped_execution_is_its_status() -> None:
    assert explain_end({"status": "ABORTED"}) == ("ABORTED", "no cause was given")
