"""Results are downloaded to a folder: completely, and once, even by several commands at the same time."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from obstore.store import MemoryStore
from rich.console import Console

from stepensemble.batch.documents import Options
from stepensemble.batch.report.cost import Cost
from stepensemble.batch.report.summary import Summary
from stepensemble.cli.batch_runs import FollowedRun, fetch_results
from stepensemble.cli.tables.batch import render_run
from stepensemble.storage.objects import Bucket

BELOW = "ensemble=halves/dt=2026-03-01/run=run-1"
PARTS = 20


def make_summary(*, failed: bool = False) -> Summary:
    """Return a summary with the places of results, and nothing else."""
    places: dict[str, Any] = {
        "status": "FAILED" if failed else "SUCCEEDED",
        "results": None if failed else f"s3://data/results/{BELOW}/",
        "rejected": f"s3://data/results-rejected/{BELOW}/",
        "report": f"s3://data/results-reports/{BELOW}/report.html",
        "options": Options(),
        "cost": Cost((), 0.0, 0, 0, 0.0),
    }
    nothing: dict[Any, Any] = {str: "", int: 0, float: 0.0}
    fields = msgspec.structs.fields(Summary)
    empty = {one.name: nothing.get(one.type) for one in fields if one.required}
    return Summary(**empty | places)


def make_stack() -> Any:
    """Return a stack of which only the data bucket exists, with a run's files."""
    data = Bucket("data", MemoryStore())
    for number in range(PARTS):
        data.write(f"results/{BELOW}/part-{number:05}.parquet", f"part {number}".encode() * 1000)
    data.write(f"results/{BELOW}/_SUCCESS", b"")
    data.write(f"results-rejected/{BELOW}/part-00003.parquet", b"rejected")
    for name in ("summary.json", "report.html"):
        data.write(f"results-reports/{BELOW}/{name}", name.encode())
    return SimpleNamespace(data=data)


COMPLETE = {
    **{f"part-{number:05}.parquet": f"part {number}".encode() * 1000 for number in range(PARTS)},
    "_SUCCESS": b"",
    "rejected-00003.parquet": b"rejected",
    "summary.json": b"summary.json",
    "report.html": b"report.html",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_many_downloads_of_the_same_results_at_once_leave_them_complete(tmp_path: Path) -> None:
    stack, summary = make_stack(), make_summary()
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: fetch_results(stack, summary, tmp_path), range(32)))
    assert folders == {tmp_path / BELOW}
    assert contents(tmp_path / BELOW) == COMPLETE
    assert [folder.name for folder in (tmp_path / BELOW).parent.iterdir()] == ["run=run-1"]


def test_the_files_of_a_failed_run_are_deleted_when_it_has_succeeded(tmp_path: Path) -> None:
    stack = make_stack()
    failed = fetch_results(stack, make_summary(failed=True), tmp_path)
    assert failed == tmp_path / f"{BELOW}.failed"
    assert set(contents(failed)) == {"rejected-00003.parquet", "summary.json", "report.html"}
    assert contents(fetch_results(stack, make_summary(), tmp_path)) == COMPLETE
    assert not failed.exists()


def test_rows_that_are_degraded_are_counted_as_rows() -> None:
    counted = msgspec.structs.replace(
        make_summary(),
        rows=1_000,
        rows_out=1_000,
        statuses={"COMPLETE": 999, "DEGRADED": 1},
        decisions={"accept": 997, "abstain": 3},
        labels={"no": 600, "yes": 397},
        rejections={},
        members=(),
        calibration=None,
        drift=None,
    )
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(render_run(FollowedRun("execution", "run-1"), counted, None))
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined] of the StringIO
    assert ["predictions", "600", "no,", "397", "yes,", "3", "abstained,", "1", "DEGRADED"] in lines


def test_the_document_of_a_run_has_its_mode_under_the_earlier_name_too() -> None:
    document = FollowedRun("execution", "run-1", mode="joined").to_json()
    assert (document["mode"], document["how"]) == ("joined", "joined")
