"""Each campaign runs at its smallest size, and every guarantee holds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from driving import ROOT

CAMPAIGNS = ROOT / "campaigns"
SMALLEST = {
    "executions": ["--executions", "12", "--at-once", "4"],
    "batches": ["--batches", "1", "--rows", "40"],
    "publishers": ["--kills", "2", "--races", "1"],
    "repeats": ["--clients", "4", "--events", "2", "--versions", "2"],
    "connections": ["--connections", "20", "--requests", "3"],
}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_campaign_runs_and_every_guarantee_holds(name: str) -> None:
    command = [sys.executable, str(CAMPAIGNS / f"{name}.py"), *SMALLEST[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    # How fast others get a response depends on what else the machine does while tests run.
    broken = [promise for promise in document["broken"] if "median latency" not in promise]
    assert broken == []
    assert document["counts"]


def test_make_runs_every_campaign_and_the_page_has_each() -> None:
    scripts = {path.stem for path in CAMPAIGNS.glob("*.py")} - {"laboratory"}
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("CAMPAIGNS :=")]
    assert set(line.removeprefix("CAMPAIGNS :=").split()) == scripts == set(SMALLEST)
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert all(f"campaigns/{name}.py" in page for name in scripts)
