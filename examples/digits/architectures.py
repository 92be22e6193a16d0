"""The three convolutional networks that make up the ensemble.

Each takes pictures of 8 by 8 grey pixels, 0 to 1, and gives a logit or a probability for each digit. Sizes and the
count of epochs were tried by cross-validation within the training digits (`train.py --cross-validate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import keras
from keras import layers, regularizers

Tensor: TypeAlias = keras.KerasTensor
Body = Callable[[Tensor], Tensor]
"""From the picture to what the last layer sees."""

PENALTY = 1e-4
"""L2 on the weights of every layer."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A shape and what becomes of it.

    Attributes:
        body: everything between the picture and the last layer, which has a unit for each digit.
        quantized: served in whole numbers of 8 bits throughout, as logits; else in floats, as probabilities.
        epochs: how often it sees every training digit.
    """

    body: Body
    quantized: bool = False
    epochs: int = 40

    @property
    def output(self) -> str:
        """What its output is called."""
        return "logits" if self.quantized else "probabilities"

    def build(self) -> keras.Model:
        """Return the untrained model."""
        picture = keras.Input((8, 8, 1), name="image")
        last = _dense(10, None if self.quantized else "softmax", name=self.output)
        return keras.Model(picture, {self.output: last(self.body(picture))})


def shallow(picture: Tensor) -> Tensor:
    """One layer of 16 filters of 3 by 3 pixels, and the greatest of each four neighbours."""
    return layers.Flatten()(layers.MaxPooling2D()(_filters(16, 3)(picture)))


def deep(picture: Tensor) -> Tensor:
    """Three layers of filters, each of which sees more of the picture than the one before."""
    hidden = layers.MaxPooling2D()(_filters(16, 3)(_filters(8, 3)(picture)))
    return layers.Flatten()(_filters(32, 3)(hidden))


def compact(picture: Tensor) -> Tensor:
    """Filters of 5 by 5 pixels that step over every other one, so that nothing has to be pooled."""
    hidden = layers.Flatten()(_filters(12, 5, strides=2)(picture))
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
