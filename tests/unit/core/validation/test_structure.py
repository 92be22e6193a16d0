from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from stepensemble.core.validation.structure import check_structure


class Cat(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="cat"):
    lives: Annotated[int, Meta(ge=0, le=9)] = 9


class Dog(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="dog"):
    name: str


Share = Annotated[float, Meta(gt=0, le=1)]


class Garden(Struct, frozen=True, forbid_unknown_fields=True):
    guard: Cat | Dog = Cat()
    shares: Mapping[str, Share] | None = None
    slope: float | tuple[tuple[float, ...], ...] = 0.0
    beds: tuple[int, ...] | Literal["none", "all"] | None = None
    shade: Annotated[Share | None, Meta(description="Of the area.")] = None


class House(Struct, frozen=True, forbid_unknown_fields=True):
    pets: Annotated[tuple[Cat | Dog, ...], Meta(min_length=1)]
    number: str | int
    rooms: dict[str, float] = {}
    owner: Dog | None = None
    lit: bool = False
    colour: Literal["red", "white"] = "red"
    anything: Any = None
    garden: Garden = Garden()


SOUND: dict[str, Any] = {"pets": [{"type": "cat"}], "number": 7}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"owner": None, "rooms": {"hall": 1}, "lit": True, "anything": [{}], "number": "7a"}, []),
        ({"pets": []}, ["$.pets: has 0 entries; give at least 1"]),
        ({"pets": {}}, ["$.pets: {} is not a list; write a list"]),
        ({"pets": ["cat"]}, ['$.pets[0]: "cat" is not an object; write an object']),
        ({"pets": [{}]}, ['$.pets[0]: "type" is missing; add "type" with one of "cat", "dog"']),
        (
            {"pets": [{"type": "dgo", "name": "x"}]},
            ['$.pets[0].type: "dgo" is not allowed; use one of "cat", "dog", did you mean "dog"?'],
        ),
        ({"pets": [{"type": "dog"}]}, ['$.pets[0]: "name" is missing; add "name" (a string)']),
        (
            {"pets": [{"type": "cat", "lives": 10}]},
            ["$.pets[0].lives: 10 is out of bounds; use a whole number of at most 9"],
        ),
        (
            {"pets": [{"type": "cat", "lives": True}]},
            ["$.pets[0].lives: true is not a whole number; write a whole number"],
        ),
        ({"number": 1.5}, ["$.number: 1.5 is not a string or a whole number; write a string or a whole number"]),
        ({"number": True}, ["$.number: true is not a string or a whole number; write a string or a whole number"]),
        ({"rooms": {"hall": "big"}}, ['$.rooms.hall: "big" is not a number; write a number']),
        ({"rooms": []}, ["$.rooms: [] is not an object; write an object"]),
        (
            {"owner": {"type": "dog", "nmae": "x"}},
            [
                '$.owner.nmae: "nmae" is not a known key; remove it, did you mean "name"?',
                '$.owner: "name" is missing; add "name" (a string)',
            ],
        ),
        ({"lit": 1}, ["$.lit: 1 is not true or false; write true or false"]),
        ({"colour": "Red"}, ['$.colour: "Red" is not allowed; use one of "red", "white", did you mean "red"?']),
        ({"owner": {"type": "cat", "name": "x"}}, ['$.owner.type: "cat" is not allowed; use "dog"']),
        ({"color": "red"}, ['$.color: "color" is not a known key; remove it, did you mean "colour"?']),
    ],
)
def test_every_mismatch_has_its_path_value_and_remedy(change: dict[str, Any], expected: list[str]) -> None:
    assert [str(problem) for problem in check_structure(SOUND | change, House)] == expected


@pytest.mark.parametrize(
    ("garden", "expected"),
    [
        ({}, []),
        (
            {"guard": {"type": "dog", "name": "x"}, "shares": {"a": 1, "b": 0.5}, "slope": 1, "beds": [1], "shade": 1},
            [],
        ),
        ({"shares": None, "slope": [[1, 2.5], []], "beds": None, "shade": None}, []),
        ({"beds": "none"}, []),
        ({"guard": {}}, ['$.garden.guard: "type" is missing; add "type" with one of "cat", "dog"']),
        ({"guard": None}, ["$.garden.guard: null is not an object; write an object"]),
        (
            {"guard": {"type": "cat", "lives": -1}},
            ["$.garden.guard.lives: -1 is out of bounds; use a whole number of at least 0"],
        ),
        ({"shares": [1]}, ["$.garden.shares: [1] is not an object; write an object"]),
        (
            {"shares": {"a": 0, "b": 1, "c": 1.5, "d": "1"}},
            [
                "$.garden.shares.a: 0 is out of bounds; use a number greater than 0",
                "$.garden.shares.c: 1.5 is out of bounds; use a number of at most 1",
                '$.garden.shares.d: "1" is not a number; write a number',
            ],
        ),
        ({"slope": "1"}, ['$.garden.slope: "1" is not a number or a list; write a number or a list']),
        ({"slope": {}}, ["$.garden.slope: {} is not a number or a list; write a number or a list"]),
        ({"slope": True}, ["$.garden.slope: true is not a number or a list; write a number or a list"]),
        (
            {"slope": [[0, "1", None], 2]},
            [
                '$.garden.slope[0][1]: "1" is not a number; write a number',
                "$.garden.slope[0][2]: null is not a number; write a number",
                "$.garden.slope[1]: 2 is not a list; write a list",
            ],
        ),
        ({"slope": 10**400}, [f"$.garden.slope: 1{'0' * 58}… is out of bounds; use a number closer to 0"]),
        ({"beds": ["1"]}, ['$.garden.beds[0]: "1" is not a whole number; write a whole number']),
        ({"beds": "al"}, ['$.garden.beds: "al" is not allowed; use one of "all", "none", did you mean "all"?']),
        (
            {"beds": 1},
            ['$.garden.beds: 1 is not a list or one of "all", "none"; write a list or one of "all", "none"'],
        ),
        ({"shade": 2}, ["$.garden.shade: 2 is out of bounds; use a number of at most 1"]),
        ({"shade": "dark"}, ['$.garden.shade: "dark" is not a number; write a number']),
    ],
)
def test_a_mismatch_inside_alternatives_is_reported_for_the_intended_one(
    garden: dict[str, Any], expected: list[str]
) -> None:
    data = SOUND | {"garden": garden}
    assert [str(problem) for problem in check_structure(data, House)] == expected
    if expected:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(data, House)
    else:
        assert isinstance(msgspec.convert(data, House), House)


def test_what_is_missing_at_the_top_is_named() -> None:
    assert [str(problem) for problem in check_structure({}, House)] == [
        '$: "pets" is missing; add "pets" (a list)',
        '$: "number" is missing; add "number" (a string or a whole number)',
    ]


@pytest.mark.parametrize("data", [[], "x", 1, None, True])
def test_what_is_not_an_object_is_refused(data: object) -> None:
    (problem,) = check_structure(data, House)
    assert problem.message.endswith("is not an object")
