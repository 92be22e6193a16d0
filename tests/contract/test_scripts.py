from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from builders import ROOT

SCRIPTS = sorted(
    path for folder in ("benchmarks", "campaigns", "docs", "examples") for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_imports_only_names_that_exist(path: Path) -> None:
    """No type check reads the scripts, and most of them run for minutes; a name that was renamed is found here."""
    missing = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("stepensemble")
        for alias in node.names
        if not hasattr(importlib.import_module(node.module), alias.name)
        and find_spec(f"{node.module}.{alias.name}") is None
    ]
    assert missing == []
