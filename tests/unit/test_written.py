from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from ai_edge_litert import interpreter
from ai_edge_litert.interpreter import Interpreter

from builders import ROOT
from plain_kernels.sitecustomize import use_plain_kernels
from written import ADDITIONS, TOLERANCE, assert_as_shown, assert_as_written


def count_additions(artifact: bytes) -> int:
    """Count the products that one number of each layer's output is the sum of, layer after layer."""
    model = Interpreter(model_content=artifact)
    model.allocate_tensors()
    shapes = {int(tensor["index"]): [int(size) for size in tensor["shape"]] for tensor in model.get_tensor_details()}
    total = 0
    for operation in model._get_ops_details():
        if operation["op_name"] in ("FULLY_CONNECTED", "CONV_2D"):  # their weights have a row for each output
            weights = shapes[int(operation["inputs"][1])]
            total += math.prod(weights[1:])
    return total


def test_the_tolerance_is_that_of_the_largest_shipped_model() -> None:
    shipped = [*(ROOT / "models").rglob("*.tflite"), *(ROOT / "examples").rglob("*.tflite")]
    counted = {str(path.relative_to(ROOT)): count_additions(path.read_bytes()) for path in shipped}
    assert len(counted) >= 8
    assert max(counted.values()) == counted["models/digits/deep.tflite"] == ADDITIONS
    assert 1e-6 < TOLERANCE < 1e-4


SOUND: dict[str, Any] = {"a": [0.25, 1.0], "label": "yes", "count": 3, "tie": False, "none": None}


@pytest.mark.parametrize(
    "other",
    [
        SOUND | {"a": [0.2502, 1.0]},
        SOUND | {"a": [0.25]},
        SOUND | {"label": "no"},
        SOUND | {"count": 4},
        SOUND | {"count": 3.0},
        SOUND | {"tie": 0},
        SOUND | {"none": 0.0},
        SOUND | {"more": 1},
        {key: value for key, value in SOUND.items() if key != "tie"},
        SOUND | {"a": [float("nan"), 1.0]},
    ],
)
def test_what_is_no_last_bit_is_another_answer(other: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_as_written(other, SOUND)
    assert_as_written(SOUND | {"a": [0.25 + TOLERANCE / 2, 1]}, SOUND)


SHOWN = ["deep 1 BAR 0.150 0.25", "1,309 in, 81.1% right, release bde4a308dabb"]


@pytest.mark.parametrize(
    "line",
    [
        "deep 1 BAR 0.152 0.25",
        "deep 2 BAR 0.150 0.25",
        "deep 1 BAR 0.1500 0.25",
        "wide 1 BAR 0.150 0.25",
        "deep 1 BAR 0.150",
    ],
)
def test_another_line_is_not_what_is_shown(line: str) -> None:
    with pytest.raises(AssertionError):
        assert_as_shown([line, SHOWN[1]], SHOWN)
    with pytest.raises(AssertionError):
        assert_as_shown([SHOWN[0], SHOWN[1].replace("bde4", "bde5")], SHOWN)
    with pytest.raises(AssertionError):
        assert_as_shown([SHOWN[0], SHOWN[1].replace("1,309", "1,308")], SHOWN)
    assert_as_shown(["deep 1 BAR 0.151 0.25", SHOWN[1].replace("81.1", "81.2")], SHOWN)


def test_the_plain_kernels_are_not_xnnpacks() -> None:
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        for plain in (False, True):
            patch.setattr(interpreter, "Interpreter", Interpreter)
            if plain:
                use_plain_kernels(interpreter)
            made = interpreter.Interpreter(model_path=str(ROOT / "models" / "titanic" / "deep.tflite"))
            made.allocate_tensors()
            taken.append("DELEGATE" in {operation["op_name"] for operation in made._get_ops_details()})
    assert taken == [not isinstance(Interpreter, functools.partial), False]  # where the whole run has the plain ones


def test_the_plain_kernels_reach_a_process_of_its_own() -> None:
    code = "from ai_edge_litert.interpreter import Interpreter; print(type(Interpreter).__name__)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "plain_kernels")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "partial\n"
