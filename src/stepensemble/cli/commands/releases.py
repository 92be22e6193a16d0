"""The commands for releases: `publish`, `releases`, `diff`, `rollback`, `verify`, `canary`, `promote`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stepensemble.cli.options import (
    DEFAULT_MANIFEST,
    RELEASES_PANEL,
    JsonOption,
    ManifestOption,
    StackOption,
    read_manifest,
)
from stepensemble.cli.terminal import err, out, print_json, print_note, print_state, show_status
from stepensemble.core.errors import VerificationFailed
from stepensemble.core.releases.release import SHORT

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
if TYPE_CHECKING:
    from stepensemble.cli.stacks import Stack
    from stepensemble.core.releases.release import Release
    from stepensemble.publishing.publish import OnUpload, PublishedRelease, PublishPlan
    from stepensemble.publishing.verification import Verification

LOCAL = "local"
"""The name of the local stack in `promote`."""

ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Replace a release of another ensemble without confirmation.")
]

commands = typer.Typer()
canary = typer.Typer(
    help="Compare, promote or end the canary: a release that predicts for a share of the executions.",
    no_args_is_help=True,
)
commands.add_typer(canary, name="canary", rich_help_panel=RELEASES_PANEL)


@commands.command(rich_help_panel=RELEASES_PANEL)
def publish(
    manifest: ManifestOption = None,
    stack: StackOption = None,
    percent: Annotated[
        int | None,
        typer.Option(
            "--canary",
            min=1,
            max=99,
            help="Publish it as the canary, for this percentage of executions.",
        ),
    ] = None,
    *,
    replace: ReplaceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compile the manifest to a release, run the gate, and make the release current."""
    from stepensemble.cli.gate import pass_gate
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.publish import (
        apply_plan,
        bundle_release,
        compare_with_current,
        name_replaced,
        plan,
    )

    with ExitStack() as stacks:
        with show_status("Reading the manifest") as status:
            sources = read_manifest(manifest)
            fingerprint = pass_gate(sources, status.update).fingerprint()
            opened = stacks.enter_context(open_stack(stack, notify=status.update))
            status.update("Reading the current release")
            planned = plan(bundle_release(sources, fingerprint), opened.releases, opened.slots, canary=percent)
            replaced = name_replaced(planned, opened.releases)
        if dry_run:
            _show_plan(planned, compare_with_current(planned, opened.releases), opened.name, as_json=as_json)
            if replaced is not None:
                print_note(_name_replacement(replaced, planned, opened.name))
            return
        if replaced is not None and not replace:
            _confirm_replacement(replaced, planned, opened.name)
        with _upload_bar(planned, quiet=as_json) as on_upload:
            published = apply_plan(planned, opened.releases, on_upload=on_upload)
        if opened.local and (manifest or DEFAULT_MANIFEST).resolve() == DEFAULT_MANIFEST.resolve():
            opened.releases.note_manifest(sources.digest)
        name = opened.name
    if as_json:
        print_json(_published_to_json(published))
    else:
        _show_published(published, name)


