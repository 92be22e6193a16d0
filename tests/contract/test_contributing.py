"""The table of CONTRIBUTING.md, "you want to change / it is in", names files that exist."""

from __future__ import annotations

import re

import pytest

from builders import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PLACES = re.findall(r"^\| ([^|]+) \| (`[^|]+) \|$", PAGE[: PAGE.index("## Habits")], flags=re.MULTILINE)
PACKAGE = ROOT / "src" / "stepensemble"


@pytest.mark.parametrize(("change", "places"), PLACES)
def test_a_place_exists(change: str, places: str) -> None:
    named = [name for name in re.findall(r"`([\w/.*-]+)`", places) if "." in name or "/" in name]
    assert named or "__init__" in places, change
    folders = [PACKAGE, ROOT]  # and those that the row has named: `batch/input/datasets.py`, `sharding.py`
    for name in named:
        found = [path for folder in folders for path in folder.glob(name.rstrip("/"))]
        assert found, f"{name} of {change!r} is nowhere"
        folders.append(found[0] if name.endswith("/") else found[0].parent)


def test_the_table_is_read() -> None:
    assert len(PLACES) > 40
