"""Artifacts, releases and the pointer to the current release, in the artifact bucket."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from stepensemble.core.errors import ArtifactCorrupt, ArtifactMissing, NothingPublished, ObjectMissing, ReleaseCorrupt
from stepensemble.core.release import SHORT, Artifact, Current, Release, decode_release, digest_of
from stepensemble.storage.keys import CURRENT, artifact_key, release_key
from stepensemble.storage.objects import Bucket


@dataclass(frozen=True, slots=True)
class ReleaseStore:
    """The artifact bucket, by its meaning."""

    bucket: Bucket

    def read_current(self) -> tuple[Current, str]:
        """Return the pointer and its ETag.

        Raises:
            NothingPublished: there is none yet.
        """
        try:
            body, tag = self.bucket.read_tagged(CURRENT)
        except ObjectMissing:
            raise NothingPublished("nothing is published here yet; run: ensemble publish") from None
        return msgspec.json.decode(body, type=Current), tag

    def move_current(self, current: Current, tag: str | None) -> None:
        """Point to another release, if the pointer is still the one with this ETag (None: not there).

        Raises:
            PublishConflict: it is not.
        """
        self.bucket.replace(CURRENT, msgspec.json.encode(current), tag)

    def read_release(self, digest: str) -> Release:
        """Return a release.

        Raises:
            ReleaseCorrupt: it is not there, or not what its name says.
        """
        try:
            return decode_release(digest, self.bucket.read(release_key(digest)))
        except ObjectMissing:
            raise ReleaseCorrupt(f"release {digest[:SHORT]} is not in the bucket; publish again") from None

    def write_release(self, digest: str, body: bytes) -> None:
        """Write a release unless it is there, whole: one of the same digest is the same release."""
        key = release_key(digest)
        if not self.bucket.create(key, body) and self.bucket.read(key) != body:
            self.bucket.write(key, body)

    def read_artifact(self, artifact: Artifact) -> bytes:
        """Return a model file whose digest has been checked.

        Raises:
            ArtifactMissing: it is not there.
            ArtifactCorrupt: its bytes have another digest.
        """
        try:
            body = self.bucket.read(artifact_key(artifact.digest))
        except ObjectMissing:
            raise ArtifactMissing(f"artifact {artifact.digest[:SHORT]} is not in the bucket; publish again") from None
        actual = digest_of(body)
        if actual != artifact.digest:
            raise ArtifactCorrupt(
                f"artifact {artifact.digest[:SHORT]} has the digest {actual[:SHORT]} in the bucket: "
                "it was overwritten or damaged; restore its version or publish again"
            )
        return body

    def write_artifact(self, artifact: Artifact, body: bytes) -> bool:
        """Write a model file unless it is there; say whether it was written."""
        key = artifact_key(artifact.digest)
        if self.bucket.exists(key, artifact.size) and digest_of(self.bucket.read(key)) == artifact.digest:
            return False
        self.bucket.write(key, body)
        return True
