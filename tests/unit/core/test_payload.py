from __future__ import annotations

from typing import Any

import pytest

from builders import released
from stepensemble.core.errors import InvalidPayload
from stepensemble.core.payload import MAX_ROWS, Pointer, apply_quorum, digest_input, is_warmup, parse_payload
from stepensemble.core.schema.policy import Policy, Quorum


def problems_of(data: object) -> list[str]:
    with pytest.raises(InvalidPayload) as refused:
        parse_payload(data)
    return [str(problem) for problem in refused.value.problems]


def test_problems_of_one_row_name_features() -> None:
    payload = parse_payload({"features": {"x": 1}})
    assert (list(payload.rows), payload.single, payload.locate(0)) == ([{"x": 1}], True, "$.features")


def test_problems_of_many_rows_name_their_number() -> None:
    payload = parse_payload({"instances": [{"x": 1}, {"x": 2}]})
    assert (list(payload.rows), payload.single, payload.locate(1)) == ([{"x": 1}, {"x": 2}], False, "$.instances[1]")


def test_rows_may_be_a_pointer() -> None:
    payload = parse_payload({"instances": {"s3": "s3://bucket/payloads/a/b.json"}})
    assert isinstance(payload.rows, Pointer)
    assert payload.rows.split() == ("bucket", "payloads/a/b.json")


def test_the_other_keys_of_a_payload_are_read() -> None:
    payload = parse_payload({"features": {}, "prediction_id": "p-1", "metadata": {"a": [1]}, "release": "ab" * 4})
    assert (payload.prediction_id, payload.metadata, payload.release) == ("p-1", {"a": [1]}, "abababab")
    plain = parse_payload({"features": {}})
    assert (plain.prediction_id, plain.metadata, plain.release) == (None, {}, None)


def test_a_quorum_keeps_the_fields_that_are_given() -> None:
    assert parse_payload({"features": {}}).quorum is None
    assert parse_payload({"features": {}, "quorum": None}).quorum is None
    assert parse_payload({"features": {}, "quorum": {}}).quorum == {}
    given = {"required": ["a", "b"], "min_weight": 1, "min_members": None}
    read = parse_payload({"features": {}, "quorum": given}).quorum
    assert read == {"required": ("a", "b"), "min_weight": 1.0, "min_members": None}


def test_a_quorum_overrides_the_policys_field_by_field() -> None:
    policy = Policy(quorum=Quorum(min_members=2, min_weight=0.5))
    members = [released("a"), released("b"), released("c", role="shadow")]
    applied = apply_quorum(parse_payload({"features": {}, "quorum": {"min_members": 1}}), policy, members)
    assert applied == Policy(quorum=Quorum(min_members=1, min_weight=0.5))
    assert apply_quorum(parse_payload({"features": {}}), policy, members) is policy


def test_a_quorum_of_unknown_members_is_rejected() -> None:
    payload = parse_payload({"features": {}, "quorum": {"required": ["c"], "min_members": 3}})
    with pytest.raises(InvalidPayload) as refused:
        apply_quorum(payload, Policy(), [released("a"), released("c", role="shadow")])
    assert [problem.path for problem in refused.value.problems] == ["$.quorum.min_members", "$.quorum.required[0]"]


@pytest.mark.parametrize("count", [1, MAX_ROWS])
def test_one_to_ten_thousand_rows_are_accepted(count: int) -> None:
    assert MAX_ROWS == 10_000
    assert len(parse_payload({"instances": [{}] * count}).rows) == count  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], '$: [] is not an object; write {"features": {…}} or {"instances": [{…}, …]}'),
        ("x", '$: "x" is not an object; write {"features": {…}} or {"instances": [{…}, …]}'),
        ({}, '$: has no features; give "features" for one row or "instances" for many'),
        (
            {"features": {}, "instances": []},
            '$: has both features and instances; give "features" for one row or "instances" for many',
        ),
        ({"features": []}, "$.features: [] is not an object; write an object"),
        ({"features": None}, "$.features: null is not an object; write an object"),
        ({"instances": []}, "$.instances: is empty; give at least one row"),
        ({"instances": {"x": 1}}, '$.instances: {"x": 1} is not a list; write a list of objects'),
        ({"instances": [{}] * 10_001}, "$.instances: has 10,001 rows; send at most 10,000 in one execution"),
        (
            {"instances": {"s3": 7}},
            '$.instances: Expected `str`, got `int` - at `$.s3`; write {"s3": "s3://bucket/key"}',
        ),
        (
            {"instances": {"s3": "s3://b/k", "region": "x"}},
            '$.instances: Object contains unknown field `region`; write {"s3": "s3://bucket/key"}',
        ),
        ({"features": {}, "metadata": []}, "$.metadata: [] is not an object; write an object"),
        ({"features": {}, "metadata": None}, "$.metadata: null is not an object; write an object"),
        ({"features": {}, "release": "abc"}, '$.release: "abc" is not a release; give at least 8 of its 64 hex digits'),
        ({"features": {}, "release": 12345678}, "$.release: 12345678 is not a release; give at least 8 of its 64 "),
        ({"features": {}, "quorum": []}, "$.quorum: [] is not an object; write an object"),
        (
            {"features": {}, "quorum": {"min_members": 0}},
            "$.quorum.min_members: 0 is out of bounds; use a whole number of at least 1",
        ),
        (
            {"features": {}, "quorum": {"minmembers": 1}},
            '$.quorum.minmembers: "minmembers" is not a known key; remove it, did you mean "min_members"?',
        ),
        (
            {"features": {}, "predictionid": "x"},
            '$.predictionid: "predictionid" is not a known key; put what belongs to it into features or metadata, '
            'did you mean "prediction_id"?',
        ),
    ],
)
def test_an_invalid_payload_is_rejected(data: Any, expected: str) -> None:
    (found,) = problems_of(data)
    assert found.startswith(expected)


