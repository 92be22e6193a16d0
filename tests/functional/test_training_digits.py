"""The shipped digit members are what `examples/digits` makes, and as good as its report states.

Nothing is imported from there: images and scores are computed here a second time, as the page describes them.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

from stepensemble import Ensemble
from written import TRAINED

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits"
MEMBERS = {"shallow": "probabilities", "deep": "probabilities", "compact": "logits"}

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed; make tensorflow installs it"
)


def run_script(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(EXAMPLE / name), *map(str, arguments)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    written: dict[str, Any] = json.loads((EXAMPLE / "report.json").read_text())
    return written


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Samples `(540, 8, 8)`, 0 to 255, and their digits."""
    table = load_digits()
    samples = np.round(table.images / 16 * 255).astype(np.uint8)
    _, rows = train_test_split(range(1797), test_size=0.3, stratify=table.target, random_state=1998)
    rows = sorted(rows)
    return samples[rows], table.target[rows]


def infer(file: Path, samples: np.ndarray) -> np.ndarray:
    """Invoke a committed file by the names of its signature, with its quantization done by hand."""
    interpreter = Interpreter(model_content=file.read_bytes(), num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    batch = (samples[..., None] / 255).astype(np.float32)
    (taken,) = runner.get_input_details().values()
    if taken["dtype"] is np.int8:
        scale, zero = taken["quantization"]
        batch = np.clip(np.round(batch / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    (outputs,) = runner(image=batch).values()
    (given,) = runner.get_output_details().values()
    scale, zero = given["quantization"]
    return (outputs.astype(np.float64) - zero) * scale if given["dtype"] is np.int8 else outputs


def shipped(member: str) -> Path:
    return ROOT / "models" / "digits" / f"{member}.tflite"


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_takes_any_number_of_images_and_is_small(member: str) -> None:
    interpreter = Interpreter(model_path=str(shipped(member)))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert taken["shape_signature"].tolist() == [-1, 8, 8, 1]
    assert given["shape_signature"].tolist() == [-1, 10]
    assert shipped(member).stat().st_size < 50_000


def test_the_compact_member_is_int8_throughout() -> None:
    details = Interpreter(model_path=str(shipped("compact"))).get_tensor_details()
    # int32 are biases, which are sums of products of int8, and shapes; nothing is left in floats.
    assert {np.dtype(one["dtype"]).name for one in details} <= {"int8", "int32"}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_is_as_good_as_the_report_states(
    member: str, report: dict[str, Any], held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    samples, numbers = held_out
    right = accuracy_score(numbers, infer(shipped(member), samples).argmax(axis=1), normalize=False)
    assert right == report["members"][member]
    assert report["held_out_digits"] == len(numbers) == 540
    assert right / len(numbers) > 0.94  # ten equally likely digits: guessing gives 0.1
    assert report["files"][member]["size"] == shipped(member).stat().st_size


def test_the_ensemble_is_as_good_as_the_report_states(
    report: dict[str, Any], held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    samples, numbers = held_out
    logits = infer(shipped("compact"), samples)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    mean = (infer(shipped("shallow"), samples) + infer(shipped("deep"), samples) + softmax) / 3
    assert accuracy_score(numbers, mean.argmax(axis=1), normalize=False) == report["ensemble"]


def test_images_in_payloads_are_predicted_as_their_samples_are(held_out: tuple[np.ndarray, np.ndarray]) -> None:
    samples, _ = held_out
    rows = []
    for one in samples[:20]:
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "PNG")
        rows.append({"image": base64.b64encode(buffer.getvalue()).decode()})
    output = Ensemble.load(ROOT / "models" / "digits" / "manifest.json").predict({"instances": rows})
    for member in output["members"]:
        np.testing.assert_allclose(member["outputs"], infer(shipped(member["id"]), samples[:20]), rtol=0, atol=1e-6)


def test_the_table_in_the_readme_is_the_report(report: dict[str, Any]) -> None:
    page = (EXAMPLE / "README.md").read_text()
    for name, file in report["files"].items():
        right = report["members"][name]
        row = f"| {name} | {right} | {right / 540:.3f} | {file['size']:,} | {file['parity']:.0e} |"
        assert row in page
    assert f"| **ensemble** | {report['ensemble']} | {report['ensemble'] / 540:.3f} | | |" in page


def test_the_events_are_held_out_digits(tmp_path: Path, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    run_script("prepare.py", "--output", tmp_path)
    samples, numbers = held_out
    for number in (3, 5, 7):
        shown = ROOT / "events" / f"digit-{number}.png"
        assert (tmp_path / shown.name).read_bytes() == shown.read_bytes()
        first = samples[numbers.tolist().index(number)]
        np.testing.assert_array_equal(np.asarray(Image.open(shown)), first)


@needs_tensorflow
@pytest.mark.tensorflow
@pytest.mark.parametrize("member", ["shallow", "compact"])
def test_training_again_gives_the_shipped_member(
    member: str, tmp_path: Path, held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    samples, _ = held_out
    printed = run_script("train.py", "--member", member, "--output", tmp_path)
    again, before = infer(tmp_path / f"{member}.tflite", samples), infer(shipped(member), samples)
    assert f"{member}.tflite: {shipped(member).stat().st_size:,} bytes" in printed
    if member == "compact":  # what is rounded to 8 bits may fall on the other side of a half on another processor
        assert np.mean(again.argmax(axis=1) == before.argmax(axis=1)) > 0.99
    else:
        np.testing.assert_allclose(again, before, rtol=0, atol=TRAINED)
