"""Stores artifacts, releases, fingerprints and the pointer to the current release in the artifact bucket."""

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
from stepensemble.core.releases.release import SHORT, Artifact, Release, ReleasePointer, decode_release, digest_of
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
    """A release that is stored in the bucket."""

    digest: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class ReleaseStore:
    """The artifact bucket."""

    bucket: Bucket

    def read_current(self) -> tuple[ReleasePointer, str]:
        """Return the pointer and its ETag.

        Raises:
            NothingPublished: there is no pointer yet.
        """
        try:
            body, tag = self.bucket.read_tagged(CURRENT)
        except ObjectMissing:
            raise NothingPublished("nothing is published here yet; run: ensemble publish") from None
        return msgspec.json.decode(body, type=ReleasePointer), tag

    def move_current(self, current: ReleasePointer, tag: str | None) -> None:
        """Move the pointer to another release, if it still has this ETag (None: if there is no pointer).

        Raises:
            PublishConflict: the pointer was moved by another process.
        """
        body = msgspec.json.encode(current)
        try:
            self.bucket.replace(CURRENT, body, tag)
        except PublishConflict:
            # The client retries a write whose response was lost, which then conflicts with itself.
            if self.bucket.read(CURRENT) != body:
                raise

    def read_seen_manifest(self) -> str | None:
        """Return the digest that `note_manifest` stored last; None before the first time."""
        try:
            return self.bucket.read(SEEN_MANIFEST).decode()
        except ObjectMissing:
            return None

    def note_manifest(self, digest: str) -> None:
        """Store the digest of the release that the project's manifest compiled to."""
        self.bucket.write(SEEN_MANIFEST, digest.encode())

    def has_release(self, digest: str) -> bool:
        """Return whether a release is stored."""
        try:
            self.bucket.head(release_key(digest))
        except ObjectMissing:
            return False
        return True

    def list_releases(self) -> list[StoredRelease]:
        """Return every release in the bucket, newest first."""
        stored = [StoredRelease(parse_release_key(one.key), one.last_modified) for one in self.bucket.list(RELEASES)]
        return sorted(stored, key=lambda one: (one.written_at, one.digest), reverse=True)

    def read_release(self, digest: str) -> Release:
        """Return a release.

        Raises:
            ReleaseCorrupt: it does not exist, or its content does not match its digest.
        """
        return decode_release(digest, self.read_body(digest))

    def read_body(self, digest: str) -> bytes:
        """Return a release's bytes unchanged.

        Raises:
            ReleaseCorrupt: it does not exist.
        """
        try:
            return self.bucket.read(release_key(digest))
        except ObjectMissing:
            raise ReleaseCorrupt(f"release {digest[:SHORT]} is not in the bucket; publish again") from None

    def write_release(self, digest: str, body: bytes) -> None:
        """Write a release unless it is stored completely; releases with the same digest are equal."""
        key = release_key(digest)
        if not self.bucket.create(key, body) and self.bucket.read(key) != body:
            self.bucket.write(key, body)

    def read_fingerprint(self, digest: str) -> Fingerprint:
        """Return a release's fingerprint.

        Raises:
            FingerprintMissing: there is none, it is of another release, or this version cannot read it.
        """
        try:
            fingerprint = msgspec.json.decode(self.bucket.read(fingerprint_key(digest)), type=Fingerprint)
        except (ObjectMissing, msgspec.DecodeError):
            fingerprint = None
        if fingerprint is None or fingerprint.release != digest:
            raise FingerprintMissing(
                f"no fingerprint of release {digest[:SHORT]} is stored; publish its manifest again to store one"
            )
        return fingerprint

    def write_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Write a release's fingerprint, unless a valid one of the same golden rows and members is stored."""
        try:
            stored = self.read_fingerprint(fingerprint.release)
            rows, stored_rows = (msgspec.json.encode(one.instances, order="sorted") for one in (fingerprint, stored))
            if rows == stored_rows and stored.members.keys() == fingerprint.members.keys():
                return
        except FingerprintMissing:
            pass
        self.bucket.write(fingerprint_key(fingerprint.release), msgspec.json.encode(fingerprint))

    def has_artifact(self, artifact: Artifact) -> bool:
        """Return whether a model file is stored with the right content."""
        key = artifact_key(artifact.digest)
        return self.bucket.exists(key, artifact.size) and digest_of(self.bucket.read(key)) == artifact.digest

    def read_artifact(self, artifact: Artifact) -> bytes:
        """Return a model file after checking its digest.

        Raises:
            ArtifactMissing: it does not exist.
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
        """Write a model file unless it is stored, and read it back; return whether it was written.

        A read after a write returns what was written, since S3 is strongly consistent
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel). Reading back needs no
        checksums of the client or of the store, which an emulator or another store may not have.

        Args:
            artifact: its digest and size.
            body: its bytes.
            sent: called with the number of uploaded bytes after each piece.

        Raises:
            ArtifactCorrupt: the stored bytes have another digest.
        """
        if self.has_artifact(artifact):
            return False
        self.bucket.upload(artifact_key(artifact.digest), body, sent)
        self.read_artifact(artifact)
        return True
