"""The `ensemble` command itself: its commands and panels, their help, the version, shell completion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from builders import ROOT
from stepensemble.cli.app import app
from stepensemble.cli.stacks import Stack

PANELS = {
    "Predict": ["run", "show", "records", "reviews", "replay", "watch"],
    "Datasets": ["batch", "schedule"],
    "Models and releases": ["check", "add", "publish", "releases", "diff", "rollback", "verify", "promote", "canary"],
    "Stack": ["warm", "local"],
}
RUNNER = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"})


def list_commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from list_commands(below, *path, name)


COMMANDS = dict(list_commands(typer.main.get_command(app)))


def test_the_help_lists_every_command_in_a_panel_of_its_purpose() -> None:
    listed: dict[str, list[str]] = {}
    for line in RUNNER.invoke(app, ["--help"]).output.splitlines():
        if heading := re.match(r"╭─ ([A-Z][a-z ]+) ─", line):
            listed[heading[1]] = []
        elif command := re.match(r"│ ([a-z]+)  ", line):
            listed[list(listed)[-1]].append(command[1])
    assert {name: commands for name, commands in listed.items() if name != "Options"} == PANELS
    visible = [path[0] for path, command in COMMANDS.items() if len(path) == 1 and not command.hidden]
    assert sorted(visible) == sorted(name for commands in PANELS.values() for name in commands)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_command_has_a_help_of_whole_sentences_under_h(path: tuple[str, ...]) -> None:
    done = RUNNER.invoke(app, [*path, "-h"], prog_name="ensemble")
    assert done.exit_code == 0
    assert f"Usage: {' '.join(['ensemble', *path])} [OPTIONS]" in done.output
    command = COMMANDS[path]
    assert str(command.help).split("\n")[0].endswith(".")
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        assert text is not None, parameter.name
        if not text.startswith(("Install completion", "Show completion")):  # which Typer writes
            assert text[0].isupper(), text
            assert text.endswith("."), text


def test_the_version_is_that_of_the_package() -> None:
    done = RUNNER.invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"stepensemble {version('stepensemble')}\n")


def complete(*words: str) -> list[str]:
    """Return what bash offers for the last word."""
    environment = {
        "_ENSEMBLE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["ensemble", *words]),
        "COMP_CWORD": str(len(words)),
    }
    return RUNNER.invoke(app, prog_name="ensemble", env=environment).stdout.split()


def test_bash_completes_commands_and_options() -> None:
    assert complete("re") == ["records", "reviews", "replay", "releases"]
    assert complete("check", "--ma") == ["--manifest"]


def test_the_completion_of_bash_is_printed() -> None:
    done = RUNNER.invoke(app, prog_name="ensemble", env={"_ENSEMBLE_COMPLETE": "source_bash"})
    assert done.exit_code == 0
    assert "_ENSEMBLE_COMPLETE=complete_bash" in done.stdout


def test_check_takes_the_manifest_as_an_option_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for arguments in (["--manifest", "nowhere.json"], ["nowhere.json"]):
        done = RUNNER.invoke(app, ["check", *arguments])
        assert done.exit_code == 2
        assert "nowhere.json does not exist" in " ".join(done.output.replace("│", " ").split())
    both = RUNNER.invoke(app, ["check", "one.json", "--manifest", "two.json"])
    assert both.exit_code == 2
    assert "two.json is a second manifest beside one.json; give only one" in both.output


@pytest.mark.parametrize("name", ["reviews", "events"])
def test_the_earlier_name_of_reviews_works_and_names_the_new_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reviews:
        @staticmethod
        def latest(limit: int) -> list[object]:
            assert limit == 3
            return []

    monkeypatch.setattr(
        "stepensemble.cli.stacks.describe_deployed_stack", lambda name: Stack(name, {}, None, None, False)
    )  # type: ignore[arg-type]
    monkeypatch.setattr(Stack, "reviews", Reviews())
    done = RUNNER.invoke(app, [name, "--stack", "dev", "--limit", "3"])
    assert (done.exit_code, done.stdout) == (0, "no prediction needs a review\n")
    note = "note this command is now named reviews; run: ensemble reviews\n"
    assert done.stderr == (note if name == "events" else "")
