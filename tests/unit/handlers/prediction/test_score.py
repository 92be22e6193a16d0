from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from builders import artifact, model
from memory import GIBIBYTE, MemoryStack
from stepensemble.core.arrays import Array
from stepensemble.core.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    InputMismatch,
    ModelRefused,
    StorageUnavailable,
)
from stepensemble.core.preprocessing.columns import array_from_bytes, columns_to_bytes
from stepensemble.core.releases.release import Artifact
from stepensemble.handlers.prediction.model_cache import ModelCache
from stepensemble.handlers.prediction.score import Scorer
from stepensemble.runtimes import Model
from stepensemble.storage.keys import artifact_key


@pytest.fixture
def stack() -> MemoryStack:
    made = MemoryStack()
    for name in ("half_plus_two", "sigmoid", "logarithm", "two_by_two", "softmax", "two_inputs", "named", "signatures"):
        made.releases.write_artifact(artifact(model(name)), model(name))
    made.artifacts.calls.clear()
    return made


@pytest.fixture
def scorer(stack: MemoryStack) -> Scorer:
    return Scorer(ModelCache(stack.releases, GIBIBYTE, lambda: 0), stack.data)


def event(name: str, *values: float, columns: Any = None, names: tuple[str, ...] = ("x",), **more: Any) -> Any:
    """Return what a slot is sent for a member with this model; `names` are the columns of its only input."""
    found = artifact(model(name))
    member = {"id": name, "runtime": "litert", "artifact": {"digest": found.digest, "size": found.size}}
    rows = more.pop("rows", len(values))
    # The state machine passes a member on unchanged; a slot reads the part that it needs.
    member |= {"inputs": {"": names}, "signature": None, "output": None, "outputs_key": None}
    member |= {"function": "f", "timeout": 10, "tier": 1, "role": "voter"} | more
    carried = {"x": list(values)} if columns is None else columns
    return json.loads(json.dumps({"member": member, "columns": carried, "rows": rows}))


def test_a_model_predicts_every_row(scorer: Scorer) -> None:
    result = scorer(event("half_plus_two", 0.0, 1.0, -4.0))
    assert (result["id"], result["outputs"]) == ("half_plus_two", [2.0, 2.5, 0.0])
    assert result["duration_ms"] > 0
    json.dumps(result, allow_nan=False)


def test_a_model_is_loaded_once(scorer: Scorer, stack: MemoryStack) -> None:
    assert [scorer(event("half_plus_two", 1.0))["cold"] for _ in range(3)] == [True, False, False]
    assert stack.artifacts.calls[artifact_key(artifact(model("half_plus_two")).digest)] == 1


def test_a_slot_that_gets_another_member_loads_it_and_keeps_the_first(scorer: Scorer) -> None:
    sent = [("half_plus_two", 0.0), ("sigmoid", 0.0), ("sigmoid", 0.0), ("half_plus_two", 0.0)]
    results = [scorer(event(*one)) for one in sent]
    assert [result["cold"] for result in results] == [True, True, False, False]
    assert [result["outputs"] for result in results] == [[2.0], [0.5], [0.5], [2.0]]


def test_several_numbers_a_row_stay_together(scorer: Scorer) -> None:
    columns = {"b": [0.0, 0.0], "unused": [9.0, 9.0], "a": [0.0, 100.0]}
    result = scorer(event("softmax", columns=columns, names=("a", "b"), rows=2))
    assert result["outputs"] == [pytest.approx([1 / 3] * 3), pytest.approx([1.0, 0.0, 0.0])]


def test_a_tensor_is_passed_unchanged(scorer: Scorer) -> None:
    result = scorer(event("two_by_two", columns={"image": [[[1, 2], [3, 4]]]}, names=("image",), rows=1))
    assert result["outputs"] == [10.0]


def test_each_input_takes_its_own_columns_and_the_named_output_is_returned(scorer: Scorer) -> None:
    columns = {"x": [1.0, 2.0], "y": [10.0, 20.0], "z": [100.0, 200.0]}
    sent: dict[str, Any] = {"columns": columns, "rows": 2, "inputs": {"b": ["z", "x"], "a": ["y"]}}
    # total = a + b[0] + b[1], first = a
    assert scorer(event("named", output="total", **sent))["outputs"] == [111.0, 222.0]
    assert scorer(event("named", output="first", **sent))["outputs"] == [10.0, 20.0]
    with pytest.raises(InputMismatch, match='the model has the outputs "first", "total"; choose one of them'):
        scorer(event("named", **sent))


