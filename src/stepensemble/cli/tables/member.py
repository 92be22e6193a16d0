"""What people see of a model that becomes a member."""

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
    "keras": "a file of Keras 3",
    "h5": "an HDF5 file of Keras",
    "saved_model": "a SavedModel",
}


def draw_addition(addition: Addition) -> RenderableType:
    """Draw what the model file became, and what the model told of itself."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    for name, words in _tell(addition):
        table.add_row(name, Text(words))
    return table


def _tell(addition: Addition) -> Iterator[tuple[str, str]]:
    member, converted = addition.member, addition.converted
    before = "" if addition.replaced is None else f", in the place of version {addition.replaced}"
    yield "member", f"{member.id}, version {member.version}{before}"
    yield "model", f"{SOURCES[converted.source]}, {_tell_conversion(addition)}"
    if converted.parity is not None:
        yield "parity", _tell_parity(converted.parity)
    lies = ", there already" if addition.body is None else ""
    trusted = ", trusted to do more than compute" if converted.needs_trust else ""
    yield "artifact", f"{member.artifact}, {len(converted.artifact):,} bytes{lies}{trusted}"
    yield "columns", addition.inferred.get("columns") or _tell_columns(addition)
    if "features" in addition.inferred:
        yield "features", addition.inferred["features"]
    yield "output", addition.inferred.get("output") or describe(member.output)


def _tell_conversion(addition: Addition) -> str:
    converted = addition.converted
    if converted.source == converted.runtime:
        return "taken as it is"
    if converted.runtime == "litert":
        return "converted to LiteRT"
    return f"for the runtime tensorflow, since {converted.reason}"


def _tell_parity(parity: Parity) -> str:
    labels = f"{parity.labels_changed or 'no'} label{'' if parity.labels_changed == 1 else 's'} changed"
    scale = f"{parity.deviation:.1e} of the output's scale"
    return f"LiteRT is at most {parity.max_difference:.1e} from TensorFlow on {parity.rows} rows, {scale}, {labels}"


def _tell_columns(addition: Addition) -> str:
    inputs = input_columns(addition.member, all_column_names(addition.report.sources.manifest.features))
    return "; ".join(f"{name}: {', '.join(taken)}" if name else ", ".join(taken) for name, taken in inputs.items())
