"""Try artifacts in a process of their own, before they are asked in anybody else's.

LiteRT does not check all of a file that it reads: of the files that one flipped bit makes, some end the process.
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
"""For each artifact, TensorFlow's import included."""

PATIENCE = 10.0
"""Seconds of predicting after which only what must be predicted still is."""

STATUS = Path("/proc/self/status")

Inputs = Mapping[str, Array] | Array
"""As `Model.predict` takes them."""


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """What to try.

    Attributes:
        batches: inputs to ask for, one call each; none, where only the signature is wanted; None for a batch drawn from
            the signature.
        output: the output that is wanted; all of them by default.
        must: how many of the batches are predicted even if that takes longer than `PATIENCE`; all of them by default.
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
    """What an artifact showed.

    Attributes:
        outputs: for every batch that there was time for, output name to `(rows, …)`.
        load_ms: without the runtime's import.
        predict_ms: for every batch, all its outputs.
        peak_bytes: the most memory the process has filled so far: alone in its process, what the artifact needs with
            Python and its runtime.
    """

    signature: Signature
    outputs: tuple[dict[str, Array], ...]
    load_ms: float
    predict_ms: tuple[float, ...]
    peak_bytes: int


class PackedResult(Struct, frozen=True):
    """`Tried` as it travels: arrays as NumPy files."""

    signature: Signature
    outputs: list[dict[str, bytes]]
    load_ms: float
    predict_ms: list[float]
    peak_bytes: int


class PackedRequest(Struct, frozen=True, tag="try"):
    """`Attempt` as it travels."""

    runtime: str
    artifact: bytes
    signature: str | None
    batches: list[dict[str, bytes]] | None
    output: str | None
    min_batches: int | None = None
    trusted: bool = False

    def run(self) -> PackedResult:
        """Load and ask, in this process.

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
            if self.min_batches is not None and number >= self.min_batches and sum(predict_ms) > PATIENCE * 1000:
                break
            started = time.perf_counter()
            answers = {name: model.predict(inputs, name) for name in names}
            predict_ms.append((time.perf_counter() - started) * 1000)
            outputs.append(pack_arrays(answers))
        return PackedResult(model.signature, outputs, load_ms, predict_ms, _peak())


def run_artifacts(attempts: Sequence[SandboxRequest], seconds: float = SECONDS) -> list[SandboxResult | MemberError]:
    """Load and ask artifacts in a child process; return what each showed, or why it is refused.

    An artifact that ends the process is refused; the others are tried all the same.
    """
    jobs = [
        PackedRequest(
            one.runtime,
            one.artifact,
            one.signature,
            None if one.batches is None else [pack_arrays(batch) for batch in one.batches],
            one.output,
            one.min_batches,
            one.trusted,
        )
        for one in attempts
    ]
    return [
        _judge(result, one) for result, one in zip(run_in_child(jobs, PackedResult, seconds), attempts, strict=True)
    ]


def run_artifact(attempt: SandboxRequest, seconds: float = SECONDS) -> SandboxResult:
    """Load and ask one artifact in a child process of its own.

    Raises:
        MemberError: it is refused, does not take the inputs, or ended the process.
    """
    result = run_artifacts([attempt], seconds)[0]
    if isinstance(result, MemberError):
        raise result
    return result


def _judge(result: object, attempt: SandboxRequest) -> SandboxResult | MemberError:
    match result:
        case PackedResult():
            outputs = tuple(unpack_arrays(batch) for batch in result.outputs)
            return SandboxResult(result.signature, outputs, result.load_ms, tuple(result.predict_ms), result.peak_bytes)
        case MemberError():
            return result
        case Crash(reason=reason):
            return ModelRefused(
                f"tried in a process of its own by {attempt.runtime}, {reason}; the file is damaged, or asks for more "
                "than there is: make it again"
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
        ModelRefused: a file is none of NumPy's: the process that wrote it was not itself.
    """
    try:
        return {name: array_from_bytes(body) for name, body in files.items()}
    except (ValueError, OSError, EOFError) as error:
        raise ModelRefused(f"what came is no array: {error}") from None


def _import(runtime: str) -> None:
    """Import what a runtime needs, so that a load that is timed is only a load."""
    if runtime == "litert":
        import ai_edge_litert.interpreter  # noqa: F401 - only to have it imported
    elif runtime == "tensorflow":
        import_tensorflow()


def _peak() -> int:
    """Return the most bytes this process has filled.

    Not by getrusage where there is a better way: Linux counts in what the parent had when it started this process.
    """
    try:
        return next(
            int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")
        )
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
