"""What `ensemble run` says of a file that is no event, and `check` of a manifest that is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import MODELS
from stepensemble.cli.app import app


def complaint(*arguments: str) -> str:
    """Run a command that is used wrongly, and return what it says on one line."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "NO_COLOR": "1"})
    assert done.exit_code == 2
    return " ".join(done.output.replace("│", " ").split())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_given_as_an_event_is_to_be_added(folder: Path) -> None:
    shutil.copy(MODELS / "sigmoid.tflite", folder)
    (folder / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_bytes(b"graph")
    for name in ("sigmoid.tflite", "old.h5", "saved"):
        said = complaint("run", name)
        assert f"{name} is a model file, and an event is one JSON document; run: ensemble add {name}" in said


def test_a_file_that_is_no_text_is_said_in_words(folder: Path) -> None:
    (folder / "event.json").write_bytes(b'{"features": {"x": "\xff"}}')
    said = complaint("run", "event.json")
    assert "event.json is not text in UTF-8; give a JSON document, or a picture" in said
    assert "codec" not in said


def test_what_is_not_there_is_said_with_the_remedy() -> None:
    assert "give another file, or - for standard input" in complaint("run", "events/none.json")
    for arguments in (("check",), ("check", "none.json")):
        said = complaint(*arguments)
        assert "is not there; go to the project's folder, or name another manifest; or write this one first" in said
