"""The command that turns a model file into a member: `add`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from stepensemble.cli.options import DEFAULT_MANIFEST, RELEASES_PANEL, JsonOption, ManifestOption, require_manifest
from stepensemble.cli.terminal import out, print_json, print_state, print_warning, show_status
from stepensemble.core.errors import AdditionRefused, InvalidManifest
from stepensemble.core.releases.release import SHORT

# The command imports what it needs when it runs: `ensemble --help` should not wait for NumPy.
if TYPE_CHECKING:
    from stepensemble.admission.new_member import Addition

commands = typer.Typer()


@commands.command(rich_help_panel=RELEASES_PANEL)
def add(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A .tflite, .keras or .h5 file, a SavedModel folder, or a .zip of one."),
    ],
    id_: Annotated[str, typer.Option("--id", metavar="ID", help="The member's id.")],
    version: Annotated[
        str | None, typer.Option(help="Any text.", show_default="1; with --replace the next number")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Its weight, for methods that use weights.", show_default="1")
    ] = None,
    role: Annotated[
        Literal["voter", "shadow"] | None,
        typer.Option(help="A shadow is invoked and recorded but never counts.", show_default="voter"),
    ] = None,
    tier: Annotated[
        int | None, typer.Option(help="Its tier in a cascade; tier 1 is invoked first.", show_default="1")
    ] = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds that an invocation may take.", show_default="10")] = None,
    signature: Annotated[
        str | None, typer.Option(help="The model's signature to use.", show_default="the only one")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME,…", help="Its input columns, in its order.", show_default="all, if they fit"),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="INPUT=NAME,…", help="The columns of one of several inputs; can be repeated."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="The output's kind, such as logits, or its JSON.",
            show_default="the only one that fits",
        ),
    ] = None,
    architecture: Annotated[
        Path | None,
        typer.Option(help="JSON of the Keras model, if FILE contains only its weights."),
    ] = None,
    manifest: ManifestOption = None,
    *,
    trust: Annotated[bool, typer.Option("--trust", help="Accept a model that could run code.")] = False,
    varies: Annotated[
        bool,
        typer.Option("--varies", help="Only warn if repeated predictions of the same rows differ."),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the member with this id.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a model file to the ensemble as a member: convert it, run it, and write it into the manifest.

    TensorFlow converts the model to LiteRT. If the conversion fails or changes the outputs, the model stays a
    SavedModel for the runtime "tensorflow". The manifest changes only if it passes the gate with the new member.
    """
    from stepensemble.admission.new_member import Candidate, plan_addition, write_addition

    path = manifest or DEFAULT_MANIFEST
    for required, hint in ((file, "FILE"), (architecture, "--architecture")):
        if required is not None and not required.exists():
            raise typer.BadParameter(f"{required} does not exist; give the path of a file", param_hint=hint)
    require_manifest(path, "--manifest")
    given = {
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
        file, {name: value for name, value in given.items() if value is not None}, replace, architecture, trust
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
    from stepensemble.cli.tables.member import render_addition

    for problem in (*addition.report.warnings, *addition.report.problems):
        print_warning(str(problem))
    out.print(render_addition(addition))
    state = "added" if addition.replaced is None else "replaced"
    print_state(state, f"{path} compiles to release {addition.release[:SHORT]}")


def _read_weight(weight: float | None) -> float | int | None:
    """Return a whole number as an integer, so that the manifest has 2 and not 2.0."""
    if weight is None:
        return None
    if not math.isfinite(weight):
        raise typer.BadParameter(f"{weight} is not a finite number; give one, such as 0.5", param_hint="--weight")
    return int(weight) if weight.is_integer() else weight


def _read_names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _read_inputs(inputs: Sequence[str]) -> dict[str, list[str]]:
    """Read `name=column,column` for each input; a column's name may contain "="."""
    read: dict[str, list[str]] = {}
    for one in inputs:
        name, equals, names = one.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{one} is not INPUT=NAME,…; write it like image=red,green", param_hint="--input")
        if name in read:
            raise typer.BadParameter(f"{name} is given twice; list all its columns in one option", param_hint="--input")
        read[name] = _read_names(names)
    return read


def _read_output(output: str) -> Any:
    if not output.lstrip().startswith("{"):
        return {"kind": output}
    try:
        return json.loads(output)
    except ValueError as error:
        raise typer.BadParameter(
            f"{output} is not JSON: {error}; give a kind such as logits, or a JSON object", param_hint="--output"
        ) from None


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
