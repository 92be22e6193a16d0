"""A separate project folder, and a stack that runs in it for a whole test session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import copy_project
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.core.errors import NothingPublished
from stepensemble.core.releases.pointer import serves
from stepensemble.handlers.current_release import POINTER_SECONDS
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import read_sources


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
    # A separate account: the local stack's tests run other stacks in this process.
    with LocalStack.start(shared_project, LocalStackOptions(announce=True, account="999999999999")) as started:
        yield started


@pytest.fixture(scope="module")
def stack(local: LocalStack, shared_project: Path) -> Stack:
    """The same, as the command line sees it; with the shipped ensemble, whatever an earlier module has published."""
    opened = local_stack(local.name, local.endpoint)
    shipped = read_sources(shared_project / "models" / "manifest.json")
    try:
        stale = not serves(opened.releases.read_current()[0], shipped.digest)
    except NothingPublished:
        stale = False
    ensure_published(opened, shipped, notify=lambda _: None)
    if stale:  # Normalize's processes keep the pointer that they have for so long
        time.sleep(POINTER_SECONDS)
    return opened
