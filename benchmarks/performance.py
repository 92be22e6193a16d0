"""Write the tables of docs/performance.md, and the one in README.md, from benchmarks/results.

python benchmarks/performance.py            # writes both
python benchmarks/performance.py --check    # writes nothing; exit code 1 if a page has other tables
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cost
import msgspec
from comparisons import BENCHMARKS_WITH_GOALS, SELF_COMPARISONS, name_ratio_unit, read_comparisons, read_result
from prices import ONLINE_PRICES, format_prices
from timing import Comparison, Machine, Spread

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
BEGIN, END = "<!-- computed by benchmarks/performance.py: {} -->\n", "<!-- end of what is computed -->\n"
BLOCK = re.compile(f"{BEGIN.format('([a-z_]+)')}.*?{END}", re.DOTALL)


SHORT = (
    ("1 row, four members, in process", "keras.Model.predict"),
    ("cold call of a slot", "tutorial handler"),
    ("warm call of a slot", "tutorial handler"),
    ("1,000,000 rows, four members", "pandas and keras.predict"),
)
"""The ratios in the README."""


def format_short(folder: Path) -> str:
    """Return some ratios as a Markdown table, with the break-even point of executions and an endpoint."""
    claims = {(claim.what, claim.against): claim for of in read_comparisons(folder).values() for claim in of}
    lines = ["| what | against | |", "| --- | --- | --: |"]
    lines += [f"| {what} | {against} | {_format_ratio(claims[what, against])} |" for what, against in SHORT]
    even = {(one.one, one.other): one for one in _read_cost(folder).break_even}[cost.EXPRESS, cost.ENDPOINT]
    lines.append(
        f"| a month of executions, EXPRESS, estimated | {even.other} | cheaper {cost.describe_break_even(even)} |"
    )
    return "\n".join(lines) + "\n"


def format_claims(folder: Path) -> str:
    """Return every ratio beside its goal as a Markdown table."""
    lines = ["| what | against | ratio | quartiles | goal | met |", "| --- | --- | --: | --: | --: | --- |"]
    for name, claims in read_comparisons(folder).items():
        if name not in SELF_COMPARISONS:
            lines += [_claim(claim) for claim in claims]
    return "\n".join(lines) + "\n"


def format_missed(folder: Path) -> str:
    """Return the goals that are not met as a Markdown list."""
    missed = [claim for claims in read_comparisons(folder).values() for claim in claims if not claim.met]
    lines = [
        f"- {claim.what}, against {claim.against}: {_number(claim.ratio.median)}, {_goal(claim)}" for claim in missed
    ]
    return "\n".join(lines or ["- none"]) + "\n"


def format_in_process(folder: Path) -> str:
    """Return milliseconds in process."""
    return _format_spreads(read_result(folder, "in_process")["milliseconds"], "milliseconds")


def format_serving(folder: Path) -> str:
    """Return milliseconds on the local stack."""
    result = read_result(folder, "serving")
    kinds = {"cold": "cold call", "warm": "warm call", "execution": "execution", "command": "make run"}
    return _format_spreads({words: result[kind] for kind, words in kinds.items()}, "milliseconds")


def format_million(folder: Path) -> str:
    """Return seconds of the batch, the script and the limit."""
    result = read_result(folder, "million")
    kinds = {
        f"{result['rows']:,} rows": result["seconds"],
        "of ensemble batch": result["parts"],
        "start of": result["started"],
    }
    return _format_spreads(kinds, "seconds")


def format_growth(folder: Path) -> str:
    """Return the slopes, and the seconds of the smallest and the largest count."""
    lines = [
        "| doubled | from | to | seconds | to | slope | quartiles | goal | met |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --- |",
    ]
    claims = read_comparisons(folder)["growth"]
    for (name, one), claim in zip(read_result(folder, "growth")["series"].items(), claims, strict=True):
        counts, seconds = one["counts"], [_number(spread["median"]) for spread in one["seconds"]]
        lines.append(
            f"| {name} | {counts[0]:,} | {counts[-1]:,} | {seconds[0]} | {seconds[-1]} | {claim.ratio.median:.2f} "
            f"| {claim.ratio.low:.2f} to {claim.ratio.high:.2f} | {_goal(claim)} | {_met(claim)} |"
        )
    return "\n".join(lines) + "\n"


def format_footprint(folder: Path) -> str:
    """Return the sizes, and the time of each handler's imports."""
    result = read_result(folder, "footprint")
    size, *imports = read_comparisons(folder)["footprint"]
    (ours, weight), (theirs, much) = result["megabytes"].items()
    alone, *taken = result["milliseconds"].items()
    lines = [
        "| unzipped | MB | budget | met |",
        "| --- | --: | --: | --- |",
        f"| {ours} | {weight:,.1f} | {size.goal * much:,.0f} | {_met(size)} |",
        f"| {theirs}, with what it requires | {much:,.1f} | | |",
        "",
        "| imports of | milliseconds | times NumPy's | quartiles | budget | met |",
        "| --- | --: | --: | --: | --: | --- |",
        f"| NumPy alone | {_number(alone[1]['median'])} | | | | |",
    ]
    for (name, spread), claim in zip(taken, imports, strict=True):
        times = f"{_number(claim.ratio.median)} | {_quartiles(claim.ratio)} | {_goal(claim)} | {_met(claim)}"
        lines.append(f"| {name} | {_number(spread['median'])} | {times} |")
    return "\n".join(lines) + "\n"


