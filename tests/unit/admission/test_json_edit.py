from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from builders import ROOT
from stepensemble.admission.json_edit import append_item, set_value

SHIPPED = (ROOT / "models" / "manifest.json").read_text()
FIFTH = {"id": "fifth", "version": "1", "artifact": "titanic/fifth.tflite", "output": {"kind": "probability"}}

scalars = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def dump(value: Any, style: int) -> str:
    """Write JSON in one of the styles people have."""
    text = [
        json.dumps(value),
        json.dumps(value, indent=2),
        json.dumps(value, indent="\t", ensure_ascii=False),
        json.dumps(value, separators=(",", ":")),
        json.dumps(value, indent=4, separators=(" ,", " : ")),
    ][style]
    return text if style % 2 else f"\n{text}\n\n"


@given(st.lists(values, max_size=4), values, st.integers(0, 4))
def test_an_item_is_added_and_nothing_else_changes(items: list[Any], item: Any, style: int) -> None:
    data = {"before": 1.50, "members": items, "after": {"a": [1, 2]}}
    text = dump(data, style)
    changed = append_item(text, ("members",), item)
    assert json.loads(changed) == {**data, "members": [*items, item]}
    kept = len(text) - len(text[text.rindex("]", 0, text.index('"after"')) :]) if items else text.index('"members"')
    assert changed[:kept].rstrip() == text[:kept].rstrip() or changed.startswith(text[: kept - 1].rstrip())
    assert changed.endswith(text[text.index('"after"') :])


@given(
    st.dictionaries(st.sampled_from("abcd"), values, max_size=4), st.sampled_from("abcdx"), values, st.integers(0, 4)
)
def test_a_value_is_set_and_nothing_else_changes(inner: dict[str, Any], name: str, value: Any, style: int) -> None:
    data = {"first": [{"n": 1e3}, inner], "last": "}"}
    text = dump(data, style)
    changed = set_value(text, ("first", 1, name), value)
    assert json.loads(changed) == {"first": [{"n": 1e3}, {**inner, name: value}], "last": "}"}
    assert changed.endswith(text[text.index('"last"') :])
    assert changed.startswith(text[: text.index("1000") + 4])


def test_a_member_added_to_the_shipped_manifest_has_the_format_of_the_others() -> None:
    changed = append_item(SHIPPED, ("members",), FIFTH)
    added = [line for line in changed.splitlines() if line not in SHIPPED.splitlines()]
    assert added == [
        '      "id": "fifth",',
        '      "artifact": "titanic/fifth.tflite",',
        '      "output": {"kind": "probability"}',
    ]
    assert len(changed.splitlines()) == len(SHIPPED.splitlines()) + 6
    assert changed.startswith(SHIPPED[: SHIPPED.rindex("}\n  ]")])


def test_an_item_on_one_line_is_added_on_one_line() -> None:
    text = '{\n  "members": [\n    {"id": "a"},\n    {"id": "b"}\n  ]\n}\n'
    assert append_item(text, ("members",), {"id": "c"}) == text.replace('"b"}\n', '"b"},\n    {"id": "c"}\n')


def test_the_first_item_of_an_empty_list() -> None:
    assert append_item('{\n  "members": []\n}\n', ("members",), {"id": "a"}) == (
        '{\n  "members": [\n    {"id": "a"}\n  ]\n}\n'
    )


def test_a_long_first_item_of_an_empty_list_gets_several_lines() -> None:
    path = "titanic/" + 60 * "x"
    assert append_item('{\n  "members": []\n}\n', ("members",), FIFTH | {"artifact": path}) == (
        '{\n  "members": [\n    {\n      "id": "fifth",\n      "version": "1",\n'
        f'      "artifact": "{path}",\n      "output": {{"kind": "probability"}}\n    }}\n  ]\n}}\n'
    )


@pytest.mark.parametrize("members", ["[]", '[\r\n    {\r\n      "id": "a"\r\n    }\r\n  ]'])
def test_new_lines_have_the_line_ends_of_the_others(members: str) -> None:
    changed = append_item(f'{{\r\n  "members": {members}\r\n}}\r\n', ("members",), FIFTH)
    assert changed.count("\n") == changed.count("\r\n") > 4


def test_a_list_on_one_line_stays_on_it() -> None:
    assert append_item('{"members": [1,2]}', ("members",), 3) == '{"members": [1,2,3]}'


def test_an_equal_value_keeps_its_text() -> None:
    text = '{"weight": 1.50e0,  "id":"\\u0061"}'
    assert set_value(set_value(text, ("weight",), 1.5), ("id",), "a") == text


def test_a_byte_order_mark_is_kept() -> None:
    assert append_item('\ufeff{"members": []}', ("members",), 1).startswith("\ufeff{")


def test_a_path_that_does_not_exist() -> None:
    with pytest.raises(KeyError, match="members"):
        append_item("{}", ("members",), 1)
