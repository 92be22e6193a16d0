"""All object keys. The template's policies grant access to these prefixes and to no others."""

from __future__ import annotations

import re

from stepensemble.core.releases.release import digest_of

# Artifact bucket
CURRENT = "current.json"
RELEASES = "releases/"
SEEN_MANIFEST = "manifest.sha256"
"""The release that the project's manifest compiled to when it was last read; on a local stack only."""


def artifact_key(digest: str) -> str:
    """A model file, by its SHA-256."""
    return f"artifacts/{digest}"


def release_key(digest: str) -> str:
    """A release, by its SHA-256."""
    return f"{RELEASES}{digest}.json"


def parse_release_key(key: str) -> str:
    """Return the digest of the release that is stored under a key."""
    return key.removeprefix(RELEASES).removesuffix(".json")


def fingerprint_key(digest: str) -> str:
    """A release's fingerprint, by the release's SHA-256."""
    return f"fingerprints/{digest}.json"


# Data bucket
PAYLOADS = "payloads/"
EXECUTIONS = "executions/"
RECORDS = "records/"


def payload_key(body: bytes) -> str:
    """Rows that are too large for an execution's input, by their SHA-256."""
    return f"{PAYLOADS}{digest_of(body)}.json"


def execution_prefix(name: str, execution_id: str) -> str:
    """The intermediate objects of an execution, which expire. The digest distinguishes state machines and regions."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"{EXECUTIONS}{safe}-{digest_of(execution_id.encode())[:8]}"


def columns_key(prefix: str, tier: int = 1) -> str:
    """The normalized columns of an execution, for the rows that reach a tier: all rows reach the first one."""
    return f"{prefix}/columns.npz" if tier == 1 else f"{prefix}/columns-{tier}.npz"


def outputs_key(prefix: str, member: str) -> str:
    """One member's outputs in an execution."""
    return f"{prefix}/outputs/{member}.npy"


def predictions_key(prefix: str) -> str:
    """The predictions of an execution."""
    return f"{prefix}/predictions.json"


def record_key(body: bytes) -> str:
    """A record's body that is too large for an item, by its SHA-256."""
    return f"{RECORDS}{digest_of(body)}.json.gz"


def image_key(body: bytes) -> str:
    """An image file, by its SHA-256."""
    return f"{PAYLOADS}{digest_of(body)}"


# Data bucket: inbox and outbox
INBOX = "inbox/"
OUTBOX = "outbox/"
RESPONSE, FAILURE = ".json", ".error.json"
"""What a response's key has after the name of the object that it responds to."""

KEY_BYTES = 1024
"""Bytes of a key that S3 accepts at most."""


def to_portable_key(key: str) -> str:
    """Return a key that every client of S3 accepts.

    S3 accepts control characters, empty parts, and parts of dots only; some clients, such as obstore, do not. An
    underscore replaces each control character, and is appended to such parts. Any other key is returned unchanged.
    """
    parts = re.sub(r"[\x00-\x1f\x7f]", "_", key).split("/")
    return "/".join(part if part.strip(".") else f"{part}_" for part in parts)


def response_key(key: str, version: str | None, ending: str) -> str:
    """The response to an object in the inbox: to one version of it, or, for None, to the latest one.

    A name that is too long for a key is cut, and its digest is appended; see also `to_portable_key`.
    """
    name = to_portable_key(key.removeprefix(INBOX))
    ending = ending if version is None else f".{version}{ending}"
    most = KEY_BYTES - len((OUTBOX + ending).encode())
    if len(name.encode()) > most:
        digest = f"~{digest_of(name.encode())}"
        name = name.encode()[: most - len(digest)].decode(errors="ignore") + digest
    return f"{OUTBOX}{name}{ending}"


# Data bucket: the batch
DATASETS = "datasets/"
BATCH = "batch/"
RESULTS = "results"

SUMMARY, REPORT = "summary.json", "report.html"
"""Names of a run's summary and report."""


def run_prefix(run: str) -> str:
    """The intermediate objects of a run; deleted when the run is complete, otherwise they expire."""
    return f"{BATCH}{run}"


def plan_key(run: str) -> str:
    """The run's plan."""
    return f"{run_prefix(run)}/plan.json"


def claim_key(run: str) -> str:
    """Which execution works on the run."""
    return f"{run_prefix(run)}/claim.json"


def result_key(run: str) -> str:
    """The result of the run; stored once it is complete."""
    return f"{run_prefix(run)}/result.json"


def shards_key(run: str) -> str:
    """All shards of the run."""
    return f"{run_prefix(run)}/shards.json"


def sampling_key(run: str) -> str:
    """The number of attempts to read a sample of the run's rows."""
    return f"{run_prefix(run)}/sampling"


def labelling_key(run: str, attempt: int) -> str:
    """Whether an attempt to decide how the run's labels are read has ended; stored when it begins."""
    return f"{run_prefix(run)}/labelling-{attempt}"


def shard_list_key(run: str, attempt: int) -> str:
    """The shards that are left for an attempt, as the Distributed Map reads them."""
    return f"{run_prefix(run)}/shards-{attempt}.json"


def shard_prefix(run: str, shard: int) -> str:
    """The intermediate objects of a shard: columns, outputs."""
    return f"{run_prefix(run)}/shards/{shard:06d}"


def accepted_key(prefix: str) -> str:
    """The accepted rows of a shard, without their features, under its prefix."""
    return f"{prefix}/rows.arrow"


def read_key(prefix: str) -> str:
    """The statistics of a shard's rows as they were read, under its prefix."""
    return f"{prefix}/read.json"


def staged_key(run: str, kind: str, shard: int, extension: str) -> str:
    """A shard's file of one kind (`part`, `rejected`), until the run is complete."""
    return f"{run_prefix(run)}/{kind}/{shard:06d}.{extension}"


def shard_report_key(run: str, shard: int) -> str:
    """A shard's report; written last, so a shard with a report is finished."""
    return f"{run_prefix(run)}/reports/{shard:06d}.json"


def reports_folder(run: str) -> str:
    """The prefix of the reports of a run's shards."""
    return f"{run_prefix(run)}/reports/"


def parse_shard_report_key(key: str) -> int:
    """Return the number of the shard whose report is stored under a key."""
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))


def shard_failure_key(run: str, shard: int) -> str:
    """Why the last attempt at a shard failed."""
    return f"{run_prefix(run)}/failures/{shard:06d}.json"


def partition(root: str, ensemble: str, date: str, run: str) -> str:
    """The prefix of a run's files, under a root: `results`, `results-rejected` or `results-reports`."""
    return f"{root}/ensemble={ensemble}/dt={date}/run={run}"


def success_key(folder: str) -> str:
    """The empty object that marks the results in a folder as complete; written last."""
    return f"{folder}/_SUCCESS"


def latest_key(root: str, ensemble: str) -> str:
    """The list of an ensemble's complete runs, latest first."""
    return f"{root}-reports/ensemble={ensemble}/latest.json"
