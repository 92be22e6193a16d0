"""The commands and examples of docs/batch.md run as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders import ROOT
from driving import replay_session, run_ensemble, shown_commands
from stepensemble.batch.documents import Options
from stepensemble.cli.batch_runs import RUN_MODES

PAGE = (ROOT / "docs" / "batch.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_shown_session_and_the_shown_queries_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replay_session(project, shown_commands(*CONSOLE))
    monkeypatch.chdir(project)
    exec(PYTHON, {})  # noqa: S102 (the page's own)
    shown = capsys.readouterr().out
    assert "2026-03-01" in shown
    assert "891" in shown  # who died, as the command has shown


def test_every_option_is_described(tmp_path: Path) -> None:
    shown = run_ensemble(tmp_path, "batch", "--help").stdout
    options = set(re.findall(r"(--[a-z][a-z-]+)", shown)) - {"--help"}
    assert options - set(re.findall(r"(--[a-z][a-z-]+)", PAGE)) == set()
    names = {"shard_size", "max_rejected", "max_failed_shards"} | set(Options.__struct_fields__)
    assert {f"--{name.replace('_', '-')}" for name in names} <= options


def test_every_way_to_a_result_is_described() -> None:
    table = PAGE[PAGE.index("| when it is started again") :]
    assert set(RUN_MODES) - {"new"} == set(re.findall(r"\| `(\w+)` \|$", table, flags=re.MULTILINE)) - {"mode"}
