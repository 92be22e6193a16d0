"""The tables of releases: lists, differences, verifications, canaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from stepensemble.cli.tables.common import make_table, name_member
from stepensemble.cli.terminal import STATUS_STYLES
from stepensemble.core.releases.diff import Difference
from stepensemble.core.releases.release import SHORT
from stepensemble.core.replay.report import ChangeCount
from stepensemble.publishing.canary import Activity, CanaryReport, ReleaseAgreement
from stepensemble.publishing.publish import PublishPlan
from stepensemble.publishing.release_list import MemberLine, ReleaseLine, ReleaseOverview
from stepensemble.publishing.verification import Verification

MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow"), "reordered": ("~", "yellow")}
VERDICT_STYLES = {"same": "green", "varies": "yellow", "differs": "bold red", "failed": "bold red"}


def render_overview(overview: ReleaseOverview) -> RenderableType:
    """Render one line per release, then the history of the current one."""
    table = make_table()
    for name in ("release", "written", "members", "state"):
        table.add_column(name)
    for line in overview.releases:
        members = ", ".join(_name_version(member) for member in line.members)
        shown = Text(members) if line.problem is None else Text(line.problem, style="red")
        table.add_row(line.release[:SHORT], _format_time(line.written_at), shown, _name_state(line, overview))
    parts: list[RenderableType] = [table]
    if overview.total > len(overview.releases):
        parts.append(f"{overview.total - len(overview.releases)} more; list them with --limit")
    if overview.history:
        parts += ["", _render_history(overview)]
    return Group(*parts)


def _name_version(member: MemberLine) -> str:
    """Return a member's id and version with a space at which a line is not broken."""
    return f"{name_member(member.id, member.role)}\N{NO-BREAK SPACE}{member.version}"


def _name_state(line: ReleaseLine, overview: ReleaseOverview) -> Text:
    if line.state == "current":
        since = f" since {_format_time(overview.since)}" if overview.since else ""
        return Text(f"current{since}", style="bold green")
    if line.state == "canary":
        return Text(f"canary of {overview.percent}% since {_format_time(overview.canary_since)}", style="bold yellow")
    return Text("")


def _render_history(overview: ReleaseOverview) -> RenderableType:
    table = make_table()
    for name in ("current before", "since", "until"):
        table.add_column(name)
    for term in overview.history:
        table.add_row(term.release[:SHORT], _format_time(term.since), _format_time(term.until))
    return table


def render_differences(differences: Sequence[Difference]) -> RenderableType:
    """Render one line per difference."""
    if not differences:
        return Text("no difference")
    lines = Text()
    for difference in differences:
        mark, style = MARKS[difference.change]
        lines.append(f"{mark} ", style=style)
        lines.append(f"{difference.words}\n")
    lines.rstrip()
    return lines


def render_plan(plan: PublishPlan, differences: Sequence[Difference] | None) -> RenderableType:
    """Render the slot of each member and what a publish would upload; with `differences`, also those."""
    table = make_table()
    for name in ("member", "slot", "artifact", ""):
        table.add_column(name)
    uploads = {member.artifact.digest for member in plan.uploads}
    for member in plan.bundle.release.members:
        action = f"upload {member.artifact.size:,} bytes" if member.artifact.digest in uploads else "exists already"
        table.add_row(
            name_member(member.id, member.role), plan.slots[member.id], member.artifact.digest[:SHORT], Text(action)
        )
    return table if differences is None else Group(table, "", render_differences(differences))


def render_verification(verification: Verification) -> RenderableType:
    """Render one line per member."""
    table = make_table()
    for name in ("member", "result", "deviation", ""):
        table.add_column(name, justify="right" if name == "deviation" else "left")
    for verdict in verification.members:
        deviation = "" if verdict.deviation is None else f"{verdict.deviation:.1g}"
        result = Text(verdict.status, style=VERDICT_STYLES[verdict.status])
        table.add_row(verdict.member, result, deviation, Text("; ".join(verdict.reasons)))
    return table


def render_canary(report: CanaryReport) -> RenderableType:
    """Render both releases beside each other, then how far they agree."""
    table = make_table()
    for name in ("", "release", "share", "executions", "status", "value", "labels"):
        table.add_column(name, justify="right" if name in {"share", "executions"} else "left")
    sides = (("current", report.current, 100 - report.percent), ("canary", report.canary, report.percent))
    for name, activity, share in sides:
        table.add_row(
            name,
            activity.release[:SHORT],
            f"{share}%",
            f"{activity.executions:,}",
            _render_statuses(activity),
            "" if activity.mean is None else f"{activity.mean:.4g} ± {activity.std:.2g}",
            ", ".join(f"{label} {count:,}" for label, count in activity.labels.items()),
        )
    lines = [f"since {_format_time(report.since)}", *_describe_agreement(report.agreement)]
    return Group(table, "", *(Text(line) for line in lines))


def _render_statuses(activity: Activity) -> Text:
    statuses = Text()
    for status, count in activity.statuses.items():
        statuses.append(f"{', ' if statuses else ''}{count:,} ")
        statuses.append(status, style=STATUS_STYLES.get(status, ""))
    return statuses


def _describe_agreement(agreement: ReleaseAgreement | None) -> Iterator[str]:
    if agreement is None:
        yield "not compared: the releases have different tasks"
        return
    yield f"compared: {agreement.rows:,} rows of {agreement.records:,} records, each predicted by both releases"
    if agreement.shift is not None:
        flips = f": {_list_flips(agreement.flips)}" if agreement.flips else ""
        yield f"labels that differ: {agreement.labels_differ:,}{flips}"
        shift = agreement.shift
        yield (
            f"shift, canary minus current: mean {shift.mean:+.3g}, mean absolute {shift.mean_absolute:.3g}, "
            f"largest {shift.greatest:+.3g}"
        )
    for refusal in agreement.rejected:
        yield f"failed with {refusal.release[:SHORT]}: {refusal.records:,} records, such as: {refusal.example}"


def _list_flips(flips: Iterable[ChangeCount]) -> str:
    return ", ".join(f"{one.change.before} → {one.change.after} {one.count:,}" for one in flips)


def _format_time(moment: str | None) -> str:
    return "unknown" if moment is None else moment[:19].replace("T", " ")
