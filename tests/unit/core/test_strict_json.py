from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepensemble.core.errors import InvalidPayload
from stepensemble.core.strict_json import describe_syntax, read_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(DOCUMENTS, st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_what_json_can_carry_is_read_as_it_was(document: Any, mark: bytes) -> None:
    assert read_json(mark + json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"x": NaN}', "NaN is not a finite number"),
        (b'{"x": -Infinity}', "-Infinity is not a finite number"),
        (b'{"x": 1e400}', "1e400 is not a finite number"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "Exceeds the limit"),  # Python reads integers of at most 4,300 digits
        (b'{"x": "\\ud800"}', r"^it has half a surrogate pair, \\ud800, which is not a character; write both halves$"),
        (b'{"x": 1', "Expecting"),
        (b"", "Expecting value"),
    ],
)
def test_what_cannot_be_carried_on_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_json(body)


def test_infinities_are_read_where_they_are_requested() -> None:
    assert read_json(b"[Infinity, -Infinity]", finite=False) == [float("inf"), float("-inf")]


def test_a_key_that_is_there_twice_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidPayload, match='"age" is given twice in one object; give it once'):
        read_json(b'{"features": {"age": 1, "sex": "male", "age": 2}}')


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1,}', "trailing comma in object, line 1, column 9"),
        ('{"é": 1,\n  "b": [1,\n 2,]}', "line 3, column 4"),
        (b'{"a": 1,\n}', "line 2, column 1"),
        ("", "Input data was truncated"),
    ],
)
def test_a_syntax_error_is_described_by_line_and_column(text: str | bytes, place: str) -> None:
    with pytest.raises(msgspec.DecodeError) as raised:
        msgspec.json.decode(text)
    assert describe_syntax(text, raised.value).endswith(place)
