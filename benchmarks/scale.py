"""Compute the daily batch's cost and time on AWS for a million, 100 million and ten billion rows.

Nothing here was run on AWS. Speeds are those that `batch_speed.py` measured, on the machine that its result names. The
path of a shard is read from the state machine. Quotas, latencies and prices are what AWS documents; the rest is
assumed. The page marks each number as one of these. The tables are written between the markers of `docs/scale.md`.

    python benchmarks/scale.py            # prints the tables and writes docs/scale.md
    python benchmarks/scale.py --check    # writes nothing; exit code 1 if the page has other tables
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from batch_speed import ENCODE, FIND, MEMBERS, READ, RESULT, SCORE, Result, name_combination, name_write
from msgspec import Struct
from prices import LAMBDA_REQUEST, LAMBDA_TIME, S3_READ, S3_WRITE, STATE_TRANSITION, format_prices

from stepensemble.batch.documents import SHARD_BYTES
from stepensemble.batch.input.sharding import HEADS_AT_ONCE
from stepensemble.batch.publication import CONNECTIONS
from stepensemble.core.state_size import FRAME_BYTES, MEMBER_BYTES, STATE_BYTES
from stepensemble.storage.objects import DELETED_AT_ONCE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scale.md"
STATE_MACHINE = ROOT / "statemachine" / "batch.asl.json"
BEGIN, END = "<!-- computed by benchmarks/scale.py -->\n", "<!-- end of what is computed -->\n"

SIZES = (10**6, 10**8, 10**10)

DEFAULT_CONCURRENCY = 20
SHARD_MEMORY, SCORE_MEMORY, SUMMARIZE_MEMORY = 2048, 1024, 1024
"""Values of template.yaml; a test compares them."""

MAX_FUNCTION_SECONDS = 900
MAX_CONCURRENT_FUNCTIONS = 1_000
MAX_MAP_CHILDREN = 10_000
MAX_HISTORY_EVENTS = 25_000
TRANSITIONS_PER_SECOND, TRANSITIONS_ELSEWHERE = 1_500, 500
S3_WRITES_PER_SECOND, S3_READS_PER_SECOND = 3_500, 5_500
MAX_MAP_LIST_BYTES = 10 * 10**9
CORE_MEMORY = 1_769
S3_BYTES_PER_SECOND = 85e6
S3_LATENCY_SECONDS = 0.15
"""Limits that AWS documents; `DOCUMENTED` has the sources."""

ROW_BYTES = 100
COLUMN_BYTES = 8 * 4
OUTPUT_BYTES = 4
STATE_SECONDS = 0.05
LIST_ENTRY_BYTES = 110
OBJECTS_PER_SUMMARY = 3
"""Assumptions, which `ASSUMED` describes."""

EVENTS = {"Task": 5, "Choice": 2, "Map": 4, "Pass": 2, "Succeed": 2, "Fail": 1}
"""Of a state that succeeds, in a STANDARD execution's history: it is entered and left; a task is scheduled, started and
succeeds; a map starts and succeeds. An iteration of an inline map has two more."""

LAMBDA = "https://docs.aws.amazon.com/lambda/latest/dg/"
STEPS = "https://docs.aws.amazon.com/step-functions/latest/dg/"
S3 = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/"
DOCUMENTED = (
    ("a function runs at most", f"{MAX_FUNCTION_SECONDS} s", f"{LAMBDA}gettingstarted-limits.html"),
    (
        "functions at once in an account, by default",
        f"{MAX_CONCURRENT_FUNCTIONS:,}",
        f"{LAMBDA}gettingstarted-limits.html",
    ),
    ("new environments of one function", "1,000 in 10 s", f"{LAMBDA}scaling-behavior.html"),
    ("memory with which a function has one vCPU", f"{CORE_MEMORY:,} MB", f"{LAMBDA}configuration-memory.html"),
    ("children of a Distributed Map at once", f"{MAX_MAP_CHILDREN:,}", f"{STEPS}service-quotas.html"),
    ("events in an execution's history", f"{MAX_HISTORY_EVENTS:,}", f"{STEPS}service-quotas.html"),
    ("bytes of a state", f"{STATE_BYTES:,}", f"{STEPS}service-quotas.html"),
    (
        "sustained state transitions a second, in us-east-1, us-west-2, eu-west-1; elsewhere",
        f"{TRANSITIONS_PER_SECOND:,}; {TRANSITIONS_ELSEWHERE}",
        f"{STEPS}service-quotas.html",
    ),
    (
        "bytes of the list that a Distributed Map reads",
        f"{MAX_MAP_LIST_BYTES:,}",
        f"{STEPS}input-output-itemreader.html",
    ),
    ("PUT and COPY a second to a prefix of S3", f"{S3_WRITES_PER_SECOND:,}", f"{S3}optimizing-performance.html"),
    ("GET a second from a prefix of S3", f"{S3_READS_PER_SECOND:,}", f"{S3}optimizing-performance.html"),
    ("latency of S3: 100 to 200 ms", f"{S3_LATENCY_SECONDS} s", f"{S3}optimizing-performance.html"),
    (
        "one request to S3: 85 to 90 MB/s",
        f"{S3_BYTES_PER_SECOND / 1e6:.0f} MB/s",
        f"{S3}optimizing-performance-guidelines.html",
    ),
)
ASSUMED = (
    ("bytes of a row of CSV", f"{ROW_BYTES}"),
    ("bytes of its columns, as members get them", f"{COLUMN_BYTES}"),
    ("bytes of a member's output for it", f"{OUTPUT_BYTES}"),
    ("one vCPU of Lambda is as fast as one core of the machine below", "1"),
    (
        "a function reads from S3 as fast as one request does, however many it makes",
        f"{S3_BYTES_PER_SECOND / 1e6:.0f} MB/s",
    ),
    ("a state transition alone", f"{STATE_SECONDS} s"),
    ("bytes of a shard in the Map's list", f"{LIST_ENTRY_BYTES}"),
    ("objects of a shard that Summarize reads or copies: report, part, rejected rows", f"{OBJECTS_PER_SUMMARY}"),
    ("every shard has rejected rows, nothing is retried, every environment is warm", ""),
)


class ShardPath(Struct, frozen=True):
    """The path of one shard with so many members, when nothing fails.

    Attributes:
        steps: states one after the other.
        transitions: that AWS charges for.
        events: in the child's history.
    """

    steps: int
    transitions: int
    events: int


class Shard(Struct, frozen=True):
    """One shard on AWS.

    Attributes:
        seconds: from its start to its end.
        gb_seconds, requests: of its functions.
        reads, writes: requests to S3, those of Summarize included.
    """

    members: int
    rows: int
    way: ShardPath
    seconds: float
    gb_seconds: float
    requests: int
    reads: int
    writes: int

    @property
    def dollars(self) -> float:
        """Its cost."""
        return (
            self.gb_seconds * LAMBDA_TIME.dollars
            + self.requests * LAMBDA_REQUEST.dollars
            + self.way.transitions * STATE_TRANSITION.dollars
            + self.reads * S3_READ.dollars
            + self.writes * S3_WRITE.dollars
        )


class Run(Struct, frozen=True):
    """A whole run; `plan`, `map` and `summarize` are seconds; `map` has `at_once` shards in parallel."""

    rows: int
    shard: Shard
    shards: int
    at_once: int
    plan: float
    map: float
    summarize: float

    @property
    def seconds(self) -> float:
        """Seconds from its start to its end."""
        return self.plan + self.map + self.summarize

    @property
    def dollars(self) -> float:
        """Its cost; its own few state transitions are negligible beside those of the shards."""
        plan, summarize = (
            memory / 1024 * seconds * LAMBDA_TIME.dollars
            for memory, seconds in ((SHARD_MEMORY, self.plan), (SUMMARIZE_MEMORY, self.summarize))
        )
        return plan + self.shards * self.shard.dollars + summarize


def walk(machine: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a state machine's states from its start to an end, by the default of every choice."""
    name = machine["StartAt"]
    while name is not None:
        state = machine["States"][name]
        yield state
        name = state["Default"] if state["Type"] == "Choice" else state.get("Next")


