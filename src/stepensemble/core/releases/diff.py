"""Compares two releases in words: members, features, task and policy, field by field.

It is complete: two releases have no differences if and only if they have the same digest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from stepensemble.core.problems import show
from stepensemble.core.releases.release import SHORT, Artifact, Release, ReleasedMember

MAX_MOVES = 8
"""Most moved names that are listed one by one."""

ChangeKind = Literal["added", "removed", "changed", "reordered"]


class Difference(Struct, frozen=True, kw_only=True):
    """One difference; `from` and `to` in JSON.

    Attributes:
        part: `release`, `task`, `feature`, `member`, `aggregation`, `quorum`, `review` or `cascade`.
        name: the member's id or the feature's name; None for other parts, and for a change of order.
        field: its field, nested ones joined by dots; None for the whole part.
        before, after: the value in each release; None if it has none.
        words: the same, for a person to read.
    """

    part: str
    name: str | None
    field: str | None
    change: ChangeKind
    before: Any = msgspec.field(name="from")
    after: Any = msgspec.field(name="to")
    words: str


class _Place(NamedTuple):
    """Where two releases differ: as in `Difference`."""

    part: str
    name: str | None = None
    field: str | None = None

    def at(self, field: str) -> _Place:
        """Return the place of a field of this one; an empty name is the place itself."""
        if not field:
            return self
        return self._replace(field=field if self.field is None else f"{self.field}.{field}")


def compare_releases(before: Release, after: Release) -> tuple[Difference, ...]:
    """List every difference between two releases, in a release's order; none if they are equal."""
    return tuple(_compare_releases(before, after))


def _compare_releases(before: Release, after: Release) -> Iterator[Difference]:
    for name in Release.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        match name:
            case "features":
                yield from _compare_named("feature", {one.name: one for one in old}, {one.name: one for one in new})
            case "members":
                yield from _compare_named("member", {one.id: one for one in old}, {one.id: one for one in new})
            case "policy":
                for part in old.__struct_fields__:
                    yield from _compare(_Place(part), getattr(old, part), getattr(new, part))
            case "task":
                yield from _compare(_Place("task"), old, new)
            case _:
                yield from _compare(_Place("release", field=name), old, new)


def _compare_named(part: str, before: Mapping[str, Struct], after: Mapping[str, Struct]) -> Iterator[Difference]:
    for name, old in before.items():
        if name not in after:
            yield _make_difference(_Place(part, name), "removed", old, None, f"removed ({describe(old)})")
    for name, new in after.items():
        if name in before:
            yield from _compare(_Place(part, name), before[name], new)
        else:
            yield _make_difference(_Place(part, name), "added", None, new, f"added ({describe(new)})")
    common_before = [name for name in before if name in after]
    common_after = [name for name in after if name in before]
    if common_before != common_after:
        words = ", ".join(_list_moves(list(before), list(after)))
        yield _make_difference(_Place(part), "reordered", list(before), list(after), words)


def _compare(place: _Place, before: Any, after: Any) -> Iterator[Difference]:
    if _encode(before) == _encode(after):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before.keys() == after.keys():
        for key, old in before.items():
            yield from _compare(place.at(key), old, after[key])
        return
    if isinstance(before, Artifact) or type(before) is not type(after) or not isinstance(before, Struct):
        if isinstance(before, tuple) and isinstance(after, tuple):
            words, change = _compare_lists(before, after)
        else:
            words, change = f"{describe(before, place.field)} → {describe(after, place.field)}", "changed"
        yield _make_difference(place, change, before, after, words)
        return
    for inner in before.__struct_fields__:
        yield from _compare(place.at(inner), getattr(before, inner), getattr(after, inner))


def _compare_lists(before: Sequence[Any], after: Sequence[Any]) -> tuple[str, ChangeKind]:
    gone = [one for one in before if one not in after]
    come = [one for one in after if one not in before]
    changes = [f"{show(one)} removed" for one in gone] + [f"{show(one)} added" for one in come]
    if _are_names(before) and _are_names(after):
        changes += _list_moves(before, after)
    if changes:
        return ", ".join(changes), "changed" if gone or come else "reordered"
    return f"{describe(before)} → {describe(after)}", "reordered"