def test_two_signatures_of_an_artifact_are_two_models(scorer: Scorer) -> None:
    results = [scorer(event("signatures", 3.0, signature=name)) for name in ("half", "double", "half")]
    assert [result["outputs"] for result in results] == [[3.5], [6.0], [3.5]]
    assert [result["cold"] for result in results] == [True, True, False]
    with pytest.raises(ModelRefused, match='no signature "third", but "double", "half"'):
        scorer(event("signatures", 3.0, signature="third"))


def test_a_column_may_be_named_s3(scorer: Scorer) -> None:
    assert scorer(event("half_plus_two", columns={"s3": [2.0]}, names=("s3",), rows=1))["outputs"] == [3.0]


def test_columns_and_outputs_may_travel_by_pointer(scorer: Scorer, stack: MemoryStack) -> None:
    body = columns_to_bytes({"x": np.arange(5000, dtype=np.float32)})
    pointer = stack.data.write("executions/run/columns.npz", body)
    key = "executions/run/outputs/half.npy"
    result = scorer(event("half_plus_two", columns={"s3": pointer.s3}, rows=5000, outputs_key=key))
    assert result["outputs"] == {"s3": f"s3://data/{key}"}
    assert array_from_bytes(stack.data.read(key)).tolist() == [row / 2 + 2 for row in range(5000)]


def test_an_artifact_of_another_digest_is_never_loaded(scorer: Scorer, stack: MemoryStack) -> None:
    stack.artifacts.write(artifact_key(artifact(model("half_plus_two")).digest), model("sigmoid"))
    with pytest.raises(ArtifactCorrupt, match="in the bucket: it was overwritten or damaged; restore"):
        scorer(event("half_plus_two", 1.0))


def test_a_repaired_artifact_is_loaded_at_the_next_call(scorer: Scorer, stack: MemoryStack) -> None:
    key = artifact_key(artifact(model("half_plus_two")).digest)
    stack.artifacts.write(key, b"damaged")
    with pytest.raises(ArtifactCorrupt):
        scorer(event("half_plus_two", 1.0))
    stack.artifacts.write(key, model("half_plus_two"))
    assert scorer(event("half_plus_two", 1.0))["cold"] is True


def test_an_absent_artifact_raises_artifact_missing(scorer: Scorer) -> None:
    with pytest.raises(ArtifactMissing, match="is not in the bucket; publish again"):
        scorer(event("fixed_batch_one", 1.0))


def test_an_output_that_is_not_finite_is_carried_as_null_beside_the_others(scorer: Scorer) -> None:
    assert scorer(event("logarithm", 1.0, -1.0, 1.0, 0.0))["outputs"] == [0.0, None, 0.0, None]  # NaN, and -inf


def test_a_model_that_cannot_be_served_is_rejected(scorer: Scorer) -> None:
    with pytest.raises(ModelRefused, match='no runtime named "onnx"'):
        scorer(event("sigmoid", 1.0, runtime="onnx"))


def test_columns_that_a_model_does_not_take_are_rejected(scorer: Scorer) -> None:
    with pytest.raises(InputMismatch, match=r"takes \[2\] numbers a row, and its columns give \[1\]"):
        scorer(event("softmax", 1.0))
    with pytest.raises(InputMismatch, match='the model has the inputs "a", "b"'):
        scorer(event("two_inputs", 1.0))
    with pytest.raises(InputMismatch, match='no column named "y"'):
        scorer(event("half_plus_two", 1.0, names=("y",)))


# ------------------------------------------------------------------------------------------------------ a warm-up


def to_load(name: str, *shape: int, dtype: str = "float32", **more: Any) -> dict[str, Any]:
    """Return what a slot is sent in a warm-up for a member with this model, with one input of this shape."""
    found = artifact(model(name))
    inputs = {"": {"dtype": dtype, "shape": shape or (1,)}}
    loaded = {"digest": found.digest, "size": found.size}
    return {"runtime": "litert", "artifact": loaded, "signature": None, "inputs": inputs, "output": None, **more}


