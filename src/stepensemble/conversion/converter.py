"""From a model file, as people have them, to an artifact that is served.

A `.tflite` file is served as it is. Everything else is read by TensorFlow and converted to LiteRT; where an operation
cannot be converted, or the converted model says something else, the artifact is the SavedModel, for the `tensorflow`
runtime. Nothing of this happens in the process that asks for it: files are tried, read and converted in children.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from msgspec import structs

from stepensemble.conversion.child_process import Crash, run_in_child
from stepensemble.conversion.contract_inference import GoldenColumns
from stepensemble.conversion.export import Export, Exported
from stepensemble.conversion.formats import Format, Source, read_source
from stepensemble.conversion.parity import Labels, Parity, Tolerance, compare_outputs
from stepensemble.conversion.safety import check_keras_config
from stepensemble.conversion.sandbox import SandboxRequest, Inputs, pack_arrays, run_artifact, unpack_arrays
from stepensemble.core.arrays import Array
from stepensemble.core.errors import ConversionFailed, EnsembleError, MemberError, TensorFlowMissing
from stepensemble.runtimes import Signature
from stepensemble.runtimes.archives import read_archive

SECONDS = 600.0
"""For one conversion, TensorFlow's import included."""

JobRunner = Callable[[Sequence[Any], type[Exported], float], list[Exported | EnsembleError | Crash]]
"""Does jobs; `child.run_apart`, but where the caller has TensorFlow in memory anyway."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What a model file became.

    Attributes:
        source: what it was.
        reason: why it is not LiteRT; None where it is.
        parity: how the LiteRT file compares with TensorFlow; None where there is nothing to compare.
        outputs: what the artifact said to the rows it was asked, by output name.
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
    *,
    signature: str | None = None,
    architecture: Path | None = None,
    trust: bool = False,
    golden: Inputs | GoldenColumns | None = None,
    labels: Labels | None = None,
    tolerance: Tolerance | None = None,
    run: JobRunner = run_in_child,
) -> Converted:
    """Make an artifact of a model file or folder.

    The same file gives the same bytes, on one machine with the same TensorFlow.

    Args:
        path: a `.tflite`, `.keras` or `.h5` file, a SavedModel folder, or a zip of one.
        signature: which of its signatures to use; by default the only one, else "serving_default".
        architecture: JSON of the Keras model whose weights alone are in an `.h5` file.
        trust: take it whatever code it would run. A pickle is not taken even so.
        golden: rows to compare on, by input or by column; drawn from the signature by default.
        labels: tells the label of every row from an output, where the task has classes.
        tolerance: how far LiteRT may be from TensorFlow.
        run: does what needs TensorFlow.

    Raises:
        ModelFileError: it is no model file that is known, damaged, unsafe, or TensorFlow cannot read it.
        ModelRefused: its runtime cannot load it, or it has no such signature.
        InputMismatch: it does not take the golden rows.
        TensorFlowMissing: it has to be converted, and TensorFlow is not installed.
    """
    source = read_source(path)
    if source.format == "litert":
        return _as_it_is(source, signature, golden)
    exported = _export(source, signature, _read_architecture(architecture), golden, run, trust=trust)
    parity, reason = None, exported.refused
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


def _as_it_is(source: Source, signature: str | None, golden: Inputs | GoldenColumns | None) -> Converted:
    attempt = SandboxRequest("litert", source.body, signature, None)
    if isinstance(golden, GoldenColumns):
        golden = golden.bind(run_artifact(replace(attempt, batches=())).signature)
    if golden is not None:
        attempt = replace(attempt, batches=(golden,))
    tried = run_artifact(attempt)
    return Converted(source.body, "litert", tried.signature, source.format, None, None, tried.outputs[0])


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
    source: Source,
    signature: str | None,
    architecture: str | None,
    golden: Inputs | GoldenColumns | None,
    run: JobRunner,
    *,
    trust: bool,
) -> Exported:
    if source.format == "keras" and not trust:
        # The child checks it too; refused here, it costs no TensorFlow, and needs none.
        check_keras_config(read_archive(source.body)["config.json"], source.name)
    if importlib.util.find_spec("tensorflow") is None:
        raise TensorFlowMissing(
            f"{source.name} has to be converted, and TensorFlow, which does it, is not installed: "
            "pip install 'stepensemble[tensorflow]', or give a .tflite file"
        )
    job = Export(source.name, source.format, source.body, architecture, signature, trust, None)
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
            raise ConversionFailed(f"{source.name} was given to TensorFlow in a process of its own, and {reason}")


def _compare(
    litert: bytes, exported: Exported, labels: Labels | None, tolerance: Tolerance
) -> tuple[Parity | None, str | None, Mapping[str, Array]]:
    """Return how the LiteRT file compares, why it is not served, if it is not, and what it answers."""
    attempt = SandboxRequest("litert", litert, exported.signature.name, (unpack_arrays(exported.inputs),))
    try:
        answered = run_artifact(attempt).outputs[0]
    except MemberError as error:
        return None, f"the file converted to LiteRT does not run: {error}", {}
    parity = compare_outputs(unpack_arrays(exported.outputs), answered, labels)
    if parity.holds(tolerance):
        return parity, None, answered
    return parity, f"LiteRT answers otherwise than TensorFlow: {parity}", answered
