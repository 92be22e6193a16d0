"""Serve an ensemble of TensorFlow models from AWS Step Functions, and nothing while nobody asks.

>>> from stepensemble import Ensemble
>>> Ensemble.load("models/manifest.json").predict({"features": {...}})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepensemble.ensemble import Ensemble

__all__ = ["Ensemble"]


def __getattr__(name: str) -> Any:
    # Late, so that a Lambda function does not import what only a person at a keyboard needs.
    if name == "Ensemble":
        from stepensemble.ensemble import Ensemble

        return Ensemble
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
