"""A loaded artifact, and what it takes and gives by name: the part of the contract that every runtime shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stepensemble.core.errors import InputMismatch, InvalidOutput, ModelRefused
from stepensemble.core.problems import enumerate_values, show, suggest

Array = npt.NDArray[Any]

Invoke: TypeAlias = Callable[[Sequence[Array], str], Array]
"""Asks a runtime: values in the order of the signature's inputs, and the output's name. Raises InputMismatch."""

Ask: TypeAlias = Callable[[Sequence[Array]], Array]
"""Asks a model: its inputs, in an order that was said before. Raises what `Model.predict` does."""

MAX_BATCH_ROWS = 16_384
"""Rows that a model is asked together: of many more, what is inside it fits into no cache, and a shard's into little
memory."""

STRING = "string"
"""The dtype of text; the others are NumPy's names."""

SERVING_DEFAULT = "serving_default"
"""The name that TensorFlow gives a signature where nobody chose one."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How whole numbers stand for floats: `float = (number - zero_point) * scale`."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output.

    Attributes:
        dtype: NumPy's name of it, or "string".
        shape: of one row, without the batch; None in it where any size will do, and instead of it where the model does
            not say.
        quantization: where floats are quantized on their way in, and dequantized on their way out.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        name: None where the artifact lists no signatures.
        batch: how many rows the model takes at once; None where any number will do, of which it is asked `AT_ONCE`. A
            model of one row at a time is asked row by row.
    """

    name: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int | None


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded artifact: expensive to load, cheap to ask, from one thread."""

    signature: Signature
    invoke: Invoke

    def predict(self, inputs: Mapping[str, Array] | Array, output: str | None = None) -> Array:
        """Ask the model about some rows.

        Args:
            inputs: input name to `(rows, …)`; the name "" stands for the input of a model that has one, and so does an
                array without a name. Floats for a quantized input are quantized; every other dtype must be the
                input's own, or become it exactly: widened (float32 to float64, int32 to int64), or whole numbers, such
                as indices, for an int32 or int64 input. A float32 input takes float64 too, rounded.
            output: which output is wanted; None where the model has one.

        Returns:
            That output, `(rows, …)`: float32 where it is quantized, text where it is text.

        Raises:
            InputMismatch: the model does not take these inputs, or has no such output.
            InvalidOutput: the output is meant to be text, and is not; or its parts do not go together.
        """
        signature = self.signature
        wanted = select_output(signature, output)
        values = self._bind(inputs)
        rows, batch = len(values[0]), signature.batch
        if rows == batch or (batch is None and rows <= MAX_BATCH_ROWS):
            answer = self.invoke(values, wanted.name)
        elif batch is None or batch == 1:
            # Resizing a model of one row would be faster, and wrong where something inside relies on that.
            size = batch or MAX_BATCH_ROWS
            parts = ([value[start : start + size] for value in values] for start in range(0, rows, size))
            answer = _join([self.invoke(part, wanted.name) for part in parts])
        else:
            raise InputMismatch(f"the model takes exactly {batch} rows at once, and {rows} came")
        if wanted.quantization is not None:
            return dequantize(answer, wanted.quantization)
        return _decode(answer) if wanted.dtype == STRING else answer

    def prepare(self, like: Mapping[str, Array], output: str | None = None) -> Ask:
        """Return what asks as `predict` does, and looks once at what inputs are like, not at each call.

        Args:
            like: inputs of the names, shapes and dtypes that all will have, in the order in which they will come.
            output: as for `predict`.
        """
        signature, names = self.signature, list(like)

        def ask(inputs: Sequence[Array]) -> Array:
            return self.predict(dict(zip(names, inputs, strict=True)), output)

        try:
            wanted, values = select_output(signature, output), self._bind(like)
        except InputMismatch:  # and each call says so
            return ask
        order = [0] if "" in like else [names.index(tensor.name) for tensor in signature.inputs]
        as_given = all(like[names[place]] is value for place, value in zip(order, values, strict=True))
        as_told = wanted.quantization is None and wanted.dtype != STRING
        if not as_given or not as_told or signature.batch not in (None, len(values[0])):
            return ask
        invoke, name = self.invoke, wanted.name
        if order == list(range(len(names))):
            return lambda inputs: invoke(inputs, name)
        return lambda inputs: invoke([inputs[place] for place in order], name)

    def _bind(self, inputs: Mapping[str, Array] | Array) -> Sequence[Array]:
        """Check inputs against the signature; return them in its order, as the runtime takes them."""
        tensors = self.signature.inputs
        if len(tensors) == 1:
            if isinstance(inputs, np.ndarray):
                values = [cast_input(inputs, tensors[0], "the model")]
            elif len(inputs) == 1 and "" in inputs:
                values = [cast_input(inputs[""], tensors[0], "the model")]
            else:
                values = self._bind_names(inputs)
        else:
            if isinstance(inputs, np.ndarray) or "" in inputs:
                names = enumerate_values(tensor.name for tensor in tensors)
                raise InputMismatch(f"the model has the inputs {names}; say which columns each of them takes")
            values = self._bind_names(inputs)
        if len(values[0]) == 0:
            raise InputMismatch("no rows came")
        return values

    def _bind_names(self, inputs: Mapping[str, Array]) -> list[Array]:
        tensors = self.signature.inputs
        names = [tensor.name for tensor in tensors]
        for name in inputs:
            if name not in names:
                near = suggest(name, names)
                raise InputMismatch(f"the model has no input {show(name)}, but {enumerate_values(names)}{near}")
        absent = [name for name in names if name not in inputs]
        if absent:
            raise InputMismatch(f"nothing came for the input {enumerate_values(absent)}")
        values = [cast_input(inputs[tensor.name], tensor, f"the input {show(tensor.name)}") for tensor in tensors]
        if len({len(value) for value in values}) > 1:
            rows = ", ".join(f"{len(value)} for {show(name)}" for name, value in zip(names, values, strict=True))
            raise InputMismatch(f"every input takes the same number of rows, and there are {rows}")
        return values


def select_output(signature: Signature, name: str | None) -> Tensor:
    """Return the output that is wanted: the one of that name, or the only one.

    Raises:
        InputMismatch: there is no such output, or several and none is wanted.
    """
    if name is None and len(signature.outputs) == 1:
        return signature.outputs[0]
    for tensor in signature.outputs:
        if tensor.name == name:
            return tensor
    names = [tensor.name for tensor in signature.outputs]
    if name is None:
        raise InputMismatch(f"the model has the outputs {enumerate_values(names)}; say which one is wanted")
    raise InputMismatch(f"the model has no output {show(name)}, but {enumerate_values(names)}{suggest(name, names)}")


def _join(parts: Sequence[Array]) -> Array:
    """Put together what a model said of rows, part after part; one number of all rows is left for others to refuse."""
    if not parts[0].shape:
        return parts[0]
    try:
        return np.concatenate(parts)
    except ValueError:
        shapes = enumerate_values(sorted({str(list(part.shape)) for part in parts}))
        raise InvalidOutput(f"the output is no entry a row: of parts of the rows it has the shapes {shapes}") from None


TEXT_REMEDY = (
    'no feature carries text to a model: cut the model behind its lookup, and declare the feature as a "category" with '
    "the lookup's vocabulary, or as a \"tensor\" of the words' numbers (docs/formats.md, Text)"
)


def cast_input(value: Array, tensor: Tensor, who: str) -> Array:
    """Return a value as an input takes it.

    Args:
        value: `(rows, …)`; an input of a bare number a row, `(rows,)`, takes `(rows, 1)` too, as one column is.
        tensor: the input.
        who: names it in errors.

    Raises:
        InputMismatch: of another shape, or of a dtype that does not become the input's exactly.
    """
    if value.shape[1:] != tensor.shape or not value.shape:
        if tensor.shape == () and value.shape[1:] == (1,):
            value = value[:, 0]
        _check_shape(value, tensor, who)
    if value.dtype == tensor.dtype:
        return value
    if tensor.dtype == STRING:
        if value.dtype.kind in "USO":
            return np.array(
                [text if isinstance(text, bytes) else str(text).encode() for text in value.flat], object
            ).reshape(value.shape)
    elif value.dtype.kind == "f" and tensor.quantization is not None:
        return quantize(value, tensor.quantization, tensor.dtype)
    elif value.dtype == np.float64 and tensor.dtype == "float32":  # another member of the ensemble takes float64
        return _narrow(value, who)
    elif value.dtype.kind == np.dtype(tensor.dtype).kind and np.can_cast(value.dtype, tensor.dtype, "safe"):
        return value.astype(tensor.dtype)
    elif value.dtype.kind == "f" and tensor.dtype in ("int32", "int64"):
        return _as_whole(value, tensor.dtype, who)
    more = ""
    if value.dtype.kind == "f" and tensor.dtype in ("int8", "uint8", "int16"):
        more = f", which it has no quantization for: give it a tensor feature of dtype {tensor.dtype}"
    if tensor.dtype == STRING:
        more = f"; {TEXT_REMEDY}"
    raise InputMismatch(f"{who} takes {tensor.dtype}, and its columns are {value.dtype.name}{more}")


def _narrow(values: Array, who: str) -> Array:
    with np.errstate(over="ignore"):
        narrowed: Array = values.astype(np.float32)
    infinite = np.isinf(narrowed) & np.isfinite(values)
    if infinite.any():
        raise InputMismatch(f"{who} takes float32, and row {_first_row(infinite)} of its columns is too large for that")
    return narrowed


NO_WHOLE = "holds no whole number"
"""By which an error is known whose remedy depends on where the rows come from."""


def _as_whole(values: Array, dtype: str, who: str) -> Array:
    """Return whole numbers, such as indices into a vocabulary, that columns hold as floats."""
    # Beyond that a float has no neighbours one apart.
    digits = 53 if values.dtype == np.float64 else 24
    limits = np.iinfo(dtype)
    with np.errstate(invalid="ignore"):
        whole = (values == np.rint(values)) & (np.abs(values) < 2.0**digits)
        whole &= (values >= limits.min) & (values <= limits.max)
    if not whole.all():
        most = "2^31" if dtype == "int32" and digits == 53 else f"2^{digits}"
        more = '; for greater ones give their features "dtype": "float64"' if digits == 24 else ""
        raise InputMismatch(
            f"{who} takes {dtype}, and row {_first_row(~whole)} of its columns {NO_WHOLE} below {most}{more}"
        )
    return values.astype(dtype)


def _first_row(found: npt.NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(found.reshape(len(found), -1).any(axis=1))[0])


def _check_shape(value: Array, tensor: Tensor, who: str) -> None:
    if value.ndim == 0:
        raise InputMismatch(f"{who} takes rows, and one number came")
    if tensor.shape is None:
        return
    got = value.shape[1:]
    fits = len(got) == len(tensor.shape) and all(
        wanted in (None, size) for wanted, size in zip(tensor.shape, got, strict=True)
    )
    if not fits:
        wanted = "[" + ", ".join("any" if size is None else str(size) for size in tensor.shape) + "] numbers"
        if not tensor.shape:
            wanted = "one number"
        raise InputMismatch(f"{who} takes {wanted} a row, and its columns give {list(got)}")


def quantize(values: Array, quantization: Quantization, dtype: str) -> Array:
    """Return floats as the whole numbers that stand for them: `round(value / scale) + zero_point`, saturated.

    Exact halves go to the even number, as in XNNPACK, which is what LiteRT quantizes by unless it is told otherwise;
    its reference kernel (`reference/quantize.h`, `TfLiteRound`) rounds them away from zero. A test holds that a model
    that quantizes by itself answers the same.

    Raises:
        InputMismatch: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise InputMismatch("a value that is not finite cannot be quantized")
    limits = np.iinfo(dtype)
    inverse = np.float32(1) / np.float32(quantization.scale)
    numbers = np.rint(values.astype(np.float32) * inverse) + np.float32(quantization.zero_point)
    whole: Array = np.clip(numbers, limits.min, limits.max).astype(dtype)
    return whole


