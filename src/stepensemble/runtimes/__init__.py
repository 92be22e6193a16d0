"""Runtimes load and run artifacts. `litert` and `tensorflow` each have a loader; `load_model` picks one by name.

A `Model` is expensive to load and cheap to run: load it once, and predict many times, from one thread. `model` has what
the runtimes share, `archives` reads and writes the artifacts of the `tensorflow` runtime, and `graph_checks` finds
graphs that could do more than compute: those with operations that `allowed_operations` does not list.
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
        artifact: a `.tflite` file for "litert", a SavedModel in a zip for "tensorflow".
        signature: which of the artifact's signatures to use; by default the only one, else "serving_default".
        trusted: load a SavedModel even if its graph could do more than compute; a LiteRT file can only compute.

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
