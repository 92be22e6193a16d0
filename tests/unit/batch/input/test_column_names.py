from __future__ import annotations

import pytest

from stepensemble.batch.input.column_names import find_similar_name


@pytest.mark.parametrize("name", [" a", "A", "a\t", "\ufeffa", "a\u200b", "\x00a"])
def test_similar_names_are_found(name: str) -> None:
    assert find_similar_name("a", ["x", name]) == name
    assert find_similar_name(name, ["x", "a"]) == "a"
    assert find_similar_name("a", ["a", "b", "aa", ""]) is None
