"""LiteRT: the default runtime. Milliseconds to load, microseconds a row, no TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stepensemble.core.errors import InputMismatch, ModelRefused

Array = npt.NDArray[Any]


class LiteRTModel:
    """A `.tflite` file with one input and one output, the first dimension being the batch.

    One thread: a Lambda slot has one core's worth of time, and a row's result does not depend on scheduling.
    """

    def __init__(self, artifact: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter  # the expensive import, at the first load only

        try:
            self._interpreter = Interpreter(model_content=artifact, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelRefused(f"LiteRT cannot load the artifact: {error}") from None
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelRefused(f"the model has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
        self._input, self._output = inputs[0], outputs[0]
        self._rows = int(self._input["shape"][0]) if len(self._input["shape"]) else 0
        # A model converted with a fixed batch is asked batch by batch; -1 in the signature says it is free.
        self._resizable = bool(len(self._input["shape_signature"]) and self._input["shape_signature"][0] == -1)

    def predict(self, inputs: Array) -> Array:
        """See `Model.predict`."""
        self._check_input(inputs)
        if self._resizable or len(inputs) == self._rows:
            return self._invoke(inputs)
        if self._rows != 1:
            raise InputMismatch(f"the model takes exactly {self._rows} rows at once, and {len(inputs)} came")
        return np.concatenate([self._invoke(inputs[row : row + 1]) for row in range(len(inputs))])

    def _invoke(self, inputs: Array) -> Array:
        try:
            if len(inputs) != self._rows:
                self._rows = -1  # until the new size is accepted
                self._interpreter.resize_tensor_input(self._input["index"], inputs.shape)
                self._interpreter.allocate_tensors()
                self._rows = len(inputs)
            self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(inputs))
            self._interpreter.invoke()
            output: Array = self._interpreter.get_tensor(self._output["index"])
        except (ValueError, RuntimeError) as error:
            raise InputMismatch(f"LiteRT cannot run the model on {len(inputs)} rows: {error}") from None
        return output

    def _check_input(self, inputs: Array) -> None:
        expected = tuple(int(size) for size in self._input["shape"])[1:]
        if inputs.shape[1:] != expected:
            raise InputMismatch(
                f"the model takes {list(expected)} numbers a row, and its columns give {list(inputs.shape[1:])}"
            )
        if inputs.dtype != self._input["dtype"]:
            wanted = np.dtype(self._input["dtype"]).name
            raise InputMismatch(f"the model takes {wanted}, and its columns are {inputs.dtype.name}")
