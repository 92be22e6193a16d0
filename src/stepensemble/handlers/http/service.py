"""What the HTTP API does for each route; `routes` maps requests to it, and errors to responses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import structs

from stepensemble.core.aggregation.output import Output
from stepensemble.core.errors import (
    EnsembleError,
    ExecutionFailed,
    InvalidPayload,
    LabelUnknown,
    QuorumNotMet,
    RecordNotFound,
    RecordsClosed,
    ReleaseNotCurrent,
    ResponseTooLarge,
    ServableNotFound,
    StillRunning,
    StorageUnavailable,
)
from stepensemble.core.payload import PREDICTION_ID, Payload, Pointer, apply_quorum, parse_payload
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.problems import Problem
from stepensemble.core.releases.release import Release, ReleasedMember
from stepensemble.core.schema.manifest import ImageFeature
from stepensemble.core.schema.outputs import output_width
from stepensemble.core.schema.task import BinaryTask, name_classes
from stepensemble.handlers.current_release import CurrentRelease
from stepensemble.handlers.http.invoker import Invoker
from stepensemble.handlers.state import MemberToInvoke, list_members
from stepensemble.imaging import read_images
from stepensemble.serving import requests, responses, servables
from stepensemble.serving.requests import PredictRequest
from stepensemble.serving.servables import ModelSignature, Servable
from stepensemble.storage.payload_pointers import follow_pointers
from stepensemble.storage.record_table import RecordTable

BODY_BYTES = 6 * 1024 * 1024
"""Most bytes of a request: what Lambda passes to a function."""

RESPONSE_BYTES = BODY_BYTES - 8 * 1024
"""Most bytes of a response's body; the rest of what Lambda returns holds the status and the headers."""

MAX_SIGNATURES = 100
"""Most signatures that are cached; with more models their slots describe them again."""

Method = Literal["predict", "classify", "regress"]

T = TypeVar("T")


