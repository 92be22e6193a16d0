"""docs/reference is what the code says, and every command, option and public name has a description."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import typer

from builders import ROOT
from stepensemble.cli.app import app


def load_generator() -> ModuleType:
    """Import the script, which is in no package."""
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_generator()
COMMANDS = dict(generator.list_commands("ensemble", typer.main.get_command(app)))
PUBLIC = dict(generator.list_public())


@pytest.mark.parametrize("page", generator.PAGES)
def test_a_page_is_what_the_script_writes(page: str) -> None:
    written = (generator.FOLDER / page).read_text(encoding="utf-8")
    assert written == generator.PAGES[page](), "run: make reference"


@pytest.mark.parametrize("width", ["40", "200"])
def test_the_pages_do_not_depend_on_the_terminal(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [render() for render in generator.PAGES.values()]
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERMINAL_WIDTH", width)
    assert [render() for render in generator.PAGES.values()] == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_its_parameters_have_descriptions(name: str) -> None:
    command: Any = COMMANDS[name]
    assert command.help
    assert [one.opts for one in generator.list_parameters(command) if not one.help] == []


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_a_public_name_has_a_description(name: str) -> None:
    assert generator.get_docstring(PUBLIC[name])


def test_the_pages_have_every_command_and_every_public_name() -> None:
    cli, python = (render() for render in generator.PAGES.values())
    assert [line[3:] for line in cli.splitlines() if line.startswith("## ")] == list(COMMANDS)
    assert len(COMMANDS) > 20
    assert [
        line.lstrip("# ").replace("\\", "") for line in python.splitlines() if line.startswith(("## ", "### "))
    ] == list(PUBLIC)
    assert {"Ensemble", "Ensemble.load", "Ensemble.predict", "Ensemble.predict_table"} <= set(PUBLIC)
