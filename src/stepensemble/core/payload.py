"""The payload: what a caller sends to get predictions.

    {"features": {…}}                                one row
    {"instances": [{…}, …]}                          1 to 10,000 rows
    {"instances": {"s3": "s3://bucket/key"}}         the same list, as a JSON object in S3

with, optionally, `prediction_id`, `metadata` (an object, stored in the record), `release` (predict only with this
release) and `quorum` (an object whose fields replace the manifest's for this execution).

    {"warmup": true}

is not a payload: as an execution's input, alone, it makes every slot load its models.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from stepensemble.core.errors import InvalidPayload, PayloadTooLarge
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.schema.manifest import EnsembleMember
from stepensemble.core.schema.policy import Policy, Quorum, override_quorum
from stepensemble.core.validation.policy import check_quorum
from stepensemble.core.validation.structure import check_structure

MAX_ROWS = 10_000
KEYS = ("features", "instances", "prediction_id", "metadata", "release", "quorum")
ROWS = frozenset({"features", "instances"})
WARMUP = "warmup"
DECISIVE = ("features", "instances", "quorum")
"""The keys that the prediction depends on."""

PREDICTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

Rows = Sequence[Any]
"""Rows as they were sent; `encoding.normalize` reports those that are not objects."""


class Pointer(Struct, frozen=True, forbid_unknown_fields=True):
    """Replaces a value that is too large for a state: the address in S3 where it is stored."""

    s3: str

    def split(self) -> tuple[str, str]:
        """Return bucket and key."""
        bucket, _, key = self.s3.removeprefix("s3://").partition("/")
        return bucket, key


class Payload(Struct, frozen=True):
    """A payload whose keys other than the rows are valid; the rows are checked against the features later.

    Attributes:
        rows: at least one row, or where they are stored.
        single: the payload has `features`, not `instances`; messages then name `$.features`.
        prediction_id: as given, else None.
        metadata: as given, else empty.
        release: digest, or the beginning of one, of the release that must predict; else None.
        quorum: the given fields, with the types of `policy.Quorum`; else None. Whether such members exist is checked
            later.
    """

    rows: Rows | Pointer
    single: bool
    prediction_id: str | None = None
    metadata: Mapping[str, Any] = {}
    release: str | None = None
    quorum: Mapping[str, Any] | None = None

    @property
    def locate(self) -> Callable[[int], str]:
        """A function from a row's number to its JSON path."""
        return (lambda _: "$.features") if self.single else "$.instances[{}]".format


def is_warmup(data: object) -> bool:
    """Return whether an execution's input is a warm-up: `{"warmup": true}` and no other key."""
    return isinstance(data, Mapping) and set(data) == {WARMUP} and data[WARMUP] is True


def parse_payload(data: object) -> Payload:
    """Check a payload except its rows. A warm-up is not a payload.

    Raises:
        InvalidPayload: with every problem.
    """
    if not isinstance(data, Mapping):
        raise InvalidPayload(
            [
                Problem(
                    "$",
                    f"{show(data)} is not an object",
                    'write {"features": {…}} or {"instances": [{…}, …]}',
                )
            ]
        )
    problems: list[Problem] = []
    if WARMUP in data:
        problems.append(_refuse_warmup(data))
    for key in data:
        if key not in (*KEYS, WARMUP):
            remedy = "put what belongs to it into features or metadata" + suggest(key, (*KEYS, WARMUP))
            problems.append(Problem(f"$.{key}", f"{show(key)} is not a known key", remedy))
    rows, found = _read_rows(data)
    problems += found
    prediction_id = data.get("prediction_id")
    if prediction_id is not None and not (isinstance(prediction_id, str) and PREDICTION_ID.fullmatch(prediction_id)):
        problems.append(
            Problem(
                "$.prediction_id",
                f"{show(prediction_id)} is not a prediction id",
                "use 1 to 128 letters, digits and . _ : -, beginning with a letter or digit",
            )
        )
    metadata = data.get("metadata", {})
    if not isinstance(metadata, Mapping):
        problems.append(Problem("$.metadata", f"{show(metadata)} is not an object", "write an object"))
    release = data.get("release")
    if release is not None and not (isinstance(release, str) and re.fullmatch(r"[0-9a-f]{8,64}", release)):
        problems.append(
            Problem("$.release", f"{show(release)} is not a release", "give at least 8 of its 64 hex digits")
        )
    quorum, found = _read_quorum(data.get("quorum"))
    problems += found
    if problems:
        raise InvalidPayload(problems)
    return Payload(rows, "features" in data, prediction_id, metadata, release, quorum)


