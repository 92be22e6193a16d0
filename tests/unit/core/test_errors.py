from __future__ import annotations

import re

from stepensemble.core import errors
from stepensemble.core.errors import EnsembleError, InvalidPayload
from stepensemble.core.problems import Problem


def drawn_tree() -> dict[str, str]:
    """Read the tree in the module's docstring: class name to its parent's."""
    parents: dict[str, str] = {}
    way: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"    ((?:[│ ] {3})*)(?:[├└]── )?(\w+)(?: .*)?", line)
        if found is None or not line.startswith("    "):
            continue
        depth = len(found[1]) // 4 + ("── " in line)
        way[depth:] = [found[2]]
        if depth:
            parents[found[2]] = way[depth - 1]
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    public = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, EnsembleError) and not name.startswith("_")
    }
    classes = {
        name: next(base.__name__ for base in kind.__mro__[1:] if base.__name__ in public)
        for name, kind in public.items()
        if kind is not EnsembleError
    }
    assert drawn_tree() == classes


def test_every_error_states_what_it_means() -> None:
    assert all(vars(errors)[name].__doc__ for name in drawn_tree())


def test_an_error_with_problems_lists_them_and_keeps_them() -> None:
    problem = Problem("$.x", "is missing", "give it")
    error = InvalidPayload([problem])
    assert error.problems == (problem,)
    assert str(error) == "1 problem:\n- $.x: is missing; give it"
