"""Images on the local stack, by the real handlers; the commands and examples of docs/images.md run as shown."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import ROOT, copy_project, predict, run_ensemble, shown_commands, start, steady, wait
from expected_events import EVENTS, image_payload, list_images, without_volatile
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.cli.tables.image_preview import SHADES
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources
from written import assert_as_shown, assert_as_written

PAGE = (ROOT / "docs" / "images.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
DIGITS = "models/digits/manifest.json"
SEVEN = EVENTS / "digit-7.png"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def started(project: Path) -> Iterator[LocalStack]:
    """A local stack that the commands in its folder use."""
    with LocalStack.start(project, LocalStackOptions(announce=True, account="888888888888")) as local:
        yield local


@pytest.fixture(scope="module")
def digits(started: LocalStack, project: Path) -> Stack:
    """The same with the digits published."""
    opened = local_stack(started.name, started.endpoint)
    ensure_published(opened, read_sources(project / DIGITS), notify=lambda _: None)
    return opened


@pytest.fixture(scope="module")
def http_url(started: LocalStack) -> str:
    """Address of its HTTP API."""
    assert started.http is not None
    return started.http


COMMANDS = [(command, output) for command, output in shown_commands(*CONSOLE) if "8501" not in command]
BY_HTTP = [(command, output) for command, output in shown_commands(*CONSOLE) if command.startswith("curl ")]


@pytest.mark.parametrize(("command", "output"), COMMANDS)
def test_a_command_of_the_page_prints_what_is_shown(digits: Stack, project: Path, command: str, output: str) -> None:
    assert digits.local
    piped, _, command = command.rpartition(" | ")
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/ensemble"
    done = run_ensemble(project, *arguments, stdin=shlex.split(piped)[1] if piped else None)
    assert done.returncode == (1 if piped else 0), done.stderr
    assert_as_shown(steady(done.stdout + done.stderr), steady(output))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("command", "output"), BY_HTTP)
def test_a_call_of_the_page_gets_the_shown_response(digits: Stack, http_url: str, command: str, output: str) -> None:
    assert digits.local
    line = command.replace("http://127.0.0.1:8501", http_url)
    shell = str(shutil.which("sh"))
    done = subprocess.run([shell, "-c", line], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert done.stdout == output


def test_the_python_of_the_page_prints_the_label(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    exec(PYTHON, {})  # noqa: S102 (the page's own)
    assert capsys.readouterr().out == "7\n"


def test_every_key_of_the_feature_is_described() -> None:
    schema = json.loads((ROOT / "models" / "manifest.schema.json").read_text())
    keys = set(schema["$defs"]["ImageFeature"]["properties"]) - {"name", "type"}
    (table,) = re.findall(r"^\| key \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    assert keys == {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_aws_sdk_gets_an_images_prediction_from_the_express_machine_at_once(digits: Stack) -> None:
    done = digits.step_functions.start_sync_execution(
        stateMachineArn=digits.outputs["ExpressStateMachineArn"], input=json.dumps(image_payload(SEVEN))
    )
    assert done["status"] == "SUCCEEDED", done.get("cause")
    assert json.loads(done["output"])["predictions"] == predict(digits, image_payload(SEVEN))["predictions"]


@pytest.mark.parametrize("path", list_images(), ids=lambda path: path.name)
def test_an_images_prediction_by_an_execution_is_that_of_the_file_beside_it(digits: Stack, path: Path) -> None:
    output = without_volatile(predict(digits, image_payload(path)))
    assert [one["status"] for one in output["members"]] == ["ok", "ok", "ok"]
    assert_as_written(output, json.loads(path.with_suffix(".output.json").read_text()))


def test_an_image_in_the_inbox_is_predicted_as_its_text_and_the_record_keeps_the_pointer(digits: Stack) -> None:
    pointer = digits.data.write("inbox/seven.png", SEVEN.read_bytes())
    payload = {"features": {"image": {"s3": pointer.s3}}}
    output = predict(digits, payload)
    assert output["predictions"] == predict(digits, image_payload(SEVEN))["predictions"]
    assert digits.records.read(output["prediction_id"]).input == payload


def test_many_images_travel_by_way_of_s3(digits: Stack, project: Path) -> None:
    rows = [image_payload(path)["features"] for path in list_images()] * 100  # more numbers than a state may hold
    done = run_ensemble(project, "run", "-", "--json", "--manifest", DIGITS, stdin=json.dumps({"instances": rows}))
    assert done.returncode == 0, done.stderr
    assert [one["label"] for one in json.loads(done.stdout)["predictions"]] == ["3", "5", "7"] * 100
    assert digits.local


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (base64.b64encode(SEVEN.read_bytes()[:90]).decode(), "$.features.image: cannot be decoded"),
        ({"s3": "s3://elsewhere/payloads/x.png"}, "$.features.image: s3://elsewhere/payloads/x.png is elsewhere"),
        ([[0] * 8] * 8, "is not an image; give a PNG, JPEG or WebP as base64 text"),
        (None, "$.features.image: is missing; give an image as base64 text"),
    ],
)
def test_a_value_that_is_not_an_image_is_an_invalid_payload(digits: Stack, value: Any, expected: str) -> None:
    described = wait(digits, start(digits, {"features": {"image": value}}))
    assert described["error"] == "InvalidPayload"
    assert expected in described["cause"]


def test_run_json_of_an_image_is_the_output_alone(digits: Stack, project: Path) -> None:
    assert digits.local
    done = run_ensemble(project, "run", "events/digit-7.png", "--json", "--manifest", DIGITS)
    output = json.loads(done.stdout)
    assert output["predictions"][0]["label"] == "7"
    assert not set(SHADES[1:]) & set(done.stdout)


def test_a_shown_record_does_not_print_the_whole_image(digits: Stack, project: Path) -> None:
    prediction = predict(digits, image_payload(SEVEN))["prediction_id"]
    done = run_ensemble(project, "show", prediction)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("image"))
    assert line.rstrip().endswith("…")
    assert len(line) < 100


def test_an_image_for_an_ensemble_without_an_image_feature_is_wrong_usage(project: Path) -> None:
    done = run_ensemble(project, "run", "events/digit-7.png", "--manifest", "models/manifest.json")
    assert done.returncode == 2
    assert "it is an image, and the ensemble's features are" in " ".join(done.stderr.split())
