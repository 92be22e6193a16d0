"""A loaded model with its inputs and outputs by name: the contract that all runtimes share."""

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
"""Runs a model: values in the order of the signature's inputs, and the output's name. Raises InputMismatch."""

PreparedPredict: TypeAlias = Callable[[Sequence[Array]], Array]
"""Predicts from inputs in the order that `Model.prepare` was given. Raises what `Model.predict` does."""

MAX_BATCH_ROWS = 16_384
"""Maximum rows of a call: with many more, the model's intermediate values do not fit into a cache, and those of a shard
need much memory."""

STRING = "string"
"""The dtype of text; the others are NumPy's names."""

SERVING_DEFAULT = "serving_default"
"""The name that TensorFlow gives a signature by default."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How integers represent floats: `float = (number - zero_point) * scale`."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output.

    Attributes:
        dtype: NumPy's name of it, or "string".
        shape: of one row, without the batch; a size is None if it is variable, and the shape is None if it is unknown.
        quantization: if set, floats are quantized for an input, and dequantized for an output.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs.

    Attributes:
        name: None if the artifact lists no signatures.
        batch: how many rows a call takes; None for any number, of which a call then gets at most `MAX_BATCH_ROWS`. A
            model with a batch of 1 is called row by row.
    """

    name: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int | None


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded artifact: expensive to load, cheap to run, for use from one thread."""

    signature: Signature
    invoke: Invoke

    def predict(self, inputs: Mapping[str, Array] | Array, output: str | None = None) -> Array:
        """Predict rows.

        Args:
            inputs: input name to `(rows, …)`; the only input of a model may be named "", or be an array without a name.
                Floats for a quantized input are quantized. Any other dtype must be the input's own, or convert to it
                exactly: widened (float32 to float64, int32 to int64), or whole numbers, such as indices, for an int32
                or int64 input. A float32 input takes float64 too, rounded.
            output: the name of the output; None for the only output.

        Returns:
            That output, `(rows, …)`: float32 if it is quantized, text if it is text.

        Raises:
            InputMismatch: the model does not take these inputs, or has no such output.
            InvalidOutput: the output of several calls cannot be joined row by row.
        """
        signature = self.signature
        tensor = select_output(signature, output)
        values = self._bind(inputs)
        rows, batch = len(values[0]), signature.batch
        if rows == batch or (batch is None and rows <= MAX_BATCH_ROWS):
            result = self.invoke(values, tensor.name)
        elif batch is None or batch == 1:
            # Resizing a model with a batch of 1 would be faster, and wrong if its graph relies on one row.
            size = batch or MAX_BATCH_ROWS
            parts = ([value[start : start + size] for value in values] for start in range(0, rows, size))
            result = _join([self.invoke(part, tensor.name) for part in parts])
        else:
            raise InputMismatch(f"the model takes exactly {batch} rows at once, and got {rows}")
        if tensor.quantization is not None:
            return dequantize(result, tensor.quantization)
        return _decode_text(result) if tensor.dtype == STRING else result

    def prepare(self, like: Mapping[str, Array], output: str | None = None) -> PreparedPredict:
        """Return a function that predicts like `predict`, but checks the inputs only here and not at each call.

        Args:
            like: inputs with the names, shapes, dtypes and order of all inputs to come.
            output: as for `predict`.
        """
        signature, names = self.signature, list(like)

        def predict_checked(inputs: Sequence[Array]) -> Array:
            return self.predict(dict(zip(names, inputs, strict=True)), output)

        try:
            tensor, values = select_output(signature, output), self._bind(like)
        except InputMismatch:  # each call raises it
            return predict_checked
        order = [0] if "" in like else [names.index(tensor.name) for tensor in signature.inputs]
        takes_unchanged = all(like[names[place]] is value for place, value in zip(order, values, strict=True))
        gives_unchanged = tensor.quantization is None and tensor.dtype != STRING
        if not takes_unchanged or not gives_unchanged or signature.batch not in (None, len(values[0])):
            return predict_checked
        invoke, name = self.invoke, tensor.name
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
                raise InputMismatch(f"the model has the inputs {names}; list the columns that each of them takes")
            values = self._bind_names(inputs)
        if len(values[0]) == 0:
            raise InputMismatch("there are no rows")
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
            raise InputMismatch(f"there are no values for the input {enumerate_values(absent)}")
        values = [cast_input(inputs[tensor.name], tensor, f"the input {show(tensor.name)}") for tensor in tensors]
        if len({len(value) for value in values}) > 1:
            rows = ", ".join(f"{len(value)} for {show(name)}" for name, value in zip(names, values, strict=True))
            raise InputMismatch(f"every input takes the same number of rows, and there are {rows}")
        return values


def select_output(signature: Signature, name: str | None) -> Tensor:
    """Return the output of that name, or the only one.

    Raises:
        InputMismatch: there is no output of that name, or no name and several outputs.
    """
    if name is None and len(signature.outputs) == 1:
        return signature.outputs[0]
    for tensor in signature.outputs:
        if tensor.name == name:
            return tensor
    names = [tensor.name for tensor in signature.outputs]
    if name is None:
        raise InputMismatch(f"the model has the outputs {enumerate_values(names)}; choose one of them")
    raise InputMismatch(f"the model has no output {show(name)}, but {enumerate_values(names)}{suggest(name, names)}")


def _join(parts: Sequence[Array]) -> Array:
    """Join outputs for parts of the rows; an output without rows is returned unchanged, to be rejected later."""
    if not parts[0].shape:
        return parts[0]
    try:
        return np.concatenate(parts)
    except ValueError:
        shapes = enumerate_values(sorted({str(list(part.shape)) for part in parts}))
        raise InvalidOutput(
            f"the output has no entry for each row: for parts of the rows it has the shapes {shapes}"
        ) from None


TEXT_REMEDY = (
    'no feature passes text to a model: cut the model after its lookup, and declare the feature as a "category" with '
    "the lookup's vocabulary, or as a \"tensor\" of the words' numbers (docs/formats.md, Text)"
)


def cast_input(value: Array, tensor: Tensor, owner: str) -> Array:
    """Return a value as an input takes it.

    Args:
        value: `(rows, …)`; an input of one number a row, `(rows,)`, also takes `(rows, 1)`, the shape of one column.
        tensor: the input.
        owner: the name of the input or the model, for errors.

    Raises:
        InputMismatch: it has another shape, or a dtype that does not convert to the input's exactly.
    """
    if value.shape[1:] != tensor.shape or not value.shape:
        if tensor.shape == () and value.shape[1:] == (1,):
            value = value[:, 0]
        _check_shape(value, tensor, owner)
    if value.dtype == tensor.dtype:
        return value
    if tensor.dtype == STRING:
        cast = _encode_text(value)
    elif value.dtype.kind == "f":
        cast = _cast_floats(value, tensor, owner)
    else:
        cast = _widen(value, tensor.dtype)
    if cast is None:
        more = f"; {TEXT_REMEDY}" if tensor.dtype == STRING else ""
        if value.dtype.kind == "f" and tensor.dtype in ("int8", "uint8", "int16"):
            more = f", which it has no quantization for: give it a tensor feature of dtype {tensor.dtype}"
        raise InputMismatch(f"{owner} takes {tensor.dtype}, and its columns are {value.dtype.name}{more}")
    return cast


def _encode_text(value: Array) -> Array | None:
    """Return text as an array of UTF-8 bytes; None if it is not text."""
    if value.dtype.kind not in "USO":
        return None
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in value.flat]
    return np.array(texts, object).reshape(value.shape)


def _cast_floats(value: Array, tensor: Tensor, owner: str) -> Array | None:
    """Return floats in an input's dtype; None if the input takes no floats."""
    if tensor.quantization is not None:
        return quantize(value, tensor.quantization, tensor.dtype)
    if value.dtype == np.float64 and tensor.dtype == "float32":  # another member of the ensemble takes float64
        return _narrow(value, owner)
    if tensor.dtype in ("int32", "int64"):
        return _as_whole(value, tensor.dtype, owner)
    return _widen(value, tensor.dtype)


