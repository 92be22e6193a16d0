"""Make the small LiteRT models that tests ask, each with an answer one can work out by hand.

    .venv/bin/python tests/data/make_models.py     (after make tensorflow)

half_plus_two      y = x / 2 + 2                          one column -> one number
sigmoid            p = 1 / (1 + exp(-x))                  one column -> probability of the second class
softmax            p = softmax([a, b, 0])                 two columns -> three probabilities
sign_label         1 where x > 0, else 0 (int32)          one column -> a label
logarithm          y = log(x), so NaN below zero          one column -> one number
fixed_batch_one    half_plus_two, one row at a time       one column -> one number
fixed_batch_two    half_plus_two, two rows at a time      one column -> one number
bare               half_plus_two of bare numbers          one column -> one number, of shape [rows]
bare_one           the same, one row at a time            one column -> one number, of shape [1]
two_by_two         y = sum of the four numbers            one tensor of 2 x 2 -> one number
two_inputs         y = a + b from two input tensors       two columns, each an input -> one number
cyclic             y = a b^2 + b c^2 + c a^2              three columns -> one number, the same for b, c, a
one_row_inside     says it takes any number of rows, and reshapes to exactly one
slow               half_plus_two, after seconds of work   one column -> one number
free_width         y = sum of as many numbers as come     one tensor -> one number
batch_mean         p = 1 / (1 + exp(mean - x)), the mean being that of all rows
running_sum        y = sum of this row and those before it
noisy              y = x + a random number in [0, 1)      one column -> one number
counting           y = x + the number of calls so far     one column -> one number
one_number         y = x / 2 + 2, without rows            no input that an ensemble can give
long_plus_one      y = x + 1 (int64)                      one column -> one number
doubles            y = x / 2 + 2 of float64, in float32     one column -> one number
indexed            y = i + x, i whole (int32)             two columns, each an input -> one number
bytes_halved       y = x / 2 of uint8, not quantized      one column -> one number

These list signatures, with names:

named              total = a + b[0] + b[1], first = a     a: one column, b: two columns -> two outputs
signatures         "half": y = x / 2 + 2; "double": y = 2 x
text               label = "no" or "yés" where x > 0, score = x

And these are quantized: x from -16 to 15.875 in steps of 1/8, y = x / 2 + 2, of which whole numbers stand for all:

int8_inside        takes floats, quantizes by itself, and gives floats
int8               takes and gives int8
uint8              takes and gives uint8
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tensorflow as tf

MODELS = Path(__file__).resolve().parent / "models"
SLOW_STEPS = 16_000_000.0  # below 2**24, where float32 still counts by one


def half_plus_two(x: Any) -> Any:
    return x / 2.0 + 2.0


def softmax(x: Any) -> Any:
    return tf.nn.softmax(tf.concat([x, tf.zeros_like(x[:, :1])], axis=1))


def slow(x: Any) -> Any:
    """Count to `SLOW_STEPS`, one by one, in the runtime's own loop; the last two steps are the two of half_plus_two."""
    counted = tf.while_loop(lambda step: step < SLOW_STEPS, lambda step: (step + 1.0,), (0.0,))[0]
    return x / 2.0 + (counted - (SLOW_STEPS - 2.0))


def cyclic(x: Any) -> Any:
    return tf.reduce_sum(x * tf.square(tf.gather(x, [1, 2, 0], axis=1)), axis=1, keepdims=True)


def one_row_inside(x: Any) -> Any:
    return half_plus_two(tf.reshape(x, [1, 1]))


SOURCES: dict[str, tuple[Callable[..., Any], list[list[int | None]]]] = {
    "half_plus_two": (half_plus_two, [[None, 1]]),
    "sigmoid": (tf.sigmoid, [[None, 1]]),
    "softmax": (softmax, [[None, 2]]),
    "sign_label": (lambda x: tf.cast(x > 0.0, tf.int32), [[None, 1]]),
    "logarithm": (tf.math.log, [[None, 1]]),
    "fixed_batch_one": (half_plus_two, [[1, 1]]),
    "fixed_batch_two": (half_plus_two, [[2, 1]]),
    "bare": (half_plus_two, [[None]]),
    "bare_one": (half_plus_two, [[1]]),
    "two_by_two": (lambda x: tf.reduce_sum(x, axis=[1, 2], keepdims=True)[:, 0], [[None, 2, 2]]),
    "two_inputs": (lambda a, b: a + b, [[None, 1], [None, 1]]),
    "cyclic": (cyclic, [[None, 3]]),
    "one_row_inside": (one_row_inside, [[None, 1]]),
    "slow": (slow, [[None, 1]]),
    "batch_mean": (lambda x: tf.sigmoid(x - tf.reduce_mean(x, axis=0)), [[None, 1]]),
    "running_sum": (lambda x: tf.cumsum(x, axis=0), [[None, 1]]),
    "noisy": (lambda x: x + tf.random.uniform(tf.shape(x)), [[None, 1]]),
    "free_width": (lambda x: tf.reduce_sum(x, axis=1, keepdims=True), [[None, None]]),
    "one_number": (half_plus_two, [[]]),
}


