"""What-if replay, as a person uses it in a project folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import member, sources
from driving import run_ensemble
from stepensemble.cli.stacks import Stack, ensure_published
from stepensemble.publishing.manifest_loader import read_sources


@pytest.fixture(scope="module")
def recorded(shared_project: Path, stack: object) -> Path:
    """A project folder whose local stack is up and has recorded one row, then several."""
    assert stack is not None
    for event in ("passenger", "passengers"):
        done = run_ensemble(shared_project, "run", f"events/{event}.json", "--json")
        assert done.returncode == 0, done.stderr
    return shared_project


def replay(folder: Path, *arguments: str) -> dict[str, Any]:
    """Replay the two records of the fixture."""
    done = run_ensemble(folder, "replay", "--limit", "2", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_by_the_recorded_policy_nothing_changes(recorded: Path) -> None:
    report = replay(recorded)
    rows = len(json.loads((recorded / "events" / "passengers.json").read_text())["instances"]) + 1
    assert (report["records"], report["rows"], report["compared"]) == (2, rows, rows)
    assert (report["labels_flipped"], report["statuses_changed"], report["changed_rows"]) == (0, 0, [])
    assert report["shift"] == {"mean": 0.0, "mean_absolute": 0.0, "greatest": 0.0}
    assert report["what_if"] == {"manifest": None, "method": None, "weights": {}}


def test_the_least_probability_is_that_of_the_members(recorded: Path) -> None:
    report = replay(recorded, "--method", "min")
    assert report["what_if"]["method"] == "min"
    listed = json.loads(run_ensemble(recorded, "records", "--limit", "2", "--json").stdout)
    shown = [json.loads(run_ensemble(recorded, "show", one["prediction_id"], "--json").stdout) for one in listed]
    changed = {(row["prediction_id"], row["row"]): row for row in report["changed_rows"]}
    assert report["compared"] == sum(record["rows"] for record in shown)
    for record in shown:
        voters = [member["outputs"] for member in record["output"]["members"] if member["role"] == "voter"]
        for number, prediction in enumerate(record["output"]["predictions"]):
            row = changed[record["prediction_id"], number]
            least = min(outputs[number] for outputs in voters)
            assert row["value"] == {"from": prediction["value"], "to": least}
            assert row["shift"] == least - prediction["value"]
            assert row["label"] == {"from": prediction["label"], "to": "survived" if least >= 0.5 else "died"}
    shifts = [abs(row["shift"]) for row in report["changed_rows"]]
    assert shifts == sorted(shifts, reverse=True)


def test_a_manifest_whose_artifacts_are_elsewhere_is_replayed(recorded: Path, tmp_path: Path) -> None:
    manifest = json.loads((recorded / "models" / "manifest.json").read_text())
    manifest["members"][0] |= {"version": "next"}
    manifest["members"] += [manifest["members"][0] | {"id": "newcomer"}]
    (tmp_path / "other.json").write_text(json.dumps(manifest))
    report = replay(recorded, "--manifest", str(tmp_path / "other.json"))
    (missing,) = report["missing"]
    assert (missing["member"], missing["reason"], missing["records"]) == ("newcomer", "not invoked", 2)
    (mismatch,) = report["mismatches"]
    assert (mismatch["member"], mismatch["of"]) == (manifest["members"][0]["id"], "version")
    assert (mismatch["manifest"], mismatch["records"]) == ("next", 2)
    assert report["statuses"] == [{"change": {"from": "COMPLETE", "to": "DEGRADED"}, "count": 2}]


def test_the_terminal_shows_a_summary_and_the_rows(recorded: Path) -> None:
    done = run_ensemble(recorded, "replay", "--limit", "2", "--method", "min")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["policy", "method", "min"] in lines
    assert any(line[:3] == ["records", "2", "since"] for line in lines)
    (shift,) = (line for line in lines if line[:2] == ["shift", "mean"])
    assert shift[2].startswith("-")
    header = lines.index(["prediction", "row", "label", "decision", "value", "shift"])
    assert len(lines) - header - 1 == len(replay(recorded, "--method", "min")["changed_rows"])


def test_future_days_have_no_records(recorded: Path) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=2)
    done = run_ensemble(recorded, "replay", "--since", str(tomorrow))
    assert (done.returncode, done.stdout) == (0, f"there are no records since {tomorrow}\n")
    report = replay(recorded, "--since", str(tomorrow))
    assert (report["records"], report["shift"], report["since"]) == (0, None, str(tomorrow))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--since", "yesterday"), '"yesterday" is not a day; write YYYY-MM-DD'),
        (("--limit", "0"), "--limit"),
        (("--method", "medain"), 'did you mean "median"?'),
        (("--method", "stack"), "give that with --manifest"),
        (("--weights", "linear"), "write member=number"),
        (("--weights", "linear=-1"), "write member=number"),
        (("--manifest", "nowhere.json"), "nowhere.json cannot be read"),
    ],
)
def test_wrong_usage_exits_2_and_gives_the_reason(recorded: Path, arguments: tuple[str, ...], complaint: str) -> None:
    done = run_ensemble(recorded, "replay", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--method", "weighted_mean", "--weights", "liner=2"), 'did you mean "linear"?'),
        (("--weights", "linear=2"), "has no effect under the method"),
    ],
)
def test_what_does_not_fit_the_records_exits_1_and_gives_the_reason(
    recorded: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    done = run_ensemble(recorded, "replay", "--limit", "2", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ReplayRefused ")
    assert complaint in done.stderr


def test_records_of_an_ensemble_that_was_served_before_are_left_out(
    recorded: Path, stack: Stack, tmp_path: Path
) -> None:
    other = sources(tmp_path, member("half"), name="other")
    run = run_ensemble(recorded, "run", "-", "--manifest", str(other.path), "--json", stdin='{"features": {"x": 4}}')
    assert json.loads(run.stdout)["predictions"][0]["value"] == 4  # 4 / 2 + 2
    of_this = run_ensemble(recorded, "replay", "--limit", "2", "--json")
    assert {key: json.loads(of_this.stdout)[key] for key in ("records", "other_ensembles")} == {
        "records": 1,
        "other_ensembles": 1,
    }
    named = replay(recorded, "--manifest", "models/manifest.json")
    assert (named["records"], named["other_ensembles"]) == (1, 1)  # the manifest's own, whichever is current
    ensure_published(stack, read_sources(recorded / "models" / "manifest.json"), notify=lambda _: None)
    report = json.loads(run_ensemble(recorded, "replay", "--limit", "3", "--method", "min", "--json").stdout)
    assert {key: report[key] for key in ("records", "other_ensembles")} == {"records": 2, "other_ensembles": 1}
