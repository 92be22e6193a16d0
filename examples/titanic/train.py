"""Train the four members on the Titanic passengers and convert them to LiteRT.

Seeded and single-threaded, it makes the same files every time. Training is in double precision: processors round
differently, and these differences disappear when the weights are rounded to the single precision that is served.

    python examples/titanic/train.py                     # all members, the report, and its table in the README
    python examples/titanic/train.py --output DIR        # only the files, in DIR; --saved-models: as SavedModels too
    python examples/titanic/train.py --cross-validate    # the scores used to choose sizes and steps; writes nothing

`--member crossed` limits either of the last two to one member, which need not be in the manifest yet.
"""

from __future__ import annotations

import os

# Read by TensorFlow when it is imported: oneDNN's kernels depend on the processor, and the log is long.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf
from architectures import ARCHITECTURES, Architecture
from evaluation import File, Scores, evaluate, format_table, score, write_report
from numpy.typing import NDArray
from passengers import SEED, Passengers, Value, read_passengers, split
from sklearn.model_selection import StratifiedKFold

from stepensemble import Ensemble
from stepensemble.core.preprocessing.columns import Columns, stack_columns
from stepensemble.core.preprocessing.encoding import all_column_names, normalize
from stepensemble.core.schema.manifest import (
    CategoryFeature,
    Feature,
    Manifest,
    Member,
    MinMax,
    NumberFeature,
    Standard,
)
from stepensemble.core.schema.outputs import Probability
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.runtimes import load_model
from stepensemble.runtimes.archives import read_folder, write_archive

MANIFEST = Path(__file__).parents[2] / "models" / "manifest.json"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Trained:
    """A member's file, its SavedModel, and their largest difference on the training passengers."""

    artifact: bytes
    saved_model: bytes
    parity: float


def make_reproducible() -> None:
    """Make TensorFlow compute the same operations in the same order every time."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()


def check_constants(features: Sequence[Feature], training: Passengers) -> None:
    """Check that the manifest's constants are those of the training passengers.

    Raises:
        SystemExit: with the lines to write into the manifest instead.
    """
    fitted = [fit_feature(feature, [row[feature.name] for row in training.rows]) for feature in features]
    lines = [
        msgspec.json.encode(correct).decode()
        for correct, given in zip(fitted, features, strict=True)
        if correct != given
    ]
    if lines:
        raise SystemExit(
            "\n".join(
                [f"{MANIFEST} has constants that differ from those of the training passengers; write these:", *lines]
            )
        )


def fit_feature(feature: Feature, values: Sequence[Value]) -> Feature:
    """Return a feature with its scaling and its value for missing ones, if it has them, taken from `values`.

    A missing number becomes the median, a missing category the most frequent one. Two decimals are kept.
    """
    known = [value for value in values if value is not None]
    if isinstance(feature, CategoryFeature) and feature.missing is not None:
        return msgspec.structs.replace(feature, missing=Counter(known).most_common(1)[0][0])
    if not isinstance(feature, NumberFeature):
        return feature
    numbers = np.array(known, dtype=np.float64)
    missing = None if feature.missing is None else _readable(np.median(numbers))
    scaling = feature.scaling
    if isinstance(scaling, Standard):
        scaling = Standard(mean=_readable(numbers.mean()), std=_readable(numbers.std()))
    elif isinstance(scaling, MinMax):
        scaling = MinMax(min=_readable(numbers.min()), max=_readable(numbers.max()))
    return msgspec.structs.replace(feature, missing=missing, scaling=scaling)


def _readable(number: np.floating) -> float:
    return round(float(number), 2)


def fit(architecture: Architecture, columns: Sequence[str], batch: Array, survived: Array) -> keras.Model:
    """Train in double precision; return the model in single precision."""
    with _precision("float64"):
        model = architecture.build(columns)
        model.compile(
            keras.optimizers.Adam(architecture.learning_rate),
            keras.losses.BinaryCrossentropy(),
            steps_per_execution=architecture.steps,
            jit_compile=False,
        )
        whole = tf.data.Dataset.from_tensors((batch.astype(np.float64), survived.astype(np.float64)[:, None]))
        model.fit(whole.cache().repeat(), epochs=1, steps_per_epoch=architecture.steps, shuffle=False, verbose=0)
        weights = model.get_weights()
    with _precision("float32"):
        served = architecture.build(columns)
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


def predict(model: keras.Model, batch: Array) -> Array:
    """Return a Keras model's probabilities, `(rows,)`."""
    return np.asarray(model(batch)["probability"])[:, 0]


