"""Make the small LiteRT models that tests ask, each with an answer one can work out by hand.

    .venv/bin/python tests/data/make_models.py     (after make tensorflow)

half_plus_two      y = x / 2 + 2                          one column -> one number
sigmoid            p = 1 / (1 + exp(-x))                  one column -> probability of the second class
softmax            p = softmax([a, b, 0])                 two columns -> three probabilities
sign_label         1 where x > 0, else 0 (int32)          one column -> a label
logarithm          y = log(x), so NaN below zero          one column -> one number
fixed_batch_one    half_plus_two, one row at a time       one column -> one number
fixed_batch_two    half_plus_two, two rows at a time      one column -> one number
two_by_two         y = sum of the four numbers            one tensor of 2 x 2 -> one number
two_inputs         y = a + b from two input tensors       no input that an ensemble can give
one_row_inside     says it takes any number of rows, and reshapes to exactly one
slow               half_plus_two, after seconds of work   one column -> one number
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    "two_by_two": (lambda x: tf.reduce_sum(x, axis=[1, 2], keepdims=True)[:, 0], [[None, 2, 2]]),
    "two_inputs": (lambda a, b: a + b, [[None, 1], [None, 1]]),
    "one_row_inside": (one_row_inside, [[None, 1]]),
    "slow": (slow, [[None, 1]]),
}


def convert(function: Callable[..., Any], shapes: list[list[int | None]]) -> bytes:
    """Convert a function of float32 tensors of these shapes."""
    inputs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    traced = tf.function(function).get_concrete_function(*inputs)
    converted: bytes = tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()
    return converted


def main() -> None:
    """Write every model."""
    MODELS.mkdir(exist_ok=True)
    for name, (function, shapes) in SOURCES.items():
        (MODELS / f"{name}.tflite").write_bytes(convert(function, shapes))


if __name__ == "__main__":
    main()