def read_shard_path(members: int) -> ShardPath:
    """Read the path of a shard from the state machine."""
    states = json.loads(STATE_MACHINE.read_text(encoding="utf-8"))["States"]
    (distributed,) = (
        state["ItemProcessor"]
        for state in states.values()
        if state["Type"] == "Map" and state["ItemProcessor"]["ProcessorConfig"]["Mode"] == "DISTRIBUTED"
    )
    steps, transitions, events = 0, 1, 2  # the child's start and end
    for state in walk(distributed):
        inner = list(walk(state["ItemProcessor"])) if state["Type"] == "Map" else []
        steps += 1 + len(inner)
        transitions += 1 + members * len(inner)
        events += EVENTS[state["Type"]] + members * sum(EVENTS[one["Type"]] for one in inner)
        events += 2 * members if inner else 0
    return ShardPath(steps, transitions, events)


def compute_shard(measured: Result, members: int) -> Shard:
    """Compute one shard of full size."""
    rows = SHARD_BYTES // ROW_BYTES
    way = read_shard_path(members)

    def compute(step: str, memory: int, *, by_bytes: bool = False) -> float:
        done = SHARD_BYTES * measured.rows / measured.size if by_bytes else rows
        return done / measured.rows_per_second[step].median * CORE_MEMORY / memory

    columns, outputs = rows * COLUMN_BYTES / S3_BYTES_PER_SECOND, rows * OUTPUT_BYTES / S3_BYTES_PER_SECOND
    normalize = (
        2 * S3_LATENCY_SECONDS + S3_LATENCY_SECONDS + SHARD_BYTES / S3_BYTES_PER_SECOND
    )  # plan and release; the slice
    normalize += (
        compute(READ, SHARD_MEMORY, by_bytes=True) + compute(ENCODE, SHARD_MEMORY) + S3_LATENCY_SECONDS + columns
    )
    score = S3_LATENCY_SECONDS + columns + compute(SCORE, SCORE_MEMORY) + S3_LATENCY_SECONDS + outputs
    aggregate = (
        3 * S3_LATENCY_SECONDS + columns + members * (S3_LATENCY_SECONDS + outputs)
    )  # plan, release, rows; outputs one by one
    aggregate += compute(name_combination(members), SHARD_MEMORY) + compute(name_write(members), SHARD_MEMORY)
    aggregate += 3 * S3_LATENCY_SECONDS + (members + 1) * outputs  # part, rejected rows, report
    return Shard(
        members=members,
        rows=rows,
        way=way,
        seconds=normalize + score + aggregate + way.steps * STATE_SECONDS,
        gb_seconds=(SHARD_MEMORY * (normalize + aggregate) + SCORE_MEMORY * members * score) / 1024,
        requests=2 + members,
        reads=3 + members + 3 + members + 1,  # Normalize; Score; Aggregate; Summarize
        writes=1 + members + 3 + (OBJECTS_PER_SUMMARY - 1),
    )