def convert(function: Callable[..., Any], shapes: list[list[int | None]]) -> bytes:
    """Convert a function of float32 tensors of these shapes."""
    inputs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    traced = tf.function(function).get_concrete_function(*inputs)
    converted: bytes = tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()
    return converted


def convert_typed(function: Callable[..., Any], shape: list[int | None], *dtypes: tf.DType) -> bytes:
    """Convert a function of tensors of other dtypes."""
    traced = tf.function(function).get_concrete_function(*[tf.TensorSpec(shape, dtype) for dtype in dtypes])
    converted: bytes = tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()
    return converted


def named(a: Any, b: Any) -> dict[str, Any]:
    return {"total": a + tf.reduce_sum(b, axis=1, keepdims=True), "first": tf.identity(a)}


def text(x: Any) -> dict[str, Any]:
    labels = tf.gather(tf.constant(["no", "yés"]), tf.cast(x[:, 0] > 0.0, tf.int32))
    return {"label": labels, "score": x[:, 0]}


SIGNATURES: dict[str, dict[str, tuple[Callable[..., Any], dict[str, int]]]] = {
    "named": {"serving_default": (named, {"a": 1, "b": 2})},
    "signatures": {
        "half": (lambda x: {"y": half_plus_two(x)}, {"x": 1}),
        "double": (lambda x: {"y": x * 2.0}, {"x": 1}),
    },
    "text": {"serving_default": (text, {"x": 1})},
}
"""Functions of float32 columns, and the widths of these."""


def convert_signatures(signatures: dict[str, tuple[Callable[..., Any], dict[str, int]]]) -> bytes:
    """Convert functions to a file that lists them as signatures."""
    traced = {
        name: tf.function(function).get_concrete_function(
            **{key: tf.TensorSpec([None, width], tf.float32, name=key) for key, width in widths.items()}
        )
        for name, (function, widths) in signatures.items()
    }
    with TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures=traced)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(traced))
        converted: bytes = converter.convert()
    return converted


class Counting(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"y": x + self.calls.assign_add(1.0)}


def convert_counting() -> bytes:
    """Convert a model that keeps a number from call to call."""
    counting = Counting()
    with TemporaryDirectory() as folder:
        tf.saved_model.save(counting, folder, signatures=counting.__call__)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.experimental_enable_resource_variables = True
        converted: bytes = converter.convert()
    return converted


QUANTIZED = {"int8_inside": None, "int8": tf.int8, "uint8": tf.uint8}


def convert_quantized(dtype: tf.DType | None) -> bytes:
    """Convert half_plus_two with its numbers quantized, and its input and output too where they have a dtype."""
    weight, bias = tf.constant([[0.5]]), tf.constant([2.0])
    traced = tf.function(lambda x: tf.matmul(x, weight) + bias).get_concrete_function(
        tf.TensorSpec([None, 1], tf.float32)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_rows
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if dtype is not None:
        converter.inference_input_type = converter.inference_output_type = dtype
    converted: bytes = converter.convert()
    return converted


def representative_rows() -> Iterator[list[Any]]:
    """Yield the ends of the range: 256 steps of 1/8 for x, hence of 1/16 for y."""
    for x in (-16.0, 15.875):
        yield [np.array([[x]], dtype=np.float32)]


def main() -> None:
    """Write every model."""
    MODELS.mkdir(exist_ok=True)
    made = {name: convert(function, shapes) for name, (function, shapes) in SOURCES.items()}
    made["long_plus_one"] = convert_typed(lambda x: x + 1, [None, 1], tf.int64)
    made["doubles"] = convert_typed(lambda x: half_plus_two(tf.cast(x, tf.float32)), [None, 1], tf.float64)
    made["indexed"] = convert_typed(lambda i, x: tf.cast(i, tf.float32) + x, [None, 1], tf.int32, tf.float32)
    made["bytes_halved"] = convert_typed(lambda x: tf.cast(x, tf.float32) / 2.0, [None, 1], tf.uint8)
    made["counting"] = convert_counting()
    made |= {name: convert_signatures(signatures) for name, signatures in SIGNATURES.items()}
    made |= {name: convert_quantized(dtype) for name, dtype in QUANTIZED.items()}
    for name, model in made.items():
        (MODELS / f"{name}.tflite").write_bytes(model)


if __name__ == "__main__":
    main()
