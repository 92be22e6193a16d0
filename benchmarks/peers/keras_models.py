"""The four models of the shipped ensemble as Keras models, trained again, as they were before conversion to LiteRT."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ROOT / "examples" / "titanic"


def train_models() -> Mapping[str, tuple[Any, tuple[str, ...]]]:
    """Return each member's Keras model, and the names of the columns that it takes."""
    import tensorflow  # noqa: F401 (before train.py, which turns its faster kernels off to be reproducible)

    sys.path.insert(0, str(TRAINING))
    import train
    from architectures import ARCHITECTURES
    from passengers import read_passengers, split

    from stepensemble.core.preprocessing.encoding import normalize
    from stepensemble.core.validation.manifest import parse_manifest

    manifest = parse_manifest((ROOT / "models" / "manifest.json").read_bytes())
    training, _ = split(read_passengers())
    columns = normalize(manifest.features, training.rows)
    models = {}
    for member in train.select_trainable(manifest):
        names = train.columns_of(manifest, member)
        batch = np.stack([columns[name] for name in names], axis=1).astype(np.float32)
        models[member.id] = (train.fit(ARCHITECTURES[member.id], names, batch, training.survived), names)
    return models
