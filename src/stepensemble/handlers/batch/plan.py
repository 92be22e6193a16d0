"""Plan: finds the day's dataset, names and claims the run, and splits the dataset into shards that are left to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from stepensemble.batch.documents import BinEdges, LabelValues, RunPlan, Shard, name_run
from stepensemble.batch.input.datasets import find_files, required_columns
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.batch.input.labels import REMEDY, LabelReadings, can_differ, choose_reading, count_readings
from stepensemble.batch.input.shard_reader import read_shard
from stepensemble.batch.input.sharding import shard_dataset
from stepensemble.batch.publication import find_previous_run
from stepensemble.batch.report.drift import first_edges
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

MAX_SAMPLE_ATTEMPTS = 2
"""How many attempts to read a sample of a run's rows may end the process.

After these, and those of the labels, the state machine invokes Plan once more: its `MaxAttempts` is the sum of both.
"""

MAX_LABEL_ATTEMPTS = 2
"""How many attempts to read a run's labels may end the process; further attempts would end in the same way."""

ENDED = b"ended"
"""Content of an attempt's object if the process did not end during the attempt."""

UNREADABLE = f"a file may be damaged: write it again; or {REMEDY}"


@dataclass(frozen=True, slots=True)
class DriftBins:
    """Edges of the bins that drift is measured by, and notes about features that cannot be measured."""

    edges: BinEdges
    notes: tuple[str, ...]


class SampledValues(NamedTuple):
    """Values of some rows by feature; without values, the reason."""

    values: Mapping[str, Floats]
    reason: str


