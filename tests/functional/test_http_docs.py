"""The calls in docs/http.md return what the page shows."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess

import pytest

from builders import ROOT
from driving import shown_commands
from stepensemble.cli.stacks import Stack
from stepensemble.handlers.http.routes import STATUSES
from stepensemble.local.stack import LocalStack
from stepensemble.serving.openapi import describe_api
from written import assert_as_written

PAGE = (ROOT / "docs" / "http.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
CALLS = [(command, output) for command, output in shown_commands(*CONSOLE) if command.startswith("curl ")]
ADDRESS = "http://127.0.0.1:8501"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("command", "output"), CALLS, ids=lambda text: text[:60])
def test_a_shown_call_returns_what_is_shown(local: LocalStack, stack: Stack, command: str, output: str) -> None:
    assert stack.outputs
    assert local.http is not None
    arguments = shlex.split(command.replace(ADDRESS, local.http))
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert_as_written(json.loads(done.stdout), json.loads(output))


GUIDE = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "predict.md").read_text(), flags=re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", [shown for shown, _ in shown_commands(*GUIDE) if shown.startswith("curl ")])
def test_the_calls_of_the_guide_get_predictions(local: LocalStack, stack: Stack, command: str) -> None:
    assert stack.outputs
    assert local.http is not None
    arguments = shlex.split(command.replace(ADDRESS, local.http))
    done = subprocess.run(
        [*arguments, "-s", "--fail"], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert "predictions" in json.loads(done.stdout)


def test_the_shown_signer_gets_a_prediction(local: LocalStack, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stack.outputs
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    names: dict[str, object] = {}
    exec(PYTHON, names)  # noqa: S102 (code of the page)
    predict = names["predict"]
    assert callable(predict)
    passenger = json.loads((ROOT / "events" / "passenger.json").read_text())
    assert predict(f"{local.http}/predict", passenger)["status"] == "COMPLETE"


def test_every_status_and_every_path_is_described() -> None:
    documented = {int(status) for status in re.findall(r"\b([45]\d\d)\b", PAGE)}
    assert set(STATUSES.values()) <= documented
    for path in describe_api()["paths"]:
        first = path.split("/")[1].split("{")[0]
        assert f"/{first}" in PAGE
