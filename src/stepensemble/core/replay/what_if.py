"""What a replay tries, and the terms on which members' outputs are decided by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from msgspec import structs

from stepensemble.core.errors import ReplayRefused
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.manifest import Manifest, Member, select_voters
from stepensemble.core.schema.policy import Aggregation, Policy, Stacking
from stepensemble.core.schema.task import Task, name_classes, name_task
from stepensemble.core.validation.policy import check_method, check_support, check_tiers, check_voters, check_weight

AnyMember = Member | ReleasedMember

METHODS = {str(method.__struct_config__.tag): method for method in get_args(Aggregation) if method is not Stacking}
"""The methods that need nothing but their name; a stack needs its coefficients, and so a manifest."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What is tried; with nothing given, nothing is changed.

    Attributes:
        manifest: its task, its policy and its members, with their weights, roles, tiers and output contracts, take the
            place of a release's.
        origin: where the manifest was read, for reports.
        digests: SHA-256 of the manifest's artifacts by member id, where they are known.
        method: one of `METHODS`, with its default parameters; the rule for ties stays what it was.
        weights: by member id, numbers >= 0.
    """

    manifest: Manifest | None = None
    origin: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides: the question, the policy, and everybody who may be asked."""

    task: Task
    policy: Policy
    members: tuple[AnyMember, ...]

    @property
    def voters(self) -> tuple[AnyMember, ...]:
        """The members that count."""
        return select_voters(self.members)


def set_terms(what_if: WhatIf, release: Release, in_force: Policy) -> Terms:
    """Return the terms on which a release's records are decided again.

    Args:
        what_if: what is tried.
        release: whose task and members are kept where there is no manifest.
        in_force: the policy by which the records were decided, kept where there is no manifest.

    Raises:
        ReplayRefused: the policy cannot work with these members, as `ensemble check` would say of a manifest.
    """
    source = release if what_if.manifest is None else what_if.manifest
    policy = in_force if what_if.manifest is None else what_if.manifest.policy
    if what_if.method is not None:
        method = METHODS[what_if.method](tie=policy.aggregation.tie)
        policy = structs.replace(policy, aggregation=method)
    members = tuple(
        structs.replace(member, weight=what_if.weights[member.id]) if member.id in what_if.weights else member
        for member in source.members
    )
    terms = Terms(source.task, policy, members)
    problems = list(_check_terms(what_if, terms))
    if problems:
        raise ReplayRefused(problems)
    return terms


def _check_terms(what_if: WhatIf, terms: Terms) -> Iterator[Problem]:
    policy, members = terms.policy, terms.members
    yield from check_method(policy.aggregation, terms.task)
    yield from check_voters(members)
    yield from check_tiers(policy.cascade, members)
    for index, member in enumerate(members):
        path = f"$.members[{index}]"
        yield from check_support(member, policy.aggregation, terms.task, path)
        if member.id in what_if.weights:
            yield from check_weight(member, policy.aggregation, policy.quorum, path)


def check_weights(weights: Mapping[str, float], members: Iterable[str]) -> None:
    """Check that weights are those of members.

    Raises:
        ReplayRefused: with every id that is no member's.
    """
    known = list(dict.fromkeys(members))
    others = [id_ for id_ in known if id_ not in weights]
    problems = [
        Problem("--weights", f"{show(id_)} is no member", f"use one of {enumerate_values(known)}{suggest(id_, others)}")
        for id_ in weights
        if id_ not in known
    ]
    if problems:
        raise ReplayRefused(problems)


def check_question(task: Task, asked: Task, release: str) -> None:
    """Check that a release answers the question that is replayed: the same type of task, the same classes in order.

    Args:
        task: the release's.
        asked: the manifest's, or that of the newest record.
        release: its name, for the message.

    Raises:
        ReplayRefused: it answers another one.
    """
    if name_task(task) == name_task(asked) and name_classes(task) == name_classes(asked):
        return
    message = f"there are records of release {release}, {_describe(task)}, and what is tried is {_describe(asked)}"
    remedy = "replay records of one task: give a manifest of theirs, or a later --since"
    raise ReplayRefused([Problem("$.task", message, remedy)])


def _describe(task: Task) -> str:
    classes = name_classes(task)
    return f"a {name_task(task)} task" + (f" of {enumerate_values(classes)}" if classes else "")
