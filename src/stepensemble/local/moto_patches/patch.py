"""What a patch of moto is, how it is checked and applied, and which versions the patches are written for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from stepensemble.core.errors import LocalStackError
from stepensemble.local.errors import PatchMismatch

PINNED = {"moto": "5.2.5", "jsonpath-ng": "1.16.0"}
"""Versions that the patches are written for. The `local` extra in pyproject.toml requires the same; a test compares."""

SPEEDUPS_OFF = "STEPENSEMBLE_MOTO_SPEEDUPS_OFF"
"""Environment variable: names of the speed-ups to switch off, separated by commas; `all` for every one of them."""

LARGE_BODY = 16 * 1024 * 1024
"""Bytes above which moto holds an object on disk, besides the state database. With moto's own 5 MiB every part of an
upload, and the columns of every shard, took a third longer."""


class PatchKind(StrEnum):
    """Why moto is changed: it differs from AWS, or it is slow."""

    CORRECTION = "correction"
    SPEEDUP = "speed-up"


@dataclass(frozen=True)
class MotoPatch:
    """One change to moto.

    Attributes:
        name: unique; used in errors, in the documentation and to switch a speed-up off.
        kind: correction or speed-up.
        replaces: the attributes that are replaced or relied on, as `module:attribute`; all of them must exist.
        reason: what moto does without the patch.
        source: of a correction, the address of AWS's documentation; of a speed-up, the seconds with and without it.
        apply: changes moto; it is called once a process, after moto was imported. None if the patch acts while moto is
            imported (`lazy_imports.import_moto`) or while a stack is created (`emulation.server.create_stacks`).
        upstream: addresses of reports or changes of moto, or of LocalStack, from which moto's engine was taken.
    """

    name: str
    kind: PatchKind
    replaces: tuple[str, ...]
    reason: str
    source: str
    apply: Callable[[], None] | None = None
    upstream: tuple[str, ...] = ()


def apply_patches(patches: Iterable[MotoPatch]) -> None:
    """Check that every patch fits the installed moto, then apply all that are not switched off.

    Raises:
        PatchMismatch: an attribute that a patch replaces does not exist.
        LocalStackError: the environment variable names a speed-up that does not exist.
    """
    patches = list(patches)
    off = read_switched_off()
    speedups = {patch.name for patch in patches if patch.kind is PatchKind.SPEEDUP}
    if unknown := sorted(off - speedups - {"all"}):
        known = ", ".join(sorted(speedups))
        raise LocalStackError(f"{SPEEDUPS_OFF} names {', '.join(unknown)}; the speed-ups are {known}, or all")
    for patch in patches:
        check_fit(patch)
    for patch in patches:
        if patch.apply is not None and (patch.kind is PatchKind.CORRECTION or is_enabled(patch.name)):
            patch.apply()


def check_fit(patch: MotoPatch) -> None:
    """Check that everything a patch replaces exists.

    Raises:
        PatchMismatch: naming the patch, the attribute, and the versions.
    """
    for target in patch.replaces:
        module, _, path = target.partition(":")
        try:
            reduce(getattr, path.split("."), import_module(module))
        except (ImportError, AttributeError):
            pinned = ", ".join(f"{package} {wanted}" for package, wanted in PINNED.items())
            found = ", ".join(f"{package} {_find_version(package)}" for package in PINNED)
            raise PatchMismatch(
                f"the {patch.kind} {patch.name} does not fit: {target} does not exist. It is written for {pinned}; "
                f"installed are {found}. Install the pinned versions: pip install 'stepensemble[local]'"
            ) from None


def is_enabled(speedup: str) -> bool:
    """Return whether a speed-up is applied in this process."""
    return not {speedup, "all"} & read_switched_off()


def read_switched_off() -> frozenset[str]:
    """Return the names in the environment variable."""
    return frozenset(name.strip() for name in os.environ.get(SPEEDUPS_OFF, "").split(",") if name.strip())


def replace_everywhere(name: str, original: object, replacement: object) -> None:
    """Replace a function in every module of moto's Step Functions engine that has imported it by name."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("moto.stepfunctions.") and vars(module).get(name) is original:
            setattr(module, name, replacement)


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
