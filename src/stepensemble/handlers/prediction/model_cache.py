"""The models that a score environment keeps in memory: as many as fit, the least recently used is removed first."""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stepensemble.core.releases.release import Artifact
from stepensemble.core.slot_capacity import RESERVE
from stepensemble.runtimes import Model, load_model
from stepensemble.storage.releases import ReleaseStore

Key = tuple[str, str, str | None, bool]
"""Digest, runtime, signature, and whether it is trusted."""

STATM = Path("/proc/self/statm")

LOADING = 3
"""While a model loads, its bytes are in memory three times: as downloaded, in the runtime, and as its tensors."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and the bytes of memory it takes."""

    model: Model
    size: int


@dataclass(frozen=True, slots=True)
class ModelCache:
    """Keeps models in memory.

    Attributes:
        memory: bytes that the environment has in total.
        measure: returns the bytes that it uses now.
    """

    releases: ReleaseStore
    memory: int
    measure: Callable[[], int]
    _kept: OrderedDict[Key, Loaded] = field(default_factory=OrderedDict)

    def get(
        self, runtime: str, artifact: Artifact, signature: str | None, *, trusted: bool = False
    ) -> tuple[Model, bool]:
        """Return a model, and whether it had to be loaded.

        Args:
            runtime: its name.
            artifact: the model file.
            signature: which of the model's signatures to use.
            trusted: as for `load_model`.

        Raises:
            MemberError: the artifact is missing, does not match its digest, or cannot be loaded.
        """
        key = (artifact.digest, runtime, signature, trusted)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key].model, False
        self._make_room(artifact.size * LOADING)
        before = self.measure()
        model = load_model(runtime, self.releases.read_artifact(artifact), signature, trusted=trusted)
        self._kept[key] = Loaded(model, max(self.measure() - before, artifact.size))
        return model, True

    def _make_room(self, needed: int) -> None:
        # The allocator may not return the memory of a removed model, so its size is subtracted; measuring again would
        # not show it.
        used = self.measure()
        while self._kept and used + needed + RESERVE > self.memory:
            _, oldest = self._kept.popitem(last=False)
            used -= oldest.size


def measure_process() -> int:
    """Return the bytes of memory that this process uses now; without /proc, the most it has ever used."""
    try:
        pages = int(STATM.read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()
