"""What the report is laid out with: sections, tables, numbers, and the page's style.

Everything returns HTML. Text of data goes through `escape`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from stepensemble.batch.report.charts import COLOURS, clean

MOST = 50
"""Lines of a table of which there may be any number."""

DARK = {
    "ink": "#e8e6e3",
    "faint": "#a09c96",
    "line": "#45423e",
    "answer": "#3d9ad6",
    "before": "#ff8a3d",
    "member-0": "#e69f00",
    "member-1": "#56b4e9",
    "member-2": "#1fbf93",
    "member-3": "#d98fb8",
}
"""`charts.COLOURS` on a dark page."""


def lay_out_section(name: str, title: str, content: str) -> str:
    """Lay out a section of the page; `content` is HTML."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-head">\n<h2 id="{name}-head">{title}</h2>\n{content}</section>\n'
    )


def lay_out_table(caption: str, heads: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """Lay out cells that are HTML already; the first `texts` columns are text, the others numbers."""

    def cells(tag: str, line: Sequence[str]) -> str:
        kinds = ("" if place < texts else ' class="right"' for place in range(len(line)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, line, strict=True))

    rows = "".join(f"<tr>{cells('td', line)}</tr>\n" for line in lines)
    head = cells("th", [escape(one) for one in heads]).replace("<th", '<th scope="col"')
    return (
        f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )


def count_others(lines: int) -> str:
    """Say how many lines of a table of so many are left out."""
    return f'<p class="note">and {lines - MOST:,} more, in summary.json</p>\n' if lines > MOST else ""


def say_none(text: str) -> str:
    """Say that there is nothing to show; `text` is HTML."""
    return f'<p class="none">{text}</p>\n'


def flag(text: str, *, bad: bool) -> str:
    """Mark what is bad; `text` is HTML."""
    return f'<strong class="bad">{text}</strong>' if bad else text


def escape(text: str) -> str:
    """Return text of data as HTML."""
    return html.escape(clean(text))


def write_number(value: float | None) -> str:
    """Write a number as people read it, with three digits after the point."""
    if value is None or not math.isfinite(value):
        return "–"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def write_share(part: int, whole: int) -> str:
    """Write a share in percent; of nothing, nothing."""
    return f"{part / whole:.1%}" if whole else ""


def write_duration(seconds: float) -> str:
    """Write a time."""
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
.picture {{ display: block; width: 100%; height: auto; margin: 0 auto; overflow: visible; stroke-linejoin: round; \
stroke-linecap: butt }}
.picture text {{ white-space: pre }}
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
.picture {{ max-height: 14cm }}
}}
"""
