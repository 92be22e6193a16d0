from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from stepensemble.core.validation import check_structure


class Cat(Struct, forbid_unknown_fields=True, tag_field="type", tag="cat"):
    lives: Annotated[int, Meta(ge=0, le=9)] = 9


class Dog(Struct, forbid_unknown_fields=True, tag_field="type", tag="dog"):
    name: str


class House(Struct, forbid_unknown_fields=True):
    pets: Annotated[tuple[Cat | Dog, ...], Meta(min_length=1)]
    number: str | int
    rooms: dict[str, float] = {}
    owner: Dog | None = None
    lit: bool = False
    colour: Literal["red", "white"] = "red"
    anything: Any = None


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
        ({"pets": [{"type": "cat", "lives": 10}]}, ["$.pets[0].lives: 10 is out of bounds; it must be int <= 9"]),
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
                '$.owner.nmae: "nmae" is not known here; remove it, did you mean "name"?',
                '$.owner: "name" is missing; add "name" (a string)',
            ],
        ),
        ({"lit": 1}, ["$.lit: 1 is not true or false; write true or false"]),
        ({"colour": "Red"}, ['$.colour: "Red" is not allowed; use one of "red", "white", did you mean "red"?']),
        ({"color": "red"}, ['$.color: "color" is not known here; remove it, did you mean "colour"?']),
    ],
)
def test_every_mismatch_has_its_path_value_and_remedy(change: dict[str, Any], expected: list[str]) -> None:
    assert [str(problem) for problem in check_structure(SOUND | change, House)] == expected


def test_what_is_missing_at_the_top_is_named() -> None:
    assert [str(problem) for problem in check_structure({}, House)] == [
        '$: "pets" is missing; add "pets" (a list)',
        '$: "number" is missing; add "number" (a string or a whole number)',
    ]


@pytest.mark.parametrize("data", [[], "x", 1, None, True])
def test_what_is_no_object_is_refused(data: object) -> None:
    (problem,) = check_structure(data, House)
    assert problem.message.endswith("is not an object")
