"""The project copied, and built in its copy: for Lambda, and for the Python that runs the tests."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import ROOT, copy_project
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.local.lambdas.pool import FunctionCode
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources

BUILD_PARTS = (".dockerignore", "LICENSE", "README.md", "layers", "pyproject.toml", "samconfig.toml", "src", "uv.lock")
TOOLS = Path(sys.executable).parent
BATCH = ("PlanFunction", "NormalizeShardFunction", "AggregateShardFunction")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a build needs of the project; the copy has a space in its name, as users' folders may."""
    folder = copy_project(tmp_path_factory.mktemp("a project"))
    for part in BUILD_PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    return folder


@pytest.fixture(scope="session")
def build(project: Path) -> Callable[..., Path]:
    """Run `sam build` as `make build` does, with other variables of the layers' makefiles if given."""

    def run(name: str, **variables: str) -> Path:
        path = os.pathsep.join([str(TOOLS), str(ROOT / ".uv" / "bin"), os.environ["PATH"]])
        built = subprocess.run(
            [str(TOOLS / "sam"), "build", "--build-dir", name],
            cwd=project,
            env=os.environ | {"PATH": path, "SAM_CLI_TELEMETRY": "0"} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert built.returncode == 0, built.stdout + built.stderr
        return project / name

    return run


@pytest.fixture(scope="session")
def built(build: Callable[..., Path]) -> Path:
    """The build for Lambda."""
    return build("built")


@pytest.fixture(scope="session")
def built_here(build: Callable[..., Path]) -> Path:
    """The same for the Python and the system that run the tests."""
    machine = platform.machine()
    if sys.platform == "darwin":
        triple = f"{'aarch64' if machine == 'arm64' else machine}-apple-darwin"
    else:
        triple = f"{machine}-manylinux_2_28"
    return build("built here", PYTHON_VERSION=HERE, PYTHON_PLATFORM=triple)


@pytest.fixture(scope="session")
def layers_of(built_here: Path) -> Callable[[str], tuple[Path, ...]]:
    """A function's built layers, as folders to import from, in Lambda's order."""
    special = {**dict.fromkeys(BATCH, "BatchLayer"), "SummarizeFunction": "ReportLayer"}

    def find(function: str) -> tuple[Path, ...]:
        return tuple(built_here / layer / "python" for layer in ("CoreLayer", special.get(function, "RuntimeLayer")))

    return find


@pytest.fixture(scope="session")
def layers(layers_of: Callable[[str], tuple[Path, ...]]) -> tuple[Path, ...]:
    """The layers of the functions of a single execution."""
    return layers_of("Score1")


@pytest.fixture(scope="session")
def local(project: Path, built_here: Path, layers_of: Callable[[str], tuple[Path, ...]]) -> Iterator[LocalStack]:
    """A local stack whose functions are the built ones."""
    names = [path.name for path in built_here.iterdir() if (path / "app.py").is_file()]
    code = {name: FunctionCode(built_here / name, layers_of(name)) for name in names}
    with LocalStack.start(project, LocalStackOptions(code=code)) as started:
        yield started


@pytest.fixture(scope="session")
def stack(local: LocalStack, project: Path) -> Stack:
    """The same with the shipped ensemble published, as a client sees it."""
    opened = local_stack(local.name, local.endpoint)
    ensure_published(opened, read_sources(project / "models" / "manifest.json"), notify=lambda _: None)
    return opened