def _widen(value: Array, dtype: str) -> Array | None:
    """Return a value in a wider dtype of the same kind; None if the dtype is another."""
    if value.dtype.kind == np.dtype(dtype).kind and np.can_cast(value.dtype, dtype, "safe"):
        return value.astype(dtype)
    return None


def _narrow(values: Array, owner: str) -> Array:
    with np.errstate(over="ignore"):
        narrowed: Array = values.astype(np.float32)
    infinite = np.isinf(narrowed) & np.isfinite(values)
    if infinite.any():
        raise InputMismatch(
            f"{owner} takes float32, and row {_first_row(infinite)} of its columns is too large for that"
        )
    return narrowed


NO_WHOLE = "holds no whole number"
"""Part of an error's message, by which callers recognize it: its remedy depends on the source of the rows."""


def _as_whole(values: Array, dtype: str, owner: str) -> Array:
    """Return floats that are whole numbers, such as indices into a vocabulary, as integers."""
    # From 2^digits on, neighbouring floats are more than 1 apart.
    digits = 53 if values.dtype == np.float64 else 24
    limits = np.iinfo(dtype)
    with np.errstate(invalid="ignore"):
        whole = (values == np.rint(values)) & (np.abs(values) < 2.0**digits)
        whole &= (values >= limits.min) & (values <= limits.max)
    if not whole.all():
        most = "2^31" if dtype == "int32" and digits == 53 else f"2^{digits}"
        more = '; for greater ones give their features "dtype": "float64"' if digits == 24 else ""
        raise InputMismatch(
            f"{owner} takes {dtype}, and row {_first_row(~whole)} of its columns {NO_WHOLE} below {most}{more}"
        )
    return values.astype(dtype)


