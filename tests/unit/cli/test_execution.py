"""What the command line says of an execution that failed."""

from __future__ import annotations

import json

import pytest

from stepensemble.cli.execution import explain_end


@pytest.mark.parametrize(
    ("name", "remedy"), [("Runtime.OutOfMemory", "send fewer rows"), ("Runtime.ExitError", "its log may say why")]
)
def test_of_a_function_that_died_each_time_the_cause_is_a_sentence_with_a_remedy(name: str, remedy: str) -> None:
    cause = json.dumps({"errorType": name, "errorMessage": "Runtime exited with error: signal: killed"})
    error, explained = explain_end({"status": "FAILED", "error": name, "cause": cause})
    assert error == name
    assert explained.startswith("Runtime exited with error: signal: killed; ")
    assert remedy in explained


def test_the_cause_of_an_error_of_ours_stays_as_it_is() -> None:
    described = {"status": "FAILED", "error": "QuorumNotMet", "cause": "1 of 2 voters responded; missing: log"}
    assert explain_end(described) == ("QuorumNotMet", "1 of 2 voters responded; missing: log")


def test_an_execution_that_was_stopped_has_its_status_for_an_error() -> None:
    assert explain_end({"status": "ABORTED"}) == ("ABORTED", "no cause was given")
