"""The parts of the report's page: sections, tables, numbers, and the style sheet.

All functions return HTML. Text from data must pass `escape`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from stepensemble.batch.report.charts import COLOURS, clean

MAX_LINES = 50
"""Lines that a table shows at most."""

DARK = {
    "ink": "#e8e6e3",
    "faint": "#a09c96",
    "line": "#45423e",
    "prediction": "#3d9ad6",
    "previous": "#ff8a3d",
    "member-0": "#e69f00",
    "member-1": "#56b4e9",
    "member-2": "#1fbf93",
    "member-3": "#d98fb8",
}
"""`charts.COLOURS` on a dark page."""


def write_section(name: str, title: str, content: str) -> str:
    """Return a section of the page; `content` is HTML."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-head">\n<h2 id="{name}-head">{title}</h2>\n{content}</section>\n'
    )


def write_table(caption: str, heads: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """Return a table of cells in HTML; the first `texts` columns are text, the others numbers."""

    def cells(tag: str, line: Sequence[str]) -> str:
        kinds = ("" if column < texts else ' class="right"' for column in range(len(line)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, line, strict=True))

    rows = "".join(f"<tr>{cells('td', line)}</tr>\n" for line in lines)
    head = cells("th", [escape(one) for one in heads]).replace("<th", '<th scope="col"')
    return (
        f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )


def write_remainder(lines: int) -> str:
    """Return a note about how many lines of a table are left out; nothing if none are."""
    return f'<p class="note">and {lines - MAX_LINES:,} more, in summary.json</p>\n' if lines > MAX_LINES else ""


def write_empty(text: str) -> str:
    """Return a note that there is nothing to show; `text` is HTML."""
    return f'<p class="none">{text}</p>\n'


def flag(text: str, *, bad: bool) -> str:
    """Highlight a text if it is bad; `text` is HTML."""
    return f'<strong class="bad">{text}</strong>' if bad else text


def escape(text: str) -> str:
    """Return text from data as HTML."""
    return html.escape(clean(text))


def write_number(value: float | None) -> str:
    """Format a number with three digits after the point; very small and very large ones with fewer."""
    if value is None or not math.isfinite(value):
        return "–"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def write_share(part: int, whole: int) -> str:
    """Format a share in percent; an empty text if the whole is zero."""
    return f"{part / whole:.1%}" if whole else ""


def write_duration(seconds: float) -> str:
    """Format a duration."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _properties(colours: dict[str, str]) -> str:
    return "".join(f" --{name}: {colour};" for name, colour in colours.items())


STYLE = f"""\
:root {{ color-scheme: light;{_properties(dict(COLOURS))} --paper: #fdfdfc; --card: #ffffff; --bad: #b3261e; \
--good: #00694a }}
@media screen and (prefers-color-scheme: dark) {{
:root {{ color-scheme: dark;{_properties(DARK)} --paper: #191816; --card: #23211f; --bad: #ff8a80; --good: #52d6a8 }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif }}
main {{ max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }}
h1 {{ font-size: 1.7rem; font-weight: 650; margin: 0 0 .5rem; overflow-wrap: anywhere }}
h1 .date {{ color: var(--faint); font-weight: 400 }}
h2 {{ font-size: 1.05rem; font-weight: 650; margin: 0 0 .75rem }}
.status {{ font-size: .8rem; font-weight: 600; padding: .2em .7em; border: 1.5px solid; border-radius: 1em; \
vertical-align: middle; white-space: nowrap }}
.succeeded {{ color: var(--good) }}
.failed, .bad, .cause {{ color: var(--bad) }}
.cause {{ margin: .5rem 0; padding-left: .75rem; border-left: 3px solid; overflow-wrap: anywhere }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 1.25rem; font-size: .85rem }}
dt, .note, .none, .name, small, caption, figcaption {{ color: var(--faint) }}
dd {{ margin: 0; overflow-wrap: anywhere }}
code {{ font: .95em ui-monospace, "DejaVu Sans Mono", monospace }}
.counts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(6.7rem, 1fr)); gap: .75rem }}
.counts div, section {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px }}
.counts div {{ padding: .7rem .9rem }}
.number, .name {{ display: block }}
.number {{ font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums }}
section {{ margin-top: 1.25rem; padding: 1.1rem 1.25rem; break-inside: avoid }}
figure {{ margin: 0 }}
.chart {{ display: block; width: 100%; height: auto; margin: 0 auto; overflow: visible; stroke-linejoin: round; \
stroke-linecap: butt }}
.chart text {{ white-space: pre }}
.wide {{ overflow-x: auto; margin-top: .6rem }}
table {{ border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums }}
caption {{ text-align: left; padding-bottom: .4rem }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; \
overflow-wrap: anywhere }}
th {{ font-weight: 600 }}
tbody tr:last-child td {{ border-bottom: 0 }}
.right {{ text-align: right; padding-right: 0; padding-left: .8rem; white-space: nowrap }}
.note, figcaption {{ font-size: .82rem; margin: .6rem 0 0 }}
.none {{ margin: 0 }}
@media print {{
body {{ background: none; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact }}
main {{ max-width: none; padding: 0 }}
.chart {{ max-height: 14cm }}
}}
"""
