"""Memory is bounded by a shard's size, not by the dataset's; and a shard that crashes its function fails alone."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from builders import X, manifest, member, model
from driving import copy_project, run_ensemble
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process holds in memory is read from /proc")

LIMIT = 256
"""MB that a function may hold; its code and libraries alone take some 110."""

ROWS, GROUP = 800, 10
TEXT = "wide text, in which nothing is to be found\n" * 25_000
"""More than a megabyte, which compresses well: the dataset is a small file, and has this length when it is read."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack whose functions are small, and an ensemble that computes x / 2 + 2."""
    folder = copy_project(tmp_path_factory.mktemp("small"))
    data = manifest(member("half"), features=[X], golden=[{"x": 1}])
    (folder / "models" / "manifest.json").write_text(json.dumps(data))
    (folder / "models" / "half_plus_two.tflite").write_bytes(model("half_plus_two"))
    parameters = {"BatchMemorySize": str(LIMIT), "BatchConcurrency": "4"}
    with LocalStack.start(folder, LocalStackOptions(announce=True, account="888888888888", parameters=parameters)):
        yield folder


def batch(project: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = run_ensemble(project, "batch", *arguments, "--json")
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def read_values(project: Path, run: dict[str, Any]) -> Sequence[float]:
    parts = sorted((project / run["folder"]).glob("part-*.parquet"))
    return pl.concat(pl.read_parquet(part, columns=["value"]) for part in parts)["value"].to_list()


def test_a_dataset_of_several_times_the_memory_runs_in_small_shards_and_not_in_one(project: Path) -> None:
    frame = pl.DataFrame({"x": [float(row) for row in range(ROWS)], "note": [f"{row}{TEXT}" for row in range(ROWS)]})
    assert frame.estimated_size("mb") > 3 * LIMIT
    frame.write_parquet(project / "wide.parquet", row_group_size=GROUP)
    run = batch(project, "wide.parquet", "--keep", "note", "--shard-size", "24MB")
    assert read_values(project, run) == [row / 2 + 2 for row in range(ROWS)]
    whole = batch(project, "wide.parquet", "--keep", "note", "--shard-size", "4GB", code=1)
    assert whole["error"] == "BatchFailed"
    assert "Shard 0 of wide.parquet, from row 1 on: Runtime.OutOfMemory: " in whole["cause"]
    assert "signal: killed; take smaller shards (--shard-size), or give" in whole["cause"]


def test_many_concurrent_shards_have_the_same_results_in_order(project: Path) -> None:
    lines = "".join(f"{row}\n" for row in range(10_000))
    (project / "many.csv").write_text(f"x\n{lines}")
    run = batch(project, "many.csv", "--shard-size", "1KB")
    assert read_values(project, run) == [row / 2 + 2 for row in range(10_000)]
    summary = json.loads((project / run["folder"] / "summary.json").read_text())
    assert summary["shards"] > 40


def test_parquet_that_crashes_the_process_fails_only_its_shard(project: Path) -> None:
    folder = project / "damaged"
    folder.mkdir()
    body = io.BytesIO()
    values = [float(row) if row % 5 else None for row in range(128)]
    pl.DataFrame({"x": values}).write_parquet(body, compression="uncompressed", statistics=False)
    # In the header of its page, 128 values (zigzag 256) become -129: polars then allocates more memory than there is.
    count, damaged = bytes.fromhex("158002"), bytes.fromhex("158102")
    place = body.getvalue().index(count)
    (folder / "a.parquet").write_bytes(body.getvalue()[:place] + damaged + body.getvalue()[place + len(count) :])
    pl.DataFrame({"x": [1.0, 2.0]}).write_parquet(folder / "b.parquet")
    rejected = batch(project, "damaged", code=1)
    assert rejected["error"] == "BatchFailed"
    assert "Shard 0 of a.parquet, from row 1 on: " in rejected["cause"]
    assert "damaged" in rejected["cause"]
    allowed = batch(project, "damaged", "--max-failed-shards", "1")
    assert read_values(project, allowed) == [2.5, 3.0]