@dataclass(frozen=True, slots=True)
class Planner:
    """The Plan function.

    Attributes:
        is_running: whether the execution with an ARN runs.
        concurrency: how many shards are worked on at the same time.
    """

    releases: ReleaseStore
    data: Bucket
    is_running: Callable[[str], bool]
    concurrency: int

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what there is to do, as `state`, or a failure.

        The state is one of: `work`, with the key of the list of shards that are left; `summarize`, if none is left;
        `wait`, if another execution works on the run; `done`, with the run's result.

        Args:
            event: `request`, the execution's input; and `execution` with `id`, `name` and `started_at`.

        Raises:
            StorageUnavailable: S3 or Step Functions fails; the state machine retries.
        """
        try:
            return self._plan(event["request"], msgspec.convert(event["execution"], Execution))
        except StorageUnavailable:
            raise
        except EnsembleError as error:
            return refuse(error)

    def _plan(self, document: Any, execution: Execution) -> dict[str, Any]:
        request = parse_request(document)
        date = choose_date(request, execution.started_at)
        dataset = locate_dataset(request, date, self.data.name)
        current, _ = self.releases.read_current()
        # A canary predicts for a share of the executions, and a batch is one execution with many rows: only a request
        # that names the canary uses it.
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
        return self._list_work(run, attempt, self._read_shards(run) or self._split(plan))

    def _read_shards(self, run: str) -> tuple[Shard, ...] | None:
        """Return the shards of a run; None if it was not planned yet, or its shards were deleted since."""
        try:
            self.data.head(plan_key(run))
            return msgspec.json.decode(self.data.read(shards_key(run)), type=tuple[Shard, ...])
        except ObjectMissing:
            return None

    def _split(self, plan: RunPlan) -> tuple[Shard, ...]:
        """Split a dataset, and store shards and plan: the plan last, since a stored plan means that both are stored."""
        release = self.releases.read_release(plan.release)
        found = shard_dataset(self.data, plan.files, plan.options, release.features)
        plan = structs.replace(
            plan, files=found.files, columns=found.columns, shards=len(found.shards), notes=found.notes
        )
        previous = find_previous_run(self.data, plan.output, plan.ensemble, plan.date)
        if previous is not None:
            plan = structs.replace(plan, edges=previous.edges, previous_summary=previous.summary)
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
        """Return the edges of the previous run; those that it does not have are chosen from a sample.

        Features whose drift cannot be measured, in this run or until the next one, are noted.
        """
        names = list(first_edges(release.features, release.task, {}).features)
        known = {name: edges for name, edges in plan.edges.features.items() if name in names}
        sampled = SampledValues({}, "") if len(known) == len(names) else self._read_values(plan, shards, release)
        first = first_edges(release.features, release.task, sampled.values)
        features = {
            name: edges
            for name, edges in (first.features | known).items()
            if edges or name in sampled.values or name in known
        }
        without = [name for name in names if name not in features] if shards else []
        compared = plan.previous_summary is not None
        new = [name for name in names if name in features and name not in known] if compared else []
        notes = []
        if without:
            notes.append(f"the drift of {enumerate_values(without)} is not measured in this run: {sampled.reason}")
        if new:
            notes.append(
                f"the drift of {enumerate_values(new)} is measured from the next run on: the previous one had no bins"
            )
        return DriftBins(BinEdges(first.prediction, features), tuple(notes))

    def _read_values(self, plan: RunPlan, shards: Sequence[Shard], release: Release) -> SampledValues:
        """Return values of the first shard's rows, or the reason why there are none.

        Damaged Parquet, or a shard that is too large, may end the process; so may a passing cause, such as a machine
        that is taken away. So there are `MAX_SAMPLE_ATTEMPTS` attempts.
        """
        attempts = self._count_samples(plan.run)
        some = shards[:1] if attempts < MAX_SAMPLE_ATTEMPTS else ()
        columns = required_columns(plan.options, [feature.name for feature in release.features])
        for shard in some:
            typed = plan.files[shard.file].format != "csv"
            with suppress(ShardUnreadable):
                raw = read_shard(self.data, plan, shard, columns)
                values = encode_frame(release.features, raw.frame, typed=typed, original=raw.original).values
                self.data.write(sampling_key(plan.run), b"0")  # if the process ends later, the sample is not the cause
                return SampledValues(values, "")
            return SampledValues({}, f"its bins are chosen from shard {shard.number}, which cannot be read")
        reason = f"its bins are chosen from a sample of the rows, and reading one ended the function {attempts} times"
        return SampledValues({}, reason)

    def _count_samples(self, run: str) -> int:
        """Return how many attempts to read a sample of a run have begun before, and count this one."""
        key = sampling_key(run)
        try:
            attempts = int(self.data.read(key) or b"1")  # an earlier version stored an empty object
        except ObjectMissing:
            attempts = 0
        self.data.write(key, str(attempts + 1).encode())
        return attempts

    def _choose_reading(self, plan: RunPlan, shards: tuple[Shard, ...], task: Task) -> LabelValues | None:
        """Return how all shards read the labels.

        Shards are read in order, only the column of the labels: until one has a label that fits a reading, or all of
        them if a label can mean two classes. A shard that cannot be read is skipped here, and reported when it is
        predicted. Damaged Parquet may end the process: after `MAX_LABEL_ATTEMPTS` attempts that ended the process, the
        caller must choose.

        Raises:
            DatasetRefused: both readings are possible, or neither, or the column cannot be read.
        """
        options = plan.options
        if options.label is None or isinstance(task, RegressionTask) or options.label_values is not None:
            return options.label_values
        keys = [labelling_key(plan.run, attempt) for attempt in range(MAX_LABEL_ATTEMPTS)]
        key = next((key for key in keys if self.data.create(key, b"") or self.data.read(key) == ENDED), None)
        if key is None:
            raise DatasetRefused([Problem("label", "reading the labels ended the process repeatedly", UNREADABLE)])
        try:
            found, read_all = LabelReadings(), can_differ(task)
            for shard in shards:
                file = plan.files[shard.file]
                with suppress(ShardUnreadable):
                    raw = read_shard(self.data, plan, shard, (options.label,))
                    found += count_readings(task, raw.frame[options.label], file.name, raw.numbers)
                if not read_all and (found.names or found.indexes or found.same):
                    break
        finally:
            self.data.write(key, ENDED)
        return choose_reading(options.label, task, found)

    def _list_work(self, run: str, attempt: int, shards: tuple[Shard, ...]) -> dict[str, Any]:
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