class ServiceFailure(Exception):
    """A prediction that failed: the error, and the id of its record, if one is stored."""

    def __init__(self, error: EnsembleError, recorded: str | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.recorded = recorded


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """The response of `:predict`, `:classify` or `:regress`; with the prediction id if a record is stored."""

    body: Mapping[str, Any]
    release: str
    prediction_id: str | None


@dataclass(frozen=True, slots=True)
class PredictionService:
    """Predicts, describes and reads records for the routes.

    Attributes:
        records: None if callers may not read them.
        function_prefix: the names of the score functions without the slot.
        new_id: returns a new name for an execution.
        signatures: of models, cached as their slots described them.
    """

    current: CurrentRelease
    records: RecordTable | None
    invoker: Invoker
    function_prefix: str
    new_id: Callable[[], str]
    signatures: dict[tuple[str, str, str | None], ModelSignature] = field(default_factory=dict)

    def predict(self, data: object) -> Output:
        """Run an execution and return its output; predictions too large for a response stay a pointer.

        Raises:
            InvalidPayload: with every bad field.
            ServiceFailure: the execution failed.
        """
        payload = parse_payload(data)
        name = self.new_id()
        if not isinstance(payload.rows, Pointer):
            self._check(payload, payload.prediction_id or name)
        sent = msgspec.to_builtins(data)
        with self._report_failure(payload.prediction_id or name):
            output = self.invoker.run(name, sent)
            followed = follow_pointers(self.invoker.data, output)
        return followed if fits_response(msgspec.json.encode(followed)) else output

    def predict_image(self, body: bytes) -> Output:
        """Predict one image, given as the bytes of its file, with an ensemble whose only feature is an image.

        Raises:
            InvalidPayload: the ensemble has other features.
            ServiceFailure: the execution failed.
        """
        release = self.current.get("", None).release
        match release.features:
            case (ImageFeature(name=name),):
                return self.predict({"features": {name: base64.b64encode(body).decode()}})
        message = "is an image, and the ensemble's features are not one image"
        raise InvalidPayload([Problem("$", message, "send JSON")])

    def read_record(self, prediction_id: str) -> bytes:
        """Return a record as JSON.

        Raises:
            RecordsClosed: callers may not read records.
            RecordNotFound: none is stored under that id.
            ResponseTooLarge: a response cannot hold it.
        """
        if self.records is None:
            raise RecordsClosed(
                "this stack does not return records by HTTP; use ensemble show, or deploy with another HttpRecords"
            )
        if not PREDICTION_ID.fullmatch(prediction_id):
            raise RecordNotFound(f'no record is stored for "{prediction_id}"')
        try:
            record = msgspec.json.encode(self.records.read(prediction_id))
        except RecordNotFound:
            raise RecordNotFound(f'no record is stored for "{prediction_id}"') from None
        return within_a_response(record, "ensemble show reads all of it")

    def health(self) -> dict[str, Any]:
        """Return the ensemble and its current release.

        Raises:
            NothingPublished: there is none.
        """
        pointer = self.current.read_pointer()
        release = self.current.get("", pointer.release).release
        return {"status": "ok", "ensemble": release.name, "release": pointer.release}

    def status(self, name: str, version: int | None, label: str | None) -> dict[str, Any]:
        """Return the status of one version of a servable, or of all its versions.

        Raises:
            ServableNotFound: it is not served, or not in that version.
            LabelUnknown: no version has that label.
        """
        return self._with_fresh_pointer(lambda: self._status(name, version, label))

    def metadata(self, name: str, version: int | None, label: str | None) -> dict[str, Any]:
        """Return the signatures of a servable, by default of the current release.

        Raises: as `status`.
        """
        return self._with_fresh_pointer(lambda: self._metadata(name, version, label))

    def predict_servable(
        self, method: Method, name: str, version: int | None, label: str | None, body: object
    ) -> ServiceResponse:
        """Predict for a request of TensorFlow Serving's protocol.

        The ensemble runs as an execution, which is recorded; a member is invoked by its slot, which records nothing.

        Raises:
            ServableNotFound, LabelUnknown: as `status`.
            InvalidPayload: with every bad field.
            MemberError: the member's failure.
            ServiceFailure: the execution failed.
        """
        return self._with_fresh_pointer(lambda: self._predict_servable(method, name, version, label, body))

    def _with_fresh_pointer(self, work: Callable[[], T]) -> T:
        """Do what depends on the pointer, and repeat it with a fresh pointer where the cached one may be outdated.

        A caller may request a canary that was published a moment ago. And Normalize rejects an execution that names the
        release that was current before.
        """
        try:
            return work()
        except (ServableNotFound, LabelUnknown, ReleaseNotCurrent):
            pass
        except ServiceFailure as failed:
            if not isinstance(failed.error, ReleaseNotCurrent):
                raise
        self.current.forget_pointer()
        return work()

    def _status(self, name: str, version: int | None, label: str | None) -> dict[str, Any]:
        pointer = self.current.read_pointer()
        try:
            requested = servables.find_release(pointer, name, version, label)
        except ServableNotFound:
            raise servables.make_status_not_found_error(name, version) from None
        digests = servables.list_served(pointer) if requested is None else (requested,)
        found = [digest for digest in digests if self._serves(digest, name)]
        if not found:
            raise servables.make_status_not_found_error(name, version)
        return servables.describe_status(found)

    def _metadata(self, name: str, version: int | None, label: str | None) -> dict[str, Any]:
        pointer = self.current.read_pointer()
        requested = servables.find_release(pointer, name, version, label) or pointer.release
        digest, slots, release = self.current.get("", requested)
        servable = self._describe(servables.find_servable(release, name, version), slots)
        return servables.describe_metadata(servable, digest)

    def _describe(self, servable: Servable, slots: Mapping[str, str]) -> Servable:
        """Return a servable with the signature of its model; the member's slot describes it once."""
        member = servable.member
        if member is None:
            return servable
        key = (member.artifact.digest, member.runtime, member.signature)
        if key not in self.signatures:
            if len(self.signatures) >= MAX_SIGNATURES:
                self.signatures.clear()
            self.signatures[key] = self.invoker.describe(
                self.new_id(), self._find_member(servable.release, member, slots)
            )
        return replace(servable, signature=self.signatures[key])

    def _find_member(self, release: Release, member: ReleasedMember, slots: Mapping[str, str]) -> MemberToInvoke:
        return next(one for one in list_members(release, slots, self.function_prefix) if one.id == member.id)

    def _predict_servable(
        self, method: Method, name: str, version: int | None, label: str | None, body: object
    ) -> ServiceResponse:
        requested = servables.find_release(self.current.read_pointer(), name, version, label)
        execution = self.new_id()
        digest, slots, release = self.current.get(execution, requested)
        servable = servables.find_servable(release, name, version)
        if servable.member is not None and "" in servable.member.inputs:  # otherwise the manifest has the names
            servable = self._describe(servable, slots)
        if method == "predict":
            request = requests.parse_predict(body, servable)
        else:
            responses.check_method(release.task, method)
            request = requests.parse_examples(body, servable)
        if servable.member is not None:
            outputs = self._invoke_member(execution, servable, servable.member, slots, request)
            shaped = _shape_member(method, servable, servable.member, request, outputs)
            return ServiceResponse(shaped, digest, None)
        output = self._run_ensemble(execution, digest, release, request)
        return ServiceResponse(_shape_ensemble(method, release, request, output), digest, execution)

    def _serves(self, digest: str, name: str) -> bool:
        release = self.current.get("", digest).release
        return name == release.name or any(member.id == name for member in release.members)

    def _check(self, payload: Payload, prediction_id: str) -> None:
        """Check the rows before an execution starts; only Normalize checks images."""
        release = self.current.get(prediction_id, payload.release).release
        apply_quorum(payload, release.policy, release.members)
        if not _has_images(release) and not isinstance(payload.rows, Pointer):
            normalize(release.features, payload.rows, locate=payload.locate)

    def _run_ensemble(self, name: str, digest: str, release: Release, request: PredictRequest) -> Output:
        if not _has_images(release):
            requests.encode_rows(release.features, request)
        with self._report_failure(name):
            output = self.invoker.run(name, {"instances": request.rows, "release": digest})
            return follow_pointers(self.invoker.data, output)

    @contextmanager
    def _report_failure(self, prediction_id: str) -> Iterator[None]:
        try:
            yield
        except EnsembleError as error:
            recorded = self._is_recorded(error, prediction_id)
            raise ServiceFailure(error, prediction_id if recorded else None) from None

    def _is_recorded(self, error: EnsembleError, prediction_id: str) -> bool:
        """Return whether a failed prediction is recorded; where the execution itself failed, that is looked up."""
        if self.records is not None and isinstance(error, ExecutionFailed | StorageUnavailable):
            with suppress(RecordNotFound, StorageUnavailable):
                self.records.read(prediction_id)
                return True
        return isinstance(error, QuorumNotMet | StillRunning)

    def _invoke_member(
        self, name: str, servable: Servable, member: ReleasedMember, slots: Mapping[str, str], request: PredictRequest
    ) -> list[Any]:
        release = servable.release
        invoked = self._find_member(release, member, slots)
        if request.tensors is not None:
            columns: Columns = request.tensors
            # Each input is its own only column; an input without a name has one in requests only.
            invoked = structs.replace(
                invoked, inputs={own: (shown,) for own, shown in zip(member.inputs, columns, strict=True)}
            )
        else:
            encoded = requests.encode_rows(release.features, request, read_images)
            columns = {name: encoded[name] for names in member.inputs.values() for name in names}
        rows = len(next(iter(columns.values())))
        return self.invoker.score(name, invoked, columns, rows, output_width(release.task, member.output))


def _shape_ensemble(method: Method, release: Release, request: PredictRequest, output: Output) -> dict[str, Any]:
    if isinstance(output.predictions, Pointer):
        raise ResponseTooLarge("the predictions are too large for a response; send fewer rows")
    if method == "predict":
        return responses.shape_response(request.form, responses.list_outputs(release.task, output.predictions))
    if method == "classify":
        return responses.classify_rows(name_classes(release.task), responses.list_probabilities(output.predictions))
    return responses.regress_rows([prediction.value for prediction in output.predictions])


def _shape_member(
    method: Method, servable: Servable, member: ReleasedMember, request: PredictRequest, outputs: list[Any]
) -> dict[str, Any]:
    if method == "predict":
        return responses.shape_response(request.form, responses.list_member_outputs(member, request, outputs))
    task = servable.release.task
    canonical = responses.list_canonical_outputs(task, member, outputs)
    if method == "classify":
        return responses.classify_rows(name_classes(task), canonical)
    return responses.regress_rows([row[1] if row and isinstance(task, BinaryTask) else row for row in canonical])


def _has_images(release: Release) -> bool:
    return any(isinstance(feature, ImageFeature) for feature in release.features)


def fits_response(body: bytes) -> bool:
    """Return whether a response can hold a body, which becomes a JSON string: a quotation mark takes two bytes."""
    return len(body) * 6 <= RESPONSE_BYTES or len(json.dumps(body.decode())) <= RESPONSE_BYTES


def within_a_response(body: bytes, remedy: str) -> bytes:
    """Return the body, if a response can hold it.

    Raises:
        ResponseTooLarge: a response cannot hold it.
    """
    if not fits_response(body):
        raise ResponseTooLarge(f"the response has {len(body):,} bytes, more than the limit; {remedy}")
    return body
