"""Runtimes: what executes an artifact. Each module holds one loader; `load_model` picks it by the manifest's name.

A `Model` is cheap to ask and expensive to load: load once, ask many times, from one thread. `model` holds what the
runtimes share, `archives` how the `tensorflow` runtime's artifacts are packed.
"""

from __future__ import annotations

from stepensemble.core.errors import ModelRefused
from stepensemble.core.problems import show
from stepensemble.runtimes.model import Model, Quantization, Signature, Tensor

__all__ = ["RUNTIMES", "Model", "Quantization", "Signature", "Tensor", "load_model"]

RUNTIMES = ("litert", "tensorflow")


def load_model(runtime: str, artifact: bytes, signature: str | None = None, *, trusted: bool = False) -> Model:
    """Load an artifact.

    Args:
        runtime: "litert" or "tensorflow".
        artifact: for the one a `.tflite` file, for the other a SavedModel in a zip.
        signature: which of the artifact's signatures to use; by default the only one, else "serving_default".
        trusted: load a SavedModel whatever its graph could do besides computing; a LiteRT file can do nothing else.

    Raises:
        ModelRefused: the runtime is unknown or not installed, or cannot read the artifact, or it has no such signature.
    """
    if runtime == "litert":
        from stepensemble.runtimes.litert import load_litert

        return load_litert(artifact, signature)
    if runtime == "tensorflow":
        from stepensemble.runtimes.tensorflow import load_tensorflow

        return load_tensorflow(artifact, signature, trusted=trusted)
    names = ", ".join(show(name) for name in RUNTIMES)
    raise ModelRefused(f"no runtime named {show(runtime)}; this version has {names}")
