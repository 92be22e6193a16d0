"""Another processor, as far as one machine can be it: LiteRT without XNNPACK.

XNNPACK picks its kernels by what the processor has, and no setting of it makes it pick others; LiteRT's own plain
kernels add in another order and approximate nothing, so that their last bits are others, too. Python imports this
module at its start where its folder is on the path, in this process and in all that it starts:

    PYTHONPATH=$PWD/tests/plain_kernels .venv/bin/pytest tests/contract/test_events.py

They take one row by another path than many, so a test that compares a row alone with the same row among others, bit by
bit, holds with XNNPACK only.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

INTERPRETER = "ai_edge_litert.interpreter"


def use_plain_kernels(module: ModuleType) -> None:
    """Let the interpreters that the module makes from now on do without XNNPACK."""
    plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    module.Interpreter = functools.partial(module.Interpreter, experimental_op_resolver_type=plain)  # type: ignore[attr-defined]


class _Finder(MetaPathFinder):
    """Changes the module when something imports it, so that no process imports LiteRT that does not need it."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 (a finder's)
        target: ModuleType | None = None,  # noqa: ARG002 (the same)
    ) -> ModuleSpec | None:
        if name != INTERPRETER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Changed(spec.loader)
        return spec


class _Changed(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        use_plain_kernels(module)


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _Finder())
