"""A replay from the command line: which policy to try, and on which records of a stack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.progress import track

from stepensemble.cli.stacks import Stack
from stepensemble.core.problems import enumerate_values, show, suggest
from stepensemble.core.record import Record
from stepensemble.core.releases.release import digest_of
from stepensemble.core.replay.replay import replay
from stepensemble.core.replay.report import Replay
from stepensemble.core.replay.what_if import METHODS, WhatIf
from stepensemble.core.schema.manifest import Manifest
from stepensemble.core.validation.manifest import parse_manifest
from stepensemble.storage.record_table import DAYS_BACK


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """A replay of a stack's records.

    Attributes:
        what_if: the policy that was tried.
        since: the first day.
        unreadable: records that were deleted before they were read, or that another version wrote.
        other_ensembles: records of other ensembles, which are not replayed.
    """

    what_if: WhatIf
    since: date
    unreadable: int
    other_ensembles: int
    report: Replay

    @property
    def listed(self) -> int:
        """How many records these days have."""
        return self.report.records + self.unreadable + self.other_ensembles

    def to_json(self) -> dict[str, Any]:
        """Return everything as one document."""
        what_if = {"manifest": self.what_if.origin, "method": self.what_if.method, "weights": self.what_if.weights}
        report: dict[str, Any] = msgspec.to_builtins(self.report)
        omitted = {"unreadable": self.unreadable, "other_ensembles": self.other_ensembles}
        return {"what_if": what_if, "since": str(self.since), **omitted, **report}


def read_what_if(manifest: Path | None, method: str | None, weights: str | None) -> WhatIf:
    """Read the policy to try from the options; None for each option that is not given.

    Raises:
        typer.BadParameter: there is no such file or method, or the weights cannot be parsed.
        InvalidManifest: with every problem of the manifest. Its artifacts need not exist.
    """
    if method is not None:
        _check_method(method)
    by_member = {} if weights is None else _read_weights(weights)
    if manifest is None:
        return WhatIf(method=method, weights=by_member)
    other, digests = _read_manifest(manifest)
    return WhatIf(other, str(manifest), digests, method, by_member)


def read_day(since: str | None) -> date:
    """Return the first day; by default the earliest of which records are listed.

    Raises:
        typer.BadParameter: the text is not a day.
    """
    if since is None:
        return datetime.now(UTC).date() - timedelta(days=DAYS_BACK - 1)
    try:
        return datetime.strptime(since, "%Y-%m-%d").date()
    except ValueError:
        message = f"{show(since)} is not a day; write YYYY-MM-DD, such as 2026-03-01"
        raise typer.BadParameter(message, param_hint="--since") from None


def _check_method(method: str) -> None:
    if method in METHODS:
        return
    if method == "stack":
        message = '"stack" needs its coefficients; declare it in a manifest and give that with --manifest'
    else:
        message = f"{show(method)} is not a method; use one of {enumerate_values(METHODS)}{suggest(method, METHODS)}"
    raise typer.BadParameter(message, param_hint="--method")


def _read_weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        member, _, numeral = (piece.strip() for piece in part.partition("="))
        weight = -1.0
        with suppress(ValueError):
            weight = float(numeral)
        if not member or not isfinite(weight) or weight < 0:
            message = f"{show(part)} is not a member's weight; write member=number, such as a=2,b=0.5, from 0 on"
            raise typer.BadParameter(message, param_hint="--weights")
        if member in weights:
            raise typer.BadParameter(f"{show(member)} is given twice; give it one weight", param_hint="--weights")
        weights[member] = weight
    return weights


def _read_manifest(path: Path) -> tuple[Manifest, dict[str, str]]:
    """Read a manifest, and the digest of each artifact that it pins or that exists."""
    try:
        manifest = parse_manifest(path.read_bytes())
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}; give the path of a manifest"
        raise typer.BadParameter(message, param_hint="--manifest") from None
    digests: dict[str, str] = {}
    for member in manifest.members:
        artifact = path.parent / member.artifact
        if member.digest is not None:
            digests[member.id] = member.digest
        elif artifact.is_file():
            digests[member.id] = digest_of(artifact.read_bytes())
    return manifest, digests


def replay_stack(stack: Stack, what_if: WhatIf, since: date, limit: int | None, console: Console) -> ReplayResult:
    """Replay a stack's records of one ensemble: that of the manifest to try, by default the one that the stack serves.

    Args:
        stack: the stack with the records and releases.
        what_if: the policy to try.
        since: the first day, in UTC.
        limit: the most records to read, newest first; None for all.
        console: where to show the progress.

    Raises:
        NothingPublished: the stack has no current release, and no manifest is given.
        ReplayRefused: the policy does not fit the records.
    """
    if what_if.manifest is not None:
        ensemble = what_if.manifest.name
    else:
        ensemble = stack.releases.read_release(stack.releases.read_current()[0].release).name
    listed = [summary.prediction_id for summary in stack.records.since(since, limit)]
    records = list(_track(stack.records.read_all(listed), len(listed), console))
    releases = {digest: stack.releases.read_release(digest) for digest in {record.release for record in records}}
    own = [record for record in records if releases[record.release].name == ensemble]
    unreadable, other_ensembles = len(listed) - len(records), len(records) - len(own)
    return ReplayResult(what_if, since, unreadable, other_ensembles, replay(own, releases, what_if))


def _track(records: Iterator[Record], total: int, console: Console) -> Iterator[Record]:
    hidden = not console.is_terminal
    yield from track(records, "Reading the records", total, console=console, transient=True, disable=hidden)
