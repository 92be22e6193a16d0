"""The order of the tests' files: those that take longest first, so that at the end no worker waits long for another."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
LONGEST_FIRST = (
    "functional/test_benchmarks.py",
    "packaging/test_build.py",
    "functional/test_batch.py",
    "functional/test_commands.py",
    "functional/formats/test_add.py",
    "functional/test_inbox.py",
    "functional/test_executions.py",
    "functional/test_releases.py",
    "functional/test_readme.py",
    "functional/formats/test_conversion.py",
    "functional/test_training.py",
    "functional/test_training_digits.py",
    "functional/test_report.py",
    "functional/test_replay.py",
    "functional/test_add.py",
    "functional/local",
    "functional",
    "packaging",
    "contract/test_template.py",
    "unit/conversion",
    "contract",
    "unit/batch",
    "unit/test_imports.py",
    "unit/imaging",
    "unit",
)
"""Files and folders; a file is ordered by the first entry that equals it or contains it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order items by their files. Run with --no-loadscope-reorder, or xdist begins with the file of the most tests."""
    places = [HERE / name for name in LONGEST_FIRST]
    missing = [str(place) for place in places if not place.exists()]
    if missing:
        raise pytest.UsageError(f"tests/conftest.py names what is not there: {', '.join(missing)}")
    items.sort(key=lambda item: _find_place(item.path, places))


def _find_place(path: Path, places: list[Path]) -> int:
    return next((rank for rank, place in enumerate(places) if path.is_relative_to(place)), len(places))
