"""The ensemble in process: the same core and runtimes as the Lambda functions, without a stack."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import numpy as np

from stepensemble.core.aggregation.canonical import shape_output
from stepensemble.core.aggregation.prediction import (
    ExecutionResult,
    MemberFailure,
    MemberResult,
    Results,
    ask_once,
    decide,
)
from stepensemble.core.aggregation.single_row import PredictRow, prepare_prediction
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
from stepensemble.core.schema.policy import Policy
from stepensemble.imaging import read_images
from stepensemble.publishing.manifest_loader import read_sources
from stepensemble.runtimes import Model, load_model
from stepensemble.runtimes.precision import reject_narrowed

if TYPE_CHECKING:
    import polars

    from stepensemble.batch.in_memory import Table

Given = TypeVar("Given")
"""Columns, as many or as one row has them."""

ONLY = np.arange(1)
"""The number of a row that is there by itself."""

# Threads do not meet at the first use of what a payload or a manifest may hold; see `batch.publication`.
_MET = msgspec.json.Decoder(tuple[Pointer, Manifest])


@dataclass(frozen=True, slots=True)
class _Single:
    """What can be prepared for predicting one row alone, before a row arrives.

    See `core.preprocessing.single_row` and `core.aggregation.single_row`.

    Attributes:
        asks: of each member, what asks it about all columns of the row.
        answer: None where a release's rows are always answered as arrays.
    """

    encode: EncodeRow
    asks: Mapping[str, Callable[[Array], Array]]
    answer: PredictRow | None


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
    _single: _Single | None = field(init=False, repr=False, compare=False)
    _alone: threading.Lock = field(init=False, repr=False, compare=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Worked out from the release, so that one that takes another's place brings its own.
        object.__setattr__(self, "_single", _prepare(self.release, self.models))

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
                models[member.id] = _failure(error)
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
        asked = parse_payload(payload)
        if isinstance(asked.rows, Pointer):
            problem = Problem("$.instances.s3", "there is no S3 in process", "give the rows themselves")
            raise InvalidPayload([problem])
        if asked.release is not None and not self.digest.startswith(asked.release):
            raise ReleaseNotCurrent(f"release {asked.release[:SHORT]} is not the loaded one, {self.digest[:SHORT]} is")
        policy = apply_quorum(asked, self.release.policy, self.release.members)
        answer = self._answer_single(asked.rows[0], policy) if len(asked.rows) == 1 else None
        if answer is None:
            answer = self._answer(asked, policy)
        if answer.cause is not None:
            raise QuorumNotMet(answer.cause)
        output = answer.to_output(asked.prediction_id or str(uuid.uuid4()), self.digest)
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
            One line per row, in the table's order, with the columns of the batch's results (docs/batch-data.md).

        Raises:
            InvalidPayload: with every column that is missing, or every wrong value by column and row.
            QuorumNotMet: too few members responded, in every row.
            ImportError: Polars is not installed.
        """
        from stepensemble.batch.in_memory import encode_table, predict_table  # Polars, which `predict` does without

        columns, rows = encode_table(self.release.features, table)
        return predict_table(self.release, rows, partial(self._ask_tier, columns))

    def _answer(self, asked: Payload, policy: Policy) -> ExecutionResult:
        rows = cast("Rows", asked.rows)
        columns = normalize(self.release.features, rows, locate=asked.locate, images=read_images)
        # Every tier answers as soon as it is asked, so nothing is left undecided.
        return cast("ExecutionResult", decide(self.release, policy, len(rows), partial(self._ask_tier, columns)))

    def _ask_tier(self, columns: Columns, tier: int, numbers: Integers) -> Results:
        reaching = select_rows(columns, numbers)
        return {
            member.id: self._ask(member, partial(self._predict, member), reaching, len(numbers))
            for member in self.release.in_tier(tier)
        }

    def _predict(self, member: ReleasedMember, columns: Columns) -> Array:
        return cast("Model", self.models[member.id]).predict(bind_columns(columns, member.inputs), member.output.name)

    def _answer_single(self, row: Any, policy: Policy) -> ExecutionResult | None:
        """Answer one row by itself as `_answer` does; None where it is not plainly right, or not a row of numbers."""
        single, release = self._single, self.release
        columns = None if single is None else single.encode(row)
        if single is None or columns is None:
            return None

        def ask(tier: int, _: Integers) -> Results:
            return {
                member.id: self._ask(member, single.asks[member.id], columns, 1) for member in release.in_tier(tier)
            }

        if single.answer is None or policy is not release.policy:
            return cast("ExecutionResult", decide(release, policy, 1, ask))
        results = ask(1, ONLY)
        return single.answer(results) or cast("ExecutionResult", decide(release, policy, 1, ask_once(results)))

    def _ask(
        self, member: ReleasedMember, predict: Callable[[Given], Array], columns: Given, rows: int
    ) -> MemberResult:
        model = self.models[member.id]
        if isinstance(model, MemberFailure):
            return MemberResult(member.id, failure=model)
        with self._alone:  # a model is asked from one thread
            started = time.perf_counter_ns()
            try:
                outputs = shape_output(predict(columns), rows)
            except MemberError as error:
                return MemberResult(member.id, failure=_failure(error))
            microseconds = (time.perf_counter_ns() - started) // 1000
        return MemberResult(member.id, outputs, microseconds / 1000, cold=False)


def _prepare(release: Release, models: Mapping[str, Model | MemberFailure]) -> _Single | None:
    encode = prepare_row(release.features)
    if encode is None:
        return None
    asks = {member.id: _prepare_ask(release.features, member, models[member.id]) for member in release.members}
    return _Single(encode, asks, prepare_prediction(release))


def _prepare_ask(
    features: Sequence[Feature], member: ReleasedMember, model: Model | MemberFailure
) -> Callable[[Array], Array]:
    if isinstance(model, MemberFailure):  # which is never asked
        return lambda columns: columns
    bind = prepare_binding(features, member.inputs)
    nothing = np.zeros((1, len(all_column_names(features))), np.float32)
    ask = model.prepare(dict(zip(member.inputs, bind(nothing), strict=True)), member.output.name)
    return lambda columns: ask(bind(columns))


def _failure(error: MemberError) -> MemberFailure:
    return MemberFailure(type(error).__name__, str(error))
