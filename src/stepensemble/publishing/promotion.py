"""Promote: bring one stack's current release to another stack, by digest, the same bytes."""

from __future__ import annotations

from stepensemble.core.errors import FingerprintMissing
from stepensemble.core.releases.release import decode_release
from stepensemble.publishing.publish import ReleaseBundle
from stepensemble.storage.releases import ReleaseStore


def fetch_release(store: ReleaseStore, digest: str) -> ReleaseBundle:
    """Return a release as it lies in a stack's bucket, for `publish.plan` and `publish.carry_out` on another stack.

    Its artifacts are read, and their digests checked, one by one as they are needed.

    Raises:
        ReleaseCorrupt: it is not there, or not what its name says.
    """
    body = store.read_body(digest)
    release = decode_release(digest, body)
    try:
        fingerprint = store.read_fingerprint(digest)
    except FingerprintMissing:
        fingerprint = None
    return ReleaseBundle(release, digest, body, lambda member: store.read_artifact(member.artifact), fingerprint)