def dequantize(numbers: Array, quantization: Quantization) -> Array:
    """Return the float32 values that whole numbers stand for: `(number - zero_point) * scale`."""
    values: Array = (numbers.astype(np.float32) - np.float32(quantization.zero_point)) * np.float32(quantization.scale)
    return values


def _decode(answer: Array) -> Array:
    """Return text; U+FFFD stands for what is not UTF-8, so that one row's text does not fail the others'."""
    texts = [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in answer.flat]
    return np.array(texts, dtype=np.str_).reshape(answer.shape)


def select_signature(names: Iterable[str], wanted: str | None) -> str | None:
    """Return the name of the signature to use; None where the artifact lists none.

    That is the one that is wanted, else the only one, else "serving_default".

    Raises:
        ModelRefused: there is no such signature, or several and none is wanted.
    """
    known = sorted(names)
    if wanted is not None:
        if wanted in known:
            return wanted
        if not known:
            raise ModelRefused(
                f"the model lists no signatures, so it has none named {show(wanted)}; leave the name out"
            )
        near = suggest(wanted, known)
        raise ModelRefused(f"the model has no signature {show(wanted)}, but {enumerate_values(known)}{near}")
    if not known:
        return None
    if len(known) == 1:
        return known[0]
    if SERVING_DEFAULT in known:
        return SERVING_DEFAULT
    raise ModelRefused(f"the model has the signatures {enumerate_values(known)}; say which one is wanted")


def describe(name: str | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Signature:
    """Return a signature of tensors whose shapes still have the batch in front.

    Raises:
        ModelRefused: there are no inputs or outputs, or the inputs have no batch, or contradict each other about it.
    """
    if not inputs or not outputs:
        raise ModelRefused(f"the model has {len(inputs)} inputs and {len(outputs)} outputs; it needs one of each")
    for tensor in inputs:
        if tensor.shape == ():
            raise ModelRefused(
                f"the input {show(tensor.name)} is a single number; every input needs a first dimension, for rows"
            )
    sizes = {tensor.shape[0] for tensor in inputs if tensor.shape} - {None}
    if len(sizes) > 1:
        numbers = " and ".join(str(size) for size in sorted(size for size in sizes if size is not None))
        raise ModelRefused(f"the inputs take different numbers of rows at once, {numbers}; they must take the same")
    return Signature(name, tuple(map(_of_a_row, inputs)), tuple(map(_of_a_row, outputs)), next(iter(sizes), None))


def _of_a_row(tensor: Tensor) -> Tensor:
    return replace(tensor, shape=None if tensor.shape is None else tensor.shape[1:])
