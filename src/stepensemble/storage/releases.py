"""Artifacts, releases, their fingerprints and the pointer to the current release, in the artifact bucket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from stepensemble.core.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    FingerprintMissing,
    NothingPublished,
    ObjectMissing,
    PublishConflict,
    ReleaseCorrupt,
)
from stepensemble.core.releases.fingerprint import Fingerprint
from stepensemble.core.releases.release import SHORT, Artifact, Current, Release, decode_release, digest_of
from stepensemble.storage.keys import (
    CURRENT,
    RELEASES,
    SEEN_MANIFEST,
    artifact_key,
    fingerprint_key,
    parse_release_key,
    release_key,
)
from stepensemble.storage.objects import Bucket


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release that lies in the bucket."""

    digest: str
    written_at: datetime


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
        body = msgspec.json.encode(current)
        try:
            self.bucket.replace(CURRENT, body, tag)
        except PublishConflict:
            # A write whose answer was lost is tried again by the client, and then conflicts with itself.
            if self.bucket.read(CURRENT) != body:
                raise

    def read_seen_manifest(self) -> str | None:
        """Return the digest that `note_manifest` has noted last; None before the first time."""
        try:
            return self.bucket.read(SEEN_MANIFEST).decode()
        except ObjectMissing:
            return None

    def note_manifest(self, digest: str) -> None:
        """Note which release the project's manifest compiled to when it was looked at."""
        self.bucket.write(SEEN_MANIFEST, digest.encode())

    def has_release(self, digest: str) -> bool:
        """Say whether a release was ever written."""
        try:
            self.bucket.head(release_key(digest))
        except ObjectMissing:
            return False
        return True

    def list_releases(self) -> list[StoredRelease]:
        """Return every release in the bucket, newest first."""
        kept = [StoredRelease(parse_release_key(one.key), one.last_modified) for one in self.bucket.list(RELEASES)]
        return sorted(kept, key=lambda one: (one.written_at, one.digest), reverse=True)

    def read_release(self, digest: str) -> Release:
        """Return a release.

        Raises:
            ReleaseCorrupt: it is not there, or not what its name says.
        """
        return decode_release(digest, self.read_body(digest))

    def read_body(self, digest: str) -> bytes:
        """Return a release's bytes, as they are.

        Raises:
            ReleaseCorrupt: there are none.
        """
        try:
            return self.bucket.read(release_key(digest))
        except ObjectMissing:
            raise ReleaseCorrupt(f"release {digest[:SHORT]} is not in the bucket; publish again") from None

    def write_release(self, digest: str, body: bytes) -> None:
        """Write a release unless it is there, whole: one of the same digest is the same release."""
        key = release_key(digest)
        if not self.bucket.create(key, body) and self.bucket.read(key) != body:
            self.bucket.write(key, body)

    def read_fingerprint(self, digest: str) -> Fingerprint:
        """Return a release's fingerprint.

        Raises:
            FingerprintMissing: there is none, or not of this release, or not one that this version reads.
        """
        try:
            fingerprint = msgspec.json.decode(self.bucket.read(fingerprint_key(digest)), type=Fingerprint)
        except (ObjectMissing, msgspec.DecodeError):
            fingerprint = None
        if fingerprint is None or fingerprint.release != digest:
            raise FingerprintMissing(
                f"no fingerprint of release {digest[:SHORT]} is kept; publish its manifest again to have one taken"
            )
        return fingerprint

    def write_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Write a release's fingerprint, unless a sound one of the same golden rows and members is kept."""
        try:
            kept = self.read_fingerprint(fingerprint.release)
            rows, kept_rows = (msgspec.json.encode(one.instances, order="sorted") for one in (fingerprint, kept))
            if rows == kept_rows and kept.members.keys() == fingerprint.members.keys():
                return
        except FingerprintMissing:
            pass
        self.bucket.write(fingerprint_key(fingerprint.release), msgspec.json.encode(fingerprint))

    def has_artifact(self, artifact: Artifact) -> bool:
        """Say whether a model file is there, whole."""
        key = artifact_key(artifact.digest)
        return self.bucket.exists(key, artifact.size) and digest_of(self.bucket.read(key)) == artifact.digest

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

    def write_artifact(self, artifact: Artifact, body: bytes, sent: Callable[[int], None] = lambda _: None) -> bool:
        """Write a model file unless it is there, and read it back; say whether it was written.

        What is read after a write is what was written: S3 is strongly consistent
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel). Reading back asks nothing
        of the client or of the store's own checksums, which an emulator or another store may not have.

        Args:
            artifact: its digest and size.
            body: its bytes.
            sent: told of bytes as they are uploaded.

        Raises:
            ArtifactCorrupt: what arrived is something else.
        """
        if self.has_artifact(artifact):
            return False
        self.bucket.upload(artifact_key(artifact.digest), body, sent)
        self.read_artifact(artifact)
        return True
