"""Artifacts run in a child process, even if they crash it."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import Struct

from builders import model
from stepensemble.conversion.child_process import Crash, run_in_child
from stepensemble.conversion.parity import draw_inputs
from stepensemble.conversion.sandbox import (
    PackedRequest,
    PackedResult,
    SandboxRequest,
    SandboxResult,
    run_artifact,
    run_artifacts,
)
from stepensemble.core.errors import InputMismatch, MemberError, ModelRefused
from stepensemble.runtimes import load_model

ROWS = np.array([[0, 0], [1, 2]], dtype=np.float32)


def column(*values: float) -> Any:
    return np.array(values, dtype=np.float32)[:, None]


def flipped(body: bytes, bit: int) -> bytes:
    broken = bytearray(body)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


def test_a_sandboxed_model_has_the_same_results_as_here() -> None:
    result = run_artifact(SandboxRequest("litert", model("softmax"), batches=(ROWS, ROWS[:1])))
    here = load_model("litert", model("softmax"))
    assert result.signature == here.signature
    np.testing.assert_array_equal(result.outputs[0]["Identity"], here.predict(ROWS))
    np.testing.assert_array_equal(result.outputs[1]["Identity"], here.predict(ROWS[:1]))
    assert result.load_ms > 0
    assert min(result.predict_ms) > 0
    assert 10e6 < result.peak_bytes < 1e9  # Python, NumPy and LiteRT are some 45 MB


def test_every_output_or_the_requested_one_is_returned() -> None:
    attempt = SandboxRequest("litert", model("text"), batches=(column(1, -1),))
    assert {name: values.tolist() for name, values in run_artifact(attempt).outputs[0].items()} == {
        "label": ["yés", "no"],
        "score": [1.0, -1.0],
    }
    request = SandboxRequest("litert", model("text"), batches=(column(1),), output="score")
    assert [list(outputs) for outputs in run_artifact(request).outputs] == [["score"]]


def test_the_signature_can_be_requested_alone() -> None:
    result = run_artifact(SandboxRequest("litert", model("signatures"), "double"))
    assert (result.signature.name, result.outputs, result.predict_ms) == ("double", (), ())


def test_rows_are_drawn_by_default() -> None:
    result = run_artifact(SandboxRequest("litert", model("half_plus_two"), batches=None))
    (drawn,) = draw_inputs(result.signature).values()
    np.testing.assert_allclose(result.outputs[0]["Identity"], drawn / 2 + 2)


def test_an_error_is_the_same_as_here() -> None:
    with pytest.raises(ModelRefused, match="LiteRT cannot load the artifact: "):
        run_artifact(SandboxRequest("litert", b"not a model"))
    with pytest.raises(InputMismatch, match=r"the model takes \[2\] numbers a row, and its columns give \[1\]"):
        run_artifact(SandboxRequest("litert", model("softmax"), batches=(column(1),)))


def test_one_rejected_artifact_does_not_stop_the_others() -> None:
    attempts = [SandboxRequest("litert", body) for body in (model("softmax"), b"not a model", model("sigmoid"))]
    assert [type(result) for result in run_artifacts(attempts)] == [SandboxResult, ModelRefused, SandboxResult]


def test_a_file_with_a_flipped_bit_is_run_or_rejected_even_if_it_crashes_the_process() -> None:
    # Of 12,160 such files about 20 end the process of LiteRT 2.3; these two are among them, the others are any.
    whole, bits = model("softmax"), [5863, 5865, *range(0, 12_160, 71)]
    results = run_artifacts([SandboxRequest("litert", flipped(whole, bit), batches=(ROWS,)) for bit in bits])
    kinds = Counter(type(result) for result in results)
    assert set(kinds) <= {SandboxResult, ModelRefused, InputMismatch}
    assert kinds[ModelRefused] > len(bits) / 3  # the rest are in weights and names, which only a digest can detect


@pytest.mark.slow
def test_an_artifact_that_takes_too_long_is_rejected_and_the_next_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    slow = SandboxRequest("litert", model("slow"), batches=(column(0),) * 100)
    first, second = run_artifacts([slow, SandboxRequest("litert", model("sigmoid"))], seconds=4)
    assert isinstance(first, MemberError)
    assert "run by litert in a child process, it took more than 4 seconds; the file is damaged" in str(first)
    assert isinstance(second, SandboxResult)
    assert list(tmp_path.iterdir()) == []


class Nonsense(Struct, tag="nonsense"):
    """A job that the child does not know: it ends at it."""


def test_a_child_that_ends_early_is_a_crash_for_every_remaining_job() -> None:
    results = run_in_child([Nonsense(), Nonsense()], PackedResult, 10)
    assert [type(result) for result in results] == [Crash, Crash]
    assert "it crashed (exit code 1): msgspec.ValidationError: Invalid value 'nonsense'" in str(results[0])


def test_a_result_of_another_type_is_a_crash() -> None:
    class Other(Struct):
        something: int

    (result,) = run_in_child([PackedRequest("litert", model("sigmoid"), None, [], None)], Other, 10)
    assert isinstance(result, Crash)
    assert "it returned an invalid result" in result.reason
