"""Every object key there is. The template's policies grant these prefixes and no others."""

from __future__ import annotations

import re

from stepensemble.core.releases.release import digest_of

# Artifact bucket
CURRENT = "current.json"
RELEASES = "releases/"
SEEN_MANIFEST = "manifest.sha256"
"""The release that the project's manifest compiled to when it was last looked at; of a local stack alone."""


def artifact_key(digest: str) -> str:
    """A model file, by its SHA-256."""
    return f"artifacts/{digest}"


def release_key(digest: str) -> str:
    """A release, by its SHA-256."""
    return f"{RELEASES}{digest}.json"


def parse_release_key(key: str) -> str:
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


def image_key(body: bytes) -> str:
    """A picture's file, by its SHA-256."""
    return f"{PAYLOADS}{digest_of(body)}"


# Data bucket, of what arrives
INBOX = "inbox/"
OUTBOX = "outbox/"
ANSWER, FAILURE = ".json", ".error.json"
"""How the answer to an object is called, behind the object's own name."""

KEY_BYTES = 1024
"""Most bytes of a key that S3 takes."""


def to_portable_key(key: str) -> str:
    """Return a key that every client of S3 can name.

    S3 takes control characters, empty parts, and parts that are nothing but dots; not all who read it do, obstore among
    them. A line takes the place of the first, and stands behind the others; any other key is returned as it is.
    """
    parts = re.sub(r"[\x00-\x1f\x7f]", "_", key).split("/")
    return "/".join(part if part.strip(".") else f"{part}_" for part in parts)


def response_key(key: str, version: str | None, ending: str) -> str:
    """The answer to what arrived under a key: to one version of it, or, for None, to the latest that is answered.

    A name that would be too long for a key is cut, with its digest in place of the rest; see `underline` for others.
    """
    name = to_portable_key(key.removeprefix(INBOX))
    ending = ending if version is None else f".{version}{ending}"
    most = KEY_BYTES - len((OUTBOX + ending).encode())
    if len(name.encode()) > most:
        digest = f"~{digest_of(name.encode())}"
        name = name.encode()[: most - len(digest)].decode(errors="ignore") + digest
    return f"{OUTBOX}{name}{ending}"


# Data bucket, of the batch
DATASETS = "datasets/"
BATCH = "batch/"
RESULTS = "results"


SUMMARY, REPORT = "summary.json", "report.html"
"""What a run's reports are called."""


def run_prefix(run: str) -> str:
    """What a run leaves behind on its way; deleted when it is whole, else it expires."""
    return f"{BATCH}{run}"


def plan_key(run: str) -> str:
    """The run's plan."""
    return f"{run_prefix(run)}/plan.json"


def claim_key(run: str) -> str:
    """Which execution works on the run."""
    return f"{run_prefix(run)}/claim.json"


def result_key(run: str) -> str:
    """What the run came to; there once it is whole."""
    return f"{run_prefix(run)}/result.json"


def shards_key(run: str) -> str:
    """All shards of the run."""
    return f"{run_prefix(run)}/shards.json"


def sampling_key(run: str) -> str:
    """The object that says how often reading a sample of the run's rows has begun."""
    return f"{run_prefix(run)}/sampling"


def labelling_key(run: str, attempt: int) -> str:
    """Says that an attempt to decide how the run's labels are read has begun, and whether it ended."""
    return f"{run_prefix(run)}/labelling-{attempt}"


def shard_list_key(run: str, attempt: int) -> str:
    """The shards that an attempt has to do, as the Distributed Map reads them."""
    return f"{run_prefix(run)}/shards-{attempt}.json"


def shard_prefix(run: str, shard: int) -> str:
    """What one shard leaves behind on its way: columns, outputs."""
    return f"{run_prefix(run)}/shards/{shard:06d}"


def accepted_key(prefix: str) -> str:
    """The accepted rows of a shard, without their features, under its prefix."""
    return f"{prefix}/rows.arrow"


def read_key(prefix: str) -> str:
    """What was counted when a shard was read, under its prefix."""
    return f"{prefix}/read.json"


def staged_key(run: str, kind: str, shard: int, extension: str) -> str:
    """A shard's file of one kind (`part`, `rejected`), until the run is whole."""
    return f"{run_prefix(run)}/{kind}/{shard:06d}.{extension}"


def shard_report_key(run: str, shard: int) -> str:
    """What became of a shard; written last, so a shard that has it is finished."""
    return f"{run_prefix(run)}/reports/{shard:06d}.json"


def reports_folder(run: str) -> str:
    """Where a run's shard reports lie."""
    return f"{run_prefix(run)}/reports/"


def parse_shard_report_key(key: str) -> int:
    """Return the number of the shard whose report is kept under a key."""
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))


def shard_failure_key(run: str, shard: int) -> str:
    """Why a shard has no answer, as the last attempt at it saw it."""
    return f"{run_prefix(run)}/failures/{shard:06d}.json"


def partition(root: str, ensemble: str, date: str, run: str) -> str:
    """Where a run's files go, under a root: `results`, and with `-rejected` and `-reports` behind."""
    return f"{root}/ensemble={ensemble}/dt={date}/run={run}"


def success_key(folder: str) -> str:
    """The empty object that says that the results in a folder are whole; written last."""
    return f"{folder}/_SUCCESS"


def latest_key(root: str, ensemble: str) -> str:
    """Which run of an ensemble is its latest whole one."""
    return f"{root}-reports/ensemble={ensemble}/latest.json"
