"""The models a score environment keeps in memory, by digest: as many as fit, the least recently used out first."""

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
"""While a model loads, its bytes are there as they came, as the runtime holds them, and as its tensors."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and the bytes it came to."""

    model: Model
    size: int


@dataclass(frozen=True, slots=True)
class ModelCache:
    """Models in memory.

    Attributes:
        memory: bytes the environment has in all.
        measure: returns the bytes it uses now.
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
            runtime: what executes it.
            artifact: the model file.
            signature: which of its signatures.
            trusted: as for `load_model`.

        Raises:
            MemberError: it is not there, not what its digest says, or cannot be loaded.
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
        # What is let go may stay with the allocator: counted by what it came to, not by measuring again.
        used = self.measure()
        while self._kept and used + needed + RESERVE > self.memory:
            _, oldest = self._kept.popitem(last=False)
            used -= oldest.size


def measure_process() -> int:
    """Return the bytes of memory this process uses now; where there is no /proc, the most it has ever used."""
    try:
        pages = int(STATM.read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()
