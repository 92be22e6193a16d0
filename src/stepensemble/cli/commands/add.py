"""The command that makes a member of a model file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from stepensemble.cli.options import DEFAULT_MANIFEST, JsonOption, ManifestOption, require_manifest
from stepensemble.cli.terminal import announce, out, print_json, show_status, warn
from stepensemble.core.errors import AdditionRefused, InvalidManifest
from stepensemble.core.releases.release import SHORT

# The command imports what it needs when it runs: `ensemble --help` should not wait for NumPy.
if TYPE_CHECKING:
    from stepensemble.admission.new_member import Addition

commands = typer.Typer()


@commands.command()
def add(
    file: Annotated[Path, typer.Argument(help="A .tflite, .keras or .h5 file, a SavedModel folder, or a .zip of one.")],
    id_: Annotated[str, typer.Option("--id", metavar="ID", help="What the member is called.")],
    version: Annotated[
        str | None, typer.Option(help="Any text.", show_default="1, or the next number where a member is replaced")
    ] = None,
    weight: Annotated[float | None, typer.Option(help="For the methods that use weights.", show_default="1")] = None,
    role: Annotated[
        Literal["voter", "shadow"] | None,
        typer.Option(help="A shadow is asked and recorded, and never counts.", show_default="voter"),
    ] = None,
    tier: Annotated[int | None, typer.Option(help="With a cascade: when it is asked.", show_default="1")] = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds a call may take.", show_default="10")] = None,
    signature: Annotated[
        str | None, typer.Option(help="Which of its signatures is used.", show_default="the only one")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME,…", help="The columns it takes, in its order.", show_default="all, if it can"),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="INPUT=NAME,…", help="The same for one of several inputs; repeat it."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="What its numbers mean: a kind, or JSON.", show_default="what cannot be otherwise"
        ),
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(help="JSON of the Keras model whose weights are in the file.")
    ] = None,
    manifest: ManifestOption = None,
    *,
    trust: Annotated[bool, typer.Option("--trust", help="Take it with whatever code it would run.")] = False,
    varies: Annotated[
        bool, typer.Option("--varies", help="Its answers are meant to vary from call to call: warn, do not refuse it.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of the member of that id.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a member of a model file: convert it, try it, and write it into the manifest.

    What is not LiteRT yet is converted by TensorFlow; where that is not possible, or changes the answers, it stays a
    SavedModel for the runtime "tensorflow". Nothing is written unless the manifest passes the gate with it.
    """
    from stepensemble.admission.new_member import Candidate, plan_addition, write_addition

    path = manifest or DEFAULT_MANIFEST
    for needed, hint in ((file, "FILE"), (architecture, "--architecture")):
        if needed is not None and not needed.exists():
            raise typer.BadParameter(f"{needed} is not there", param_hint=hint)
    require_manifest(path, "--manifest")
    said = {
        "id": id_,
        "version": version,
        "weight": _read_weight(weight),
        "role": role,
        "tier": tier,
        "timeout": timeout,
        "signature": signature,
        "varies": varies or None,
        "columns": None if columns is None else _read_names(columns),
        "inputs": _read_inputs(inputs or ()) or None,
        "output": None if output is None else _read_output(output),
    }
    candidate = Candidate(
        file, {name: value for name, value in said.items() if value is not None}, replace, architecture, trust
    )
    try:
        with show_status(f"Reading {path}") as status:
            addition = plan_addition(path, candidate, status.update)
        write_addition(addition)
    except (AdditionRefused, InvalidManifest) as error:
        if as_json:
            print_json({"ok": False, "problems": msgspec.to_builtins(error.problems)})
            raise typer.Exit(1) from None
        raise
    if as_json:
        print_json(_to_json(addition))
        return
    from stepensemble.cli.tables.member import draw_addition

    for problem in (*addition.report.warnings, *addition.report.problems):
        warn(str(problem))
    out.print(draw_addition(addition))
    did = "added" if addition.replaced is None else "replaced"
    announce(did, f"{path} compiles to release {addition.release[:SHORT]}")


def _read_weight(weight: float | None) -> float | int | None:
    """Return a weight as a person would write it: 2, not 2.0."""
    if weight is None:
        return None
    if not math.isfinite(weight):
        raise typer.BadParameter(f"{weight} is no finite number", param_hint="--weight")
    return int(weight) if weight.is_integer() else weight


def _read_names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _read_inputs(inputs: Sequence[str]) -> dict[str, list[str]]:
    """Read `name=column,column` of every input; a column's own name may have "=" in it."""
    read: dict[str, list[str]] = {}
    for one in inputs:
        name, equals, names = one.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{one} is not INPUT=NAME,…", param_hint="--input")
        if name in read:
            raise typer.BadParameter(f"{name} is there twice; list all its columns at once", param_hint="--input")
        read[name] = _read_names(names)
    return read


def _read_output(output: str) -> Any:
    if not output.lstrip().startswith("{"):
        return {"kind": output}
    try:
        return json.loads(output)
    except ValueError as error:
        raise typer.BadParameter(f"{output} is not JSON: {error}", param_hint="--output") from None


def _to_json(addition: Addition) -> Mapping[str, Any]:
    member, converted = addition.member, addition.converted
    parity = None
    if converted.parity is not None:
        difference, deviation = converted.parity.max_difference, converted.parity.deviation
        parity = {
            "max_difference": difference if math.isfinite(difference) else None,
            "deviation": deviation if math.isfinite(deviation) else None,
            "labels_changed": converted.parity.labels_changed,
            "rows": converted.parity.rows,
        }
    return {
        "ok": True,
        "id": member.id,
        "version": member.version,
        "replaced": addition.replaced,
        "artifact": member.artifact,
        "digest": member.digest,
        "size": len(converted.artifact),
        "trusted": converted.needs_trust,
        "source": converted.source,
        "runtime": member.runtime,
        "reason": converted.reason,
        "signature": converted.signature.name,
        "parity": parity,
        "output": msgspec.to_builtins(member.output),
        "columns": member.columns,
        "inputs": member.inputs,
        "inferred": addition.inferred,
        "release": addition.release,
        "problems": msgspec.to_builtins(addition.report.problems),
        "warnings": msgspec.to_builtins(addition.report.warnings),
    }