def convert(model: keras.Model) -> tuple[bytes, bytes]:
    """Return the LiteRT model (float32, any number of rows, `columns` to `probability`) and the SavedModel."""
    with TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        artifact: bytes = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        return artifact, write_archive(read_folder(Path(folder)))


def select_trainable(manifest: Manifest) -> list[Member]:
    """Return the members whose architecture is defined here; the manifest may have others."""
    return [member for member in manifest.members if member.id in ARCHITECTURES]


def find_member(manifest: Manifest, name: str) -> Member:
    """Return a member; one that the manifest does not have yet takes every column."""
    new = Member(id=name, version="1", artifact=f"{name}.tflite", output=Probability())
    return next((member for member in manifest.members if member.id == name), new)


def columns_of(manifest: Manifest, member: Member) -> tuple[str, ...]:
    """Name the columns a member takes."""
    return all_column_names(manifest.features) if member.columns is None else member.columns


def train_member(manifest: Manifest, member: Member, columns: Columns, survived: Array) -> Trained:
    """Train and convert a member."""
    names = columns_of(manifest, member)
    batch = stack_columns(columns, names)
    model = fit(ARCHITECTURES[member.id], names, batch, survived)
    artifact, saved_model = convert(model)
    served = load_model(member.runtime, artifact).predict(batch)[:, 0]
    return Trained(artifact, saved_model, parity=float(np.abs(served - predict(model, batch)).max()))


def cross_validate(manifest: Manifest, members: Sequence[Member], training: Passengers) -> dict[str, Scores]:
    """Return the scores of members and of their mean by five folds within the training passengers."""
    columns = normalize(manifest.features, training.rows)
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    outputs = {}
    for member in members:
        names = columns_of(manifest, member)
        batch = stack_columns(columns, names)
        output = np.zeros(len(training))
        for fitted, left_out in folds.split(batch, training.survived):
            model = fit(ARCHITECTURES[member.id], names, batch[fitted], training.survived[fitted])
            output[left_out] = predict(model, batch[left_out])
        outputs[member.id] = output
    outputs["mean"] = np.mean(list(outputs.values()), axis=0)
    return {name: score(training.survived, output) for name, output in outputs.items()}


def main() -> None:
    """Train, convert, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for the files; no report is written")
    parser.add_argument("--member", choices=ARCHITECTURES, help="only this one, which need not be in the manifest yet")
    parser.add_argument(
        "--cross-validate", action="store_true", help="only compute the scores by folds of the training passengers"
    )
    parser.add_argument("--saved-models", action="store_true", help="write them as SavedModels too, for TensorFlow")
    arguments = parser.parse_args()
    if arguments.member and not (arguments.output or arguments.cross_validate):
        parser.error("a report needs all members: give --output, which writes no report")
    if arguments.saved_models and not arguments.output:
        parser.error("SavedModels are not stored beside the shipped models: give --output")
    make_reproducible()
    manifest = parse_manifest(MANIFEST.read_bytes())
    training, held_out = split(read_passengers())
    check_constants(manifest.features, training)
    members = [find_member(manifest, arguments.member)] if arguments.member else select_trainable(manifest)
    if arguments.cross_validate:
        for name, scores in cross_validate(manifest, members, training).items():
            print(f"{name:15}", scores)
        return
    columns = normalize(manifest.features, training.rows)
    files = {}
    for member in members:
        trained = train_member(manifest, member, columns, training.survived)
        shipped = MANIFEST.parent / member.artifact
        path = shipped if arguments.output is None else arguments.output / shipped.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(trained.artifact)
        if arguments.saved_models:
            path.with_suffix(".zip").write_bytes(trained.saved_model)
        files[member.id] = File(len(trained.artifact), parity=float(f"{trained.parity:.0e}"))
        print(f"{path}: {len(trained.artifact):,} bytes, at most {trained.parity:.0e} from Keras")
    if arguments.output is None:
        report = evaluate(Ensemble.load(MANIFEST), held_out, files)
        write_report(report)
        print(format_table(report), end="")


if __name__ == "__main__":
    main()
