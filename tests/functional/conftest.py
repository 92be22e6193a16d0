"""A project folder of its own, and a stack that stays up in it for a whole test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import copy_project
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.sources import read_sources


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder for one test."""
    return copy_project(tmp_path)


@pytest.fixture(scope="session")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder for the whole session."""
    return copy_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def local(shared_project: Path) -> Iterator[LocalStack]:
    """A local stack, announced, so that commands in its folder use it."""
    # An account of its own: tests of the stack itself run others in this process.
    with LocalStack.start(shared_project, announce=True, account="999999999999") as started:
        yield started


@pytest.fixture(scope="module")
def stack(local: LocalStack, shared_project: Path) -> Stack:
    """The same, as the command line sees it; with the shipped ensemble, whatever a module before has published."""
    opened = local_stack(local.name, local.endpoint)
    ensure_published(opened, read_sources(shared_project / "models" / "manifest.json"), notify=lambda _: None)
    return opened