def compute_run(measured: Result, shard: Shard, rows: int, concurrency: int) -> Run:
    """Compute a run over CSV, in waves of as many shards as may run at once."""
    shards = math.ceil(rows / shard.rows)
    at_once = min(concurrency, MAX_MAP_CHILDREN, MAX_CONCURRENT_FUNCTIONS // shard.members)
    waves = math.ceil(shards / at_once) * shard.seconds
    return Run(
        rows=rows,
        shard=shard,
        shards=shards,
        at_once=at_once,
        plan=rows * ROW_BYTES / compute_plan_bytes_per_second(measured),
        map=max(waves, shards * shard.way.transitions / TRANSITIONS_PER_SECOND),
        summarize=shards * compute_summarize_seconds(shard),
    )


def compute_plan_bytes_per_second(measured: Result) -> float:
    """Return the bytes of CSV that Plan reads in a second: the lower rate of reading S3 and of finding records."""
    found = measured.rows_per_second[FIND].median * measured.size / measured.rows
    return min(S3_BYTES_PER_SECOND, found * SHARD_MEMORY / CORE_MEMORY)


def compute_summarize_seconds(shard: Shard) -> float:
    """Return the seconds that Summarize takes for one shard: some requests at once, and its share of a deletion."""
    left = 1 + shard.members + OBJECTS_PER_SUMMARY  # columns, outputs; part, rejected rows, report
    return S3_LATENCY_SECONDS * (OBJECTS_PER_SUMMARY / CONNECTIONS + left / DELETED_AT_ONCE)


def name_first_limit(run: Run) -> str:
    """Name the limit that makes a run fail; if there is none, the phase that takes longest."""
    if run.plan > MAX_FUNCTION_SECONDS:
        return f"Plan's {MAX_FUNCTION_SECONDS} s: the run fails"
    if run.summarize > MAX_FUNCTION_SECONDS:
        return f"Summarize's {MAX_FUNCTION_SECONDS} s: the run fails"
    longest = max(("plan", run.plan), ("shards", run.map), ("summarize", run.summarize), key=lambda one: one[1])[0]
    if longest == "shards":
        return f"none fails; {run.at_once} shards at once" if run.shards > run.at_once else "none; one wave of shards"
    return f"none fails; {longest} takes longest"


def format_runs(measured: Result) -> str:
    """Return cost and time of every size as a Markdown table."""
    lines = [
        "| rows | members | shards | at once | plan | shards' time | summarize | all | dollars | for a million rows "
        "| the first limit |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for rows in SIZES:
        for members in MEMBERS:
            shard = compute_shard(measured, members)
            for concurrency in (DEFAULT_CONCURRENCY, MAX_MAP_CHILDREN):
                run = compute_run(measured, shard, rows, concurrency)
                lines.append(
                    f"| 10^{round(math.log10(rows))} | {members} | {run.shards:,} | {run.at_once} "
                    f"| {_time(run.plan)} | {_time(run.map)} | {_time(run.summarize)} | {_time(run.seconds)} "
                    f"| {run.dollars:,.2f} | {run.dollars / rows * 1e6:.4f} | {name_first_limit(run)} |"
                )
    return "\n".join(lines) + "\n"


def format_shards(measured: Result) -> str:
    """Return the numbers of one shard as a Markdown table."""
    shards = [compute_shard(measured, members) for members in MEMBERS]
    lines = [
        f"| of one shard, {shards[0].rows:,} rows | {' | '.join(f'{shard.members} members' for shard in shards)} |",
        "| --- | --: | --: |",
    ]
    rows: tuple[tuple[str, list[str]], ...] = (
        ("state transitions", [f"{shard.way.transitions}" for shard in shards]),
        ("events in its history", [f"{shard.way.events}" for shard in shards]),
        ("seconds", [f"{shard.seconds:.1f}" for shard in shards]),
        ("GB-seconds of Lambda", [f"{shard.gb_seconds:.1f}" for shard in shards]),
        ("requests to Lambda", [f"{shard.requests}" for shard in shards]),
        ("GET; PUT and COPY", [f"{shard.reads}; {shard.writes}" for shard in shards]),
        ("dollars", [f"{shard.dollars:.6f}" for shard in shards]),
        (
            "of that for state transitions",
            [_part(shard.way.transitions * STATE_TRANSITION.dollars, shard) for shard in shards],
        ),
        ("of that for Lambda's time", [_part(shard.gb_seconds * LAMBDA_TIME.dollars, shard) for shard in shards]),
        (
            "of that for S3's requests",
            [_part(shard.reads * S3_READ.dollars + shard.writes * S3_WRITE.dollars, shard) for shard in shards],
        ),
    )
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join(lines) + "\n"


def format_limits(measured: Result) -> str:
    """Return the size at which each limit is reached, as a Markdown table."""
    lines = [f"| limit | is reached at, {MEMBERS[0]} members | {MEMBERS[1]} members |", "| --- | --: | --: |"]
    shards = [compute_shard(measured, members) for members in MEMBERS]

    def add(limit: str, cells: list[str]) -> None:
        lines.append(f"| {limit} | {' | '.join(cells)} |")

    add(
        "Plan's 15 minutes, CSV",
        [_rows(MAX_FUNCTION_SECONDS * compute_plan_bytes_per_second(measured) / ROW_BYTES)] * 2,
    )
    footers = MAX_FUNCTION_SECONDS / (2 * S3_LATENCY_SECONDS) * HEADS_AT_ONCE
    add("Plan's 15 minutes, Parquet", [f"{footers:,.0f} files"] * 2)
    add(
        "Summarize's 15 minutes",
        [_rows(MAX_FUNCTION_SECONDS / compute_summarize_seconds(shard) * shard.rows) for shard in shards],
    )
    add("10 GB of list for the Map", [_rows(MAX_MAP_LIST_BYTES / LIST_ENTRY_BYTES * shard.rows) for shard in shards])
    add("1,000 functions at once", [f"{MAX_CONCURRENT_FUNCTIONS // shard.members} shards at once" for shard in shards])
    for limit, rate in (
        (f"{TRANSITIONS_PER_SECOND:,} state transitions a second", TRANSITIONS_PER_SECOND),
        (f"{TRANSITIONS_ELSEWHERE} of them, in other regions", TRANSITIONS_ELSEWHERE),
    ):
        add(limit, [f"{rate / shard.way.transitions * shard.seconds:,.0f} shards at once" for shard in shards])
    add(
        "3,500 writes a second to S3",
        [f"{S3_WRITES_PER_SECOND / shard.writes * shard.seconds:,.0f} shards at once" for shard in shards],
    )
    add(
        "5,500 reads a second from S3",
        [f"{S3_READS_PER_SECOND / shard.reads * shard.seconds:,.0f} shards at once" for shard in shards],
    )
    few, many = shards
    each = (many.way.events - few.way.events) // (many.members - few.members)
    add("25,000 events of a shard", [f"{(MAX_HISTORY_EVENTS - few.way.events) // each + few.members:,} members"] * 2)
    add("256 KiB of a state", [f"{(STATE_BYTES - FRAME_BYTES) // MEMBER_BYTES} members"] * 2)
    return "\n".join(lines) + "\n"


def format_constants(measured: Result) -> str:
    """Return the inputs of the computation, as Markdown tables."""
    machine = measured.machine
    lines = ["| documented by AWS | | where |", "| --- | --: | --- |"]
    lines += [f"| {name} | {value} | <{where}> |" for name, value, where in DOCUMENTED]
    lines += ["", "| assumed | |", "| --- | --: |"]
    lines += [f"| {name} | {value} |" for name, value in ASSUMED]
    lines += ["", "| measured by `benchmarks/batch_speed.py` | thousand rows a second, one core |", "| --- | --: |"]
    lines += [f"| {name} | {speed.median / 1e3:,.0f} |" for name, speed in measured.rows_per_second.items()]
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines += [
        "",
        f"The machine: {machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}, "
        f"{versions}. The rows have {measured.size / measured.rows:.0f} bytes; finding and reading records is computed "
        "by bytes, the rest by rows.",
    ]
    return "\n".join(lines) + "\n"


def format_tables(measured: Result) -> str:
    """Return the text between the page's markers."""
    parts = (
        ("Cost and time", format_runs(measured)),
        ("Limits", format_limits(measured)),
        ("One shard", format_shards(measured)),
        ("Inputs of the computation", format_constants(measured)),
        ("Prices", format_prices()),
    )
    return "\n".join(f"### {title}\n\n{text}" for title, text in parts)


def _part(dollars: float, shard: Shard) -> str:
    return f"{dollars / shard.dollars:.0%}"


def _rows(rows: float) -> str:
    return f"{rows:.1e} rows"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Compute the tables; write or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page has other tables")
    arguments = parser.parse_args()
    tables = format_tables(msgspec.json.decode(RESULT.read_bytes(), type=Result))
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    held, after = rest.split(END)
    if arguments.check:
        if held != f"\n{tables}\n":
            sys.exit(f"{PAGE} has other tables; run benchmarks/scale.py")
        return
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")
    print(tables, end="")


if __name__ == "__main__":
    main()
