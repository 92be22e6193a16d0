"""Plan: find the day's dataset, name the run, claim it, and cut it into shards; or say that there is nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs

from stepensemble.batch.documents import LabelValues, RunPlan, Shard, name_run
from stepensemble.batch.input.datasets import find_files, wanted_columns
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.batch.input.labels import REMEDY, Readings, can_differ, choose_reading, count_readings
from stepensemble.batch.input.shard_reader import read_shard
from stepensemble.batch.input.sharding import cut
from stepensemble.batch.publication import read_previous
from stepensemble.batch.report.drift import PREDICTION, first_edges
from stepensemble.batch.request import choose_date, locate_dataset, parse_request
from stepensemble.batch.run_lock import ClaimedElsewhere, ClaimHeld, RunComplete, claim, list_finished
from stepensemble.core.arrays import Floats
from stepensemble.core.errors import DatasetRefused, EnsembleError, ObjectMissing, ShardUnreadable, StorageUnavailable
from stepensemble.core.problems import Problem, enumerate_values
from stepensemble.core.releases.pointer import choose
from stepensemble.core.releases.release import Release
from stepensemble.core.schema.task import RegressionTask, Task
from stepensemble.handlers.failures import refuse
from stepensemble.handlers.state import Execution
from stepensemble.storage.keys import labelling_key, plan_key, run_prefix, sampling_key, shard_list_key, shards_key
from stepensemble.storage.objects import Bucket
from stepensemble.storage.releases import ReleaseStore

MOST_SAMPLES = 2
"""Attempts to read a sample of a run's rows that may end the process.

After these, and as many of the labels, the state machine calls Plan once more: its `MaxAttempts` is the sum of both.
"""


@dataclass(frozen=True, slots=True)
class DriftBins:
    """Edges of the bins that drift is measured by, by feature; and what is to be noted of them."""

    edges: dict[str, tuple[float, ...]]
    notes: tuple[str, ...]


MOST_LABELLINGS = 2
"""Attempts to read a run's labels that may end the process; more would end the same."""

ENDED = b"ended"
"""What an attempt leaves whose process has outlived it."""

UNREADABLE = f"a file may be damaged: write it again; or {REMEDY}"


