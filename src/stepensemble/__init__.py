"""Serve an ensemble of TensorFlow models: as an AWS Step Functions workflow, or in process.

>>> from stepensemble import Ensemble
>>> ensemble = Ensemble.load("models/manifest.json")
>>> ensemble
Ensemble(name='titanic', release='bde4a308dabb', members=['linear', 'wide', 'deep', 'wide_and_deep'])
>>> output = ensemble.predict({"features": {"Pclass": 1, "Sex": "female", "SibSp": 0, "Parch": 0, "Fare": 80}})
>>> output["status"], output["predictions"][0]["label"]
('COMPLETE', 'survived')

Every error that `Ensemble` raises by design is exported here and is an `EnsembleError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepensemble.core.errors import (
        EnsembleError,
        InvalidManifest,
        InvalidPayload,
        QuorumNotMet,
        ReleaseNotCurrent,
    )
    from stepensemble.ensemble import Ensemble

    __version__: str

__all__ = [
    "Ensemble",
    "EnsembleError",
    "InvalidManifest",
    "InvalidPayload",
    "QuorumNotMet",
    "ReleaseNotCurrent",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # Imported at the first use, so that a Lambda function does not pay for what it does not need.
    if name == "Ensemble":
        return import_module("stepensemble.ensemble").Ensemble
    if name == "__version__":
        from importlib.metadata import version

        return version("stepensemble")
    if name in __all__:
        return getattr(import_module("stepensemble.core.errors"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