def test_a_warm_up_is_one_key_that_is_true_and_nothing_else() -> None:
    assert is_warmup({"warmup": True})
    others: list[Any] = [{"warmup": value} for value in (False, None, 1, "true", {})]
    for data in [*others, {"warmup": True, "features": {}}, {"Warmup": True}, {}, [], "warmup", None, True]:
        assert not is_warmup(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"warmup": True},
            "$.warmup: is a warm-up, which has no prediction; start an execution of the state machine with it, or run: "
            "ensemble warm",
        ),
        ({"warmup": 1}, '$.warmup: 1 is not true; warm up with {"warmup": true}, or leave it out to predict'),
        (
            {"warmup": False, "features": {}},
            '$.warmup: false is not true; warm up with {"warmup": true}, or leave it out to predict',
        ),
        (
            {"warmup": True, "features": {}, "metadata": {}},
            '$.warmup: must be the only key, and there are also "features", "metadata"; send it alone to warm up, or '
            "leave it out to predict",
        ),
        (
            {"warm_up": True, "features": {}},
            '$.warm_up: "warm_up" is not a known key; put what belongs to it into features or metadata, did you mean '
            '"warmup"?',
        ),
    ],
)
def test_a_warm_up_is_not_a_payload(data: Any, expected: str) -> None:
    assert problems_of(data) == [expected]


def test_other_problems_beside_a_warm_up_are_reported_too() -> None:
    data = {"warmup": True, "dataset": "s3://data/inbox/a.csv", "prediction_id": ""}
    assert [problem.split(":")[0] for problem in problems_of(data)] == ["$.warmup", "$.dataset", "$.prediction_id"]


@pytest.mark.parametrize("prediction_id", ["a", "A.b_c:d-9", "0", "x" * 128])
def test_a_valid_prediction_id_is_accepted(prediction_id: str) -> None:
    assert parse_payload({"features": {}, "prediction_id": prediction_id}).prediction_id == prediction_id


@pytest.mark.parametrize("prediction_id", ["", "-a", "a b", "a/b", "ä", "x" * 129, 7, True, ["a"], "a\n"])
def test_an_invalid_prediction_id_is_rejected(prediction_id: object) -> None:
    (found,) = problems_of({"features": {}, "prediction_id": prediction_id})
    assert found.startswith("$.prediction_id: ")
    assert "use 1 to 128 letters" in found


def test_every_problem_is_reported_at_once() -> None:
    found = problems_of({"instances": [], "prediction_id": "", "metadata": 1, "release": "?", "extra": 1})
    assert [problem.split(":")[0] for problem in found] == [
        "$.extra",
        "$.instances",
        "$.prediction_id",
        "$.metadata",
        "$.release",
    ]


def test_the_digest_depends_only_on_the_rows_and_the_quorum() -> None:
    one = digest_input({"features": {"x": 1, "y": 2}})
    assert one == digest_input({"metadata": {"a": 1}, "features": {"y": 2, "x": 1}, "prediction_id": "p"})
    assert one == digest_input({"features": {"x": 1, "y": 2}, "quorum": None})
    assert one != digest_input({"features": {"x": 1, "y": 3}})
    assert one != digest_input({"features": {"x": 1, "y": 2}, "quorum": {"min_members": 1}})
    assert one != digest_input({"instances": [{"x": 1, "y": 2}]})
    assert digest_input({"instances": [{"x": 1}, {"x": 2}]}) != digest_input({"instances": [{"x": 2}, {"x": 1}]})
