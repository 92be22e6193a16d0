"""Members that need TensorFlow, on the slots of template-tensorflow.yaml, beside members that do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from builders import MODELS, X, member
from driving import copy_project, predict, run_ensemble
from expected_events import without_volatile
from stepensemble import Ensemble
from stepensemble.cli.stacks import Stack, ensure_published, local_stack
from stepensemble.cli.warmup import warm_up_twice
from stepensemble.core.errors import NotEnoughSlots, NothingPublished
from stepensemble.local.options import LocalStackOptions
from stepensemble.local.stack import LocalStack
from stepensemble.publishing.manifest_loader import Sources, read_sources
from stepensemble.publishing.publish import publish
from stepensemble.runtimes.archives import read_folder, write_archive
from stepensemble.runtimes.tensorflow import import_tensorflow
from stepensemble.storage.keys import artifact_key

needs_tensorflow = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed; make tensorflow installs it"
)


def times(factor: float, folder: Path) -> bytes:
    """Return an artifact that computes y = factor x."""
    tf = import_tensorflow()
    module = tf.Module()
    module.factor = tf.Variable(factor, dtype=tf.float32)
    column = tf.TensorSpec([None, 1], tf.float32, name="x")
    signature = tf.function(lambda x: {"y": x * module.factor}).get_concrete_function(x=column)
    tf.saved_model.save(module, str(folder), signatures=signature)
    return write_archive(read_folder(folder))


def mixed(folder: Path, artifact: bytes) -> Sources:
    """Write an ensemble of x / 2 + 2 for LiteRT and the artifact for TensorFlow, and read it."""
    folder.mkdir(exist_ok=True)
    shutil.copy(MODELS / "half_plus_two.tflite", folder)
    (folder / "model.zip").write_bytes(artifact)
    manifest = {
        "schema_version": 1,
        "name": "mixed",
        "task": {"type": "regression"},
        "features": [X],
        "members": [
            member("half"),
            # The first call waits for TensorFlow's import.
            {**member("times"), "artifact": "model.zip", "runtime": "tensorflow", "timeout": 50},
        ],
        "quorum": {"min_members": 1},
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    return read_sources(path)


@pytest.fixture(scope="module")
def own_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder of these tests alone."""
    return copy_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def local(own_project: Path) -> Iterator[LocalStack]:
    """A stack of these tests alone, announced: which environments have begun is looked at."""
    with LocalStack.start(own_project, LocalStackOptions(announce=True, account="888888888888")) as started:
        yield started


@pytest.fixture(scope="module")
def stack(local: LocalStack) -> Stack:
    """The same, as the command line sees it."""
    return local_stack(local.name, local.endpoint)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Sources]:
    """Makes the ensemble with y = factor x."""

    def made(factor: float) -> Sources:
        folder = tmp_path_factory.mktemp("mixed")
        return mixed(folder, times(factor, folder / "saved"))

    return made


@needs_tensorflow
@pytest.mark.tensorflow
def test_both_runtimes_predict_together_as_they_do_in_process(stack: Stack, make: Callable[[float], Sources]) -> None:
    twice = make(2)
    ensure_published(stack, twice, notify=lambda _: None)
    slots = stack.releases.read_current()[0].slots
    assert (slots["half"] in stack.slots["litert"], slots["times"]) == (True, "t1")
    payload: dict[str, Any] = {"instances": [{"x": 4}, {"x": -1}], "release": twice.digest}
    output = predict(stack, payload)
    said = {one["id"]: (one["outputs"], one["cold"]) for one in output["members"]}
    assert said == {"half": ([4.0, 1.5], True), "times": ([8.0, -2.0], True)}
    assert [row["value"] for row in output["predictions"]] == [6.0, -0.25]
    assert without_volatile(output) == without_volatile(Ensemble.load(twice.path).predict(payload))
    assert not any(one["cold"] for one in predict(stack, payload)["members"])


@needs_tensorflow
@pytest.mark.tensorflow
def test_both_kinds_of_slots_are_warmed_up(stack: Stack, make: Callable[[float], Sources]) -> None:
    halved = make(0.5)
    publish(halved, stack.releases, stack.slots)
    warmed = warm_up_twice(stack)
    first, again = warmed.first.warm_up, warmed.second.warm_up
    assert [(one.id, one.error) for one in first.members] == [("half", None), ("times", None)]
    assert first.members[1].cold is True
    assert [one.cold for one in again.members] == [False, False]
    output = predict(stack, {"features": {"x": 4}, "release": halved.digest})
    assert [one["cold"] for one in output["members"]] == [False, False]


@needs_tensorflow
@pytest.mark.tensorflow
def test_a_damaged_saved_model_degrades_the_prediction(stack: Stack, make: Callable[[float], Sources]) -> None:
    thrice = make(3)
    publish(thrice, stack.releases, stack.slots)
    artifact = thrice.release.members[1].artifact
    stack.releases.bucket.write(artifact_key(artifact.digest), bytes(artifact.size))
    output = predict(stack, {"features": {"x": 4}, "release": thrice.digest})
    assert (output["status"], output["predictions"][0]["value"]) == ("DEGRADED", 4.0)  # 4 / 2 + 2
    errors = {one["id"]: one["error"] and one["error"]["type"] for one in output["members"]}
    assert errors == {"half": None, "times": "ArtifactCorrupt"}


@needs_tensorflow
@pytest.mark.tensorflow
def test_the_command_line_publishes_to_both_kinds_of_slots(
    local: LocalStack, own_project: Path, make: Callable[[float], Sources]
) -> None:
    assert local  # keeps the stack up that the command finds
    ten = make(10)
    done = run_ensemble(own_project, "publish", "--manifest", str(ten.path), "--json")
    assert done.returncode == 0, done.stderr
    published = json.loads(done.stdout)
    assert (published["release"], published["slots"]["times"]) == (ten.digest, "t1")


def test_a_stack_without_the_add_on_shows_how_to_get_it_and_is_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    with LocalStack.start(copy_project(folder), LocalStackOptions(tensorflow=False)) as started:
        stack = local_stack(started.name, started.endpoint)
        assert list(stack.slots) == ["litert"]
        with pytest.raises(NotEnoughSlots, match=r"needed by times, .*make deploy-tensorflow.*\(pip install"):
            publish(mixed(tmp_path / "mixed", b"never loaded"), stack.releases, stack.slots)
        with pytest.raises(NothingPublished):
            stack.releases.read_current()
