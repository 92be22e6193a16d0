"""The ensemble in process: the same core and runtimes as the Lambda functions, without a stack."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec
import numpy as np

from stepensemble.core.aggregation.canonical import shape_output
from stepensemble.core.aggregation.execution import ExecutionResult, FastPath, decide
from stepensemble.core.aggregation.output import MemberFailure
from stepensemble.core.aggregation.output_source import MemberResult, OutputSource, Results
from stepensemble.core.aggregation.single_row import prepare_fast_path
from stepensemble.core.arrays import Array, Integers
from stepensemble.core.errors import InvalidPayload, MemberError, QuorumNotMet, ReleaseNotCurrent
from stepensemble.core.payload import Payload, Pointer, Rows, apply_quorum, parse_payload
from stepensemble.core.preprocessing.columns import Columns, bind_columns, select_rows
from stepensemble.core.preprocessing.encoding import all_column_names, normalize
from stepensemble.core.preprocessing.precision import list_narrow_inputs
from stepensemble.core.preprocessing.single_row import EncodeRow, prepare_binding, prepare_row
from stepensemble.core.problems import Problem
from stepensemble.core.releases.release import SHORT, Release, ReleasedMember
from stepensemble.core.schema.manifest import Feature, Manifest
from stepensemble.imaging import read_images
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.runtimes import Model, load_model
from stepensemble.runtimes.precision import reject_narrowed

if TYPE_CHECKING:
    import polars

    from stepensemble.batch.in_memory import Table

Given = TypeVar("Given")
"""The columns of many rows, or of a single one."""

Call = Callable[[Array], Array]
"""Invokes a model with all columns of one row."""

# Built at import, so that threads do not build msgspec's types at the same time; see `batch.publication`.
_TYPES_BUILT = msgspec.json.Decoder(tuple[Pointer, Manifest])


@dataclass(frozen=True, slots=True)
class _SingleRow:
    """What is prepared for a single row before one arrives.

    Attributes:
        encode: see `core.preprocessing.single_row`.
        calls: each member's call, by its id.
        fast_path: see `core.aggregation.single_row`; None if the release has none.
    """

    encode: EncodeRow
    calls: Mapping[str, Call]
    fast_path: FastPath | None


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A release with its models in memory. Threads may share it; it invokes one model at a time.

        >>> ensemble = Ensemble.load("models/manifest.json")
        >>> features = {"Pclass": 3, "Sex": "male", "Age": 22, "SibSp": 1, "Parch": 0, "Fare": 7.25, "Embarked": "S"}
        >>> output = ensemble.predict({"features": features})
        >>> output["predictions"][0]["label"]
        'died'
        >>> [member["status"] for member in output["members"]]
        ['ok', 'ok', 'ok', 'ok']

    Attributes:
        release: the manifest as it was compiled.
        digest: the release's name, 64 hex digits; the same on every stack to which it is published.
        models: member id to its model, or to the reason why it could not be loaded.
    """

    release: Release
    digest: str
    models: Mapping[str, Model | MemberFailure]
    _single_row: _SingleRow | None = field(init=False, repr=False, compare=False)
    _lock: threading.Lock = field(init=False, repr=False, compare=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Derived from the release, so that `dataclasses.replace` with another release derives it again.
        object.__setattr__(self, "_single_row", _prepare_single_row(self.release, self.models))

    def __repr__(self) -> str:
        members = [member.id for member in self.release.members]
        return f"Ensemble(name={self.release.name!r}, release={self.digest[:SHORT]!r}, members={members})"

    @classmethod
    def load(cls, manifest: str | Path) -> Ensemble:
        """Read a manifest and load every member.

        A member that cannot be loaded fails in each prediction, as it would on a stack.

        Args:
            manifest: path of the manifest file; the artifacts' paths are relative to its folder.

        Raises:
            InvalidManifest: with every problem of the manifest and of the files it names.
        """
        sources = read_sources(Path(manifest))
        return cls.from_release(sources.release, sources.digest, sources.artifacts)

    @classmethod
    def from_release(cls, release: Release, digest: str, artifacts: Mapping[str, bytes]) -> Ensemble:
        """Load every member of a release.

        A member that cannot be loaded fails in each prediction, as it would on a stack.

        Args:
            release: as it was compiled, or read from a stack.
            digest: the release's name, 64 hex digits.
            artifacts: the content of each member's model file, by member id.

        Raises:
            KeyError: a member has no entry in `artifacts`.
        """
        models: dict[str, Model | MemberFailure] = {}
        for member in release.members:
            try:
                model = load_model(member.runtime, artifacts[member.id], member.signature, trusted=member.trusted)
                reject_narrowed(model.signature, list_narrow_inputs(member.inputs, release.features))
                models[member.id] = model
            except MemberError as error:
                models[member.id] = _describe_failure(error)
        return cls(release, digest, models)

    def predict(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Predict the rows of a payload.

        Args:
            payload: `{"features": {…}}` or `{"instances": [{…}, …]}`, 1 to 10,000 rows; optionally with
                `prediction_id`, `metadata`, `quorum`, and `release`, at least 8 digits of the release that must
                predict.

        Returns:
            The output that an execution of the published release has, with all rows inline: JSON types only, as
            docs/output.schema.json describes them.

        Raises:
            InvalidPayload: with every bad field of every row, or of the quorum.
            ReleaseNotCurrent: the payload names another release than this one.
            QuorumNotMet: too few members responded.
        """
        request = parse_payload(payload)
        if isinstance(request.rows, Pointer):
            problem = Problem("$.instances.s3", "there is no S3 in process", "give the rows themselves")
            raise InvalidPayload([problem])
        if request.release is not None and not self.digest.startswith(request.release):
            wanted = request.release[:SHORT]
            raise ReleaseNotCurrent(f"release {wanted} is not the loaded one, {self.digest[:SHORT]} is")
        result = self._decide(request, request.rows)
        if result.cause is not None:
            raise QuorumNotMet(result.cause)
        output = result.to_output(request.prediction_id or str(uuid.uuid4()), self.digest)
        document: dict[str, Any] = msgspec.to_builtins(output)
        # As JSON would carry it, where a tuple is a list; only the policy has any.
        document["policy"] = msgspec.json.decode(msgspec.json.encode(output.policy))
        return document

    def predict_table(self, table: Table) -> polars.DataFrame:
        """Predict every row of a table: many times faster than `predict`, without a limit of rows.

        It needs Polars: `pip install 'stepensemble[batch]'`. Use `predict` for images.

            >>> import polars
            >>> ensemble = Ensemble.load("models/manifest.json")
            >>> results = ensemble.predict_table(polars.read_csv("examples/titanic/passengers.csv"))
            >>> results.height
            1309

        Args:
            table: a data frame of Polars, pandas or any library with Arrow's PyCapsule interface; a mapping of column
                names to lists, arrays or series; a NumPy array with named fields, or of shape (rows, features) with
                the features in the manifest's order. A feature without a column has its default; null (of pandas
                also NaN) is a missing value; columns that are not features are ignored.

        Returns:
            One line per row, in the table's order, with the columns of the batch's results
            (docs/batch.md#what-comes-out).

        Raises:
            InvalidPayload: with every column that is missing, or every wrong value by column and row.
            QuorumNotMet: too few members responded, in every row.
            ImportError: Polars is not installed.
        """
        from stepensemble.batch.in_memory import encode_table, predict_table  # Polars, which `predict` does without

        columns, rows = encode_table(self.release.features, table)
        return predict_table(self.release, rows, _LoadedMembers(self, columns))

    def _decide(self, request: Payload, rows: Rows) -> ExecutionResult:
        policy = apply_quorum(request, self.release.policy, self.release.members)
        prepared = self._single_row if len(rows) == 1 else None
        encoded = None if prepared is None else prepared.encode(rows[0])
        source: OutputSource
        if prepared is None or encoded is None:
            columns = normalize(self.release.features, rows, locate=request.locate, images=read_images)
            source = _LoadedMembers(self, columns)
        else:
            source = _LoadedMembersForOneRow(self, encoded, prepared.calls)
        fast_path = None if prepared is None else prepared.fast_path
        # Both sources have the results of every tier, so no row is left undecided.
        return cast("ExecutionResult", decide(self.release, policy, len(rows), source, fast_path))

    def _invoke(
        self, member: ReleasedMember, predict: Callable[[Given], Array], columns: Given, rows: int
    ) -> MemberResult:
        """Invoke one member's model, and time it.

        Args:
            member: of the release.
            predict: calls the model.
            columns: what it is called with.
            rows: how many rows that is.
        """
        model = self.models[member.id]
        if isinstance(model, MemberFailure):
            return MemberResult(member.id, failure=model)
        with self._lock:  # a runtime's model must not be called by two threads at once
            started = time.perf_counter_ns()
            try:
                outputs = shape_output(predict(columns), rows)
            except MemberError as error:
                return MemberResult(member.id, failure=_describe_failure(error))
            microseconds = (time.perf_counter_ns() - started) // 1000
        return MemberResult(member.id, outputs, microseconds / 1000, cold=False)


@dataclass(frozen=True, slots=True)
class _LoadedMembers:
    """Invokes an ensemble's members with the columns of many rows: an `OutputSource` with the results of every tier."""

    ensemble: Ensemble
    columns: Columns

    def get_results(self, tier: int, rows: Integers) -> Results:
        """Invoke the members of a tier."""
        selected = select_rows(self.columns, rows)
        return {
            member.id: self.ensemble._invoke(member, partial(self._predict, member), selected, len(rows))
            for member in self.ensemble.release.in_tier(tier)
        }

    def _predict(self, member: ReleasedMember, columns: Columns) -> Array:
        model = cast("Model", self.ensemble.models[member.id])
        return model.predict(bind_columns(columns, member.inputs), member.output.name)


class _LoadedMembersForOneRow(NamedTuple):
    """The same for one row that was encoded alone. A tuple, since one is created faster than a dataclass."""

    ensemble: Ensemble
    columns: Array
    calls: Mapping[str, Call]

    def get_results(self, tier: int, rows: Integers) -> Results:  # noqa: ARG002 (there is one row)
        """Invoke the members of a tier."""
        return {
            member.id: self.ensemble._invoke(member, self.calls[member.id], self.columns, 1)
            for member in self.ensemble.release.in_tier(tier)
        }


def _prepare_single_row(release: Release, models: Mapping[str, Model | MemberFailure]) -> _SingleRow | None:
    encode = prepare_row(release.features)
    if encode is None:
        return None
    calls = {member.id: _prepare_call(release.features, member, models[member.id]) for member in release.members}
    return _SingleRow(encode, calls, prepare_fast_path(release))


def _prepare_call(features: Sequence[Feature], member: ReleasedMember, model: Model | MemberFailure) -> Call:
    if isinstance(model, MemberFailure):  # it is never called
        return lambda columns: columns
    bind = prepare_binding(features, member.inputs)
    zeros = np.zeros((1, len(all_column_names(features))), np.float32)
    predict = model.prepare(dict(zip(member.inputs, bind(zeros), strict=True)), member.output.name)
    return lambda columns: predict(bind(columns))


def _describe_failure(error: MemberError) -> MemberFailure:
    return MemberFailure(type(error).__name__, str(error))
