"""The files and commands of docs/tutorial.md work as shown."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from driving import ROOT, run_ensemble, shown_commands, steady

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SESSION = shown_commands(*re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL))
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
MANIFEST, FLOWER, POLICY = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)


def without_numbers(lines: list[str]) -> list[str]:
    """Remove what depends on the trained weights, which differ slightly on another processor."""
    return [re.sub(r"release [0-9a-f]{12}|\d+(\.\d+)?|BAR", "N", line) for line in lines]


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed; make tensorflow installs it"
)
def test_the_tutorial_works_as_written(project: Path) -> None:
    folder = project / "flowers"
    folder.mkdir()
    for name, text in {"train.py": SCRIPT, "manifest.json": MANIFEST, "flower.json": FLOWER}.items():
        (folder / name).write_text(text, encoding="utf-8")
    trained = subprocess.run(
        [sys.executable, "flowers/train.py"], cwd=project, capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stderr
    manifest = json.loads(MANIFEST)
    printed = re.findall(r"[\d.]*\d", trained.stdout)
    scalings = [feature["scaling"] for feature in manifest["features"]]
    assert [float(number) for number in printed] == [one[key] for key in ("mean", "std") for one in scalings]
    assert run_ensemble(project, "local", "--detach").returncode == 0
    try:
        for command, output in SESSION:
            program, *arguments = shlex.split(command)
            assert program == ".venv/bin/ensemble"
            if arguments[0] == "diff":  # section 6 edits the manifest before this
                edited = json.loads((folder / "manifest.json").read_text()) | json.loads(POLICY)
                (folder / "manifest.json").write_text(json.dumps(edited))
            done = run_ensemble(project, *arguments)
            assert done.returncode == 0, done.stderr
            if output:
                assert without_numbers(steady(done.stdout)) == without_numbers(steady(output))
        assert "quorum" in run_ensemble(project, "diff", "previous", "current").stdout  # section 6 published it
    finally:
        run_ensemble(project, "local", "stop")
