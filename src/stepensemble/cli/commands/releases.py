"""The commands of a release's life: publish, list, compare, roll back, verify, canary, promote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stepensemble.cli.options import DEFAULT_MANIFEST, JsonOption, ManifestOption, StackOption, read_manifest
from stepensemble.cli.terminal import announce, err, note, out, print_json, show_status
from stepensemble.core.errors import VerificationFailed
from stepensemble.core.releases.release import SHORT

# Each command imports what it needs when it runs: `ensemble --help` should not wait for boto3 or NumPy.
if TYPE_CHECKING:
    from stepensemble.cli.stacks import Stack
    from stepensemble.core.releases.release import Release
    from stepensemble.publishing.publish import OnUpload, PublishedRelease, PublishPlan
    from stepensemble.publishing.verification import Verification

LOCAL = "local"
"""What `promote` calls the local stack."""

ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Replace another ensemble's release without confirmation.")
]

commands = typer.Typer()
canary = typer.Typer(
    help="A release that answers a share of the executions, beside the current one.", no_args_is_help=True
)
commands.add_typer(canary, name="canary")


@commands.command()
def publish(
    manifest: ManifestOption = None,
    stack: StackOption = None,
    percent: Annotated[
        int | None,
        typer.Option("--canary", min=1, max=99, help="Let it answer this percentage of the executions only."),
    ] = None,
    *,
    replace: ReplaceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compile the manifest to a release and make it the current one."""
    from stepensemble.cli.gate import admit
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.publish import apply_plan, bundle_release, compare_with_current, name_replaced, plan

    with ExitStack() as stacks:
        with show_status("Reading the manifest") as status:
            sources = read_manifest(manifest)
            fingerprint = admit(sources, status.update).fingerprint()
            opened = stacks.enter_context(open_stack(stack, notify=status.update))
            status.update("Looking at what is published")
            planned = plan(bundle_release(sources, fingerprint), opened.releases, opened.slots, canary=percent)
            replaced = name_replaced(planned, opened.releases)
        if dry_run:
            _show_plan(planned, compare_with_current(planned, opened.releases), opened.name, as_json=as_json)
            if replaced is not None:
                note(_name_replacement(replaced, planned, opened.name))
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


@commands.command()
def releases(
    stack: StackOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the releases of a stack, and which was current when."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.release_list import read_overview

    with show_status("Reading the releases") as status, open_stack(stack, notify=status.update, reading=True) as opened:
        overview = read_overview(opened.releases, limit)
    if as_json:
        print_json(msgspec.to_builtins(overview))
    elif overview.total:
        from stepensemble.cli.tables.releases import draw_overview

        out.print(draw_overview(overview))
    else:
        out.print("nothing is published yet")


@commands.command()
def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="current, previous, canary, a release's digits, or a manifest.")
    ] = "current",
    after: Annotated[str, typer.Argument(metavar="B", help="The same.", show_default=str(DEFAULT_MANIFEST))] = str(
        DEFAULT_MANIFEST
    ),
    stack: StackOption = None,
    *,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where there is a difference.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say in words what distinguishes two releases."""
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
        from stepensemble.cli.tables.releases import draw_differences

        out.print(f"{before} ({old[:SHORT]}) → {after} ({new[:SHORT]})", style="dim")
        out.print(draw_differences(differences))
    if differences and exit_code:
        raise typer.Exit(1)


@commands.command()
def rollback(
    release: Annotated[str, typer.Argument(help="previous, or a release's digits.")] = "previous",
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier release the current one again; undone by another rollback."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.rollback import roll_back

    with show_status("Looking at the releases") as status, open_stack(stack, notify=status.update) as opened:
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
        out.print(f"release {done.release[:SHORT]} is the current one of {name} already")
        return
    before = f"it was {done.previous[:SHORT]}"
    announce("rolled back", f"release {done.release[:SHORT]} is the current one of {name}; {before}")
    if done.ended is not None:
        out.print(f"the canary {done.ended.release[:SHORT]} ended with it")


@commands.command()
def verify(
    release: Annotated[str, typer.Argument(help="current or canary.")] = "current",
    stack: StackOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Ask the stack about the golden rows, and compare every member with what it said when it was published."""
    from stepensemble.cli.stacks import open_stack

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        status.update("Asking about the golden rows")
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
    limit: Annotated[int, typer.Option(min=1, help="Compare so many of the latest records.")] = 200,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what canary and current release did since it began, and how they agree on recorded predictions."""
    from stepensemble.cli.gate import standard_error_closed
    from stepensemble.cli.stacks import open_stack
    from stepensemble.core.aggregation.prediction import Output
    from stepensemble.ensemble import Ensemble
    from stepensemble.publishing.canary import Predict, report_canary

    def load(release: Release, digest: str, artifacts: Any) -> Predict:
        with standard_error_closed():
            ensemble = Ensemble.from_release(release, digest, artifacts)
        return lambda payload: msgspec.convert(ensemble.predict(payload), Output)

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        status.update("Comparing the two releases on what is recorded")
        report = report_canary(opened.releases, opened.records, load, limit)
    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    from stepensemble.cli.tables.releases import draw_canary

    out.print(draw_canary(report))


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
    before = f"it was {previous[:SHORT]}"
    announce("promoted", f"release {current.release[:SHORT]} is the current one of {name}; {before}")


@canary.command("abort")
def canary_abort(stack: StackOption = None, *, as_json: JsonOption = False) -> None:
    """End the canary; the current release answers everything again."""
    from stepensemble.cli.stacks import open_stack
    from stepensemble.publishing.canary import abort_canary

    with show_status("Looking for the stack") as status, open_stack(stack, notify=status.update) as opened:
        ended = abort_canary(opened.releases)
        name = opened.name
    if as_json:
        print_json({"ended_canary": ended.release})
    else:
        out.print(f"ended  release {ended.release[:SHORT]} is no canary of {name} any more")


@commands.command()
def promote(
    source: Annotated[str, typer.Option("--from", help="The stack whose current release is taken; or local.")],
    target: Annotated[str, typer.Option("--to", help="The stack that gets it; or local.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a stack's current release to another stack: the same bytes, verified first, the difference shown."""
    if source == target:
        raise typer.BadParameter(f"{target} is where it comes from; name another stack", param_hint="--to")
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here; give --yes", param_hint="--yes")
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
            status.update(f"Asking {here.name} about the golden rows")
            verification = _verify(here, current.release)
            differences = compare_with_current(planned, there.releases)
        if not as_json:
            _show_verification(verification)
        if not verification.passed:
            if as_json:
                print_json({"verification": _verification_to_json(verification)})
            raise VerificationFailed(f"{here.name} answers otherwise than when it was published; nothing is promoted")
        if not as_json:
            _show_plan(planned, differences, there.name, as_json=False)
        replaced = name_replaced(planned, there.releases)
        if replaced is not None and not replace:
            _confirm_replacement(replaced, planned, there.name)
        elif planned.changed and not yes:
            typer.confirm(
                f"Make release {current.release[:SHORT]} the current one of {there.name}?", abort=True, err=True
            )
        with _upload_bar(planned, quiet=as_json) as on_upload:
            published = apply_plan(planned, there.releases, on_upload=on_upload)
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
    name = planned.bundle.release.name
    how = "becomes the canary beside" if planned.canary is not None else "replaces"
    return f"the ensemble {name} {how} {replaced}, which {stack} serves"