@commands.command(rich_help_panel=RELEASES_PANEL)
def releases(
    stack: StackOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list, newest first.")] = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the releases of a stack, and when each was current."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.release_list import read_overview

    with (
        show_status("Reading the releases") as status,
        open_stack(stack, notify=status.update, read_only=True) as opened,
    ):
        overview = read_overview(opened.releases, limit)
    if as_json:
        print_json(msgspec.to_builtins(overview))
    elif overview.total:
        from stepensemble.cli.tables.releases import render_overview

        out.print(render_overview(overview))
    else:
        out.print("nothing is published yet")


@commands.command(rich_help_panel=RELEASES_PANEL)
def diff(
    before: Annotated[
        str,
        typer.Argument(metavar="A", help="One of current, previous, canary; first digits of a release; or a manifest."),
    ] = "current",
    after: Annotated[
        str, typer.Argument(metavar="B", help="In the same form.", show_default=str(DEFAULT_MANIFEST))
    ] = str(DEFAULT_MANIFEST),
    stack: StackOption = None,
    *,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if the releases differ.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the differences between two releases."""
    from stepensemble.core.releases.diff import compare_releases

    with ExitStack() as stacks, show_status("Reading the releases") as status:
        opened: Stack | None = None
        found: list[tuple[str, Release]] = []
        for reference, hint in ((before, "A"), (after, "B")):
            manifest = _as_manifest(reference, hint)
            if manifest is not None:
                sources = read_manifest(manifest)
                found.append((sources.digest, sources.release))
                continue
            if opened is None:
                from stepensemble.cli.stacks import open_stack

                opened = stacks.enter_context(open_stack(stack, notify=status.update))
            from stepensemble.publishing.release_lookup import find_release

            digest = find_release(opened.releases, reference)
            found.append((digest, opened.releases.read_release(digest)))
    (old, old_release), (new, new_release) = found
    differences = compare_releases(old_release, new_release)
    if as_json:
        print_json(
            {
                "from": {"reference": before, "release": old},
                "to": {"reference": after, "release": new},
                "differences": msgspec.to_builtins(differences),
            }
        )
    else:
        from stepensemble.cli.tables.releases import render_differences

        out.print(f"{before} ({old[:SHORT]}) → {after} ({new[:SHORT]})", style="dim")
        out.print(render_differences(differences))
    if differences and exit_code:
        raise typer.Exit(1)


@commands.command(rich_help_panel=RELEASES_PANEL)
def rollback(
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="The word previous, or first digits of a release.")
    ] = "previous",
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier release current again; another rollback undoes it."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.rollback import roll_back

    with show_status("Reading the releases") as status, open_stack(stack, notify=status.update) as opened:
        done = roll_back(opened.releases, opened.slots, release)
        name = opened.name
    if as_json:
        ended = None if done.ended is None else done.ended.release
        print_json(
            {
                "release": done.release,
                "previous": done.previous,
                "changed": done.changed,
                "slots": done.slots,
                "ended_canary": ended,
            }
        )
        return
    if not done.changed:
        out.print(f"release {done.release[:SHORT]} is current on {name} already")
        return
    message = f"release {done.release[:SHORT]} is current on {name}; before, it was {done.previous[:SHORT]}"
    print_state("rolled back", message)
    if done.ended is not None:
        out.print(f"this also ended the canary {done.ended.release[:SHORT]}")


@commands.command(rich_help_panel=RELEASES_PANEL)
def verify(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="The word current or canary.")] = "current",
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Predict the golden rows on the stack, and compare every member's outputs with those at publication."""
    from stepensemble.cli.stacks import open_stack

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        status.update("Predicting the golden rows")
        verification = _verify(opened, release)
    if as_json:
        print_json(_verification_to_json(verification))
    else:
        _show_verification(verification)
    if not verification.passed:
        raise typer.Exit(1)


@canary.command("status")
def canary_status(
    stack: StackOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the latest records to compare.")] = 200,
    *,
    as_json: JsonOption = False,
) -> None:
    """Compare the canary with the current release: their executions, and their predictions for the same records."""
    from stepensemble.cli.gate import suppress_standard_error
    from stepensemble.cli.stacks import open_stack
    from stepensemble.core.aggregation.output import Output
    from stepensemble.ensemble import Ensemble
    from stepensemble.publishing.canary import Predict, report_canary

    def load(release: Release, digest: str, artifacts: Any) -> Predict:
        with suppress_standard_error():
            ensemble = Ensemble.from_release(release, digest, artifacts)
        return lambda payload: msgspec.convert(ensemble.predict(payload), Output)

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        status.update("Comparing the two releases on the records")
        report = report_canary(opened.releases, opened.records, load, limit)
    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    from stepensemble.cli.tables.releases import render_canary

    out.print(render_canary(report))


@canary.command("promote")
def canary_promote(stack: StackOption = None, *, as_json: JsonOption = False) -> None:
    """Make the canary the current release."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.canary import promote_canary

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        current = promote_canary(opened.releases)
        name = opened.name
    previous = current.history[0].release
    if as_json:
        print_json({"release": current.release, "previous": previous, "slots": current.slots})
        return
    message = f"release {current.release[:SHORT]} is current on {name}; before, it was {previous[:SHORT]}"
    print_state("promoted", message)


@canary.command("abort")
def canary_abort(stack: StackOption = None, *, as_json: JsonOption = False) -> None:
    """End the canary; the current release predicts for all executions again."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.canary import abort_canary

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        ended = abort_canary(opened.releases)
        name = opened.name
    if as_json:
        print_json({"ended_canary": ended.release})
    else:
        print_state("ended", f"release {ended.release[:SHORT]} is no longer the canary on {name}")


@commands.command(rich_help_panel=RELEASES_PANEL)
def promote(
    source: Annotated[str, typer.Option("--from", help="The stack with the release, or local.")],
    target: Annotated[str, typer.Option("--to", help="The stack to publish it to, or local.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Publish without confirmation.")] = False,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a stack's current release to another stack: verify it, show the differences, and copy the same bytes."""
    if source == target:
        raise typer.BadParameter(f"{target} is also the source; name another stack", param_hint="--to")
    if not yes and not sys.stdin.isatty():
        message = "standard input is not a terminal, so nothing can be confirmed; add --yes"
        raise typer.BadParameter(message, param_hint="--yes")
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.promotion import fetch_release
    from stepensemble.publishing.publish import apply_plan, compare_with_current, name_replaced, plan

    with ExitStack() as stacks:
        with show_status("Looking for the stacks") as status:
            here, there = (
                stacks.enter_context(open_stack(None if name == LOCAL else name, notify=status.update))
                for name in (source, target)
            )
            current, _ = here.releases.read_current()
            planned = plan(fetch_release(here.releases, current.release), there.releases, there.slots)
            status.update(f"Predicting the golden rows on {here.name}")
            verification = _verify(here, current.release)
            differences = compare_with_current(planned, there.releases)
        if not as_json:
            _show_verification(verification)
        if not verification.passed:
            if as_json:
                print_json({"verification": _verification_to_json(verification)})
            raise VerificationFailed(
                f"the members' outputs on {here.name} differ from those at publication; nothing is promoted"
            )
        if not as_json:
            _show_plan(planned, differences, there.name, as_json=False)
        replaced = name_replaced(planned, there.releases)
        if replaced is not None and not replace:
            _confirm_replacement(replaced, planned, there.name)
        elif planned.changed and not yes:
            typer.confirm(f"Make release {current.release[:SHORT]} current on {there.name}?", abort=True, err=True)
        with _upload_bar(planned, quiet=as_json) as sent:
            published = apply_plan(planned, there.releases, on_upload=sent)
        name = there.name
    if as_json:
        print_json(
            {
                **_published_to_json(published),
                "differences": msgspec.to_builtins(differences),
                "verification": _verification_to_json(verification),
            }
        )
    else:
        _show_published(published, name)


def _name_replacement(replaced: str, planned: PublishPlan, stack: str) -> str:
    verb = "becomes the canary beside" if planned.canary is not None else "replaces"
    return f"the ensemble {planned.bundle.release.name} {verb} {replaced}, which {stack} serves"


def _confirm_replacement(replaced: str, planned: PublishPlan, stack: str) -> None:
    """Ask the user to confirm that another ensemble's release is replaced.

    Raises:
        typer.BadParameter: standard input is not a terminal.
        typer.Abort: the user does not confirm it.
    """
    message = _name_replacement(replaced, planned, stack)
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{message}; add --replace to confirm", param_hint="--replace")
    typer.confirm(f"{message[0].upper()}{message[1:]}. Continue?", abort=True, err=True)


def _as_manifest(reference: str, hint: str) -> Path | None:
    """Return the path of a manifest; None if the reference names a release."""
    from stepensemble.publishing.release_lookup import is_release_reference

    path = Path(reference)
    if path.is_file():
        return path
    if is_release_reference(reference):
        return None
    message = (
        f"{reference} is neither an existing manifest nor a release; give a path, current, previous, canary or digits"
    )
    raise typer.BadParameter(message, param_hint=hint)


def _verify(stack: Stack, reference: str) -> Verification:
    from stepensemble.cli.execution import run_execution
    from stepensemble.core.aggregation.output import Output
    from stepensemble.publishing.release_lookup import find_release
    from stepensemble.publishing.verification import verify as verify_release

    def predict(payload: dict[str, Any]) -> tuple[Output | None, str]:
        outcome = run_execution(stack, payload, None)
        return outcome.output, f"{outcome.error}: {outcome.cause}"

    digest = find_release(stack.releases, reference)
    return verify_release(stack.releases.read_release(digest), stack.releases.read_fingerprint(digest), predict)


@contextmanager
def _upload_bar(plan: PublishPlan, *, quiet: bool) -> Iterator[OnUpload]:
    """Show the uploaded bytes, if standard error is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("Uploading {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    hidden = quiet or not err.is_terminal or not plan.uploads
    with Progress(*columns, console=err, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=plan.upload_bytes)
        yield lambda member, count: progress.update(task, advance=count, description=member)


def _show_plan(plan: PublishPlan, differences: Any, name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "dry_run": True,
                "release": plan.bundle.digest,
                "previous": plan.previous,
                "changed": plan.changed,
                "canary": plan.canary,
                "slots": plan.slots,
                "uploads": [
                    {"member": member.id, "digest": member.artifact.digest, "size": member.artifact.size}
                    for member in plan.uploads
                ],
                "differences": msgspec.to_builtins(differences),
            }
        )
        return
    from stepensemble.cli.tables.releases import render_plan

    out.print(render_plan(plan, differences))
    digest = plan.bundle.digest[:SHORT]
    if plan.changed:
        out.print(f"\nrelease {digest} would be {_name_role(name, plan.canary)}")
    else:
        out.print(f"\nrelease {digest} is {_name_role(name, plan.canary)} already")


def _name_role(stack: str, canary: int | None) -> str:
    return f"current on {stack}" if canary is None else f"the canary on {stack} for {canary}% of the executions"


def _published_to_json(published: PublishedRelease) -> dict[str, Any]:
    return {
        "release": published.release,
        "previous": published.previous,
        "changed": published.changed,
        "uploaded": published.uploaded,
        "slots": published.slots,
        "canary": published.canary,
    }


def _show_published(published: PublishedRelease, name: str) -> None:
    message = f"release {published.release[:SHORT]} is {_name_role(name, published.canary)}"
    if not published.changed:
        out.print(f"{message} already")
        return
    for member, slot in published.slots.items():
        out.print(f"  {member:<24} slot {slot}{'   uploaded' if member in published.uploaded else ''}")
    print_state("published", message)


def _verification_to_json(verification: Verification) -> dict[str, Any]:
    return {"passed": verification.passed, **msgspec.to_builtins(verification)}


def _show_verification(verification: Verification) -> None:
    from stepensemble.cli.tables.releases import render_verification

    out.print(render_verification(verification))
    state, style = ("verified", "bold green") if verification.passed else ("not verified", "bold red")
    print_state(
        state,
        f"release {verification.release[:SHORT]} on {verification.rows} golden rows; fingerprint of "
        f"{verification.taken_at[:19].replace('T', ' ')}, recorded as {verification.prediction_id}",
        style=style,
    )
