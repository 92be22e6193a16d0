from __future__ import annotations

from dataclasses import dataclass

import pytest

from builders import artifact, model
from memory import GIBIBYTE, MemoryStack
from stepensemble.core.errors import ArtifactCorrupt, ArtifactMissing, ModelRefused
from stepensemble.core.releases.release import Artifact
from stepensemble.handlers.prediction.model_cache import LOADING, RESERVE, STATM, ModelCache, measure_process
from stepensemble.storage.keys import artifact_key

MEBIBYTE = 1024 * 1024
NAMES = ("half_plus_two", "sigmoid", "softmax", "logarithm", "signatures")
DAMAGED = b"no model"


@dataclass
class Slot:
    """A cache, its bucket, and the memory that its process reports: `used`, and `growth` for each loaded model."""

    stack: MemoryStack
    memory: int = GIBIBYTE
    used: int = 0
    growth: int = 0

    def __post_init__(self) -> None:
        self.cache = ModelCache(self.stack.releases, self.memory, self.measure)

    @property
    def reads(self) -> int:
        return sum(self.stack.artifacts.calls.values())

    def measure(self) -> int:
        return self.used + self.growth * self.reads

    def loads(self, name: str, signature: str | None = None) -> bool:
        """Get a model, and return whether it had to be loaded."""
        return self.cache.get("litert", artifact(model(name)), signature)[1]

    def loads_all(self, *names: str) -> list[bool]:
        return [self.loads(name) for name in names]

    def fill_for(self, name: str, short: int = 0) -> None:
        """Let the process use so much that a model fits exactly; or is that many bytes too large."""
        needed = LOADING * len(model(name)) + RESERVE
        self.used = self.memory - needed - self.growth * self.reads + short


@pytest.fixture
def stack() -> MemoryStack:
    made = MemoryStack()
    for name in NAMES:
        made.releases.write_artifact(artifact(model(name)), model(name))
    made.artifacts.calls.clear()
    return made


@pytest.fixture
def slot(stack: MemoryStack) -> Slot:
    return Slot(stack)


def test_a_model_is_kept_by_its_digest(slot: Slot) -> None:
    first, loaded = slot.cache.get("litert", artifact(model("sigmoid")), None)
    again, loaded_again = slot.cache.get("litert", artifact(model("sigmoid")), None)
    assert (loaded, loaded_again, slot.reads) == (True, False, 1)
    assert again is first
    assert slot.loads("half_plus_two")


def test_each_signature_of_an_artifact_is_a_model(slot: Slot) -> None:
    found = artifact(model("signatures"))
    for name in ("half", "double"):
        made, loaded = slot.cache.get("litert", found, name)
        assert (made.signature.name, loaded) == (name, True)
    assert [slot.loads("signatures", name) for name in ("half", "double")] == [False, False]


def test_models_that_fit_are_all_kept(slot: Slot) -> None:
    slot.loads_all("half_plus_two", "sigmoid", "softmax")
    slot.fill_for("logarithm")
    assert slot.loads("logarithm")
    assert slot.loads_all("half_plus_two", "sigmoid", "softmax", "logarithm") == [False] * 4


def test_where_memory_is_short_the_model_goes_that_was_asked_least_recently(slot: Slot) -> None:
    slot.loads_all("half_plus_two", "sigmoid", "softmax", "half_plus_two")
    slot.fill_for("logarithm", short=1)
    assert slot.loads("logarithm")
    assert slot.loads_all("half_plus_two", "softmax", "logarithm", "sigmoid") == [False, False, False, True]


def test_as_many_models_go_as_make_room_by_what_they_came_to_when_they_were_loaded(stack: MemoryStack) -> None:
    slot = Slot(stack, growth=10 * MEBIBYTE)
    slot.loads_all("half_plus_two", "sigmoid", "softmax")
    slot.fill_for("logarithm", short=15 * MEBIBYTE)
    assert slot.loads("logarithm")
    slot.used = 0
    assert slot.loads_all("softmax", "logarithm", "half_plus_two", "sigmoid") == [False, False, True, True]


def test_what_is_kept_is_asked_for_without_making_room(slot: Slot) -> None:
    slot.loads_all("half_plus_two", "sigmoid")
    slot.used = slot.memory
    assert slot.loads_all("half_plus_two", "sigmoid") == [False, False]


def test_a_model_that_memory_seems_too_small_for_is_loaded_alone(stack: MemoryStack) -> None:
    # The measure is rough; Lambda ends the environment if memory really runs out.
    slot = Slot(stack, memory=1)
    assert slot.loads_all("half_plus_two", "sigmoid", "sigmoid", "half_plus_two") == [True, True, False, True]


def test_two_releases_side_by_side_are_loaded_once(slot: Slot) -> None:
    wanted = ["half_plus_two", "sigmoid"] * 5
    assert slot.loads_all(*wanted) == [True, True, *[False] * 8]
    assert slot.reads == 2


def test_a_load_that_fails_leaves_the_others(slot: Slot, stack: MemoryStack) -> None:
    damaged = artifact(DAMAGED)
    stack.artifacts.write(artifact_key(damaged.digest), DAMAGED)
    slot.loads_all("half_plus_two", "sigmoid")
    for _ in range(2):
        with pytest.raises(ModelRefused):
            slot.cache.get("litert", damaged, None)
        with pytest.raises(ModelRefused):
            slot.loads("signatures", "third")
        with pytest.raises(ArtifactMissing):
            slot.loads("two_by_two")
    assert slot.loads_all("half_plus_two", "sigmoid") == [False, False]


@pytest.mark.parametrize("content", [DAMAGED, b"", model("sigmoid")], ids=["damaged", "empty", "another model"])
def test_an_artifact_that_does_not_match_its_digest_is_neither_served_nor_kept(
    slot: Slot, stack: MemoryStack, content: bytes
) -> None:
    wanted: Artifact = artifact(model("half_plus_two"))
    key = artifact_key(wanted.digest)
    stack.artifacts.write(key, content)
    for _ in range(2):
        with pytest.raises(ArtifactCorrupt, match="it was overwritten or damaged"):
            slot.cache.get("litert", wanted, None)
    assert stack.artifacts.calls[key] == 2
    stack.artifacts.write(key, model("half_plus_two"))
    assert slot.loads_all("half_plus_two", "half_plus_two") == [True, False]


@pytest.mark.skipif(not STATM.exists(), reason="without /proc, the most memory ever used is measured")
def test_a_process_measures_the_memory_that_it_uses_now() -> None:
    before = measure_process()
    held = b"x" * (64 * MEBIBYTE)
    assert measure_process() - before == pytest.approx(len(held), rel=0.2)
