from __future__ import annotations

import ast
from pathlib import Path

import pytest

from builders import ROOT


@pytest.mark.parametrize("app", sorted((ROOT / "functions").glob("*/app.py")), ids=lambda app: app.parent.name)
def test_every_function_conceals_values_in_unforeseen_faults(app: Path) -> None:
    (handler,) = [node for node in ast.parse(app.read_text()).body if getattr(node, "name", None) == "handler"]
    assert isinstance(handler, ast.FunctionDef)
    assert ast.unparse(handler.decorator_list[-1]) == "conceal_values"
