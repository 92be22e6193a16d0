"""A watched folder with symbolic links in it, and a bucket in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepensemble.cli.folder_watch import Watch


class Uploads:
    """A bucket that stores uploads, without responses."""

    name = "data"

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    def add_version(self, key: str, body: Any) -> str:
        self.bodies[key] = bytes(body)
        return "1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "secret.json").write_text("{}")
    (tmp_path / "folder" / "own.json").write_text("[]")
    return tmp_path


def upload(place: Path) -> tuple[set[str], set[str]]:
    """Return which files of the folder are uploaded, and which are skipped because of a link."""
    data = Uploads()
    stack: Any = SimpleNamespace(data=data, local=False)
    watch = Watch(stack, place / "folder", place / "folder" / "outbox")
    for _ in range(2):  # a file is uploaded when it has not changed between two scans
        for name, seen in watch._list_stable():
            watch._upload(name, *seen)
    return {key.removeprefix("inbox/") for key in data.bodies}, watch.linked


def test_a_file_is_uploaded_and_a_link_to_another_is_not(place: Path) -> None:
    folder = place / "folder"
    (folder / "link.json").symlink_to(place / "elsewhere" / "secret.json")
    (folder / "relative.json").symlink_to("../elsewhere/secret.json")
    (folder / "inside.json").symlink_to(folder / "own.json")
    (folder / "nowhere.json").symlink_to("none.json")
    assert upload(place) == ({"own.json"}, {"link.json", "relative.json", "inside.json", "nowhere.json"})


def test_a_linked_folder_is_not_read(place: Path) -> None:
    (place / "folder" / "sub").symlink_to(place / "elsewhere")
    assert upload(place) == ({"own.json"}, {"sub"})


@pytest.mark.parametrize("name", ["sub", "results"])
def test_no_response_is_written_through_a_link(place: Path, name: str) -> None:
    folder = place / "folder"
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.json").write_text("[]")
    (folder / "outbox").mkdir()
    (folder / "outbox" / name).symlink_to(place / "elsewhere")
    uploaded, linked = upload(place)
    assert "sub/deep.json" in linked - uploaded


def test_a_file_that_became_a_link_after_the_scan_is_not_read(place: Path) -> None:
    data = Uploads()
    stack: Any = SimpleNamespace(data=data, local=False)
    watch = Watch(stack, place / "folder", place / "folder" / "outbox")
    ((name, seen),) = watch._scan().items()
    (place / "folder" / name).unlink()
    (place / "folder" / name).symlink_to(place / "elsewhere" / "secret.json")
    watch._upload(name, *seen)
    assert data.bodies == {}