def warm(scorer: Scorer, *members: dict[str, Any]) -> list[dict[str, Any]]:
    event = {"warmup": True, "slot": {"function": "f", "timeout": 10, "members": members}}
    result = scorer(json.loads(json.dumps(event)))
    json.dumps(result, allow_nan=False)
    return list(result["members"])


def test_a_model_that_was_warmed_up_is_not_loaded_again(scorer: Scorer, stack: MemoryStack) -> None:
    (first,) = warm(scorer, to_load("half_plus_two"))
    (again,) = warm(scorer, to_load("half_plus_two"))
    assert (first["cold"], again["cold"]) == (True, False)
    assert first["duration_ms"] > 0
    assert scorer(event("half_plus_two", 1.0))["cold"] is False
    assert stack.artifacts.calls[artifact_key(artifact(model("half_plus_two")).digest)] == 1
    assert stack.data.written == []


def test_a_warm_up_loads_every_model_of_the_slot_even_if_one_fails(scorer: Scorer) -> None:
    absent = {**to_load("sigmoid"), "artifact": {"digest": "0" * 64, "size": 1}}
    failed, loaded = warm(scorer, absent, to_load("sigmoid"))
    assert failed["error"]["type"] == "ArtifactMissing"
    assert "publish again" in failed["error"]["message"]
    assert loaded["cold"] is True


def test_a_warm_up_reports_an_artifact_that_does_not_match_its_digest(scorer: Scorer, stack: MemoryStack) -> None:
    stack.artifacts.write(artifact_key(artifact(model("half_plus_two")).digest), model("sigmoid"))
    (failed,) = warm(scorer, to_load("half_plus_two"))
    assert failed["error"]["type"] == "ArtifactCorrupt"


def test_a_storage_failure_is_raised_so_that_the_state_machine_retries(stack: MemoryStack) -> None:
    class Down:
        def read_artifact(self, _: Any) -> bytes:
            raise StorageUnavailable("S3 is down")

    down: Any = Down()
    with pytest.raises(StorageUnavailable):
        warm(Scorer(ModelCache(down, GIBIBYTE, lambda: 0), stack.data), to_load("sigmoid"))


class Watched(ModelCache):
    """A cache whose models note their inputs."""

    def get(
        self, runtime: str, artifact: Artifact, signature: str | None, *, trusted: bool = False
    ) -> tuple[Model, bool]:
        found, cold = super().get(runtime, artifact, signature, trusted=trusted)

        def invoke(values: Sequence[Array], output: str) -> Array:
            INPUTS.append([np.asarray(value) for value in values])
            return found.invoke(values, output)

        return replace(found, invoke=invoke), cold


INPUTS: list[list[Array]] = []


@pytest.mark.parametrize(
    ("member", "shapes"),
    [
        pytest.param(to_load("softmax", 2), [(1, 2)], id="two numbers"),
        pytest.param(to_load("two_by_two", 2, 2), [(1, 2, 2)], id="a tensor"),
        pytest.param(to_load("free_width", 5), [(1, 5)], id="any width: that of its columns"),
        pytest.param(to_load("fixed_batch_two", 1), [(2, 1)], id="two rows at once"),
        pytest.param(to_load("int8", 1), [(1, 1)], id="quantized"),
        pytest.param(
            to_load(
                "named",
                inputs={
                    "b": {"dtype": "float32", "shape": [2]},
                    "a": {"dtype": "float32", "shape": [1]},
                },
                output="total",
            ),
            [(1, 1), (1, 2)],
            id="by name, in the order of the signature",
        ),
    ],
)
def test_a_warm_up_predicts_zeros_of_the_shape_that_an_execution_has(
    member: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    stack = MemoryStack()
    for name in ("softmax", "two_by_two", "free_width", "fixed_batch_two", "int8", "named"):
        stack.releases.write_artifact(artifact(model(name)), model(name))
    INPUTS.clear()
    (loaded,) = warm(Scorer(Watched(stack.releases, GIBIBYTE, lambda: 0), stack.data), member)
    assert loaded["cold"] is True
    (sent,) = INPUTS
    assert [value.shape for value in sent] == shapes


def test_a_model_that_rejects_zeros_is_loaded_nevertheless(scorer: Scorer) -> None:
    assert warm(scorer, to_load("softmax", 3))[0]["cold"] is True
    assert scorer(event("softmax", columns={"a": [0.0], "b": [0.0]}, names=("a", "b"), rows=1))["cold"] is False
