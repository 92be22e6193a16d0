"""Checks a policy: alone, against the task, and against the members.

Each function takes the well-formed parts of a manifest that it compares, and yields problems. `validation.manifest`
calls them; `check_quorum` also checks the quorum of a payload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from stepensemble.core.number_limits import LARGEST
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.schema.manifest import EnsembleMember, select_voters
from stepensemble.core.schema.outputs import Label
from stepensemble.core.schema.policy import (
    CLASS_METHODS,
    VOTES,
    WEIGHTED_METHODS,
    Aggregation,
    Coefficient,
    Confidence,
    Quorum,
    Stacking,
    name_method,
)
from stepensemble.core.schema.task import MulticlassTask, RegressionTask, Task

METHODS = tuple(str(method.__struct_config__.tag) for method in get_args(Aggregation))
"""The names of all methods."""


def check_method(aggregation: Aggregation, task: Task) -> Iterator[Problem]:
    """Check that the method fits the task, and that its rule for ties can apply."""
    if not isinstance(task, RegressionTask):
        return
    method = name_method(aggregation)
    if method in CLASS_METHODS:
        yield Problem(
            "$.aggregation.method",
            f"{show(method)} needs classes, and the task is a regression",
            f"use one of {enumerate_values(name for name in METHODS if name not in CLASS_METHODS)}",
        )
    if aggregation.tie != "first":
        yield Problem(
            "$.aggregation.tie", f"{show(aggregation.tie)} has no effect: a regression has no ties", "remove it"
        )


def check_support(member: EnsembleMember, aggregation: Aggregation, task: Task, path: str) -> Iterator[Problem]:
    """Check that a voter has the output that the method combines: a label is no probability unless declared so."""
    method = name_method(aggregation)
    if member.role == "shadow" or method in VOTES or isinstance(task, RegressionTask):
        return
    if isinstance(member.output, Label) and not member.output.one_hot:
        yield Problem(
            f"{path}.output.kind",
            f'"label" is not a probability, and the method {show(method)} needs probabilities',
            'use the method "hard_vote" or "weighted_vote"; or add "one_hot": true to read a label as probability 1; '
            "or use a model that outputs probabilities",
        )


def check_weight(member: EnsembleMember, aggregation: Aggregation, quorum: Quorum, path: str) -> Iterator[Problem]:
    """Check that a weight is small enough to be summed, and has an effect: in the method, or in the quorum."""
    method = name_method(aggregation)
    if member.weight > LARGEST:  # a manifest was checked before; a replay is checked here
        remedy = f"use a number of at most {LARGEST:g}"
        yield Problem(f"{path}.weight", f"{show(member.weight)} is out of bounds", remedy)
    if member.weight != 1.0 and method not in WEIGHTED_METHODS and quorum.min_weight is None:
        yield Problem(
            f"{path}.weight",
            f"{show(member.weight)} has no effect under the method {show(method)}",
            f"remove it, or use a method that weights: {enumerate_values(sorted(WEIGHTED_METHODS))}; "
            'or declare the quorum\'s "min_weight"',
        )


def check_voters(members: Sequence[EnsembleMember]) -> Iterator[Problem]:
    """Check that there is a voter."""
    voters = select_voters(members)
    if not voters:
        yield Problem("$.members", "has no voter", 'give at least one member the role "voter"')
    elif not _weighs(voters):
        yield Problem("$.members", "has no voter with a weight above 0", "raise one weight")


def check_stack(aggregation: Aggregation, task: Task, members: Sequence[EnsembleMember]) -> Iterator[Problem]:
    """Check that a stack has coefficients for exactly the voters, of the shape that the task requires."""
    if not isinstance(aggregation, Stacking):
        return
    path = "$.aggregation.coefficients"
    given = aggregation.coefficients
    absent = [voter.id for voter in select_voters(members) if voter.id not in given]
    for id_, coefficient in given.items():
        yield from _check_voter(id_, members, absent, f"{path}.{id_}")
        yield from _check_coefficient(coefficient, task, f"{path}.{id_}")
    for id_ in absent:
        yield Problem(path, f"the voter {show(id_)} is missing", f"add {show(id_)} with {_coefficient_form(task)}")
    if given and not any(_has_effect(coefficient) for coefficient in given.values()):
        yield Problem(path, "are all 0, and no voter counts", "give at least one other than 0")
    yield from _check_intercept(aggregation.intercept, task)


def _check_coefficient(coefficient: Coefficient, task: Task, path: str) -> Iterator[Problem]:
    if isinstance(coefficient, tuple) != isinstance(task, MulticlassTask):
        form = _coefficient_form(task)
        yield Problem(path, f"{show(coefficient)} is not {form}", f"write {form}")
    elif isinstance(coefficient, tuple) and isinstance(task, MulticlassTask):
        yield from _check_length(coefficient, "lists", task, path)
        for index, row in enumerate(coefficient):
            yield from _check_length(row, "numbers", task, f"{path}[{index}]")


def _coefficient_form(task: Task) -> str:
    if not isinstance(task, MulticlassTask):
        return "a number"
    return f"a list of {len(task.classes)} numbers for each of the {len(task.classes)} classes"


def _check_intercept(intercept: float | tuple[float, ...], task: Task) -> Iterator[Problem]:
    path = "$.aggregation.intercept"
    if not isinstance(task, MulticlassTask):
        if isinstance(intercept, tuple):
            yield Problem(path, f"{show(intercept)} is not a number", "write a number")
    elif isinstance(intercept, tuple):
        yield from _check_length(intercept, "numbers", task, path)
    elif intercept != 0:
        yield Problem(
            path,
            f"{show(intercept)} is one number for {len(task.classes)} classes",
            f"write a list with one for each class: {enumerate_values(task.classes)}",
        )


def _check_length(entries: Sequence[object], noun: str, task: MulticlassTask, path: str) -> Iterator[Problem]:
    if len(entries) != len(task.classes):
        yield Problem(
            path,
            f"has {len(entries)} {noun} for {len(task.classes)} classes",
            f"write one for each class: {enumerate_values(task.classes)}",
        )


def _has_effect(coefficient: Coefficient) -> bool:
    return any(map(any, coefficient)) if isinstance(coefficient, tuple) else coefficient != 0


def check_quorum(quorum: Quorum, members: Sequence[EnsembleMember], path: str) -> Iterator[Problem]:
    """Check that a quorum can be met by the members.

    Args:
        quorum: of a manifest, or of a payload.
        members: all of them; the names of shadows explain why they do not count.
        path: of the quorum, for messages.
    """
    voters = select_voters(members)
    if voters and quorum.min_members is not None and quorum.min_members > len(voters):
        yield Problem(
            f"{path}.min_members",
            f"{quorum.min_members} is more than the {len(voters)} voters",
            f"use at most {len(voters)}",
        )
    others = [voter.id for voter in voters if voter.id not in quorum.required]
    for index, id_ in enumerate(quorum.required):
        where = f"{path}.required[{index}]"
        yield from _check_voter(id_, members, others, where)
        if id_ in quorum.required[:index]:
            yield Problem(where, f"{show(id_)} is given twice", "remove it")


def _check_voter(id_: str, members: Sequence[EnsembleMember], others: Sequence[str], path: str) -> Iterator[Problem]:
    """Check that a name is a voter's; `others` are candidates for a suggestion."""
    voters = [voter.id for voter in select_voters(members)]
    if id_ in voters:
        return
    if any(member.id == id_ for member in members):
        yield Problem(path, f"{show(id_)} is a shadow, which never counts", "remove it, or make that member a voter")
    else:
        yield Problem(
            path,
            f"{show(id_)} is not a voter",
            f"remove it, or use one of {enumerate_values(voters)}{suggest(id_, others)}",
        )


