"""How fast a replay aggregates recorded outputs: 1,000 records of one row, 4 and 8 members, some of which failed.

A replay of all records together is compared with deciding them again one by one, as each execution was. Reading the
records' JSON is timed beside them.

    python benchmarks/replay.py            # prints a table and writes benchmarks/results/replay.json
    python benchmarks/replay.py --json     # prints it as JSON instead
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from command import add_rounds, make_parser, report
from msgspec import Struct, structs
from timing import Machine, Spread, compare, describe_machine, rate, run_in_turns

from stepensemble.core.aggregation.execution import ExecutionResult, decide
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.output_source import CollectedResults, MemberResult
from stepensemble.core.record import Record, decode_record, encode_record
from stepensemble.core.releases.release import FORMAT, Artifact, Release, ReleasedMember, encode_release
from stepensemble.core.replay.replay import replay
from stepensemble.core.replay.what_if import WhatIf
from stepensemble.core.schema.manifest import NumberFeature
from stepensemble.core.schema.outputs import Probability
from stepensemble.core.schema.policy import Median, Policy, Quorum
from stepensemble.core.schema.task import BinaryTask

RESULT = Path(__file__).parent / "results" / "replay.json"

RECORDS, MEMBERS = 1_000, (4, 8)
FAILING = 0.02
"""The probability that a member failed."""

ROUNDS = 9
SEED = 1912
SINGLY, UNCHANGED, TRIED, READING = "one by one", "replay, nothing tried", "replay, median tried", "reading JSON"


class Speed(Struct, frozen=True):
    """Records a second, and the time as a multiple of deciding the records one by one."""

    records_per_second: Spread
    times_singly: Spread


class Result(Struct, frozen=True):
    """The result: what was timed, by the number of members."""

    machine: Machine
    records: int
    rounds: int
    speeds: Mapping[int, Mapping[str, Speed]]


def make_release(members: int) -> Release:
    """Return a release of a binary task."""
    return Release(
        format=FORMAT,
        name="many",
        task=BinaryTask(classes=("no", "yes")),
        features=(NumberFeature("x"),),
        policy=Policy(quorum=Quorum(min_members=1)),
        members=tuple(
            ReleasedMember(
                id=f"member-{number}",
                version="1",
                artifact=Artifact("0" * 64, 1),
                runtime="litert",
                output=Probability(),
                weight=1.0,
                role="voter",
                timeout=10,
                inputs={"": ("x",)},
                signature=None,
                tier=1,
            )
            for number in range(members)
        ),
    )


def draw_results(release: Release) -> list[dict[str, MemberResult]]:
    """Draw the members' results for each record: probabilities near a common value, or a failure."""
    generator = np.random.default_rng(SEED)
    listed = []
    for _ in range(RECORDS):
        common = generator.random()
        outputs = np.clip(common + generator.normal(0, 0.15, len(release.members)), 0, 1)
        failed = generator.random(len(release.members)) < FAILING
        listed.append(
            {
                member.id: MemberResult(member.id, failure=MemberFailure("Sandbox.Timedout", "Task timed out"))
                if missing
                else MemberResult(member.id, np.array([output]))
                for member, output, missing in zip(release.members, outputs, failed, strict=True)
            }
        )
    return listed


def decide_one(release: Release, results: Mapping[str, MemberResult]) -> ExecutionResult:
    """Decide one execution."""
    result = decide(release, release.policy, 1, CollectedResults([results]))
    if not isinstance(result, ExecutionResult):
        raise TypeError("an ensemble of one tier is decided in one step")
    return result


def keep_records(release: Release, drawn: Sequence[Mapping[str, MemberResult]]) -> list[bytes]:
    """Record every execution."""
    digest, _ = encode_release(release)
    return [
        encode_record(
            Record(
                prediction_id=f"prediction-{number}",
                release=digest,
                execution=f"execution-{number}",
                started_at="2026-03-01T11:59:59.000Z",
                recorded_at="2026-03-01T12:00:00.000+00:00",
                rows=1,
                input_digest="0" * 64,
                input={"features": {"x": 1}},
                output=decide_one(release, results).to_output(f"prediction-{number}", digest),
            )
        )
        for number, results in enumerate(drawn)
    ]


def measure(rounds: int) -> Result:
    """Time everything in turns, for each number of members."""
    speeds = {members: measure_members(members, rounds) for members in MEMBERS}
    return Result(describe_machine("numpy", "stepensemble"), RECORDS, rounds, speeds)


def measure_members(members: int, rounds: int) -> dict[str, Speed]:
    """Time everything in turns for so many members."""
    release = make_release(members)
    other = structs.replace(release, policy=structs.replace(release.policy, aggregation=Median()))
    drawn = draw_results(release)
    bodies = keep_records(release, drawn)
    records = [decode_record(body) for body in bodies]
    releases = {encode_release(release)[0]: release}
    tasks: dict[str, Callable[[], object]] = {
        SINGLY: lambda: [decide_one(other, results) for results in drawn],
        UNCHANGED: lambda: replay(records, releases),
        TRIED: lambda: replay(records, releases, WhatIf(method="median")),
        READING: lambda: [decode_record(body) for body in bodies],
    }
    seconds = run_in_turns(tasks, rounds)
    return {name: Speed(rate(taken, RECORDS), compare(taken, seconds[SINGLY])) for name, taken in seconds.items()}


def format_table(result: Result) -> str:
    """Return the result as a table; quartiles in brackets."""
    lines = [f"{result.records:,} records of one row; median and quartiles of {result.rounds} rounds"]
    for members, speeds in result.speeds.items():
        lines += ["", f"{f'{members} members':26}{'records/s':>28}{'x one by one':>26}"]
        for name, speed in speeds.items():
            each, times = speed.records_per_second, speed.times_singly
            lines.append(
                f"  {name:24}{f'{each.median:,.0f} [{each.low:,.0f}, {each.high:,.0f}]':>28}"
                f"{f'{times.median:.3f} [{times.low:.3f}, {times.high:.3f}]':>26}"
            )
    machine = result.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines += ["", f"{machine.processor}, {machine.cores} cores, {machine.system}, Python {machine.python}, {versions}"]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = make_parser(__doc__, RESULT)
    add_rounds(parser, ROUNDS)
    arguments = parser.parse_args()
    report(measure(arguments.rounds), arguments, format_table)


if __name__ == "__main__":
    main()
