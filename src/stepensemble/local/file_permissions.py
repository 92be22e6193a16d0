"""The state's folder is its owner's: it holds every payload, every answer, and what the functions logged."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(folder: Path) -> None:
    """Take a folder's rights, and those of all that is in it, from everybody but the owner.

    What is made in it later cannot be reached by others either. Where the rights are not ours to change, they stay.
    """
    with contextlib.suppress(OSError):
        if not _close(folder):
            return
        for path, folders, files in os.walk(folder):
            for name in (*folders, *files):
                with contextlib.suppress(OSError):  # gone meanwhile
                    _close(Path(path) / name)


def _close(path: Path) -> bool:
    """Return whether it was open to others."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode) or not mode & OTHERS:
        return False
    path.chmod(stat.S_IMODE(mode) & ~OTHERS)
    return True
