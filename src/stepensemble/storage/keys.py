"""Every object key there is. The template's policies grant these prefixes and no others."""

from __future__ import annotations

import re

from stepensemble.core.releases.release import digest_of

# Artifact bucket
CURRENT = "current.json"
RELEASES = "releases/"


def artifact_key(digest: str) -> str:
    """A model file, by its SHA-256."""
    return f"artifacts/{digest}"


def release_key(digest: str) -> str:
    """A release, by its SHA-256."""
    return f"{RELEASES}{digest}.json"


def released_under(key: str) -> str:
    """Return the digest of the release that is kept under a key."""
    return key.removeprefix(RELEASES).removesuffix(".json")


def fingerprint_key(digest: str) -> str:
    """What a release's members said when it was published, by the release's SHA-256."""
    return f"fingerprints/{digest}.json"


# Data bucket
PAYLOADS = "payloads/"
EXECUTIONS = "executions/"
RECORDS = "records/"


def payload_key(body: bytes) -> str:
    """Rows too many for an execution's input, by their SHA-256."""
    return f"{PAYLOADS}{digest_of(body)}.json"


def execution_prefix(name: str, execution_id: str) -> str:
    """What one execution leaves behind on its way; expires. The digest tells machines and regions apart."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"{EXECUTIONS}{safe}-{digest_of(execution_id.encode())[:8]}"


def columns_key(prefix: str, tier: int = 1) -> str:
    """The normalized columns of an execution, of the rows that reach a tier: all of them reach the first."""
    return f"{prefix}/columns.npz" if tier == 1 else f"{prefix}/columns-{tier}.npz"


def outputs_key(prefix: str, member: str) -> str:
    """One member's outputs in an execution."""
    return f"{prefix}/outputs/{member}.npy"


def predictions_key(prefix: str) -> str:
    """The predictions of an execution."""
    return f"{prefix}/predictions.json"


def record_key(body: bytes) -> str:
    """A record's body too large for an item, by its SHA-256."""
    return f"{RECORDS}{digest_of(body)}.json.gz"
