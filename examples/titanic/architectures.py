"""The four network architectures of the ensemble, and a fifth that can be added to it.

Each takes the columns its member names in the manifest and returns the probability of survival. Sizes, penalties and
step counts were chosen by cross-validation within the training passengers (`train.py --cross-validate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras
from keras import layers, regularizers

Tensor: TypeAlias = keras.KerasTensor
Body = Callable[[Tensor, Sequence[str], float], Tensor]
"""Takes the input, its columns' names and the penalty; returns the input of the last layer."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture and its training: Adam on the whole training set at every step.

    Attributes:
        body: the layers between the input and the last layer, which is one sigmoid unit.
        penalty: L2 on the weights of every layer.
        learning_rate: Adam's.
        steps: number of training steps.
    """

    body: Body
    penalty: float
    learning_rate: float = 0.01
    steps: int = 300

    def build(self, columns: Sequence[str]) -> keras.Model:
        """Return the untrained model."""
        columns_in = keras.Input((len(columns),), name="columns")
        last = _dense(1, "sigmoid", self.penalty, name="probability")
        return keras.Model(columns_in, {"probability": last(self.body(columns_in, columns, self.penalty))})


def linear(inputs: Tensor, _columns: Sequence[str], _penalty: float) -> Tensor:
    """Add no layer: logistic regression."""
    return inputs


def wide(inputs: Tensor, _columns: Sequence[str], penalty: float) -> Tensor:
    """Add one wide layer of rectified linear units."""
    return _dense(64, "relu", penalty)(inputs)


def deep(inputs: Tensor, _columns: Sequence[str], penalty: float) -> Tensor:
    """Add four narrow layers of exponential linear units."""
    hidden = inputs
    for _ in range(4):
        hidden = _dense(8, "elu", penalty)(hidden)
    return hidden


def wide_and_deep(inputs: Tensor, columns: Sequence[str], penalty: float) -> Tensor:
    """Add a linear path with crossed columns beside a deep path.

    The crosses are sex times class: men and women of a class fared differently in each class. After Cheng et al.,
    Wide & Deep Learning for Recommender Systems (2016).
    """
    hidden = _dense(8, "tanh", penalty)(_dense(16, "tanh", penalty)(inputs))
    return layers.Concatenate()([inputs, _cross(inputs, columns), hidden])


def crossed(inputs: Tensor, columns: Sequence[str], _penalty: float) -> Tensor:
    """Add the crossed columns of wide_and_deep without its deep path: a logistic regression with these columns."""
    return layers.Concatenate()([inputs, _cross(inputs, columns)])


def _cross(inputs: Tensor, columns: Sequence[str]) -> Tensor:
    sex, first = columns.index("Sex"), columns.index("Pclass=1")
    return inputs[:, sex : sex + 1] * inputs[:, first : first + 3]


def _dense(units: int, activation: str, penalty: float, name: str | None = None) -> layers.Dense:
    return layers.Dense(units, activation, kernel_regularizer=regularizers.L2(penalty), name=name)


ARCHITECTURES: Mapping[str, Architecture] = {
    "linear": Architecture(linear, penalty=1e-4, learning_rate=0.05),
    "wide": Architecture(wide, penalty=1e-3),
    "deep": Architecture(deep, penalty=3e-3),
    "wide_and_deep": Architecture(wide_and_deep, penalty=3e-3),
    "crossed": Architecture(crossed, penalty=1e-4, learning_rate=0.05),
}
"""Member id to architecture."""
