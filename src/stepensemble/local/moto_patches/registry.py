"""Every patch of moto. Import this module after moto (`lazy_imports.import_moto`)."""

from __future__ import annotations

from functools import lru_cache

from stepensemble.local.moto_patches.corrections import cloudformation, eventbridge, server, step_functions
from stepensemble.local.moto_patches.patch import apply_patches
from stepensemble.local.moto_patches.speedups import engine, lazy_imports, services

CORRECTIONS = (*step_functions.PATCHES, *eventbridge.PATCHES, *cloudformation.PATCHES, *server.PATCHES)
SPEEDUPS = (*lazy_imports.PATCHES, *engine.PATCHES, *services.PATCHES)


@lru_cache(maxsize=1)
def patch_moto() -> None:
    """Apply every patch that is not switched off; once a process.

    Corrections come first, as a speed-up may replace what a correction has put in place.

    Raises:
        PatchMismatch: a patch does not fit the installed moto.
        LocalStackError: the environment variable names a speed-up that does not exist.
    """
    apply_patches((*CORRECTIONS, *SPEEDUPS))
