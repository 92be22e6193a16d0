"""The gate: every artifact is loaded and asked, before anybody else asks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from stepensemble.core.columns import Columns, stack_columns
from stepensemble.core.errors import InvalidManifest, MemberError
from stepensemble.core.features import normalize
from stepensemble.core.manifest import Feature
from stepensemble.core.outputs import canonical, check_output
from stepensemble.core.problems import Problem
from stepensemble.core.release import ReleasedMember
from stepensemble.publishing.golden import draw_rows
from stepensemble.publishing.sources import Sources
from stepensemble.runtimes import load_model

TRIAL_ROWS = 3
"""More than one, so that a model with a fixed batch shows it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a member showed at the gate; times in milliseconds."""

    member: ReleasedMember
    load_ms: float
    predict_ms: float


def try_members(sources: Sources, progress: Callable[[str], None] = lambda _: None) -> list[Trial]:
    """Load every artifact and ask it for `TRIAL_ROWS` rows drawn from the features' ranges.

    Args:
        sources: as read.
        progress: told each member's id before it is tried.

    Raises:
        InvalidManifest: with every member whose artifact does not load, does not take its columns, or answers something
            other than the manifest declares.
    """
    columns = draw_columns(sources.manifest.features, TRIAL_ROWS)
    trials: list[Trial] = []
    problems: list[Problem] = []
    for index, member in enumerate(sources.release.members):
        progress(member.id)
        try:
            trials.append(_try(member, sources, columns))
        except MemberError as error:
            artifact = sources.manifest.members[index].artifact
            remedy = "mend the model, or what the manifest says of its columns and output"
            problems.append(
                Problem(f"$.members[{index}]", f"{member.id} ({artifact}): {type(error).__name__}: {error}", remedy)
            )
    if problems:
        raise InvalidManifest(problems)
    return trials


def _try(member: ReleasedMember, sources: Sources, columns: Columns) -> Trial:
    started = time.perf_counter()
    model = load_model(member.runtime, sources.artifacts[member.id])
    loaded = time.perf_counter()
    output = check_output(model.predict(stack_columns(columns, member.columns)), TRIAL_ROWS)
    answered = time.perf_counter()
    canonical(output, sources.manifest.task, member.output)
    return Trial(member, (loaded - started) * 1000, (answered - loaded) * 1000)


def draw_columns(features: tuple[Feature, ...], rows: int) -> Columns:
    """Draw rows from the features' ranges, always the same ones, and encode them."""
    return normalize(features, draw_rows(features, rows))
