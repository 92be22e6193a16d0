"""Models that take text are rejected, and the remedy in docs/formats.md works."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import ROOT, X, manifest
from stepensemble import Ensemble
from stepensemble.admission.new_member import Candidate, plan_addition, write_addition
from stepensemble.core.errors import InputMismatch

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
]

JobRunner = Callable[..., list[Any]]
TOWNS = ["Bern", "Oslo"]


def add(path: Path, file: Path, run: JobRunner, features: list[Any]) -> None:
    data = {**manifest(task={"type": "regression"}, features=features), "members": []}
    path.write_text(json.dumps(data))
    write_addition(plan_addition(path, Candidate(file, {"id": "new"}), run=run))


def test_a_model_with_a_lookup_is_rejected_and_accepted_without_it(tf: Any, run: JobRunner, tmp_path: Path) -> None:
    import keras

    town, x = keras.Input((1,), name="town", dtype="string"), keras.Input((1,), name="x")
    index = keras.layers.StringLookup(vocabulary=TOWNS, name="town_lookup")(town)
    code = keras.layers.Flatten()(keras.layers.Embedding(3, 2)(index))
    model = keras.Model([town, x], keras.layers.Dense(1)(keras.layers.Concatenate()([code, x])))
    model.save(tmp_path / "whole.keras")
    path = tmp_path / "manifest.json"
    category = {"name": "town", "type": "category", "vocabulary": TOWNS}
    with pytest.raises(InputMismatch, match=r"takes string, .*cut the model after its lookup.*docs/formats\.md, Text"):
        add(path, tmp_path / "whole.keras", run, [category, X])

    code_of_the_docs = re.search(r"## Text\n.*?```python\n(.*?)```", (ROOT / "docs/formats.md").read_text(), re.DOTALL)
    assert code_of_the_docs is not None
    cut = code_of_the_docs[1].replace('"cut.keras"', repr(str(tmp_path / "cut.keras")))
    given = {"keras": keras, "model": model}
    exec(cut, given)  # noqa: S102 - our own documentation
    add(path, tmp_path / "cut.keras", run, [given["feature"], X])
    towns, numbers = ["Bern", "Oslo", "[UNK]"], [0.5, -1.0, 2.0]
    rows = [{"town": name, "x": number} for name, number in zip(towns, numbers, strict=True)]
    values = [one["value"] for one in Ensemble.load(path).predict({"instances": rows})["predictions"]]
    wanted = model([tf.constant(towns)[:, None], tf.constant(numbers, tf.float32)[:, None]]).numpy()
    np.testing.assert_allclose(values, wanted[:, 0], rtol=1e-5)
