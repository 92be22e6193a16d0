"""The table of a model file that was added as a member."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from stepensemble.admission.new_member import Addition
from stepensemble.conversion.parity import Parity
from stepensemble.core.preprocessing.encoding import all_column_names
from stepensemble.core.releases.diff import describe
from stepensemble.core.schema.manifest import input_columns

SOURCES = {
    "litert": "a LiteRT file",
    "keras": "a Keras 3 file",
    "h5": "a Keras HDF5 file",
    "saved_model": "a SavedModel",
}


def render_addition(addition: Addition) -> RenderableType:
    """Render how the model file was converted, and what was read from the model."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    for name, text in _describe(addition):
        table.add_row(name, Text(text))
    return table


def _describe(addition: Addition) -> Iterator[tuple[str, str]]:
    member, converted = addition.member, addition.converted
    before = "" if addition.replaced is None else f", replaces version {addition.replaced}"
    yield "member", f"{member.id}, version {member.version}{before}"
    yield "model", f"{SOURCES[converted.source]}, {_describe_conversion(addition)}"
    if converted.parity is not None:
        yield "parity", _describe_parity(converted.parity)
    existing = ", exists already" if addition.body is None else ""
    trusted = ", trusted although it could run code" if converted.needs_trust else ""
    yield "artifact", f"{member.artifact}, {len(converted.artifact):,} bytes{existing}{trusted}"
    yield "columns", addition.inferred.get("columns") or _describe_columns(addition)
    if "features" in addition.inferred:
        yield "features", addition.inferred["features"]
    yield "output", addition.inferred.get("output") or describe(member.output)


def _describe_conversion(addition: Addition) -> str:
    converted = addition.converted
    if converted.source == converted.runtime:
        return "used as it is"
    if converted.runtime == "litert":
        return "converted to LiteRT"
    return f"for the runtime tensorflow, because {converted.reason}"


def _describe_parity(parity: Parity) -> str:
    labels = f"{parity.labels_changed or 'no'} label{'' if parity.labels_changed == 1 else 's'} changed"
    scale = f"{parity.deviation:.1e} of the output's scale"
    difference = f"at most {parity.max_difference:.1e} on {parity.rows} rows, {scale}"
    return f"LiteRT differs from TensorFlow by {difference}, {labels}"


def _describe_columns(addition: Addition) -> str:
    inputs = input_columns(addition.member, all_column_names(addition.report.sources.manifest.features))
    return "; ".join(f"{name}: {', '.join(taken)}" if name else ", ".join(taken) for name, taken in inputs.items())
