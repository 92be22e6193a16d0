"""Permissions of the state's folder: only its owner may read the payloads, the predictions and the functions' logs."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(folder: Path) -> None:
    """Make a folder, and everything in it, accessible to its owner only.

    Others cannot reach what is created in it later either. Permissions that this user may not change stay as they are.
    """
    with contextlib.suppress(OSError):
        if not _remove_access(folder):
            return
        for path, folders, files in os.walk(folder):
            for name in (*folders, *files):
                with contextlib.suppress(OSError):  # removed meanwhile
                    _remove_access(Path(path) / name)


def _remove_access(path: Path) -> bool:
    """Remove others' access; return whether they had any."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode) or not mode & OTHERS:
        return False
    path.chmod(stat.S_IMODE(mode) & ~OTHERS)
    return True
