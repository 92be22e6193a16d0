"""Every command that README.md, docs/predict.md and docs/add-a-model.md show is run, and prints what they show."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from driving import ENSEMBLE, ROOT, replay_session, run_ensemble, shown_commands, steady
from stepensemble.cli.stacks import Stack
from stepensemble.core.preprocessing.columns import stack_columns
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.publishing.golden import draw_rows
from stepensemble.runtimes import load_model
from written import TRAINED, assert_as_shown

README = (ROOT / "README.md").read_text()
PAGES = README + "".join((ROOT / "docs" / name).read_text() for name in ("predict.md", "add-a-model.md"))
CONSOLE = re.findall(r"```console\n(.*?)```", PAGES, flags=re.DOTALL)
(SWAP,) = [block for block in CONSOLE if "ensemble add" in block]
(BATCH,) = [block for block in CONSOLE if "ensemble batch" in block]
(DROP,) = [block for block in CONSOLE if "ensemble watch" in block]
"""Run by test_inbox_docs."""

PYTHON = re.findall(r"```python\n(.*?)```", PAGES, flags=re.DOTALL)
FRAGMENTS = re.findall(r"```json\n(.*?)```", PAGES, flags=re.DOTALL)
SCREENSHOTS = ROOT / "docs" / "screenshots"
CHARACTER = 12.2
"""Width of a character in an SVG that Rich draws."""

SVG = "{http://www.w3.org/2000/svg}"

# Commands that a test cannot run unchanged, and where they are tested instead.
NOT_RUN_HERE = {
    "make run": "test_make_run_is_the_command_whose_output_the_readme_shows",
    ".venv/bin/ensemble local --detach": "test_commands, in a project of its own; so is local stop",
    "export AWS_ENDPOINT_URL=http://127.0.0.1:PORT AWS_DEFAULT_REGION=us-east-1 "
    "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local": "test_executions uses them",
    'export AWS_DISABLE_HOST_PREFIX_INJECTION=true  # or a synchronous execution is sent to "sync-127.0.0.1"': "same",
    "aws stepfunctions start-execution --state-machine-arn ARN --input file://events/passenger.json": "test_executions",
    ".venv/bin/ensemble local --detach --http-port 8501": "test_commands; the two calls are test_http_docs'",
    "curl http://127.0.0.1:8501/v1/models/linear:predict "
    "-d '{\"instances\": [[0, 0, 1, 1, -0.58, 0.125, 0, 2.11, 0, 0, 1]]}'": "test_http_docs",
    "curl http://127.0.0.1:8501/predict --data-binary @events/passenger.json": "the same",
    "make deploy STAGE=dev": "needs an AWS account",
    ".venv/bin/ensemble publish --stack stepensemble-dev": "test_a_deployed_stack_is_reached_by_its_name",
    ".venv/bin/ensemble run events/passenger.json --stack stepensemble-dev": "the same",
}


@pytest.mark.parametrize(
    ("command", "output"),
    [
        shown
        for shown in shown_commands(*CONSOLE)
        if shown[0] not in NOT_RUN_HERE and shown not in shown_commands(SWAP, BATCH, DROP)
    ],
)
def test_a_shown_command_prints_what_is_shown(shared_project: Path, stack: Stack, command: str, output: str) -> None:
    assert stack.local
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/ensemble"
    done = run_ensemble(shared_project, *arguments)
    assert done.returncode == (1 if "bad-" in command else 0), done.stderr
    if output:
        assert_as_shown(steady(done.stdout + done.stderr), steady(output))


def read_terminal(path: Path) -> str:
    """Return the text of a drawn terminal, line by line, without its title."""
    lines: dict[float, str] = {}
    for text in ET.parse(path).iter(f"{SVG}text"):  # noqa: S314 (the project's own)
        if "clip-path" in text.attrib:
            column = round(float(text.attrib["x"]) / CHARACTER)
            lines[float(text.attrib["y"])] = lines.get(float(text.attrib["y"]), "").ljust(column) + (text.text or "")
    return "\n".join(line.strip() for _, line in sorted(lines.items())).replace("\xa0", " ")


def test_make_run_is_the_command_whose_output_the_readme_shows(shared_project: Path, stack: Stack) -> None:
    assert stack.local
    recipe = subprocess.run(
        ["make", "-n", "--no-print-directory", "run"],  # noqa: S607 (the reader's own make)
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]
    assert recipe == ".venv/bin/ensemble run events/passenger.json"
    assert "docs/screenshots/terminal.svg" in README
    command, shown = read_terminal(SCREENSHOTS / "terminal.svg").split("\n", 1)
    assert command == "$ make run"
    done = run_ensemble(shared_project, "run", "events/passenger.json")
    assert_as_shown(steady(done.stdout), steady(shown))  # else: make screenshots


def test_the_screenshots_are_small_and_load_nothing() -> None:
    files = {path.name: path.stat().st_size for path in SCREENSHOTS.iterdir()}
    assert sorted(files) == ["report.png", "terminal.svg"]
    assert max(files.values()) < 150_000
    assert "url(http" not in (SCREENSHOTS / "terminal.svg").read_text()
    assert all(f"docs/screenshots/{name}" in README for name in files)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_every_command_that_is_not_run_is_still_in_the_pages() -> None:
    assert set(NOT_RUN_HERE) <= {command for command, _ in shown_commands(*CONSOLE)}


def test_the_swapping_session_goes_as_shown(project: Path) -> None:
    (training, _), *session = shown_commands(SWAP)
    (project / "new").mkdir()
    shutil.copy(ROOT / "examples" / "titanic" / "crossed.tflite", project / "new")
    assert training.startswith(".venv/bin/python examples/titanic/train.py")
    replay_session(project, session)


def test_the_batch_goes_as_shown(project: Path) -> None:
    replay_session(project, shown_commands(BATCH))


@pytest.mark.tensorflow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed; make tensorflow installs it"
)
def test_the_shown_training_makes_the_file_that_the_session_adds(tmp_path: Path) -> None:
    (command, output), *_ = shown_commands(SWAP)
    _, script, *arguments = shlex.split(command)
    trained = subprocess.run(
        [sys.executable, ROOT / script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stderr
    # The distance of float32 from Keras may differ on another processor.
    assert re.sub(r"most \S+", "", trained.stdout) == re.sub(r"most \S+", "", output)
    manifest = parse_manifest((ROOT / "models" / "manifest.json").read_bytes())
    columns = normalize(manifest.features, draw_rows(manifest.features, 50))
    rows = stack_columns(columns, tuple(columns))
    again, kept = (
        load_model("litert", path.read_bytes()).predict(rows)
        for path in (tmp_path / "new" / "crossed.tflite", ROOT / "examples" / "titanic" / "crossed.tflite")
    )
    np.testing.assert_allclose(again, kept, rtol=0, atol=TRAINED)


@pytest.mark.parametrize("text", FRAGMENTS)
def test_a_shown_piece_of_a_manifest_is_sound(text: str) -> None:
    manifest, piece = json.loads((ROOT / "models" / "manifest.json").read_text()), json.loads(text)
    if "id" in piece:
        manifest["members"].append(piece)
    else:
        manifest |= piece
    parse_manifest(json.dumps(manifest))


def test_the_shown_python_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    one, again, table = PYTHON
    assert again == one
    exec(one, {})  # noqa: S102 (the page's own)
    assert capsys.readouterr().out == "survived COMPLETE\n"
    exec(table, {})  # noqa: S102 (the page's own)
    assert re.fullmatch(r"\d+ of 1309 rows need a review\n", capsys.readouterr().out)


def test_a_deployed_stack_is_reached_by_its_name(shared_project: Path, stack: Stack) -> None:
    # The local stack stands in for AWS: everything is found through CloudFormation at AWS_ENDPOINT_URL.
    environment = os.environ | {
        "AWS_ENDPOINT_URL": str(stack.endpoint),
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ENSEMBLE, *arguments], cwd=shared_project, env=environment, capture_output=True, text=True, check=False
        )

    published = run("publish", "--stack", stack.name, "--json")
    assert published.returncode == 0, published.stderr
    output = json.loads(run("run", "events/passenger.json", "--stack", stack.name, "--json").stdout)
    assert output["release"] == json.loads(published.stdout)["release"]
    unknown = run("records", "--stack", "nobody")
    assert unknown.returncode == 1
    assert 'no stack named "nobody" in us-east-1' in unknown.stderr


def test_a_local_stack_needs_no_existing_profile(shared_project: Path, stack: Stack) -> None:
    assert stack.local
    done = subprocess.run(
        [ENSEMBLE, "records", "--json"],
        cwd=shared_project,
        env=os.environ | {"AWS_PROFILE": "nobody"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
