from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from stepensemble.batch.input.repeated_keys import MAX_BLANKS, MAX_HASHED_BYTES, find_suspects

BLANKS = st.sampled_from(["", "", " ", "\t", "  ", "\r", " " * MAX_BLANKS, " " * (MAX_BLANKS + 1)])
STRINGS = st.lists(
    st.sampled_from(["a", "b", '\\"', "\\\\", ":", "{", "}", ",", "\\u0061", "longer than eight", "é", "\\n"]),
    max_size=3,
).map(lambda parts: f'"{"".join(parts)}"')


def write_object(pairs: list[tuple[str, str, str]]) -> str:
    return "{" + ",".join(f"{blank}{key}{blank}:{blank}{value}" for blank, key, value in pairs) + "}"


VALUES = st.recursive(
    st.one_of(st.sampled_from(["1", "null", "true", "-1e5"]), STRINGS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: f"[{','.join(values)}]"),
        st.lists(st.tuples(BLANKS, STRINGS, inner), max_size=3).map(write_object),
    ),
    max_leaves=6,
)
LINES = st.lists(st.tuples(BLANKS, STRINGS, VALUES), max_size=4).map(write_object)


def has_repeated(line: str) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found |= len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(line, object_pairs_hook=look)
    return found


@given(st.lists(LINES, min_size=1, max_size=6))
def test_every_line_with_a_key_twice_is_a_suspect(lines: list[str]) -> None:
    text = "\n".join(lines).encode()
    ends = np.cumsum([len(line.encode()) + 1 for line in lines])
    ends[-1] = len(text)
    suspects = find_suspects(text, ends).tolist()
    assert all(suspect or not has_repeated(line) for line, suspect in zip(lines, suspects, strict=True))


def test_lines_whose_keys_differ_are_no_suspects() -> None:
    names = ["", "a", "b", "ab", "a" * 8, "a" * 9, "a" * 16 + "b", "a" * 17, "é", "A"]
    lines = [json.dumps(dict.fromkeys(names, 'a": 1, "a": "b\\\\"'), ensure_ascii=False) for _ in range(100)]
    text = "".join(f"{line}\n" for line in lines).encode()
    assert not find_suspects(text, np.cumsum([len(line.encode()) + 1 for line in lines])).any()


def test_long_rows_are_suspects_and_take_little_time() -> None:
    key, blank = "k" * MAX_HASHED_BYTES, " " * 10**6
    lines = [f'{{"{key}":1,"{key}x":2}}', f'{{"{key}a":1,"{key}b":2}}', f'{{"a"{blank}:1}}', f'{{"{key * 10**4}":1}}']
    text = "".join(lines).encode()
    assert find_suspects(text, np.cumsum([len(line) for line in lines])).tolist() == [False, True, True, False]


def test_an_empty_text_has_no_suspects() -> None:
    assert find_suspects(b"", np.empty(0, np.int64)).tolist() == []
