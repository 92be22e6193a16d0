"""The errors of `ensemble run` for a file that is not an event, and of `check` for a missing manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import MODELS
from stepensemble.cli.app import app


def complaint(*arguments: str) -> str:
    """Run a command with wrong usage, and return its message on one line."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "NO_COLOR": "1"})
    assert done.exit_code == 2
    return " ".join(done.output.replace("│", " ").split())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_error_for_a_model_file_names_the_command_that_adds_it(folder: Path) -> None:
    shutil.copy(MODELS / "sigmoid.tflite", folder)
    (folder / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_bytes(b"graph")
    for name in ("sigmoid.tflite", "old.h5", "saved"):
        message = complaint("run", name)
        assert f"{name} is a model file, and `run` takes one JSON document; run: ensemble add {name}" in message


def test_the_error_for_a_file_that_is_not_text_does_not_quote_the_codec(folder: Path) -> None:
    (folder / "event.json").write_bytes(b'{"features": {"x": "\xff"}}')
    message = complaint("run", "event.json")
    assert "event.json is not text in UTF-8; give a JSON document, or an image" in message
    assert "codec" not in message


def test_the_error_for_a_missing_file_has_the_remedy() -> None:
    assert "give another file, or - for standard input" in complaint("run", "events/none.json")
    for arguments in (("check",), ("check", "none.json")):
        message = complaint(*arguments)
        assert (
            "does not exist; go to the project's folder, or name another manifest; or write this one first" in message
        )
