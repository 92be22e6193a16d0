"""Reads a manifest and the model files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepensemble.core.errors import InvalidManifest
from stepensemble.core.problems import Problem, show
from stepensemble.core.releases.release import Artifact, Release, compile_release, digest_of, encode_release
from stepensemble.core.schema.manifest import Manifest
from stepensemble.core.validation.manifest import parse_manifest


@dataclass(frozen=True, slots=True)
class Sources:
    """A valid manifest with its artifacts' bytes, and the release that they compile to.

    Attributes:
        artifacts: member id to the model file's content.
        digest: the release's digest, which is its name.
        body: the release's bytes.
    """

    path: Path
    manifest: Manifest
    artifacts: Mapping[str, bytes]
    release: Release
    digest: str
    body: bytes


def read_sources(path: Path) -> Sources:
    """Read a manifest file and every artifact it names.

    Raises:
        InvalidManifest: with every problem of the manifest, or every artifact that is missing, empty, or does not have
            the digest it is pinned to.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        problem = Problem(str(path), f"cannot be read: {error.strerror}", "give the path of a manifest")
        raise InvalidManifest([problem]) from None
    return read_artifacts(path, parse_manifest(text))


def read_artifacts(path: Path, manifest: Manifest, unwritten: Mapping[str, bytes] | None = None) -> Sources:
    """Read every artifact that a manifest names.

    Args:
        path: of the manifest file.
        manifest: its content, which may not be written yet.
        unwritten: content of artifacts that are not written yet, by path.

    Raises:
        InvalidManifest: as `read_sources`.
    """
    artifacts: dict[str, bytes] = {}
    problems: list[Problem] = []
    for index, member in enumerate(manifest.members):
        where = f"$.members[{index}]"
        try:
            body = (unwritten or {}).get(member.artifact) or (path.parent / member.artifact).read_bytes()
        except OSError as error:
            reason = f"{show(member.artifact)} cannot be read: {error.strerror}"
            problems.append(Problem(f"{where}.artifact", reason, f"give a path relative to {path.parent.resolve()}"))
            continue
        digest = digest_of(body)
        if not body:
            problems.append(Problem(f"{where}.artifact", f"{show(member.artifact)} is empty", "give a model file"))
        if member.digest is not None and member.digest != digest:
            reason = f"{show(member.digest)} is not the digest of {member.artifact}, {digest} is"
            problems.append(Problem(f"{where}.digest", reason, "restore the file, or pin the new digest"))
        if member.trusted is not None and member.trusted != digest:
            reason = f"{show(member.trusted)} is not the digest of {member.artifact}, {digest} is"
            remedy = 'add the new file with --replace --trust, or take "trusted" out if it only computes'
            problems.append(Problem(f"{where}.trusted", reason, remedy))
        artifacts[member.id] = body
    if problems:
        raise InvalidManifest(problems)
    named = {id_: Artifact(digest_of(body), len(body)) for id_, body in artifacts.items()}
    release = compile_release(manifest, named)
    digest, encoded = encode_release(release)
    return Sources(path, manifest, artifacts, release, digest, encoded)
