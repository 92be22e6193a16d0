"""What a replay tries, and the terms by which it decides recorded outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from msgspec import structs

from stepensemble.core.aggregation.decision import Terms
from stepensemble.core.errors import ReplayRefused
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.manifest import Manifest, Member
from stepensemble.core.schema.policy import Aggregation, Policy, Stacking
from stepensemble.core.schema.task import Task, name_classes, name_task
from stepensemble.core.validation.policy import check_method, check_support, check_tiers, check_voters, check_weight

AnyMember = Member | ReleasedMember

METHODS = {str(method.__struct_config__.tag): method for method in get_args(Aggregation) if method is not Stacking}
"""The methods that need only their name; a stack needs coefficients, and so a manifest."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What is tried; with nothing given, nothing changes.

    Attributes:
        manifest: its task, policy and members, with their weights, roles, tiers and declared outputs, replace those of
            a release.
        origin: where the manifest was read, for reports.
        digests: SHA-256 of the manifest's artifacts by member id, where they are known.
        method: one of `METHODS`, with its default parameters; the rule for ties does not change.
        weights: by member id, numbers >= 0.
    """

    manifest: Manifest | None = None
    origin: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


def resolve_terms(what_if: WhatIf, release: Release, recorded: Policy) -> Terms:
    """Return the terms by which a release's records are decided again.

    Args:
        what_if: what is tried.
        release: its task and members apply where there is no manifest.
        recorded: the policy by which the records were decided; it applies where there is no manifest.

    Raises:
        ReplayRefused: the policy cannot work with these members, for the reasons that `ensemble check` reports.
    """
    source = release if what_if.manifest is None else what_if.manifest
    policy = recorded if what_if.manifest is None else what_if.manifest.policy
    if what_if.method is not None:
        method = METHODS[what_if.method](tie=policy.aggregation.tie)
        policy = structs.replace(policy, aggregation=method)
    members: tuple[AnyMember, ...] = tuple(
        structs.replace(member, weight=what_if.weights[member.id]) if member.id in what_if.weights else member
        for member in source.members
    )
    terms = Terms(source.task, policy, members)
    problems = list(_check_terms(what_if, terms.task, policy, members))
    if problems:
        raise ReplayRefused(problems)
    return terms


def _check_terms(what_if: WhatIf, task: Task, policy: Policy, members: Sequence[AnyMember]) -> Iterator[Problem]:
    yield from check_method(policy.aggregation, task)
    yield from check_voters(members)
    yield from check_tiers(policy.cascade, members)
    for index, member in enumerate(members):
        path = f"$.members[{index}]"
        yield from check_support(member, policy.aggregation, task, path)
        if member.id in what_if.weights:
            yield from check_weight(member, policy.aggregation, policy.quorum, path)


def check_weights(weights: Mapping[str, float], members: Iterable[str]) -> None:
    """Check that every weight is given for a member.

    Raises:
        ReplayRefused: with every id that is not a member's.
    """
    known = list(dict.fromkeys(members))
    others = [id_ for id_ in known if id_ not in weights]
    problems = [
        Problem(
            "--weights", f"{show(id_)} is not a member", f"use one of {enumerate_values(known)}{suggest(id_, others)}"
        )
        for id_ in weights
        if id_ not in known
    ]
    if problems:
        raise ReplayRefused(problems)


def check_task(task: Task, expected: Task, release: str) -> None:
    """Check that a release has the task that is replayed: the same type, and the same classes in order.

    Args:
        task: the release's.
        expected: the manifest's, or that of the newest record.
        release: its name, for the message.

    Raises:
        ReplayRefused: it has another one.
    """
    if name_task(task) == name_task(expected) and name_classes(task) == name_classes(expected):
        return
    message = f"there are records of release {release}, {_describe(task)}, and what is tried is {_describe(expected)}"
    remedy = "replay records of one task: give a manifest of theirs, or a later --since"
    raise ReplayRefused([Problem("$.task", message, remedy)])


def _describe(task: Task) -> str:
    classes = name_classes(task)
    return f"a {name_task(task)} task" + (f" of {enumerate_values(classes)}" if classes else "")
