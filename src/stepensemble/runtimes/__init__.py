"""Runtimes: what executes an artifact. Each module holds one loader; `load_model` picks it by the manifest's name.

A `Model` is cheap to ask and expensive to load: load once, ask many times, from one thread.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from stepensemble.core.errors import ModelRefused


class Model(Protocol):
    """A loaded artifact."""

    def predict(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the model's raw output, `(rows, …)`, for inputs `(rows, …)`.

        Raises:
            InputMismatch: the model does not take inputs of this shape or dtype.
        """


def load_model(runtime: str, artifact: bytes) -> Model:
    """Load an artifact.

    Raises:
        ModelRefused: the runtime is unknown or not installed, or cannot read the artifact.
    """
    if runtime == "litert":
        from stepensemble.runtimes.litert import LiteRTModel

        return LiteRTModel(artifact)
    raise ModelRefused(f'no runtime named "{runtime}"; this version has "litert"')