def _first_row(found: npt.NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(found.reshape(len(found), -1).any(axis=1))[0])


def _check_shape(value: Array, tensor: Tensor, owner: str) -> None:
    if value.ndim == 0:
        raise InputMismatch(f"{owner} takes rows, and got one number")
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
        raise InputMismatch(f"{owner} takes {wanted} a row, and its columns give {list(got)}")


def quantize(values: Array, quantization: Quantization, dtype: str) -> Array:
    """Return floats as the integers that represent them: `round(value / scale) + zero_point`, saturated.

    Exact halves round to the even number, as in XNNPACK, which LiteRT uses by default; LiteRT's reference kernel
    (`reference/quantize.h`, `TfLiteRound`) rounds them away from zero. A test compares the result with that of a model
    that quantizes its own inputs.

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
    """Return the float32 values that integers represent: `(number - zero_point) * scale`."""
    values: Array = (numbers.astype(np.float32) - np.float32(quantization.zero_point)) * np.float32(quantization.scale)
    return values


def _decode_text(output: Array) -> Array:
    """Return text; U+FFFD replaces bytes that are not UTF-8, so that one row's text does not fail the others'."""
    texts = [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in output.flat]
    return np.array(texts, dtype=np.str_).reshape(output.shape)


def select_signature(names: Iterable[str], wanted: str | None) -> str | None:
    """Return the name of the signature to use; None if the artifact lists none.

    That is the wanted one, else the only one, else "serving_default".

    Raises:
        ModelRefused: there is no such signature, or several without a default, and none is wanted.
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
    raise ModelRefused(f"the model has the signatures {enumerate_values(known)}; choose one of them")


def describe(name: str | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Signature:
    """Return a signature of tensors whose shapes still start with the batch.

    Raises:
        ModelRefused: there are no inputs or outputs, or the inputs have no batch, or different ones.
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
    return Signature(name, tuple(map(_drop_batch, inputs)), tuple(map(_drop_batch, outputs)), next(iter(sizes), None))


def _drop_batch(tensor: Tensor) -> Tensor:
    return replace(tensor, shape=None if tensor.shape is None else tensor.shape[1:])