def format_cost(folder: Path) -> str:
    """Return dollars for a million predictions, by what is paid."""
    parts = _read_cost(folder).parts
    columns = tuple(dict.fromkeys(part for of in parts.values() for part in of))
    lines = [f"| dollars for a million | {' | '.join(columns)} | together |", "| --- |" + " --: |" * (len(columns) + 1)]
    for name, of in parts.items():
        cells = [f"{of[part]:,.4f}" if part in of else "" for part in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | **{sum(of.values()):,.4f}** |")
    return "\n".join(lines) + "\n"


def format_break_even(folder: Path) -> str:
    """Return the volumes at which this project costs less."""
    lines = ["| costs less | than | at so many predictions a month |", "| --- | --- | --: |"]
    lines += [f"| {one.one} | {one.other} | {cost.describe_break_even(one)} |" for one in _read_cost(folder).break_even]
    return "\n".join(lines) + "\n"


def format_assumed(folder: Path) -> str:
    """Return the inputs of the cost computation, and the prices."""
    result = _read_cost(folder)
    counted = result.counted
    lines = ["| counted of one execution, four members | |", "| --- | --: |"]
    lines += [
        f"| states one after the other | {counted.steps} |",
        f"| state transitions | {counted.transitions} |",
        f"| calls of Lambda | {counted.calls} |",
        "",
        "| measured on this machine | milliseconds |",
        "| --- | --: |",
        f"| warm call of a slot | {result.seconds['slot'] * 1000:.2f} |",
        f"| execution, four members | {result.seconds['execution'] * 1000:.2f} |",
        f"| four `tf.function`s, one row | {result.seconds['models'] * 1000:.2f} |",
        "",
        "| assumed | |",
        "| --- | --: |",
        *(f"| {name} | {value} |" for name, value in cost.ASSUMED),
        "",
    ]
    return "\n".join(lines) + "\n" + format_prices(ONLINE_PRICES)


def format_machines(folder: Path) -> str:
    """Return the machine and the versions with which each benchmark ran."""
    lines = ["| benchmark | rounds | machine | versions |", "| --- | --: | --- | --- |"]
    for name in BENCHMARKS_WITH_GOALS:
        result = read_result(folder, name)
        machine = msgspec.convert(result["machine"], Machine)
        versions = ", ".join(f"{package} {version}" for package, version in machine.versions.items())
        where = f"{machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}"
        lines.append(f"| `{name}.py` | {result.get('rounds', '')} | {where} | {versions} |")
    return "\n".join(lines) + "\n"


TABLES: Mapping[str, Callable[[Path], str]] = {
    "short": format_short,
    "claims": format_claims,
    "in_process": format_in_process,
    "serving": format_serving,
    "million": format_million,
    "growth": format_growth,
    "footprint": format_footprint,
    "cost": format_cost,
    "break_even": format_break_even,
    "missed": format_missed,
    "assumed": format_assumed,
    "machines": format_machines,
}
"""The text between two markers, by the name in the first of them."""


def fill(page: str, folder: Path) -> str:
    """Return a page with every table computed again from results.

    Raises:
        KeyError: a marker names no table.
    """

    def write(block: re.Match[str]) -> str:
        return f"{BEGIN.format(block[1])}\n{TABLES[block[1]](folder)}\n{END}"

    return BLOCK.sub(write, page)


def _read_cost(folder: Path) -> cost.Result:
    return msgspec.convert(read_result(folder, "cost"), cost.Result)


def _format_spreads(kinds: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    lines = [f"| | | {unit} | quartiles |", "| --- | --- | --: | --: |"]
    for kind, taken in kinds.items():
        for place, (name, spread) in enumerate(taken.items()):
            quartiles = msgspec.convert(spread, Spread)
            lines.append(
                f"| {'' if place else kind} | {name} | {_number(quartiles.median)} | {_quartiles(quartiles)} |"
            )
    return "\n".join(lines) + "\n"


def _claim(claim: Comparison) -> str:
    return (
        f"| {claim.what} | {claim.against} | {_format_ratio(claim)} "
        f"| {_quartiles(claim.ratio)} | {_goal(claim)} | {_met(claim)} |"
    )


def _format_ratio(claim: Comparison) -> str:
    return f"{_number(claim.ratio.median)} {name_ratio_unit(claim)}"


def _goal(claim: Comparison) -> str:
    return f"at {'most' if claim.slower else 'least'} {claim.goal:,g}"


def _met(claim: Comparison) -> str:
    return "yes" if claim.met else "**no**"


def _quartiles(spread: Spread) -> str:
    return f"{_number(spread.low)} to {_number(spread.high)}"


def _number(number: float) -> str:
    """Format a number with three significant digits, from 100 on as a whole number."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page has other tables")
    arguments = parser.parse_args()
    for page in PAGES:
        held = page.read_text(encoding="utf-8")
        filled = fill(held, RESULTS)
        if not arguments.check:
            page.write_text(filled, encoding="utf-8")
        elif held != filled:
            sys.exit(f"{page} has other tables; run benchmarks/performance.py")


if __name__ == "__main__":
    main()
