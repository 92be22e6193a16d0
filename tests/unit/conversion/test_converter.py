"""What conversion does without TensorFlow; with it: `tests/functional/formats`."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import MODELS, model
from in_process import run_in_process
from stepensemble.conversion import sandbox
from stepensemble.conversion.converter import ConversionOptions, convert
from stepensemble.core.errors import FileUnsafe, InputMismatch, ModelRefused
from stepensemble.runtimes import load_model


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try models in this process, without the start of a child for each."""
    monkeypatch.setattr(sandbox, "run_in_child", run_in_process)


def keras_file(path: Path, class_name: str) -> Path:
    """Write as much of a `.keras` file as is looked at before Keras."""
    layer = {"module": "keras.layers", "class_name": class_name, "config": {}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(layer))
    return path


def run_without_tensorflow(statement: str) -> str:
    code = f"import sys\nfor name in ('tensorflow', 'keras', 'h5py'): sys.modules[name] = None\n{statement}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["half_plus_two", "int8", "named", "text", "fixed_batch_two", "free_width"])
def test_a_litert_file_is_not_changed(name: str) -> None:
    converted = convert(MODELS / f"{name}.tflite")
    assert (converted.artifact, converted.runtime, converted.source) == (model(name), "litert", "litert")
    assert (converted.reason, converted.parity) == (None, None)
    assert converted.signature == load_model("litert", model(name)).signature


def test_a_litert_file_is_run_before_it_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    whole = model("softmax")
    for broken in (whole[:700], whole[:733] + bytes([whole[733] ^ 2]) + whole[734:]):  # the second ends LiteRT 2.3
        path.write_bytes(broken)
        with pytest.raises(ModelRefused, match=r"LiteRT cannot load|run by litert in a child process, it crashed"):
            convert(path)
    with pytest.raises(InputMismatch, match="LiteRT cannot run the model on 16 rows"):
        convert(MODELS / "one_row_inside.tflite")


@pytest.mark.usefixtures("in_process")
def test_a_signature_of_a_litert_file_can_be_chosen() -> None:
    assert convert(MODELS / "signatures.tflite", ConversionOptions(signature="half")).signature.name == "half"
    with pytest.raises(ModelRefused, match='the model has the signatures "double", "half"; choose one of them'):
        convert(MODELS / "signatures.tflite")


@pytest.mark.usefixtures("in_process")
def test_rows_that_a_litert_file_does_not_take_are_rejected() -> None:
    with pytest.raises(InputMismatch, match=r"takes \[1\] numbers a row, and its columns give \[2\]"):
        convert(MODELS / "sigmoid.tflite", golden=np.zeros((1, 2), dtype=np.float32))


def test_code_in_a_keras_file_is_rejected_without_tensorflow(tmp_path: Path) -> None:
    def run(*_: Any) -> Any:
        raise AssertionError("nothing is run")

    with pytest.raises(FileUnsafe, match="a Lambda layer, which runs Python code from the file"):
        convert(keras_file(tmp_path / "lambda.keras", "Lambda"), run=run)


def test_a_missing_tensorflow_is_reported_with_a_remedy(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "dense.keras", "Dense")
    output = run_without_tensorflow(f"""
from pathlib import Path
from stepensemble.core.errors import ModelRefused, TensorFlowMissing
from stepensemble.conversion.converter import ConversionOptions, convert
from stepensemble.runtimes import load_model
for ask, error in (
    (lambda: convert(Path({str(path)!r})), TensorFlowMissing),
    (lambda: load_model("tensorflow", b""), ModelRefused),
):
    try:
        ask()
    except error as missing:
        print(missing)
""")
    first, second = output.splitlines()
    assert first == (
        "dense.keras has to be converted by TensorFlow, which is not installed: "
        "pip install 'stepensemble[tensorflow]', or give a .tflite file"
    )
    assert second.startswith("this needs TensorFlow, which cannot be imported (")
    assert second.endswith("): pip install 'stepensemble[tensorflow]'")


def test_a_litert_file_needs_no_tensorflow() -> None:
    output = run_without_tensorflow(f"""
from pathlib import Path
from stepensemble.conversion.converter import ConversionOptions, convert
print(convert(Path({str(MODELS / "half_plus_two.tflite")!r})).runtime)
""")
    assert output == "litert\n"
