"""The output of `make build` for Lambda: small, complete, and of the current tree and lock file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samcli.lib.cfn_language_extensions.sam_integration import expand_language_extensions
from samcli.yamlhelper import yaml_parse

from driving import ROOT
from stepensemble.cli.stacks import Stack

MEGABYTE = 1_000_000
SCORE_MEGABYTES = tomllib.loads((ROOT / "benchmarks" / "budgets.toml").read_text())["megabytes"]["score"]
LAMBDA_MEGABYTES = 262.144
"""Of a function with its layers, unzipped: 250 MiB."""

LAYERS = ["RuntimeLayer", "BatchLayer", "ReportLayer"]
LEFT_AT_HOME = {"admission", "cli", "conversion", "local", "publishing"}

ELF = b"\x7fELF"
X86_64 = (62).to_bytes(2, "little")
LAMBDA_WHEEL = re.compile(r"py[23]-none-any|(cp313-cp313|cp3(\d|1[0-3])-abi3)-manylinux(2014|_2_(17|27|28))_x86_64")
LAMBDA_LIBRARY = re.compile(r"\.(cpython-313-x86_64-linux-gnu|abi3)\.so$")

COMMON = {"aws-lambda-powertools", "jmespath", "msgspec", "numpy", "obstore", "typing-extensions"}
SHIPPED = {
    "RuntimeLayer": COMMON | {"ai-edge-litert", "pillow", "simplejpeg"},
    "BatchLayer": COMMON | {"polars", "polars-runtime-32", "tzdata"},
    "ReportLayer": COMMON
    | {
        "contourpy",
        "cycler",
        "fonttools",
        "kiwisolver",
        "matplotlib",
        "packaging",
        "pillow",
        "pyparsing",
        "python-dateutil",
        "six",
    },
}


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def package_files(source: Path) -> dict[str, bytes]:
    """The files of this package that a function needs."""
    found = files(source / "src" / "stepensemble")
    return {path: body for path, body in found.items() if path.split("/")[0] not in LEFT_AT_HOME}


def test_a_score_function_is_within_its_budget(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {name: size(built / name) / MEGABYTE for name in ("Score1", "CoreLayer", "RuntimeLayer")}
    with capsys.disabled():
        print(f"\na score function, unzipped: {sum(parts.values()):.1f} of {SCORE_MEGABYTES} MB")  # noqa: T201
    assert sum(parts.values()) <= SCORE_MEGABYTES


@pytest.mark.parametrize("layer", LAYERS)
def test_a_function_is_within_lambdas_limit(built: Path, layer: str, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [size(built / name) / MEGABYTE for name in ("PlanFunction", "CoreLayer", layer)]
    with capsys.disabled():
        print(f"\na function with {layer}, unzipped: {sum(parts):.1f} of {LAMBDA_MEGABYTES} MB")  # noqa: T201
    assert sum(parts) <= LAMBDA_MEGABYTES - 5


def test_a_function_is_its_app_and_nothing_else(built: Path) -> None:
    folders = {
        "NormalizeFunction": "normalize",
        "Score1": "score",
        "Score8": "score",
        "AggregateFunction": "aggregate",
        "ApiFunction": "api",
        "PlanFunction": "plan",
        "NormalizeShardFunction": "normalize_shard",
        "AggregateShardFunction": "aggregate_shard",
        "SummarizeFunction": "summarize",
    }
    for name, folder in folders.items():
        assert files(built / name) == {"app.py": (ROOT / "functions" / folder / "app.py").read_bytes()}


def test_the_core_layer_is_the_package_of_the_tree(built: Path, project: Path) -> None:
    assert files(built / "CoreLayer" / "python") == {
        f"stepensemble/{path}": body for path, body in package_files(project).items()
    }


def test_a_build_over_an_older_one_is_of_the_current_tree(build: Callable[..., Path], project: Path) -> None:
    core = project / "src" / "stepensemble" / "core"
    edited, added = sorted(core.glob("[a-z]*.py"))[0], core / "added.py"
    before = edited.read_text()
    try:
        edited.write_text(before + "# edited\n")
        added.write_text('"""Added."""\n')
        assert files(build("again") / "CoreLayer/python/stepensemble") == package_files(project)
    finally:
        edited.write_text(before)
        added.unlink()
    assert files(build("again") / "CoreLayer/python/stepensemble") == package_files(project)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_has_what_the_lock_file_states_and_no_more(built: Path, layer: str) -> None:
    folders = (built / layer / "python").glob("*.dist-info")
    shipped = [tuple(folder.name.removesuffix(".dist-info").replace("_", "-").rsplit("-", 1)) for folder in folders]
    locked = {(each["name"], each["version"]) for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    assert {name for name, _ in shipped} == SHIPPED[layer]
    assert set(shipped) <= locked


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_leaves_out_unused_parts(built: Path, layer: str) -> None:
    found = {path.relative_to(built / layer / "python") for path in (built / layer).rglob("*")}
    useless = re.compile(r"(^|/)(tests|__pycache__|bin)(/|$)|\.pyi$|\.pyc$|Gpu|^ai_edge_litert/(aot|tools|vendors)/")
    assert [path for path in sorted(found) if useless.search(path.as_posix())] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_every_wheel_and_library_is_for_lambdas_python_and_processor(built: Path, layer: str) -> None:
    site = built / layer / "python"
    for wheel in site.glob("*.dist-info/WHEEL"):
        tags = re.findall(r"^Tag: (.+)$", wheel.read_text(), re.MULTILINE)
        assert [tag for tag in tags if not LAMBDA_WHEEL.fullmatch(tag)] == [], wheel
    libraries = [path for path in site.rglob("*") if ".so" in path.suffixes]
    assert len(libraries) > 10
    for library in libraries:
        header = library.read_bytes()[:20]
        assert (header[:4], header[18:20]) == (ELF, X86_64), library
        # Plain libraries and LiteRT's own have no Python in their names; their wheel has, above.
        assert LAMBDA_LIBRARY.search(library.name) or "cpython" not in library.name, library


def test_every_functions_code_is_uploaded_and_a_rebuild_uploads_nothing_new(
    built: Path, build: Callable[..., Path], project: Path, stack: Stack
) -> None:
    s3 = stack.session.client("s3", endpoint_url=stack.endpoint)
    s3.create_bucket(Bucket="uploads")
    packaged = [package(folder, project, stack) for folder in (built, build("again"))]
    functions = [body for body in packaged[0].values() if body["Type"] == "AWS::Serverless::Function"]
    assert len(functions) == 17  # eight score slots, and each other function once
    assert all(body["Properties"]["CodeUri"].startswith("s3://uploads/") for body in functions)
    assert packaged[0] == packaged[1]


def package(built: Path, project: Path, stack: Stack) -> dict[str, dict[str, Any]]:
    """Upload what was built, as `sam deploy` does first, and return the template's resources with their locations."""
    target = project / "packaged.yaml"
    environment = {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": stack.session.region_name,
        "AWS_ENDPOINT_URL": str(stack.endpoint),
        "SAM_CLI_TELEMETRY": "0",
    }
    config = ["--config-file", str(project / "samconfig.toml")]
    what = ["--template-file", str(built / "template.yaml"), "--s3-bucket", "uploads"]
    packaged = subprocess.run(
        [str(Path(sys.executable).with_name("sam")), "package", *config, *what, "--output-template-file", str(target)],
        cwd=project,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert packaged.returncode == 0, packaged.stdout + packaged.stderr
    return dict(expand_language_extensions(yaml_parse(target.read_text()), enabled=True).expanded_template["Resources"])