def _are_names(entries: Sequence[Any]) -> bool:
    return all(isinstance(entry, str) for entry in entries) and len(set(entries)) == len(entries)


def _list_moves(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """List the moved names, in words: the fewest names that must move so that the others keep their order."""
    common = [before.index(name) for name in after if name in before]
    staying = set(find_longest_ascent(common))
    moved = [before[place] for place in common if place not in staying]
    moves = [f"{name}: position {before.index(name) + 1} → {after.index(name) + 1}" for name in moved[:MAX_MOVES]]
    return moves if len(moved) <= MAX_MOVES else [*moves, f"and {len(moved) - MAX_MOVES} more moved"]


def find_longest_ascent(numbers: Sequence[int]) -> list[int]:
    """Return a longest increasing subsequence of distinct numbers (Fredman, 1975)."""
    ends: list[int] = []  # the smallest last number of an ascent of each length
    before: dict[int, int | None] = {}
    for number in numbers:
        place = bisect_left(ends, number)
        before[number] = ends[place - 1] if place else None
        ends[place : place + 1] = [number]
    ascent: list[int] = []
    last = ends[-1] if ends else None
    while last is not None:
        ascent.append(last)
        last = before[last]
    return ascent[::-1]


def _make_difference(place: _Place, change: ChangeKind, before: Any, after: Any, words: str) -> Difference:
    part, name, field = place
    title = f"{part}s" if change == "reordered" and field is None else " ".join(filter(None, (part, name)))
    sentence = f"{title}: {words}" if field is None else f"{title}: {field} {words}"
    return Difference(
        part=part,
        name=name,
        field=field,
        change=change,
        before=None if before is UNSET else msgspec.to_builtins(before),
        after=None if after is UNSET else msgspec.to_builtins(after),
        words=sentence,
    )


def describe(value: Any, path: str | None = None) -> str:
    """Describe a value of a release in a few words; defaults are left out.

    Args:
        value: a field's, or a structure.
        path: the field's name, where its None means something of its own.
    """
    match value:
        case None | UnsetType():
            return {"min_members": "more than half", "dtype": "float32"}.get(path or "", "none")
        case Artifact():
            return f"{value.digest[:SHORT]} ({value.size:,} bytes)"
        case bool() | str() | int():
            return value if isinstance(value, str) else show(value)
        case float():
            return f"{value:.15g}"
        case ReleasedMember():
            tier = f", tier {value.tier}" if value.tier > 1 else ""
            varies = ", varies" if value.varies else ""
            trusted = ", trusted to do more than compute" if value.trusted else ""
            what = f"{describe(value.output)}, weight {value.weight:.15g}, {value.role}{tier}{varies}"
            return f"version {value.version}, {what}, artifact {describe(value.artifact)}{trusted}"
        case Struct():
            return _describe_struct(value)
        case Mapping():
            if set(value) == {""}:
                return describe(value[""])
            return "{" + ", ".join(f"{key}: {_enclose(inner, describe(inner))}" for key, inner in value.items()) + "}"
        case _:
            return ", ".join(describe(inner) for inner in value)


def _describe_struct(value: Struct) -> str:
    tag = value.__struct_config__.tag
    parts = [] if tag is None else [str(tag)]
    for one in structs.fields(value):
        inner = getattr(value, one.name)
        if inner is UNSET:
            continue
        is_default = one.default is not msgspec.NODEFAULT and _encode(inner) == _encode(one.default)
        names_it = one.name in {"id", "name"} and one.required
        if not names_it and not is_default:
            parts.append(f"{one.name} {_enclose(inner, describe(inner, one.name))}")
    return ", ".join(parts)


def _enclose(value: Any, words: str) -> str:
    return f"({words})" if isinstance(value, Struct | tuple) else words


def _encode(value: Any) -> bytes:
    """Return the bytes that count for a release's digest: -0.0 is not 0.0 there, and a mapping's order is nothing."""
    return b"" if value is UNSET else msgspec.json.encode(value, order="deterministic")
