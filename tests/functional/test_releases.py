"""A release on the local stack: published, listed, compared, rolled back, verified, promoted."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from builders import member, sources
from driving import ENSEMBLE, copy_project, predict, run_ensemble
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.core.errors import NoCanary, NothingPublished
from stepensemble.core.releases.pointer import choose
from stepensemble.publishing.canary import abort_canary
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.storage.keys import artifact_key, fingerprint_key

PASSENGER = json.loads((Path(__file__).parents[2] / "events" / "passenger.json").read_text())["features"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Stack]]:
    """A project with its own running stack, because these tests move the pointer."""
    folder = copy_project(tmp_path_factory.mktemp("releases"))
    shutil.copy(folder / "models" / "manifest.json", folder / "models" / "shipped.json")
    with serving(folder) as stack:
        yield folder, stack


@contextmanager
def serving(folder: Path) -> Iterator[Stack]:
    """Run a project's stack in another process."""
    done = run_ensemble(folder, "local", "--detach", "--json")
    assert done.returncode == 0, done.stderr
    description = json.loads(done.stdout)
    try:
        yield local_stack(description["stack"], description["endpoint"])
    finally:
        run_ensemble(folder, "local", "stop")


@pytest.fixture
def stack(running: tuple[Path, Stack]) -> Stack:
    """The stack, with the shipped manifest published and no canary."""
    folder, opened = running
    shutil.copy(folder / "models" / "shipped.json", folder / "models" / "manifest.json")
    with suppress(NothingPublished, NoCanary):
        abort_canary(opened.releases)
    ensure_published(opened, read_sources(folder / "models" / "manifest.json"), notify=lambda _: None)
    return opened


@pytest.fixture
def project(running: tuple[Path, Stack], stack: Stack) -> Path:
    """Its project, with the shipped manifest."""
    assert stack is running[1]
    return running[0]


@pytest.fixture
def shipped(stack: Stack) -> str:
    """The release of the shipped manifest."""
    return stack.releases.read_current()[0].release


