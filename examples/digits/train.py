"""Train the three members on scikit-learn's digits and convert them to LiteRT.

Seeded and single-threaded, it makes the same files every time. Training is in double precision: processors round
differently, and these differences disappear when the weights are rounded to the precision that is served.

    python examples/digits/train.py                     # all members, the report, and its table in the README
    python examples/digits/train.py --output DIR        # only the files, in DIR; --member compact: only this one
    python examples/digits/train.py --cross-validate    # only the scores by folds; writes nothing
"""

from __future__ import annotations

import os

# Read by TensorFlow when it is imported: oneDNN's kernels depend on the processor, and the log is long.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from architectures import ARCHITECTURES, Architecture
from digits import SEED, Digits, read_digits, split
from evaluation import File, evaluate, format_table, write_report
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from stepensemble import Ensemble
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.schema.manifest import Manifest
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.imaging import read_images
from stepensemble.runtimes import load_model

MANIFEST = Path(__file__).parents[2] / "models" / "digits" / "manifest.json"
BATCH = 64
LEARNING_RATE = 0.003

Array = NDArray[Any]


def make_reproducible() -> None:
    """Make TensorFlow compute the same operations in the same order every time."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()


def read_column(manifest: Manifest, digits: Digits) -> Array:
    """Return the members' input for these digits, decoded and scaled as the served application does it."""
    (column,) = normalize(manifest.features, digits.rows, images=read_images).values()
    return column


def fit(architecture: Architecture, column: Array, numbers: Array) -> keras.Model:
    """Train in double precision; return the model in single precision."""
    with _precision("float64"):
        model = architecture.build()
        model.compile(
            keras.optimizers.Adam(LEARNING_RATE),
            keras.losses.SparseCategoricalCrossentropy(from_logits=architecture.quantized),
            jit_compile=False,
        )
        data = tf.data.Dataset.from_tensor_slices((column.astype(np.float64), numbers))
        data = data.cache().shuffle(len(numbers), seed=SEED).batch(BATCH)
        model.fit(data, epochs=architecture.epochs, verbose=0)
        weights = model.get_weights()
    with _precision("float32"):
        served = architecture.build()
        served.set_weights(weights)
    return served


@contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """Build and train in this precision, with the seed set and layer names reset: the converted file contains them."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(SEED)
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


def convert(architecture: Architecture, model: keras.Model, column: Array) -> bytes:
    """Convert to LiteRT: any number of rows, in floats, or in 8 bits from the input to the output.

    The range of the 8-bit integers is measured on `column`, layer by layer.
    """
    with TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if architecture.quantized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in column)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        artifact: bytes = converter.convert()
    return artifact


def predict(architecture: Architecture, model: keras.Model, column: Array) -> Array:
    """Return a Keras model's outputs, `(rows, 10)`."""
    return np.asarray(model(column)[architecture.output])


def cross_validate(names: Sequence[str], column: Array, numbers: Array) -> dict[str, float]:
    """Return the accuracy of members by five folds within the training digits."""
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    scores = {}
    for name in names:
        predicted = np.zeros_like(numbers)
        for fitted, left_out in folds.split(column, numbers):
            model = fit(ARCHITECTURES[name], column[fitted], numbers[fitted])
            predicted[left_out] = predict(ARCHITECTURES[name], model, column[left_out]).argmax(axis=1)
        scores[name] = float(np.mean(predicted == numbers))
    return scores


def main() -> None:
    """Train, convert, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for the files; no report is written")
    parser.add_argument("--member", choices=ARCHITECTURES, help="only this one")
    parser.add_argument(
        "--cross-validate", action="store_true", help="only compute the scores by folds of the training digits"
    )
    arguments = parser.parse_args()
    if arguments.member and not (arguments.output or arguments.cross_validate):
        parser.error("a report needs all members: give --output, which writes no report")
    make_reproducible()
    manifest = parse_manifest(MANIFEST.read_bytes())
    training, held_out = split(read_digits())
    column, numbers = read_column(manifest, training), training.numbers
    names = [arguments.member] if arguments.member else [member.id for member in manifest.members]
    if arguments.cross_validate:
        for name, accuracy in cross_validate(names, column, numbers).items():
            print(f"{name:10} {accuracy:.3f}")
        return
    files = {}
    for name in names:
        architecture = ARCHITECTURES[name]
        model = fit(architecture, column, numbers)
        artifact = convert(architecture, model, column)
        served = load_model("litert", artifact).predict(column)
        parity = float(np.abs(served - predict(architecture, model, column)).max())
        path = (arguments.output or MANIFEST.parent) / f"{name}.tflite"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(artifact)
        files[name] = File(len(artifact), parity=float(f"{parity:.0e}"))
        print(f"{path}: {len(artifact):,} bytes, at most {parity:.0e} from Keras")
    if arguments.output is None:
        report = evaluate(Ensemble.load(MANIFEST), held_out, files)
        write_report(report)
        print(format_table(report), end="")


if __name__ == "__main__":
    main()
