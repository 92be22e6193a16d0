"""Promotes a release from one stack to another: the same bytes under the same digest."""

from __future__ import annotations

from stepensemble.core.errors import FingerprintMissing
from stepensemble.core.releases.release import decode_release
from stepensemble.publishing.publish import ReleaseBundle
from stepensemble.storage.releases import ReleaseStore


def fetch_release(store: ReleaseStore, digest: str) -> ReleaseBundle:
    """Return a release from a stack's bucket, for `publish.plan` and `publish.apply_plan` on another stack.

    Each artifact is read, and its digest checked, when it is needed.

    Raises:
        ReleaseCorrupt: it is missing, or does not have its digest.
    """
    body = store.read_body(digest)
    release = decode_release(digest, body)
    try:
        fingerprint = store.read_fingerprint(digest)
    except FingerprintMissing:
        fingerprint = None
    return ReleaseBundle(release, digest, body, lambda member: store.read_artifact(member.artifact), fingerprint)
