"""What the README shows is what happens: every command in it is run, and prints what the README says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from driving import ENSEMBLE, ROOT, run_ensemble
from stepensemble.cli.stacks import Stack
from stepensemble.core.soundness import parse_manifest

README = (ROOT / "README.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
FRAGMENTS = re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)

# What a test cannot run as it stands, and where it is tested instead.
NOT_RUN_HERE = {
    "make run": "test_make_run_is_the_command_whose_output_the_readme_shows",
    "make test": "this is it",
    ".venv/bin/ensemble local --detach": "test_commands, in a project of its own; so is local stop",
    "export AWS_ENDPOINT_URL=http://127.0.0.1:PORT AWS_DEFAULT_REGION=us-east-1 "
    "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local": "test_executions uses them",
    'export AWS_DISABLE_HOST_PREFIX_INJECTION=true  # or a synchronous execution is sent to "sync-127.0.0.1"': "same",
    "aws stepfunctions start-execution --state-machine-arn ARN --input file://events/passenger.json": "test_executions",
    "make deploy STAGE=dev": "needs an AWS account",
    ".venv/bin/ensemble publish --stack stepensemble-dev": "test_a_deployed_stack_is_reached_by_its_name",
    ".venv/bin/ensemble run events/passenger.json --stack stepensemble-dev": "the same",
}


def shown_commands() -> list[tuple[str, str]]:
    """Return every `$ command` of the README with the output shown below it."""
    shown = []
    for block in CONSOLE:
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE):
            shown.append((command, output))
    return shown


@pytest.mark.parametrize(("command", "output"), [shown for shown in shown_commands() if shown[0] not in NOT_RUN_HERE])
def test_a_shown_command_prints_what_is_shown(shared_project: Path, stack: Stack, command: str, output: str) -> None:
    assert stack.local
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/ensemble"
    done = run_ensemble(shared_project, *arguments)
    assert done.returncode == (1 if "bad-" in command else 0), done.stderr
    if output:
        assert steady(done.stdout + done.stderr) == steady(output)


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
    (shown,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    done = run_ensemble(shared_project, "run", "events/passenger.json")
    assert steady(done.stdout) == steady(shown)


def test_every_command_that_is_not_run_is_still_in_the_readme() -> None:
    assert set(NOT_RUN_HERE) <= {command for command, _ in shown_commands()}


def test_the_shown_member_takes_part(project: Path) -> None:
    (entry,) = [one for one in map(json.loads, FRAGMENTS) if one.get("id") == "fifth"]
    models = project / "models"
    shutil.copy(models / "titanic" / "wide.tflite", models / entry["artifact"])
    manifest = json.loads((models / "manifest.json").read_text())
    manifest["members"].append(entry)
    (models / "manifest.json").write_text(json.dumps(manifest))
    output = json.loads(run_ensemble(project, "run", "events/passenger.json", "--json").stdout)
    assert [member["id"] for member in output["members"] if member["status"] == "ok"][-1] == entry["id"]


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
    (code,) = PYTHON
    exec(code, {})  # noqa: S102 (the README's own)
    assert capsys.readouterr().out == "survived COMPLETE\n"


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


def test_a_profile_that_is_not_there_concerns_no_local_stack(shared_project: Path, stack: Stack) -> None:
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


def steady(text: str) -> list[str]:
    """Take out of an output what differs from run to run: times, ids, cold or warm, spaces, bars' last cells."""
    text = re.sub(r"\d+(\.\d+)? ms", "MS", text)
    text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{6}", "ID", text)
    text = re.sub(r"\b(cold|warm)\b", "COLD", text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]
