"""Four models in one process, and their mean, as TensorFlow's and scikit-learn's users write it.

Rows are encoded beforehand: the peers get the columns as one matrix of float32, validate nothing, and return one
probability for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Predict = Callable[[Mapping[str, Array]], Array]
"""From each model's matrix of columns to the probability of every row."""

HIDDEN = {"linear": (), "wide": (64,), "deep": (8, 8, 8, 8), "wide_and_deep": (16, 8)}
"""The widths of the hidden layers of the four."""


def keras_predict(models: Mapping[str, Any]) -> Predict:
    """`Model.predict`, which Keras' documentation recommends for inference on many rows.

    https://keras.io/api/models/model_training_apis/#predict-method
    """

    def predict(batches: Mapping[str, Array]) -> Array:
        outputs = [model.predict(batches[name], verbose=0)["probability"] for name, model in models.items()]
        return np.mean(outputs, axis=0)[:, 0]

    return predict


def tf_function(models: Mapping[str, Any]) -> Predict:
    """Each model as a compiled function of its own, with an input signature, so that nothing is traced again.

    https://www.tensorflow.org/guide/function
    """
    import tensorflow as tf

    def compile_model(model: Any) -> Any:
        signature = [tf.TensorSpec((None, model.input_shape[1]), tf.float32)]
        return tf.function(lambda batch: model(batch, training=False)["probability"], input_signature=signature)

    compiled = {name: compile_model(model) for name, model in models.items()}

    def predict(batches: Mapping[str, Array]) -> Array:
        outputs = [call(tf.constant(batches[name])).numpy() for name, call in compiled.items()]
        return np.mean(outputs, axis=0)[:, 0]

    return predict


def voting_classifier(batch: Array, labels: Array) -> Predict:
    """scikit-learn's soft vote over four MLPs with the same hidden layers, trained on the same rows.

    https://scikit-learn.org/stable/modules/ensemble.html#voting-classifier
    """
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    estimators = [
        (name, MLPClassifier(hidden, max_iter=50, random_state=1) if hidden else LogisticRegression())
        for name, hidden in HIDDEN.items()
    ]
    voting = VotingClassifier(estimators, voting="soft").fit(batch, labels)
    return lambda batches: voting.predict_proba(batches["all"])[:, 1]
