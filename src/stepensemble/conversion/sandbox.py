"""Loads and runs artifacts in a child process, before any other process loads them.

LiteRT does not check all of a file that it reads: some files with one flipped bit crash the process.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from stepensemble.conversion.child_process import Crash, run_in_child
from stepensemble.conversion.parity import draw_inputs
from stepensemble.core.arrays import Array
from stepensemble.core.errors import MemberError, ModelRefused
from stepensemble.core.preprocessing.columns import array_from_bytes, array_to_bytes
from stepensemble.runtimes import Signature, load_model
from stepensemble.runtimes.tensorflow import import_tensorflow

SECONDS = 120.0
"""Time limit for each artifact, with TensorFlow's import."""

MAX_PREDICT_SECONDS = 10.0
"""Seconds of predicting, after which only the required batches are still predicted."""

STATUS = Path("/proc/self/status")

Inputs = Mapping[str, Array] | Array
"""As `Model.predict` takes them."""


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """An artifact to load, and the batches to predict with it.

    Attributes:
        batches: inputs, one call each; empty to read only the signature; None for one batch drawn from the signature.
        output: the name of the output to compute; all of them by default.
        min_batches: how many batches are predicted even if that takes longer than `MAX_PREDICT_SECONDS`; all of them by
            default.
        trusted: as for `load_model`.
    """

    runtime: str
    artifact: bytes
    signature: str | None = None
    batches: tuple[Inputs, ...] | None = ()
    output: str | None = None
    min_batches: int | None = None
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """An artifact's signature and outputs, with measurements.

    Attributes:
        outputs: for every batch that there was time for, output name to `(rows, …)`.
        load_ms: without the runtime's import.
        predict_ms: for every batch, all its outputs.
        peak_bytes: the most memory that the process has used so far; with one artifact in the process, what that needs
            with Python and its runtime.
    """

    signature: Signature
    outputs: tuple[dict[str, Array], ...]
    load_ms: float
    predict_ms: tuple[float, ...]
    peak_bytes: int


class PackedResult(Struct, frozen=True):
    """`SandboxResult` as it is sent: arrays as NumPy files."""

    signature: Signature
    outputs: list[dict[str, bytes]]
    load_ms: float
    predict_ms: list[float]
    peak_bytes: int


class PackedRequest(Struct, frozen=True, tag="run"):
    """`SandboxRequest` as it is sent."""

    runtime: str
    artifact: bytes
    signature: str | None
    batches: list[dict[str, bytes]] | None
    output: str | None
    min_batches: int | None = None
    trusted: bool = False

    def run(self) -> PackedResult:
        """Load the artifact and predict, in this process.

        Raises:
            MemberError: it cannot be loaded, or does not take the inputs.
        """
        _import(self.runtime)
        started = time.perf_counter()
        model = load_model(self.runtime, self.artifact, self.signature, trusted=self.trusted)
        load_ms = (time.perf_counter() - started) * 1000
        outputs: list[dict[str, bytes]] = []
        predict_ms: list[float] = []
        names = [tensor.name for tensor in model.signature.outputs] if self.output is None else [self.output]
        drawn = [draw_inputs(model.signature)] if self.batches is None else map(unpack_arrays, self.batches)
        for number, inputs in enumerate(drawn):
            if (
                self.min_batches is not None
                and number >= self.min_batches
                and sum(predict_ms) > MAX_PREDICT_SECONDS * 1000
            ):
                break
            started = time.perf_counter()
            computed = {name: model.predict(inputs, name) for name in names}
            predict_ms.append((time.perf_counter() - started) * 1000)
            outputs.append(pack_arrays(computed))
        return PackedResult(model.signature, outputs, load_ms, predict_ms, _read_peak_bytes())


def run_artifacts(requests: Sequence[SandboxRequest], seconds: float = SECONDS) -> list[SandboxResult | MemberError]:
    """Load and run artifacts in a child process; return each one's result, or its error.

    An artifact that crashes the process is rejected; the others are still run.
    """
    jobs = [
        PackedRequest(
            request.runtime,
            request.artifact,
            request.signature,
            None if request.batches is None else [pack_arrays(batch) for batch in request.batches],
            request.output,
            request.min_batches,
            request.trusted,
        )
        for request in requests
    ]
    return [
        _unpack_result(result, request)
        for result, request in zip(run_in_child(jobs, PackedResult, seconds), requests, strict=True)
    ]


def run_artifact(request: SandboxRequest, seconds: float = SECONDS) -> SandboxResult:
    """Load and run one artifact in its own child process.

    Raises:
        MemberError: it cannot be loaded, does not take the inputs, or crashed the process.
    """
    result = run_artifacts([request], seconds)[0]
    if isinstance(result, MemberError):
        raise result
    return result


def _unpack_result(result: object, request: SandboxRequest) -> SandboxResult | MemberError:
    match result:
        case PackedResult():
            outputs = tuple(unpack_arrays(batch) for batch in result.outputs)
            return SandboxResult(result.signature, outputs, result.load_ms, tuple(result.predict_ms), result.peak_bytes)
        case MemberError():
            return result
        case Crash(reason=reason):
            return ModelRefused(
                f"run by {request.runtime} in a child process, {reason}; the file is damaged, or needs more "
                "resources than there are: export it again"
            )
        case _:
            return ModelRefused(str(result))


def pack_arrays(arrays: Inputs) -> dict[str, bytes]:
    """Return arrays as NumPy files; an array without a name is named ""."""
    named = arrays if isinstance(arrays, Mapping) else {"": arrays}
    return {name: array_to_bytes(array) for name, array in named.items()}


def unpack_arrays(files: Mapping[str, bytes]) -> dict[str, Array]:
    """Reverse `pack_arrays`.

    Raises:
        ModelRefused: a file is not a NumPy file, so the process that wrote it cannot be trusted.
    """
    try:
        return {name: array_from_bytes(body) for name, body in files.items()}
    except (ValueError, OSError, EOFError) as error:
        raise ModelRefused(f"the child process returned an invalid array: {error}") from None


def _import(runtime: str) -> None:
    """Import a runtime, so that the load time does not include the import."""
    if runtime == "litert":
        import ai_edge_litert.interpreter  # noqa: F401 - only to have it imported
    elif runtime == "tensorflow":
        import_tensorflow()


def _read_peak_bytes() -> int:
    """Return the most bytes of memory that this process has used.

    getrusage is only the fallback: on Linux it includes the memory of the parent when it started this process.
    """
    try:
        return next(
            int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")
        )
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