def _confirm_replacement(replaced: str, planned: PublishPlan, stack: str) -> None:
    """Let the caller confirm that another ensemble's release is replaced.

    Raises:
        typer.BadParameter: there is no terminal to confirm at.
        typer.Abort: it is not confirmed.
    """
    message = _name_replacement(replaced, planned, stack)
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{message}; give --replace if that is meant", param_hint="--replace")
    typer.confirm(f"{message[0].upper()}{message[1:]}. Go on?", abort=True, err=True)


def _as_manifest(reference: str, hint: str) -> Path | None:
    """Return the path of a manifest; None where the reference names a release."""
    from stepensemble.publishing.release_lookup import is_release_reference

    path = Path(reference)
    if path.is_file():
        return path
    if is_release_reference(reference):
        return None
    message = f"{reference} is neither a manifest that is there nor a release; give a path, current, previous or digits"
    raise typer.BadParameter(message, param_hint=hint)


def _verify(stack: Stack, reference: str) -> Verification:
    from stepensemble.cli.execution import run_execution
    from stepensemble.core.aggregation.prediction import Output
    from stepensemble.publishing.release_lookup import find_release
    from stepensemble.publishing.verification import verify as verify_release

    def ask(payload: dict[str, Any]) -> tuple[Output | None, str]:
        outcome = run_execution(stack, payload, None)
        return outcome.output, f"{outcome.error}: {outcome.cause}"

    digest = find_release(stack.releases, reference)
    return verify_release(stack.releases.read_release(digest), stack.releases.read_fingerprint(digest), ask)


@contextmanager
def _upload_bar(plan: PublishPlan, *, quiet: bool) -> Iterator[OnUpload]:
    """Show the bytes that are uploaded, where somebody watches."""
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
    from stepensemble.cli.tables.releases import draw_plan

    out.print(draw_plan(plan, differences))
    became = "would be the current one" if plan.canary is None else f"would answer {plan.canary}%"
    if not plan.changed:
        became = "is the current one" if plan.canary is None else f"answers {plan.canary}%"
    out.print(f"\nrelease {plan.bundle.digest[:SHORT]} {became} of {name}{'' if plan.changed else ' already'}")


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
    state = "is the current one" if published.canary is None else f"answers {published.canary}% of the executions"
    if not published.changed:
        out.print(f"release {published.release[:SHORT]} {state} of {name} already")
        return
    for member, slot in published.slots.items():
        out.print(f"  {member:<24} slot {slot}{'   uploaded' if member in published.uploaded else ''}")
    announce("published", f"release {published.release[:SHORT]} {state} of {name}")


def _verification_to_json(verification: Verification) -> dict[str, Any]:
    return {"passed": verification.passed, **msgspec.to_builtins(verification)}


def _show_verification(verification: Verification) -> None:
    from stepensemble.cli.tables.releases import draw_verification

    out.print(draw_verification(verification))
    state, style = ("verified", "bold green") if verification.passed else ("not verified", "bold red")
    announce(
        state,
        f"release {verification.release[:SHORT]} on {verification.rows} golden rows, asked first at "
        f"{verification.taken_at[:19].replace('T', ' ')}, now kept as {verification.prediction_id}",
        style=style,
    )
