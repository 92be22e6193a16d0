"""The three convolutional networks that make up the ensemble.

Each takes images of 8 by 8 grey pixels, 0 to 1, and returns a logit or a probability for each digit. Sizes and the
number of epochs were checked by cross-validation within the training digits (`train.py --cross-validate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import keras
from keras import layers, regularizers

Tensor: TypeAlias = keras.KerasTensor
Body = Callable[[Tensor], Tensor]
"""Takes the image; returns the input of the last layer."""

PENALTY = 1e-4
"""L2 on the weights of every layer."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture, its training and the form in which it is served.

    Attributes:
        body: the layers between the image and the last layer, which has a unit for each digit.
        quantized: served in 8-bit integers from input to output, with logits; else in floats, with probabilities.
        epochs: number of passes over the training digits.
    """

    body: Body
    quantized: bool = False
    epochs: int = 40

    @property
    def output(self) -> str:
        """The name of its output."""
        return "logits" if self.quantized else "probabilities"

    def build(self) -> keras.Model:
        """Return the untrained model."""
        image = keras.Input((8, 8, 1), name="image")
        last = _dense(10, None if self.quantized else "softmax", name=self.output)
        return keras.Model(image, {self.output: last(self.body(image))})


def shallow(image: Tensor) -> Tensor:
    """Add one layer of 16 filters of 3 by 3 pixels, with max pooling over 2 by 2."""
    return layers.Flatten()(layers.MaxPooling2D()(_filters(16, 3)(image)))


def deep(image: Tensor) -> Tensor:
    """Add three layers of filters, each with a larger receptive field than the one before."""
    hidden = layers.MaxPooling2D()(_filters(16, 3)(_filters(8, 3)(image)))
    return layers.Flatten()(_filters(32, 3)(hidden))


def compact(image: Tensor) -> Tensor:
    """Add filters of 5 by 5 pixels with a stride of 2, which needs no pooling, and a dense layer."""
    hidden = layers.Flatten()(_filters(12, 5, strides=2)(image))
    return _dense(32, "relu")(hidden)


def _filters(count: int, side: int, strides: int = 1) -> layers.Conv2D:
    return layers.Conv2D(
        count,
        side,
        strides=strides,
        padding="same",
        activation="relu",
        kernel_regularizer=regularizers.L2(PENALTY),
    )


def _dense(units: int, activation: str | None, name: str | None = None) -> layers.Dense:
    return layers.Dense(units, activation, kernel_regularizer=regularizers.L2(PENALTY), name=name)


ARCHITECTURES: Mapping[str, Architecture] = {
    "shallow": Architecture(shallow),
    "deep": Architecture(deep),
    "compact": Architecture(compact, quantized=True),
}
"""Member id to architecture."""
