"""Every patch of moto is listed, fits the pinned versions, and is documented; every speed-up can be switched off."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from builders import ROOT
from stepensemble.core.errors import LocalStackError
from stepensemble.local.errors import PatchMismatch
from stepensemble.local.moto_patches.patch import (
    PINNED,
    SPEEDUPS_OFF,
    MotoPatch,
    PatchKind,
    apply_patches,
    check_fit,
    is_enabled,
)

PAGE = ROOT / "docs" / "emulator.md"

APPLY_EACH = """
import json
from functools import reduce
from importlib import import_module
from stepensemble.local.moto_patches.speedups.lazy_imports import import_moto
import_moto(["AWS::S3::Bucket", "AWS::Events::Rule", "AWS::Scheduler::Schedule"])
from stepensemble.local.moto_patches import registry

def find(target):
    module, _, path = target.partition(":")
    *holders, name = path.split(".")
    holder = reduce(getattr, holders, import_module(module))
    return vars(holder).get(name)

changed = {}
for patch in (*registry.CORRECTIONS, *registry.SPEEDUPS):
    if patch.apply is not None:
        before = [find(target) for target in patch.replaces]
        patch.apply()
        changed[patch.name] = any(find(target) is not old for target, old in zip(patch.replaces, before))
print(json.dumps(changed))
"""
"""Reports for each patch whether it changes at least one of the attributes that it names."""

USE = """
import json, sys
from pathlib import Path
import boto3
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
with LocalStack.start(Path(sys.argv[1]), LocalStackOptions(tensorflow=False)) as stack:
    def client(service):
        return boto3.client(service, endpoint_url=stack.endpoint, region_name="us-east-1",
                            aws_access_key_id="x", aws_secret_access_key="x")
    machines = client("stepfunctions")
    machine = stack.outputs["Machine"]
    started = machines.start_execution(stateMachineArn=machine, input='{"sleep": 0, "n": [1, 2.5, "three"]}')
    while (described := machines.describe_execution(executionArn=started["executionArn"]))["status"] == "RUNNING":
        pass
    client("s3").put_object(Bucket=stack.outputs["Things"], Key="one", Body=b"body")
    body = client("s3").get_object(Bucket=stack.outputs["Things"], Key="one", Range="bytes=1-2")["Body"].read().decode()
    print(json.dumps([described["status"], json.loads(described["output"])["echo"], body]))
"""


@pytest.fixture(scope="module")
def patches() -> list[MotoPatch]:
    from stepensemble.local.emulation.server import load_moto

    load_moto([])

    from stepensemble.local.moto_patches.registry import CORRECTIONS, SPEEDUPS

    assert {patch.kind for patch in CORRECTIONS} == {PatchKind.CORRECTION}
    assert {patch.kind for patch in SPEEDUPS} == {PatchKind.SPEEDUP}
    return [*CORRECTIONS, *SPEEDUPS]


def run(script: str, *arguments: str, off: str = "") -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {SPEEDUPS_OFF: off},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_versions_that_the_patches_are_written_for_are_required_and_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = project["project"]["optional-dependencies"]["local"]
    exact = dict(re.findall(r"^([\w-]+)(?:\[.*\])?==([\w.]+)$", "\n".join(required), flags=re.MULTILINE))

    assert {name: exact.get(name) for name in PINNED} == PINNED
    assert {name: version(name) for name in PINNED} == PINNED


def test_every_patch_has_a_name_of_its_own_a_reason_and_a_source(patches: list[MotoPatch]) -> None:
    names = [patch.name for patch in patches]

    assert len(set(names)) == len(names)
    for patch in patches:
        assert patch.replaces, patch.name
        assert patch.reason.endswith("."), patch.name
        if patch.kind is PatchKind.CORRECTION:
            assert patch.source.startswith("https://docs.aws.amazon.com/"), patch.name
        else:
            assert re.search(r"\d", patch.source), f"{patch.name} has no measured gain"
        assert all(address.startswith("https://github.com/") for address in patch.upstream)


def test_every_patch_changes_what_it_names() -> None:
    changed = run(APPLY_EACH)

    assert sorted(name for name, differs in changed.items() if not differs) == []
    assert len(changed) > 20


def test_a_patch_that_does_not_fit_is_an_error_that_names_it_and_the_pinned_version(patches: list[MotoPatch]) -> None:
    unfit = MotoPatch("unfit", PatchKind.CORRECTION, ("moto.events.models:Rule.gone",), "It is gone.", "https://x")
    message = rf"correction unfit does not fit: moto\.events\.models:Rule\.gone does not exist.*moto {PINNED['moto']}"

    with pytest.raises(PatchMismatch, match=message):
        apply_patches([unfit])
    for patch in patches:
        check_fit(patch)


def test_only_speedups_that_exist_can_be_switched_off(
    patches: list[MotoPatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SPEEDUPS_OFF, "json-paths, json-copies")
    assert not is_enabled("json-paths")
    assert is_enabled("task-clients")
    monkeypatch.setenv(SPEEDUPS_OFF, "all")
    assert not is_enabled("task-clients")
    for name in ("json-pathes", "retry-counts"):  # a typing error, and a correction
        monkeypatch.setenv(SPEEDUPS_OFF, name)
        with pytest.raises(LocalStackError, match=f"{SPEEDUPS_OFF} names {name}; the speed-ups are"):
            apply_patches(patches)


def test_a_stack_works_alike_with_and_without_the_speedups(project: Path) -> None:
    applied, off = run(USE, str(project)), run(USE, str(project), off="all")

    assert applied == off == ["SUCCEEDED", {"sleep": 0, "n": [1, 2.5, "three"]}, "od"]


def test_the_page_of_the_emulator_has_a_row_for_every_patch(patches: list[MotoPatch]) -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), flags=re.MULTILINE)

    assert rows == [(patch.name, patch.reason, describe_source(patch)) for patch in patches]


def describe_source(patch: MotoPatch) -> str:
    """Return the last cell of a patch's row."""
    if patch.kind is PatchKind.SPEEDUP:
        return patch.source
    reports = [f"[{'/'.join(address.split('/')[3:])}]({address})" for address in patch.upstream]
    return ", ".join([f"[AWS]({patch.source})", *reports])
