"""A release's fingerprint: what its members said of the golden rows when it was published.

It tells later whether a stack answers as the publisher's machine did. It is no part of the release: the last bits of a
float depend on the processor, and a release has one name everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from stepensemble.core.columns import Array
from stepensemble.core.problems import show

TOLERANCE = 1e-4
"""How far an output may be from the fingerprint's, relative to the scale of that member's outputs (see `scale_of`).

Processors round a float32 (1.2e-7) otherwise, and layers add such errors up; an exchanged column or artifact is far
beyond.
"""


class MemberFingerprint(Struct, frozen=True):
    """What one member said.

    Attributes:
        runtime: that executed it.
        outputs: raw, one entry a row: a number, a name, or a list of numbers.
    """

    runtime: str
    outputs: Sequence[Any]


class Fingerprint(Struct, frozen=True):
    """What all members said.

    Attributes:
        release: its digest.
        taken_at: ISO 8601 in UTC.
        instances: the golden rows, as a payload has them.
        members: by id.
    """

    release: str
    taken_at: str
    instances: Sequence[Mapping[str, Any]]
    members: Mapping[str, MemberFingerprint]


def compare(expected: Sequence[Any], actual: Sequence[Any], *, labels: bool, tolerance: float = TOLERANCE) -> list[str]:
    """List what differs between two outputs of one member, in words; nothing where they are the same.

    Args:
        expected: the fingerprint's, one entry a row.
        actual: the stack's.
        labels: the outputs are labels, and so the same only where they are equal.
        tolerance: relative to the scale of the expected outputs.
    """
    want, got = _read(expected), _read(actual)
    if want.shape != got.shape:
        return [f"has shape {list(got.shape)}, not {list(want.shape)}"]
    textual = "U" in want.dtype.kind + got.dtype.kind
    if textual and want.dtype.kind != got.dtype.kind:
        return [f"holds {_kind(got)}, not {_kind(want)}"]
    with np.errstate(invalid="ignore"):  # an infinity less itself
        if textual or labels:
            differing, bound = got != want, ""
        else:
            differing = (np.isnan(got) != np.isnan(want)) | (np.abs(got - want) > tolerance * scale_of(want))
            bound = f"; {tolerance:g} of their scale, {scale_of(want):.3g}, is allowed"
    rows = np.flatnonzero(differing.reshape(len(want), -1).any(axis=1)) if differing.size else np.arange(0)
    if not len(rows):
        return []
    first = int(rows[0])
    return [
        f"row {first} is {show(got[first].tolist())}, not {show(want[first].tolist())} "
        f"({len(rows)} of {len(want)} rows differ{bound})"
    ]


def measure_deviation(expected: Sequence[Any], actual: Sequence[Any]) -> float | None:
    """Return the greatest distance of two outputs, relative to the scale; None where it has no meaning."""
    want, got = _read(expected), _read(actual)
    if want.shape != got.shape or "U" in want.dtype.kind + got.dtype.kind:
        return None
    sound = np.isfinite(want) & np.isfinite(got)
    distances = np.abs(got[sound] - want[sound])
    return float(np.max(distances, initial=0.0) / scale_of(want))


def scale_of(outputs: Array) -> float:
    """Return the greatest magnitude among numbers; 1 where all of them are 0 or none is a number."""
    finite = outputs[np.isfinite(outputs)]
    return float(np.max(np.abs(finite), initial=0.0)) or 1.0


def _read(outputs: Sequence[Any]) -> Array:
    array = np.asarray(outputs)
    return array if array.dtype.kind == "U" else array.astype(np.float64)  # null, which JSON has for NaN, included


def _kind(array: Array) -> str:
    return "names" if array.dtype.kind == "U" else "numbers"
