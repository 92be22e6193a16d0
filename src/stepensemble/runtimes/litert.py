"""LiteRT, the default runtime: milliseconds to load, microseconds a row, no TensorFlow.

An untested file may crash the process, since LiteRT does not check everything it reads. Published artifacts were run in
a child process before (`conversion/sandbox.py`), and their digests are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepensemble.core.arrays import Array
from stepensemble.core.errors import InputMismatch, ModelRefused
from stepensemble.core.problems import show
from stepensemble.runtimes.model import (
    STRING,
    Invoke,
    Model,
    Quantization,
    Signature,
    Tensor,
    describe,
    select_signature,
)

Details = Mapping[str, Any]
"""The interpreter's description of a tensor."""


def load_litert(artifact: bytes, signature: str | None = None) -> Model:
    """Load a `.tflite` file. Inputs and outputs have the names in its signature, or the tensors' names without one.

    One thread: a Lambda slot has one core's worth of time, and a row's result does not depend on scheduling.

    Raises:
        ModelRefused: it cannot be read, it has no such signature, or an input has no batch dimension.
    """
    from ai_edge_litert.interpreter import Interpreter  # an expensive import, made at the first load

    try:
        interpreter = Interpreter(model_content=artifact, num_threads=1)
        interpreter.allocate_tensors()
        signatures = interpreter.get_signature_list()
        inputs = {str(tensor["name"]): tensor for tensor in interpreter.get_input_details()}
        outputs = {str(tensor["name"]): tensor for tensor in interpreter.get_output_details()}
    except (ValueError, RuntimeError) as error:
        raise ModelRefused(f"LiteRT cannot load the artifact: {error}") from None
    name = select_signature(signatures, signature)
    if name is None:
        return Model(_describe(None, inputs, outputs), _PrimaryGraph(interpreter, inputs, outputs))
    runner = interpreter.get_signature_runner(name)
    primary = _tensors(inputs, outputs)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    # A signature may differ from the graph that the interpreter runs by default. The faster way through the interpreter
    # is only known to give the same result for a single signature with the same tensors.
    is_primary = len(signatures) == 1 and _tensors(inputs, outputs) == primary
    invoke: Invoke = (
        _PrimaryGraph(interpreter, inputs, outputs) if is_primary else _SignatureRunner(runner, tuple(inputs))
    )
    return Model(_describe(name, inputs, outputs), invoke)


class _PrimaryGraph:
    """Runs the interpreter's default graph, and resizes its inputs only when a shape changes."""

    def __init__(self, interpreter: Any, inputs: Mapping[str, Details], outputs: Mapping[str, Details]) -> None:
        self._interpreter = interpreter
        self._inputs = [int(tensor["index"]) for tensor in inputs.values()]
        self._outputs = {name: int(tensor["index"]) for name, tensor in outputs.items()}
        self._shapes: list[tuple[int, ...] | None] = [tuple(map(int, one["shape"])) for one in inputs.values()]

    def __call__(self, values: Sequence[Array], output: str) -> Array:
        try:
            for position, value in enumerate(values):
                if value.shape != self._shapes[position]:
                    self._resize(values)
                    return self(values, output)
                self._interpreter.set_tensor(self._inputs[position], np.ascontiguousarray(value))
            self._interpreter.invoke()
            result: Array = self._interpreter.get_tensor(self._outputs[output])
        except (ValueError, RuntimeError) as error:
            raise InputMismatch(f"LiteRT cannot run the model on {len(values[0])} rows: {error}") from None
        return result

    def _resize(self, values: Sequence[Array]) -> None:
        self._shapes = [None] * len(values)  # until the new shapes are accepted
        for index, value in zip(self._inputs, values, strict=True):
            self._interpreter.resize_tensor_input(index, value.shape)
        self._interpreter.allocate_tensors()
        self._shapes = [value.shape for value in values]


class _SignatureRunner:
    """Runs one signature of several; it resizes and allocates at every call."""

    def __init__(self, runner: Any, inputs: Sequence[str]) -> None:
        self._runner, self._inputs = runner, inputs

    def __call__(self, values: Sequence[Array], output: str) -> Array:
        named = {name: np.ascontiguousarray(value) for name, value in zip(self._inputs, values, strict=True)}
        try:
            result: Array = self._runner(**named)[output]
        except (ValueError, RuntimeError) as error:
            raise InputMismatch(f"LiteRT cannot run the model on {len(values[0])} rows: {error}") from None
        return result


def _tensors(*groups: Mapping[str, Details]) -> list[list[tuple[int, str]]]:
    return [sorted((int(tensor["index"]), str(tensor["name"])) for tensor in group.values()) for group in groups]


def _describe(name: str | None, inputs: Mapping[str, Details], outputs: Mapping[str, Details]) -> Signature:
    return describe(name, [_tensor(*one) for one in inputs.items()], [_tensor(*one) for one in outputs.items()])


def _tensor(name: str, details: Details) -> Tensor:
    text = details["dtype"] in (np.bytes_, np.str_, np.object_)
    sizes = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    shape = tuple(None if size == -1 else int(size) for size in sizes)
    return Tensor(name, STRING if text else np.dtype(details["dtype"]).name, shape, _quantization(name, details))


def _quantization(name: str, tensor: Details) -> Quantization | None:
    parameters = tensor["quantization_parameters"]
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    if len(scales) == 0:
        return None
    if len(scales) > 1:
        raise ModelRefused(f"{show(name)} is quantized by {len(scales)} scales; inputs and outputs may have one")
    return Quantization(float(scales[0]), int(zero_points[0]))