def check_bounds(confidence: Confidence | None, path: str) -> Iterator[Problem]:
    """Check that a confidence, if there is one, has a bound."""
    if confidence == Confidence():
        bounds = enumerate_values(Confidence.__struct_fields__)
        yield Problem(path, "has no bound", f"give at least one of {bounds}, or remove it")


def check_labelled_bounds(confidence: Confidence | None, task: Task, path: str) -> Iterator[Problem]:
    """Check that a regression has no bound that needs labels."""
    if confidence is None or not isinstance(task, RegressionTask):
        return
    for name in ("min_agreement", "min_margin"):
        bound = getattr(confidence, name)
        if bound is not None:
            yield Problem(
                f"{path}.{name}", f"{show(bound)} needs labels, and the task is a regression", 'use "max_spread"'
            )


def check_tiers(cascade: Confidence | None, members: Sequence[EnsembleMember]) -> Iterator[Problem]:
    """Check that there are several tiers exactly if there is a cascade, each with a voter that counts."""
    if cascade is None:
        for index, member in enumerate(members):
            if member.tier > 1:
                where = f"$.members[{index}].tier"
                yield Problem(where, f"{member.tier} has no effect without a cascade", 'remove it, or add "cascade"')
        return
    tiers = sorted({member.tier for member in members})
    if len(tiers) == 1:
        why = f"every member is in tier {tiers[0]}, so there is no other tier to send rows to"
        yield Problem("$.cascade", why, "put members into the tiers 1 and 2, or remove the cascade")
        return
    if tiers != list(range(1, len(tiers) + 1)):
        remedy = f"number them 1 to {len(tiers)}, without gaps"
        yield Problem("$.members", f"are in the tiers {enumerate_values(tiers)}", remedy)
    voters = {tier: select_voters(member for member in members if member.tier == tier) for tier in tiers}
    for tier in tiers:
        if not voters[tier]:
            yield Problem("$.members", f"tier {tier} has shadows and no voter", "put a voter into it")
    first = voters[tiers[0]]
    if first and not _weighs(first) and _weighs(select_voters(members)):
        yield Problem("$.members", f"tier {tiers[0]} has no voter with a weight above 0", "raise one weight")


def check_cascade_method(cascade: Confidence | None, aggregation: Aggregation) -> Iterator[Problem]:
    """Check that the method can predict before every voter was invoked."""
    if cascade is not None and isinstance(aggregation, Stacking):
        yield Problem(
            "$.cascade",
            'the method "stack" needs every voter, and a cascade invokes only some of them first',
            'remove the cascade and every "tier", or use another method',
        )


def check_cascade_quorum(
    cascade: Confidence | None, quorum: Quorum, members: Sequence[EnsembleMember]
) -> Iterator[Problem]:
    """Check that the first tier alone can meet the quorum."""
    least = quorum.min_members
    first = [voter for voter in select_voters(members) if voter.tier == 1]
    if cascade is not None and first and least is not None and len(first) < least <= len(select_voters(members)):
        yield Problem(
            "$.quorum.min_members",
            f"{least} is more than the {len(first)} voters of tier 1, so no row could be decided there",
            f"use at most {len(first)}, or put more voters into tier 1",
        )


def _weighs(voters: Sequence[EnsembleMember]) -> bool:
    return any(voter.weight > 0 for voter in voters)
