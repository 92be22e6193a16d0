"""Finds a release by a reference: `current`, `previous`, `canary`, a digest, or the beginning of one."""

from __future__ import annotations

import re

from stepensemble.core.errors import ReleaseNotFound
from stepensemble.core.problems import enumerate_values, show
from stepensemble.core.releases.pointer import find_canary, find_previous
from stepensemble.core.releases.release import SHORT, ReleasePointer
from stepensemble.storage.releases import ReleaseStore

WORDS = ("current", "previous", "canary")
DIGITS = re.compile(r"[0-9a-f]{4,64}")
"""A digest, or the beginning of one."""


def is_release_reference(reference: str) -> bool:
    """Return whether a reference is one of the words or a digest, and not the path of a manifest."""
    return reference in WORDS or DIGITS.fullmatch(reference) is not None


def find_release(store: ReleaseStore, reference: str) -> str:
    """Return the digest of the release that a reference names.

    Raises:
        ReleaseNotFound: there is none, or more than one.
        NothingPublished, NoCanary: there is no release for the word.
    """
    if reference in WORDS:
        current, _ = store.read_current()
        return {"current": _current, "previous": _previous, "canary": _canary}[reference](current)
    known = [stored.digest for stored in store.list_releases()]
    if not DIGITS.fullmatch(reference):
        raise ReleaseNotFound(
            f"{show(reference)} names no release; give 4 to 64 of its hex digits, or one of {enumerate_values(WORDS)}"
        )
    found = [digest for digest in known if digest.startswith(reference)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ReleaseNotFound(
            f"{len(found)} releases begin with {reference}: {_shorten(found, len(reference) + 4)}; give more digits"
        )
    existing = f"there are {_shorten(known, SHORT)}" if known else "there is none"
    raise ReleaseNotFound(f"no release begins with {reference}; {existing}")


def _current(current: ReleasePointer) -> str:
    return current.release


def _previous(current: ReleasePointer) -> str:
    previous = find_previous(current)
    if previous is None:
        raise ReleaseNotFound(
            f"no release was current before {current.release[:SHORT]}; ensemble releases lists all of them"
        )
    return previous


def _canary(current: ReleasePointer) -> str:
    return find_canary(current).release


def _shorten(digests: list[str], digits: int, most: int = 12) -> str:
    shown = ", ".join(digest[: max(digits, SHORT)] for digest in digests[:most])
    return shown + (f", … ({len(digests)} in all)" if len(digests) > most else "")
