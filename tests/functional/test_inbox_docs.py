"""The commands and examples of docs/bucket.md run as shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from builders import ROOT
from driving import ENSEMBLE, run_ensemble, shown_commands
from stepensemble.batch.documents import KINDS
from stepensemble.handlers.inbox.receive import IMAGES, JSON
from stepensemble.handlers.prediction.payload_objects import FILE_BYTES
from written import assert_as_shown

PAGE = (ROOT / "docs" / "bucket.md").read_text()
FIRST, _ = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
GUIDE = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "predict.md").read_text(), flags=re.DOTALL)
(DROP,) = [block for block in GUIDE if "ensemble watch" in block]


def run_line(project: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a shell, as it stands there."""
    return subprocess.run(
        ["/bin/sh", "-c", command.replace(".venv/bin/ensemble", ENSEMBLE)],
        cwd=project,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def steady(text: str) -> list[str]:
    """Take out of it the day and the name of the run; answers come in any order."""
    return sorted(re.sub(r"dt=\S+", "DAY", line) for line in text.strip().splitlines())


@pytest.mark.parametrize("session", [FIRST, DROP], ids=["page", "guide"])
def test_a_shown_session_runs(project: Path, session: str) -> None:
    *before, (watch, output) = shown_commands(session)
    for command, _ in before:
        assert run_line(project, command).returncode == 0
    done = run_line(project, watch)
    # A picture is nothing that the ensemble takes.
    assert done.returncode == ("InboxObjectRefused" in output), done.stderr
    assert_as_shown(steady(done.stdout), steady(output))
    answer = json.loads((project / "inbox" / "outbox" / "passenger.json.json").read_text())
    assert answer["object"]["key"] == "inbox/passenger.json"
    assert answer["predictions"][0]["label"] == "died"


def test_every_kind_and_the_limit_are_described() -> None:
    table = PAGE[PAGE.index("| what arrives") : PAGE.index("The response to")]
    known = {f"*{ending}" for ending in (JSON, *IMAGES, *KINDS)}
    shown = set(re.findall(r"`(\*\.\w+)`", table))
    assert shown | {f"{one}.gz" for one in shown if f"{one}.gz" in known} == known
    assert f"{FILE_BYTES >> 20} MB" in PAGE


def test_every_option_is_described(tmp_path: Path) -> None:
    shown = run_ensemble(tmp_path, "watch", "--help").stdout
    options = set(re.findall(r"(--[a-z][a-z-]+)", shown)) - {"--help", "--manifest"}
    assert options - set(re.findall(r"(--[a-z][a-z-]+)", PAGE)) == set()
