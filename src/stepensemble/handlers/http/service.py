"""The HTTP door: what is done for each of its routes. `api` says which route that is and how errors are answered."""

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
from stepensemble.serving.requests import Question
from stepensemble.serving.servables import ModelSignature, Servable
from stepensemble.storage.payload_pointers import follow_pointers
from stepensemble.storage.record_table import RecordTable

BODY_BYTES = 6 * 1024 * 1024
"""Most bytes of a request: what a Lambda function is sent."""

RESPONSE_BYTES = BODY_BYTES - 8 * 1024
"""Most bytes of a response's body within what the function sends, which holds as many as what it is sent; the rest is
for the status and the headers.
"""

MOST_SIGNATURES = 100
"""With more models than these, their slots are called once more."""

Method = Literal["predict", "classify", "regress"]

T = TypeVar("T")


class ServiceFailure(Exception):
    """A prediction without an answer: why, and under which id it is recorded, if it is."""

    def __init__(self, error: EnsembleError, recorded: str | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.recorded = recorded


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """What `:predict`, `:classify` or `:regress` answers; the prediction id where something is recorded."""

    body: Mapping[str, Any]
    release: str
    prediction_id: str | None


@dataclass(frozen=True, slots=True)
class PredictionService:
    """What the routes work on.

    Attributes:
        records: None where clients may not read them.
        function_prefix: the name of every score function without its slot.
        new_id: makes a name for an execution.
        signatures: of models, as their slots described them.
    """

    current: CurrentRelease
    records: RecordTable | None
    asker: Invoker
    function_prefix: str
    new_id: Callable[[], str]
    signatures: dict[tuple[str, str, str | None], ModelSignature] = field(default_factory=dict)

    def predict(self, data: object) -> Output:
        """Answer the payload of an execution with its output; what is too large for a response stays a pointer.

        Raises:
            InvalidPayload: with every bad field.
            Unanswered: the execution failed.
        """
        payload = parse_payload(data)
        name = self.new_id()
        if not isinstance(payload.rows, Pointer):
            self._check(payload, payload.prediction_id or name)
        sent = msgspec.to_builtins(data)
        with self._under(payload.prediction_id or name):
            output = self.asker.run(name, sent)
            followed = follow_pointers(self.asker.data, output)
        return followed if fits_response(msgspec.json.encode(followed)) else output

    def predict_image(self, body: bytes) -> Output:
        """Answer one picture, given as the bytes of its file, of an ensemble whose only feature is an image.

        Raises:
            InvalidPayload: it has other features.
            Unanswered: the execution failed.
        """
        _, _, release = self.current.get("", None)
        match release.features:
            case (ImageFeature(name=name),):
                return self.predict({"features": {name: base64.b64encode(body).decode()}})
        message = "is a picture, and the ensemble's features are not one image"
        raise InvalidPayload([Problem("$", message, "send JSON")])

    def recall(self, prediction_id: str) -> bytes:
        """Return a record as JSON.

        Raises:
            RecordsClosed: clients of this stack may not read records.
            RecordNotFound: none is kept under that id.
            AnswerTooLarge: it is more than a response holds.
        """
        if self.records is None:
            raise RecordsClosed(
                "records are not read by HTTP here; use ensemble show, or deploy with another HttpRecords"
            )
        if not PREDICTION_ID.fullmatch(prediction_id):
            raise RecordNotFound(f'no record is kept of "{prediction_id}"')
        try:
            record = msgspec.json.encode(self.records.read(prediction_id))
        except RecordNotFound:
            raise RecordNotFound(f'no record is kept of "{prediction_id}"') from None
        return within_a_response(record, "ensemble show reads it whole")

    def health(self) -> dict[str, Any]:
        """Say which release answers.

        Raises:
            NothingPublished: none does.
        """
        pointer = self.current.read_pointer()
        _, _, release = self.current.get("", pointer.release)
        return {"status": "ok", "ensemble": release.name, "release": pointer.release}

    def status(self, name: str, version: int | None, label: str | None) -> dict[str, Any]:
        """Return the status of one version of a servable, or of all.

        Raises:
            ServableNotFound: it is not served, or not in that version.
            LabelUnknown: no version has that label.
        """
        return self._up_to_date(lambda: self._status(name, version, label))

    def metadata(self, name: str, version: int | None, label: str | None) -> dict[str, Any]:
        """Return the signatures of a servable, of the current release if nothing else is asked.

        Raises: as `status`.
        """
        return self._up_to_date(lambda: self._metadata(name, version, label))

    def ask(self, method: Method, name: str, version: int | None, label: str | None, body: object) -> ServiceResponse:
        """Answer a request of TensorFlow Serving's protocol.

        The ensemble is asked by an execution, which is recorded; a member by its slot, which is not.

        Raises:
            ServableNotFound, LabelUnknown: as `status`.
            InvalidPayload: with every bad field.
            MemberError: the member's failure.
            Unanswered: the execution failed.
        """
        return self._up_to_date(lambda: self._answer(method, name, version, label, body))

    def _up_to_date(self, work: Callable[[], T]) -> T:
        """Do what depends on the pointer; once more by a new one where the cached one may have been left behind.

        Who has just published a canary may ask for it; and an execution that is to answer from the release that was
        current a moment ago is refused by Normalize, if that knows better.
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
            wanted = servables.find_release(pointer, name, version, label)
        except ServableNotFound:
            raise servables.status_not_found(name, version) from None
        digests = servables.list_served(pointer) if wanted is None else (wanted,)
        found = [digest for digest in digests if self._serves(digest, name)]
        if not found:
            raise servables.status_not_found(name, version)
        return servables.describe_status(found)

    def _metadata(self, name: str, version: int | None, label: str | None) -> dict[str, Any]:
        pointer = self.current.read_pointer()
        wanted = servables.find_release(pointer, name, version, label) or pointer.release
        digest, slots, release = self.current.get("", wanted)
        servable = self._describe(servables.find_servable(release, name, version), slots)
        return servables.describe_metadata(servable, digest)

    def _describe(self, servable: Servable, slots: Mapping[str, str]) -> Servable:
        """Return a servable with the signature of its model, which the member's slot describes once."""
        member = servable.member
        if member is None:
            return servable
        key = (member.artifact.digest, member.runtime, member.signature)
        if key not in self.signatures:
            if len(self.signatures) >= MOST_SIGNATURES:
                self.signatures.clear()
            self.signatures[key] = self.asker.describe(
                self.new_id(), self._find_member(servable.release, member, slots)
            )
        return replace(servable, signature=self.signatures[key])

    def _find_member(self, release: Release, member: ReleasedMember, slots: Mapping[str, str]) -> MemberToInvoke:
        return next(one for one in list_members(release, slots, self.function_prefix) if one.id == member.id)

    def _answer(
        self, method: Method, name: str, version: int | None, label: str | None, body: object
    ) -> ServiceResponse:
        wanted = servables.find_release(self.current.read_pointer(), name, version, label)
        execution = self.new_id()
        digest, slots, release = self.current.get(execution, wanted)
        servable = servables.find_servable(release, name, version)
        if servable.member is not None and "" in servable.member.inputs:  # of others the manifest has the names
            servable = self._describe(servable, slots)
        if method == "predict":
            question = requests.parse_predict(body, servable)
        else:
            responses.refuse_method(release.task, method)
            question = requests.parse_examples(body, servable)
        if servable.member is not None:
            outputs = self._ask_member(execution, servable, servable.member, slots, question)
            shaped = _shape_member(method, servable, servable.member, question, outputs)
            return ServiceResponse(shaped, digest, None)
        output = self._ask_ensemble(execution, digest, release, question)
        return ServiceResponse(_shape_ensemble(method, release, question, output), digest, execution)

    def _serves(self, digest: str, name: str) -> bool:
        _, _, release = self.current.get("", digest)
        return name == release.name or any(member.id == name for member in release.members)

    def _check(self, payload: Payload, prediction_id: str) -> None:
        """Find what is wrong with the rows before anything is started; pictures are looked at by Normalize only."""
        _, _, release = self.current.get(prediction_id, payload.release)
        apply_quorum(payload, release.policy, release.members)
        if not _has_images(release) and not isinstance(payload.rows, Pointer):
            normalize(release.features, payload.rows, locate=payload.locate)

    def _ask_ensemble(self, name: str, digest: str, release: Release, question: Question) -> Output:
        if not _has_images(release):
            requests.encode_rows(release.features, question)
        with self._under(name):
            output = self.asker.run(name, {"instances": question.rows, "release": digest})
            return follow_pointers(self.asker.data, output)

    @contextmanager
    def _under(self, prediction_id: str) -> Iterator[None]:
        try:
            yield
        except EnsembleError as error:
            recorded = self._is_recorded(error, prediction_id)
            raise ServiceFailure(error, prediction_id if recorded else None) from None

    def _is_recorded(self, error: EnsembleError, prediction_id: str) -> bool:
        """Say whether a prediction that failed is recorded; one whose execution died may be, so that is looked up."""
        if self.records is not None and isinstance(error, ExecutionFailed | StorageUnavailable):
            with suppress(RecordNotFound, StorageUnavailable):
                self.records.read(prediction_id)
                return True
        return isinstance(error, QuorumNotMet | StillRunning)

    def _ask_member(
        self, name: str, servable: Servable, member: ReleasedMember, slots: Mapping[str, str], question: Question
    ) -> list[Any]:
        release = servable.release
        asked = self._find_member(release, member, slots)
        if question.tensors is not None:
            columns: Columns = question.tensors
            # Each input is its own only column; one without a name goes by a name in requests only.
            asked = structs.replace(
                asked, inputs={own: (shown,) for own, shown in zip(member.inputs, columns, strict=True)}
            )
        else:
            encoded = requests.encode_rows(release.features, question, read_images)
            columns = {name: encoded[name] for names in member.inputs.values() for name in names}
        rows = len(next(iter(columns.values())))
        return self.asker.score(name, asked, columns, rows, output_width(release.task, member.output))


def _shape_ensemble(method: Method, release: Release, question: Question, output: Output) -> dict[str, Any]:
    if isinstance(output.predictions, Pointer):
        raise ResponseTooLarge("the predictions are too large for a response; ask for fewer rows")
    if method == "predict":
        return responses.shape_outputs(question.form, responses.list_outputs(release.task, output.predictions))
    if method == "classify":
        return responses.classify_rows(name_classes(release.task), responses.list_probabilities(output.predictions))
    return responses.regress_rows([prediction.value for prediction in output.predictions])


def _shape_member(
    method: Method, servable: Servable, member: ReleasedMember, question: Question, outputs: list[Any]
) -> dict[str, Any]:
    if method == "predict":
        return responses.shape_outputs(question.form, responses.list_member_outputs(member, question, outputs))
    task = servable.release.task
    meant = responses.list_meanings(task, member, outputs)
    if method == "classify":
        return responses.classify_rows(name_classes(task), meant)
    return responses.regress_rows([row[1] if row and isinstance(task, BinaryTask) else row for row in meant])


def _has_images(release: Release) -> bool:
    return any(isinstance(feature, ImageFeature) for feature in release.features)


def fits_response(body: bytes) -> bool:
    """Say whether a response holds a body, which is a JSON string there: in it a quotation mark takes two bytes."""
    return len(body) * 6 <= RESPONSE_BYTES or len(json.dumps(body.decode())) <= RESPONSE_BYTES


def within_a_response(body: bytes, remedy: str) -> bytes:
    """Return a body that a response holds.

    Raises:
        AnswerTooLarge: it does not.
    """
    if not fits_response(body):
        raise ResponseTooLarge(f"the answer has {len(body):,} bytes, more than a response holds; {remedy}")
    return body