def run_json(folder: Path, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json and return its document."""
    done = run_ensemble(folder, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def read_error(folder: Path, *arguments: str, code: int = 1) -> str:
    """Run a command that fails, and return its error."""
    done = run_ensemble(folder, *arguments)
    assert done.returncode == code, done.stdout
    return done.stderr


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of the manifest's first member."""
    path = folder / "models" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["members"][0] |= changes
    path.write_text(json.dumps(manifest))


def add_member(folder: Path, id_: str = "fifth", content: bytes = b"") -> None:
    """Add a member: the linear model's file, with appended bytes that change only its digest."""
    models = folder / "models"
    (models / f"{id_}.tflite").write_bytes((models / "titanic" / "linear.tflite").read_bytes() + content)
    manifest = json.loads((models / "manifest.json").read_text())
    added = {"id": id_, "version": "1", "artifact": f"{id_}.tflite", "output": {"kind": "probability"}}
    manifest["members"].append(added)
    (models / "manifest.json").write_text(json.dumps(manifest))


def test_a_model_is_published_listed_compared_and_rolled_back(project: Path, stack: Stack, shipped: str) -> None:
    add_member(project)
    (added,) = run_json(project, "diff")["differences"]
    assert (added["part"], added["name"], added["change"]) == ("member", "fifth", "added")
    published = run_json(project, "publish")
    assert (published["previous"], published["changed"], published["canary"]) == (shipped, True, None)
    assert len(predict(stack, {"features": PASSENGER, "release": published["release"]})["members"]) == 5

    listed = run_json(project, "releases")
    assert (listed["current"], listed["canary"]) == (published["release"], None)
    assert listed["history"][0]["release"] == shipped
    newest = listed["releases"][0]
    assert (newest["release"], newest["state"]) == (published["release"], "current")
    assert [member["id"] for member in newest["members"]][-1] == "fifth"

    (removed,) = run_json(project, "diff", "current", "previous")["differences"]
    assert (removed["name"], removed["change"]) == ("fifth", "removed")
    back = run_json(project, "rollback")
    assert (back["release"], back["previous"], back["changed"]) == (shipped, published["release"], True)
    assert len(predict(stack, {"features": PASSENGER, "release": shipped})["members"]) == 4
    assert run_json(project, "rollback", published["release"][:8])["release"] == published["release"]


def test_the_commands_print_text_for_people(project: Path) -> None:
    edit(project, version="2", timeout=20)
    drawn = run_ensemble(project, "diff").stdout.splitlines()
    assert drawn[0].startswith("current (")
    assert drawn[1:] == ["~ member linear: version 1 → 2", "~ member linear: timeout 10 → 20"]
    assert "is current on stepensemble-local" in run_ensemble(project, "publish").stdout
    assert run_ensemble(project, "diff").stdout.splitlines()[1] == "no difference"
    lines = run_ensemble(project, "releases").stdout.splitlines()
    assert any("linear\N{NO-BREAK SPACE}2" in line and "current since" in line for line in lines)
    assert any(line.startswith("current before") for line in lines)
    assert run_ensemble(project, "rollback").stdout.startswith("rolled back  release ")
    verified = run_ensemble(project, "verify").stdout
    assert all(f"{member} " in verified for member in ("linear", "wide", "deep", "wide_and_deep"))
    assert "verified  release " in verified


def test_a_dry_run_shows_what_would_change_and_writes_nothing(project: Path) -> None:
    add_member(project, "sixth", b"\0" * 16)
    before = run_json(project, "releases")
    planned = run_json(project, "publish", "--dry-run")
    assert (planned["dry_run"], planned["changed"], planned["previous"]) == (True, True, before["current"])
    assert [upload["member"] for upload in planned["uploads"]] == ["sixth"]
    assert [difference["name"] for difference in planned["differences"]] == ["sixth"]
    assert planned["slots"]["sixth"] == "5"
    drawn = run_ensemble(project, "publish", "--dry-run").stdout
    assert "+ member sixth: added" in drawn
    assert "would be current on stepensemble-local" in drawn
    assert run_json(project, "releases") == before


def test_diff_compares_manifests_without_a_stack_and_sets_its_exit_code_on_request(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(project / "models", folder)
    edit(tmp_path, role="shadow")
    pair = ("diff", "models/shipped.json", "models/manifest.json")
    (role,) = run_json(tmp_path, *pair)["differences"]
    assert (role["field"], role["from"], role["to"]) == ("role", "voter", "shadow")
    run_json(tmp_path, *pair, "--exit-code", code=1)
    run_json(tmp_path, "diff", "models/shipped.json", "models/shipped.json", "--exit-code")
    assert "neither an existing manifest nor a release" in read_error(tmp_path, "diff", "nowhere.json", code=2)


def test_an_unknown_release_is_rejected_with_a_list_of_releases(project: Path, shipped: str) -> None:
    for arguments in (("rollback", "0123456789abcdef"), ("diff", "0123456789abcdef"), ("verify", "0123456789abcdef")):
        error = read_error(project, *arguments)
        assert "ReleaseNotFound no release begins with 0123456789abcdef" in error
        assert shipped[:12] in error


def test_a_rollback_to_damaged_artifacts_is_rejected(project: Path, stack: Stack, shipped: str) -> None:
    add_member(project, "seventh", b"\0" * 32)
    published = run_json(project, "publish")
    assert run_json(project, "publish", "--manifest", "models/shipped.json")["release"] == shipped
    (artifact,) = [
        member.artifact
        for member in stack.releases.read_release(published["release"]).members
        if member.id == "seventh"
    ]
    stack.releases.bucket.write(artifact_key(artifact.digest), b"damaged")
    error = read_error(project, "rollback")
    assert "ReleaseCorrupt" in error
    assert "- seventh: artifact" in error
    assert stack.releases.read_current()[0].release == shipped


def test_verify_fails_where_the_stack_predicts_something_else(project: Path, stack: Stack) -> None:
    verified = run_json(project, "verify")
    assert verified["passed"]
    assert {member["status"] for member in verified["members"]} == {"same"}
    assert run_json(project, "show", verified["prediction_id"])["metadata"] == {"verify": True}
    key = fingerprint_key(verified["release"])
    kept = stack.releases.bucket.read(key)
    other = json.loads(kept)
    other["members"]["deep"]["outputs"][3] += 0.01
    stack.releases.bucket.write(key, json.dumps(other).encode())
    try:
        failed = run_json(project, "verify", code=1)
        (deep,) = [member for member in failed["members"] if member["status"] != "same"]
        assert (deep["member"], deep["status"]) == ("deep", "differs")
        assert deep["reasons"][0].startswith("row 3 is ")
    finally:
        stack.releases.bucket.write(key, kept)


def test_a_canary_serves_its_share_is_compared_and_ends(project: Path, stack: Stack, shipped: str) -> None:
    add_member(project)
    canary = run_json(project, "publish", "--canary", "30")
    assert (canary["canary"], canary["previous"]) == (30, shipped)
    ids = [f"canary-{os.getpid()}-{number}" for number in range(20)]
    current, _ = stack.releases.read_current()
    expected = [choose(current, id_)[0] for id_ in ids]
    # The first payload names a release, so that no cached pointer decides for the others.
    predict(stack, {"features": PASSENGER, "release": canary["release"]})
    releases = [predict(stack, {"features": PASSENGER, "prediction_id": id_})["release"] for id_ in ids]
    assert releases == expected
    assert {*expected} == {shipped, canary["release"]}

    verified = run_json(project, "verify", "canary")
    assert (verified["release"], verified["passed"]) == (canary["release"], True)
    status = run_json(project, "canary", "status")
    assert status["percent"] == 30
    assert status["current"]["executions"] == expected.count(shipped)
    # Four more: the one that named the release, and verify's three.
    assert status["canary"]["executions"] == expected.count(canary["release"]) + 4
    assert status["agreement"]["rows"] == 21
    # All rows are the same passenger's; a second linear model pulls every mean towards the linear one's, alike.
    shift = status["agreement"]["shift"]
    assert shift["mean"] == pytest.approx(shift["greatest"])
    assert shift["mean_absolute"] == pytest.approx(abs(status["canary"]["mean"] - status["current"]["mean"]))
    assert "compared: 21 rows" in run_ensemble(project, "canary", "status").stdout

    assert "CanaryConflict" in read_error(project, "publish")
    assert run_json(project, "canary", "abort")["ended_canary"] == canary["release"]
    assert "NoCanary" in read_error(project, "canary", "promote")
    run_json(project, "publish", "--canary", "99")
    promoted = run_json(project, "canary", "promote")
    assert (promoted["release"], promoted["previous"]) == (canary["release"], shipped)
    assert stack.releases.read_current()[0].release == canary["release"]


def test_run_predicts_with_the_canary_by_its_share_or_when_given_its_manifest(
    project: Path, stack: Stack, shipped: str
) -> None:
    add_member(project)
    canary = run_json(project, "publish", "--canary", "50")["release"]
    assert run_json(project, "run", "events/passenger.json", "--manifest", "models/manifest.json")["release"] == canary
    pointer, _ = stack.releases.read_current()
    drawn = {choose(pointer, f"drawn-{number}")[0]: f"drawn-{number}" for number in range(20)}
    assert drawn.keys() == {shipped, canary}
    for release, id_ in drawn.items():
        (project / "event.json").write_text(json.dumps({"features": PASSENGER, "prediction_id": id_}))
        assert run_json(project, "run", "event.json")["release"] == release
    listed = run_json(project, "releases")
    assert (listed["current"], listed["canary"]) == (shipped, canary)


def test_a_rollback_stays_until_the_manifest_is_edited(project: Path, shipped: str) -> None:
    add_member(project)
    published = run_json(project, "publish")["release"]
    run_json(project, "rollback")
    done = run_ensemble(project, "run", "events/passenger.json", "--json")
    assert json.loads(done.stdout)["release"] == shipped
    assert f"release {shipped[:12]} is current and predicts; the manifest, release {published[:12]}" in done.stderr
    edit(project, version="edited")
    edited = run_json(project, "run", "events/passenger.json")["release"]
    assert edited not in {shipped, published}
    assert run_json(project, "releases")["current"] == edited


def test_another_ensemble_is_replaced_only_with_replace(project: Path, stack: Stack, tmp_path: Path) -> None:
    before, _ = stack.releases.read_current()
    other = sources(tmp_path, member("half"), name="other")
    arguments = ("publish", "--manifest", str(other.path))
    rejected = " ".join(read_error(project, *arguments, code=2).replace("│", " ").split())
    assert "the ensemble other replaces titanic" in rejected
    assert "add --replace" in rejected
    assert stack.releases.read_current()[0] == before
    assert run_json(project, *arguments, "--replace")["release"] == other.digest
    done = run_ensemble(project, "run", "events/passenger.json", "--json")
    assert json.loads(done.stdout)["release"] == before.release
    assert "the ensemble titanic replaces other" in done.stderr


def test_a_release_is_promoted_from_stack_to_stack(project: Path, tmp_path: Path) -> None:
    add_member(project)
    published = run_json(project, "publish")["release"]
    target = copy_project(tmp_path)
    with serving(target) as there:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")} | {
            "AWS_ENDPOINT_URL": str(there.endpoint),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "COLUMNS": "160",
            "NO_COLOR": "1",
        }

        def promote(*arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [ENSEMBLE, "promote", "--from", "local", "--to", there.name, *arguments],
                cwd=project,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
                stdin=stdin,
                env=environment,
            )

        unconfirmed = promote()
        assert unconfirmed.returncode == 2
        assert "add --yes" in unconfirmed.stderr
        before, _ = there.releases.read_current()
        person, terminal = pty.openpty()
        os.write(person, b"n\n")
        rejected = promote(stdin=terminal)
        assert rejected.returncode == 1
        assert f"Make release {published[:12]} current on {there.name}?" in rejected.stderr
        assert there.releases.read_current()[0] == before
        done = promote("--yes")
        assert done.returncode == 0, done.stderr
        assert "verified" in done.stdout
        assert "+ member fifth: added" in done.stdout
        assert there.releases.read_current()[0].release == published
        output = predict(there, {"features": PASSENGER, "release": published})
        assert (output["status"], len(output["members"])) == ("COMPLETE", 5)
        again = json.loads(promote("--yes", "--json").stdout)
        assert (again["changed"], again["differences"], again["verification"]["passed"]) == (False, [], True)
        shutil.copytree(project / "models", target / "models", dirs_exist_ok=True)
        assert run_json(target, "verify")["passed"]  # the fingerprint came with the release


def test_a_promotion_onto_itself_is_wrong_usage(project: Path) -> None:
    assert "name another stack" in read_error(project, "promote", "--from", "local", "--to", "local", "--yes", code=2)
