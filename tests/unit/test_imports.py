from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from builders import ROOT

SOURCE = ROOT / "src" / "stepensemble"
MODULES = sorted(SOURCE.rglob("*.py"))
FUNCTIONS = sorted((ROOT / "functions").rglob("*.py"))

BELOW: dict[str, set[str]] = {
    "core": set(),
    "runtimes": {"core"},
    "storage": {"core"},
    "serving": {"core"},
    "imaging": {"core"},
    "conversion": {"core", "runtimes"},
    "publishing": {"core", "runtimes", "storage", "imaging", "serving"},
    "admission": {"core", "runtimes", "conversion", "publishing"},
    "handlers": {"core", "runtimes", "storage", "imaging", "batch", "serving"},
    "batch": {"core", "runtimes", "storage"},
    "ensemble": {"core", "runtimes", "imaging", "publishing", "batch"},
    "local": {"core", "runtimes", "storage", "handlers", "publishing", "batch"},
    "cli": {
        "core",
        "runtimes",
        "storage",
        "imaging",
        "handlers",
        "conversion",
        "publishing",
        "admission",
        "batch",
        "local",
        "ensemble",
    },
    "functions": {"handlers"},
}
"""Which rooms of the house each room may enter, besides itself."""

PURE = {
    "__future__",
    "bisect",
    "collections",
    "contextlib",
    "dataclasses",
    "difflib",
    "functools",
    "hashlib",
    "io",
    "itertools",
    "json",
    "math",
    "msgspec",
    "numpy",
    "operator",
    "re",
    "types",
    "typing",
}
"""All that core may import: nothing here opens a file, a socket or a clock (`io` for bytes in memory)."""


def imported(path: Path) -> Iterator[str]:
    """List the modules that a file imports anywhere, and the names that it imports from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    mine = room(path)
    if mine == "__init__":
        return
    entered = {name.split(".")[1] for name in imported(path) if name.startswith("stepensemble.")}
    assert entered - {mine} <= BELOW[mine]


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_enter_handlers_only(path: Path) -> None:
    entered = {name.split(".")[1] for name in imported(path) if name.startswith("stepensemble.")}
    assert entered == BELOW["functions"]


@pytest.mark.parametrize("path", sorted((SOURCE / "core").rglob("*.py")), ids=lambda path: path.name)
def test_core_imports_nothing_that_does_io(path: Path) -> None:
    assert {name.split(".")[0] for name in imported(path)} <= PURE | {"stepensemble"}


def run_blocked(blocked: list[str], statement: str) -> None:
    code = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n{statement}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_core_imports_without_aws_and_without_any_runtime() -> None:
    paths = [path.relative_to(SOURCE.parent).with_suffix("") for path in (SOURCE / "core").rglob("*.py")]
    names = [".".join(path.parts) for path in paths if path.name != "__init__"]
    run_blocked(
        ["boto3", "botocore", "obstore", "ai_edge_litert", "tensorflow", "PIL", "simplejpeg"],
        f"import {', '.join(names)}",
    )


@pytest.mark.parametrize(
    ("handler", "blocked"),
    [
        (
            "prediction.normalize",
            ["boto3", "botocore", "ai_edge_litert", "tensorflow", "polars", "matplotlib", "PIL", "simplejpeg"],
        ),
        ("prediction.score", ["boto3", "botocore", "tensorflow", "polars", "matplotlib", "PIL", "simplejpeg"]),
        ("prediction.aggregate", ["ai_edge_litert", "tensorflow", "polars", "matplotlib"]),
        ("http.routes", ["ai_edge_litert", "tensorflow", "polars", "matplotlib"]),
        ("batch.plan", ["ai_edge_litert", "tensorflow", "matplotlib"]),
        ("batch.normalize_shard", ["boto3", "botocore", "ai_edge_litert", "tensorflow", "matplotlib"]),
        ("batch.aggregate_shard", ["boto3", "botocore", "ai_edge_litert", "tensorflow", "matplotlib"]),
        ("batch.summarize", ["boto3", "botocore", "ai_edge_litert", "tensorflow", "polars"]),
    ],
)
def test_a_function_imports_only_what_it_needs_at_a_cold_start(handler: str, blocked: list[str]) -> None:
    kitchen = ["samcli", "samtranslator", "moto", "typer", "rich"]
    run_blocked(blocked + kitchen, f"import stepensemble.handlers.bootstrap, stepensemble.handlers.{handler}")


def test_an_ensemble_in_process_needs_polars_for_tables_only() -> None:
    manifest = str(ROOT / "models" / "manifest.json")
    passenger = {"Pclass": 1, "Sex": "female", "SibSp": 0, "Parch": 0}
    statement = f"Ensemble.load({manifest!r}).predict({{'features': {passenger!r}}})"
    run_blocked(["polars", "boto3", "tensorflow", "matplotlib"], f"from stepensemble import Ensemble\n{statement}")


def test_no_two_classes_have_the_same_name() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_imports_have_no_cycle() -> None:
    names = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in MODULES}
    modules = {name.removesuffix(".__init__") for name in names.values()}
    graph = {
        (name := names[path].removesuffix(".__init__")): {
            one for one in imported(path) if one in modules and one != name
        }
        for path in MODULES
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the cycle