@dataclass(frozen=True, slots=True)
class Planner:
    """What Plan works on.

    Attributes:
        is_running: says of an execution's ARN whether it runs.
        concurrency: shards at work at once.
    """

    releases: ReleaseStore
    data: Bucket
    is_running: Callable[[str], bool]
    concurrency: int

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer what there is to do, as `state`, or a refusal.

        It is one of: `work`, with the key of the list of shards that are left; `summarize`, where none is left; `wait`,
        where another execution works on the run; `done`, with the run's result.

        Args:
            event: `request`, the execution's input; and `execution` with `id`, `name` and `started_at`.

        Raises:
            StorageUnavailable: S3 or Step Functions fails; the state machine tries again.
        """
        try:
            return self._plan(event["request"], msgspec.convert(event["execution"], Execution))
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return refuse(error)

    def _plan(self, asked: Any, execution: Execution) -> dict[str, Any]:
        request = parse_request(asked)
        date = choose_date(request, execution.started_at)
        dataset = locate_dataset(request, date, self.data.name)
        current, _ = self.releases.read_current()
        # A canary answers a share of the executions, and a batch is one of many rows: it answers when it is asked for.
        digest, slots = choose(current, execution.name, request.release or current.release)
        files = find_files(self.data, dataset, date, request.version_id)
        run = name_run(files, digest, date, request.output, request.options)
        match claim(self.data, run, execution.id, self.is_running):
            case ClaimedElsewhere():
                return {"state": "wait", "run": run}
            case RunComplete(result):
                return {"state": "done", "run": run, "result": msgspec.to_builtins(result)}
            case ClaimHeld(attempt):
                pass
        plan = RunPlan(
            run=run,
            execution=execution.id,
            started_at=execution.started_at,
            ensemble=self.releases.read_release(digest).name,
            release=digest,
            slots=dict(slots),
            dataset=dataset,
            date=date,
            output=request.output,
            options=request.options,
            files=files,
            columns=(),
            shards=0,
        )
        return self._hand_out(run, attempt, self._read_shards(run) or self._cut(plan))

    def _read_shards(self, run: str) -> tuple[Shard, ...] | None:
        """Return the shards of a run that has been planned; None where it has not, or was tidied up since."""
        try:
            self.data.head(plan_key(run))
            return msgspec.json.decode(self.data.read(shards_key(run)), type=tuple[Shard, ...])
        except ObjectMissing:
            return None

    def _cut(self, plan: RunPlan) -> tuple[Shard, ...]:
        """Cut a dataset, and write down shards and plan: the plan last, since who finds it looks no further."""
        release = self.releases.read_release(plan.release)
        found = cut(self.data, plan.files, plan.options, release.features)
        plan = structs.replace(
            plan, files=found.files, columns=found.columns, shards=len(found.shards), notes=found.notes
        )
        previous = read_previous(self.data, plan.output, plan.ensemble, plan.date)
        if previous is not None:
            plan = structs.replace(plan, edges=previous.edges, previous=previous.key)
        bins = self._choose_bins(plan, found.shards, release)
        plan = structs.replace(
            plan,
            edges=bins.edges,
            notes=(*plan.notes, *bins.notes),
            label_values=self._choose_reading(plan, found.shards, release.task),
        )
        self.data.write(shards_key(plan.run), msgspec.json.encode(found.shards))
        self.data.write(plan_key(plan.run), msgspec.json.encode(plan))
        return found.shards

    def _choose_bins(self, plan: RunPlan, shards: Sequence[Shard], release: Release) -> DriftBins:
        """Return the edges of the run before; those that it had not are taken from a sample.

        What cannot be measured therefore, in this run or only from the next one on, is noted.
        """
        names = [name for name in first_edges(release.features, release.task, {}) if name != PREDICTION]
        known = {name: edges for name, edges in plan.edges.items() if name in names}
        values, reason = ({}, "") if len(known) == len(names) else self._read_values(plan, shards, release)
        edges = first_edges(release.features, release.task, values) | known
        edges = {name: cuts for name, cuts in edges.items() if cuts or name in values or name in known}
        without = [name for name in names if name not in edges] if shards else []
        new = [name for name in names if name in edges and name not in known] if plan.previous is not None else []
        notes = []
        if without:
            notes.append(f"the drift of {enumerate_values(without)} is not measured in this run: {reason}")
        if new:
            notes.append(
                f"the drift of {enumerate_values(new)} is measured from the next run on: the last one had no bins"
            )
        return DriftBins(edges, tuple(notes))

    def _read_values(
        self, plan: RunPlan, shards: Sequence[Shard], release: Release
    ) -> tuple[Mapping[str, Floats], str]:
        """Return values of the first shard's rows, or none and why.

        Damage in Parquet, or a shard that is too large, may end the process, and so may what passes, as a machine that
        is taken away. So it is tried `MOST_SAMPLES` times.
        """
        tried = self._count_samples(plan.run)
        some = shards[:1] if tried < MOST_SAMPLES else ()
        columns = wanted_columns(plan.options, [feature.name for feature in release.features])
        for shard in some:
            typed = plan.files[shard.file].format != "csv"
            with suppress(ShardUnreadable):
                raw = read_shard(self.data, plan, shard, columns)
                values = encode_frame(release.features, raw.frame, typed=typed, original=raw.original).values
                self.data.write(sampling_key(plan.run), b"0")  # what ends the function from here on is not the sample
                return values, ""
            return {}, f"its bins are chosen from shard {shard.number}, which cannot be read"
        return {}, f"its bins are chosen from a sample of the rows, and reading one ended the function {tried} times"

    def _count_samples(self, run: str) -> int:
        """Return how often a sample of a run has been begun before, and note that it is once more."""
        key = sampling_key(run)
        try:
            tried = int(self.data.read(key) or b"1")  # an earlier version wrote nothing into it
        except ObjectMissing:
            tried = 0
        self.data.write(key, str(tried + 1).encode())
        return tried

    def _choose_reading(self, plan: RunPlan, shards: tuple[Shard, ...], task: Task) -> LabelValues | None:
        """Return how the labels are read, the same in all shards.

        Shards are read one after the other, the column of the labels alone: until one has a label that fits a reading,
        or all of them where a label can mean two classes. A shard that cannot be read has no say; that is reported
        where it is to be answered. Damage in Parquet may end the process: after `MOST_LABELLINGS` attempts that ended
        so, the caller must choose.

        Raises:
            DatasetRefused: both readings are possible, or neither; or the column cannot be read.
        """
        options = plan.options
        if options.label is None or isinstance(task, RegressionTask) or options.label_values is not None:
            return options.label_values
        keys = [labelling_key(plan.run, attempt) for attempt in range(MOST_LABELLINGS)]
        key = next((key for key in keys if self.data.create(key, b"") or self.data.read(key) == ENDED), None)
        if key is None:
            raise DatasetRefused([Problem("label", "reading the labels ended the process repeatedly", UNREADABLE)])
        try:
            found, all_count = Readings(), can_differ(task)
            for shard in shards:
                file = plan.files[shard.file]
                with suppress(ShardUnreadable):
                    raw = read_shard(self.data, plan, shard, (options.label,))
                    found += count_readings(task, raw.frame[options.label], file.name, raw.numbers)
                if not all_count and (found.names or found.indexes or found.same):
                    break
        finally:
            self.data.write(key, ENDED)
        return choose_reading(options.label, task, found)

    def _hand_out(self, run: str, attempt: int, shards: tuple[Shard, ...]) -> dict[str, Any]:
        finished = list_finished(self.data, run)
        left = [shard for shard in shards if shard.number not in finished]
        if not left:
            return {"state": "summarize", "run": run, "attempt": attempt}
        key = shard_list_key(run, attempt)
        self.data.write(key, msgspec.json.encode(left))
        return {
            "state": "work",
            "run": run,
            "attempt": attempt,
            "shards": key,
            "outputs": f"{run_prefix(run)}/outputs",
            "concurrency": self.concurrency,
        }