def _refuse_warmup(data: Mapping[str, Any]) -> Problem:
    if is_warmup(data):
        remedy = "start an execution of the state machine with it, or run: ensemble warm"
        return Problem(f"$.{WARMUP}", "is a warm-up, which has no prediction", remedy)
    if data[WARMUP] is not True:
        remedy = 'warm up with {"warmup": true}, or leave it out to predict'
        return Problem(f"$.{WARMUP}", f"{show(data[WARMUP])} is not true", remedy)
    others = enumerate_values(sorted(str(key) for key in data if key != WARMUP))
    remedy = "send it alone to warm up, or leave it out to predict"
    return Problem(f"$.{WARMUP}", f"must be the only key, and there are also {others}", remedy)


def _read_rows(data: Mapping[str, Any]) -> tuple[Rows | Pointer, list[Problem]]:
    if WARMUP in data and not {"features", "instances"} & set(data):
        return (), []
    if ("features" in data) == ("instances" in data):
        message = "has both features and instances" if "features" in data else "has no features"
        return (), [Problem("$", message, 'give "features" for one row or "instances" for many')]
    if "features" in data:
        features = data["features"]
        if not isinstance(features, Mapping):
            return (), [Problem("$.features", f"{show(features)} is not an object", "write an object")]
        return (features,), []
    instances = data["instances"]
    if isinstance(instances, Mapping) and "s3" in instances:
        try:
            return msgspec.convert(instances, Pointer), []
        except msgspec.ValidationError as error:
            return (), [Problem("$.instances", str(error), 'write {"s3": "s3://bucket/key"}')]
    return check_instances(instances)


def _read_quorum(given: Any) -> tuple[Mapping[str, Any] | None, list[Problem]]:
    if given is None:
        return None, []
    problems = check_structure(given, Quorum, "$.quorum")
    if problems:
        return None, problems
    quorum = msgspec.convert(given, Quorum)
    return {name: getattr(quorum, name) for name in given}, []


def check_instances(instances: object) -> tuple[Rows, list[Problem]]:
    """Check that instances are a list of 1 to `MAX_ROWS`; return them and the problems."""
    if not isinstance(instances, list | tuple):
        return (), [Problem("$.instances", f"{show(instances)} is not a list", "write a list of objects")]
    if not instances:
        return (), [Problem("$.instances", "is empty", "give at least one row")]
    if len(instances) > MAX_ROWS:
        remedy = f"send at most {MAX_ROWS:,} in one execution"
        return (), [Problem("$.instances", f"has {len(instances):,} rows", remedy)]
    return instances, []


def apply_quorum(payload: Payload, policy: Policy, members: Sequence[EnsembleMember]) -> Policy:
    """Return the policy to apply: the release's, with the payload's own quorum where it has one.

    Raises:
        InvalidPayload: the members cannot meet that quorum.
    """
    if payload.quorum is None:
        return policy
    applied = override_quorum(policy, payload.quorum)
    problems = list(check_quorum(applied.quorum, members, "$.quorum"))
    if problems:
        raise InvalidPayload(problems)
    return applied


def check_frame(payload: Mapping[str, Any], most: int) -> None:
    """Check that a payload without its rows has at most so many bytes of JSON.

    Raises:
        PayloadTooLarge: it has more; the problem names the largest part.
    """
    frame = {key: value for key, value in payload.items() if key not in ROWS}
    sizes = {key: len(msgspec.json.encode(value)) for key, value in frame.items()}
    if sizes and len(msgspec.json.encode(frame)) > most:
        longest = max(sizes, key=sizes.__getitem__)
        message = f"has {sizes[longest]:,} bytes of JSON, and an execution carries {most:,} beside its rows"
        raise PayloadTooLarge(
            [Problem(f"$.{longest}", message, "shorten it, or keep it elsewhere and send its address")]
        )


def digest_input(payload: object) -> str:
    """Return the SHA-256 of the keys that the prediction depends on: equal for a repeated payload."""
    known = payload if isinstance(payload, Mapping) else {}
    parts = {key: known[key] for key in DECISIVE if known.get(key) is not None}
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
