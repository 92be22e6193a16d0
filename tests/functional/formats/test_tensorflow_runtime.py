"""The `tensorflow` runtime keeps the contract of the `litert` one."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import model
from stepensemble.conversion.formats import read_source
from stepensemble.core.errors import InputMismatch, ModelRefused
from stepensemble.runtimes import Model, Signature, Tensor, load_model
from stepensemble.runtimes.archives import read_archive, write_archive

pytestmark = pytest.mark.tensorflow


def column(*values: float) -> Any:
    return np.array(values, dtype=np.float32)[:, None]


def load(folder: Path, signature: str | None = None) -> Model:
    return load_model("tensorflow", read_source(folder).body, signature)


def test_half_plus_two(made: Path) -> None:
    assert load(made / "half").predict(column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]


def test_both_runtimes_describe_a_model_in_the_same_way(made: Path) -> None:
    assert load(made / "named").signature == load_model("litert", model("named")).signature
    assert load(made / "named").signature == Signature(
        "serving_default",
        inputs=(Tensor("a", "float32", (1,)), Tensor("b", "float32", (2,))),
        outputs=(Tensor("first", "float32", (1,)), Tensor("total", "float32", (1,))),
        batch=None,
    )


def test_inputs_and_outputs_are_bound_by_name(made: Path) -> None:
    rows = {"b": np.array([[1, 2], [3, 4]], dtype=np.float32), "a": column(10, 20)}
    assert load(made / "named").predict(rows, "total").tolist() == [[13.0], [27.0]]
    assert load(made / "named").predict(rows, "first").tolist() == [[10.0], [20.0]]
    with pytest.raises(InputMismatch, match='the model has the outputs "first", "total"; choose one of them'):
        load(made / "named").predict(rows)


def test_every_signature_can_be_run(made: Path) -> None:
    assert load(made / "signatures", "half").predict(column(1)).tolist() == [[2.5]]
    assert load(made / "signatures", "double").predict(column(1)).tolist() == [[2.0]]
    assert load(made / "default").predict(column(1)).tolist() == [[2.5]]
    with pytest.raises(ModelRefused, match='the model has the signatures "double", "half"; choose one of them'):
        load(made / "signatures")


def test_a_batch_of_one_is_called_row_by_row_and_a_batch_of_two_takes_two(made: Path) -> None:
    assert load(made / "fixed_one").predict(column(0, 1, 2)).tolist() == [[2.0], [2.5], [3.0]]
    assert load(made / "fixed_two").predict(column(0, 1)).tolist() == [[2.0], [2.5]]
    with pytest.raises(InputMismatch, match="takes exactly 2 rows at once, and got 3"):
        load(made / "fixed_two").predict(column(0, 1, 2))


def test_text_is_text(made: Path) -> None:
    got = load(made / "text").predict(column(1, -1, 0))
    assert (got.dtype.kind, got.tolist()) == ("U", ["yés", "no", "no"])


def test_dtypes_are_the_models_own_or_are_widened(made: Path) -> None:
    assert load(made / "doubles").predict(column(3)).tolist() == [[1.5]]
    assert load(made / "bytes").predict(np.array([[255]], dtype=np.uint8)).tolist() == [[127.5]]
    with pytest.raises(InputMismatch, match="the model takes uint8, and its columns are float32, which it has no"):
        load(made / "bytes").predict(column(3))


@pytest.mark.parametrize("shape", [(2, 2), (2, 0), (2, 1, 1), (2,)])
def test_rows_of_another_width_are_rejected(made: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputMismatch, match=r"the model takes \[1\] numbers a row, and its columns give"):
        load(made / "half").predict(np.zeros(shape, dtype=np.float32))


def test_a_model_that_fails_reports_the_reason(made: Path) -> None:
    with pytest.raises(InputMismatch, match=r"TensorFlow cannot run the model on 2 rows: .*/nowhere/at/all"):
        load_model("tensorflow", read_source(made / "reads").body, trusted=True).predict(column(1, 2))


def test_an_asset_is_unpacked_with_the_model(made: Path) -> None:
    assert "assets/words.txt" in read_archive(read_source(made / "table").body)
    assert load(made / "table").predict(column(0, 1, 5)).tolist() == ["no", "yes", "?"]


def test_version_1_is_read_by_either_loader(made: Path, tf: Any) -> None:
    assert load(made / "version_1").predict(column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]
    with pytest.raises(Exception, match="needs an input for each placeholder"):
        tf.saved_model.load(str(made / "version_1_only"))
    only = load(made / "version_1_only")
    assert only.predict(column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]
    assert only.signature == Signature(
        "serving_default", (Tensor("x", "float32", (1,)),), (Tensor("y", "float32", (1,)),), None
    )
    with pytest.raises(InputMismatch, match=r"TensorFlow cannot run the model on 1 rows: .*forgotten"):
        load(made / "version_1_only", "other").predict(column(1))


def test_models_that_cannot_be_served_are_rejected(made: Path) -> None:
    with pytest.raises(ModelRefused, match='the input "x" is a single number; every input needs a first dimension'):
        load(made / "one_number")
    with pytest.raises(ModelRefused, match="the SavedModel has no signatures"):
        load(made / "no_signature")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda _: b"not a zip", "the archive is truncated or damaged"),
        (lambda _: write_archive({"other.pb": b""}), "no saved_model.pb at its top"),
        (lambda files: write_archive(files | {"saved_model.pb": b"\xff"}), "saved_model.pb is truncated or damaged"),
        (lambda files: write_archive(files | {"saved_model.pb": b""}), 'no graph of the SavedModel is tagged "serve"'),
        (lambda files: write_archive({"saved_model.pb": files["saved_model.pb"]}), "TensorFlow cannot load the Saved"),
        (lambda files: write_archive(files)[:-100], "the archive is truncated or damaged"),
    ],
)
def test_broken_files_are_rejected(made: Path, change: Any, expected: str) -> None:
    with pytest.raises(ModelRefused, match=expected):
        load_model("tensorflow", change(read_archive(read_source(made / "half").body)))


def test_no_file_stays_on_disk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("half", "table", "version_1", "version_1_only"):
        loaded = load(made / name)
        assert list(tmp_path.iterdir()) == []
        loaded.predict(column(1))
    with pytest.raises(ModelRefused):
        load_model("tensorflow", write_archive({"saved_model.pb": b"\xff"}))
    assert list(tmp_path.iterdir()) == []


def test_a_model_lives_as_long_as_it_is_referenced(made: Path) -> None:
    loaded = [load(made / "half") for _ in range(3)]
    gc.collect()
    assert [one.predict(column(1)).tolist() for one in loaded] == [[[2.5]]] * 3
