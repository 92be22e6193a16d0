"""Converts a model file to an artifact that can be served.

A `.tflite` file is served unchanged. TensorFlow reads every other format and converts it to LiteRT. If an operation
cannot be converted, or the converted model's outputs differ, the artifact is the SavedModel, for the `tensorflow`
runtime. Files are read, converted and run in child processes only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msgspec import structs

from stepensemble.conversion.child_process import Crash, run_in_child
from stepensemble.conversion.contract_inference import GoldenColumns
from stepensemble.conversion.export import Export, Exported
from stepensemble.conversion.formats import Format, Source, read_source
from stepensemble.conversion.parity import Labels, Parity, Tolerance, compare_outputs
from stepensemble.conversion.safety import check_keras_config
from stepensemble.conversion.sandbox import Inputs, SandboxRequest, pack_arrays, run_artifact, unpack_arrays
from stepensemble.core.arrays import Array
from stepensemble.core.errors import ConversionFailed, EnsembleError, MemberError, TensorFlowMissing
from stepensemble.runtimes import Signature
from stepensemble.runtimes.archives import read_archive

SECONDS = 600.0
"""Time limit for one conversion, with TensorFlow's import."""

JobRunner = Callable[[Sequence[Any], type[Exported], float], list[Exported | EnsembleError | Crash]]
"""Runs jobs: `child_process.run_in_child`, unless the caller has imported TensorFlow already."""


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """How a model file is read.

    Attributes:
        signature: which of its signatures to use; by default the only one, else "serving_default".
        architecture: the JSON file of a Keras model, for an `.h5` file that has only weights.
        trust: accept a model that could run code. A pickle is rejected in any case.
    """

    signature: str | None = None
    architecture: Path | None = None
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Converted:
    """The artifact that a model file was converted to.

    Attributes:
        source: the format of the model file.
        reason: why it is not LiteRT; None if it is.
        parity: how the LiteRT file compares with TensorFlow; None if there is nothing to compare.
        outputs: the artifact's outputs for the golden or drawn rows, by name.
        needs_trust: whether it is a SavedModel that could do more than compute, and was trusted.
    """

    artifact: bytes
    runtime: Literal["litert", "tensorflow"]
    signature: Signature
    source: Format
    reason: str | None
    parity: Parity | None
    outputs: Mapping[str, Array]
    needs_trust: bool = False


def convert(
    path: Path,
    options: ConversionOptions | None = None,
    *,
    golden: Inputs | GoldenColumns | None = None,
    labels: Labels | None = None,
    tolerance: Tolerance | None = None,
    run: JobRunner = run_in_child,
) -> Converted:
    """Convert a model file or folder to an artifact.

    The same file gives the same bytes, on one machine with the same TensorFlow.

    Args:
        path: a `.tflite`, `.keras` or `.h5` file, a SavedModel folder, or a zip of one.
        options: how the file is read.
        golden: rows to compare on, by input or by column; drawn from the signature by default.
        labels: returns the label of every row of an output, if the task has classes.
        tolerance: how far LiteRT may be from TensorFlow.
        run: runs the job that needs TensorFlow.

    Raises:
        ModelFileError: it is not a known model file, is damaged or unsafe, or TensorFlow cannot read it.
        ModelRefused: its runtime cannot load it, or it has no such signature.
        InputMismatch: it does not take the golden rows.
        TensorFlowMissing: it has to be converted, and TensorFlow is not installed.
    """
    options = options or ConversionOptions()
    source = read_source(path)
    if source.format == "litert":
        return _keep_litert(source, options.signature, golden)
    exported = _export(source, options, golden, run)
    parity, reason = None, exported.failure
    if exported.litert is not None:
        parity, reason, outputs = _compare(exported.litert, exported, labels, tolerance or Tolerance())
        if reason is None:
            return Converted(exported.litert, "litert", exported.signature, source.format, None, parity, outputs)
    outputs = unpack_arrays(exported.outputs)
    return Converted(
        exported.saved_model,
        "tensorflow",
        exported.signature,
        source.format,
        reason,
        parity,
        outputs,
        exported.needs_trust,
    )


def _keep_litert(source: Source, signature: str | None, golden: Inputs | GoldenColumns | None) -> Converted:
    request = SandboxRequest("litert", source.body, signature, None)
    if isinstance(golden, GoldenColumns):
        golden = golden.bind(run_artifact(replace(request, batches=())).signature)
    if golden is not None:
        request = replace(request, batches=(golden,))
    result = run_artifact(request)
    return Converted(source.body, "litert", result.signature, source.format, None, None, result.outputs[0])


def _read_architecture(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionFailed(
            f"the architecture {path} cannot be read: {error}; give the JSON of model.to_json()"
        ) from None


def _export(
    source: Source, options: ConversionOptions, golden: Inputs | GoldenColumns | None, run: JobRunner
) -> Exported:
    architecture = _read_architecture(options.architecture)
    if source.format == "keras" and not options.trust:
        # The child checks it too; here, an unsafe file is rejected without TensorFlow.
        check_keras_config(read_archive(source.body)["config.json"], source.name)
    if importlib.util.find_spec("tensorflow") is None:
        raise TensorFlowMissing(
            f"{source.name} has to be converted by TensorFlow, which is not installed: "
            "pip install 'stepensemble[tensorflow]', or give a .tflite file"
        )
    job = Export(source.name, source.format, source.body, architecture, options.signature, options.trust, None)
    if isinstance(golden, GoldenColumns):
        bound = None if golden.inputs is None else {name: tuple(taken) for name, taken in golden.inputs.items()}
        job = structs.replace(job, columns=pack_arrays(golden.columns), bound=bound)
    elif golden is not None:
        job = structs.replace(job, inputs=pack_arrays(golden))
    match run([job], Exported, SECONDS)[0]:
        case Exported() as exported:
            return exported
        case EnsembleError() as error:
            raise error
        case Crash(reason=reason):
            raise ConversionFailed(f"TensorFlow read {source.name} in a child process, and {reason}")


class _Comparison(NamedTuple):
    """How the LiteRT file compares; `reason` is why it is not served, None if it is."""

    parity: Parity | None
    reason: str | None
    outputs: Mapping[str, Array]


def _compare(litert: bytes, exported: Exported, labels: Labels | None, tolerance: Tolerance) -> _Comparison:
    """Compare the outputs of the LiteRT file with TensorFlow's."""
    request = SandboxRequest("litert", litert, exported.signature.name, (unpack_arrays(exported.inputs),))
    try:
        outputs = run_artifact(request).outputs[0]
    except MemberError as error:
        return _Comparison(None, f"the file converted to LiteRT does not run: {error}", {})
    parity = compare_outputs(unpack_arrays(exported.outputs), outputs, labels)
    if parity.holds(tolerance):
        return _Comparison(parity, None, outputs)
    return _Comparison(parity, f"LiteRT's outputs differ from TensorFlow's: {parity}", outputs)
