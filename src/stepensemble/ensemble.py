"""The ensemble in process: the same core and runtimes as the functions, without any stack."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import structs

from stepensemble.core.aggregation.decision import Numbers
from stepensemble.core.answer import Answer, MemberFailure, MemberResult, Results, decide
from stepensemble.core.columns import Columns, bind_columns, select_rows
from stepensemble.core.errors import InvalidPayload, MemberError, QuorumNotMet, ReleaseNotCurrent
from stepensemble.core.features import normalize
from stepensemble.core.outputs import check_output
from stepensemble.core.payload import Pointer, apply_quorum, parse_payload
from stepensemble.core.problems import Problem
from stepensemble.core.releases.release import SHORT, Release, ReleasedMember
from stepensemble.imaging import read_images
from stepensemble.publishing.sources import read_sources
from stepensemble.runtimes import Model, load_model


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A release with its models in memory.

        >>> ensemble = Ensemble.load("models/manifest.json")
        >>> ensemble.predict({"features": {...}})["predictions"]

    Attributes:
        digest: the release's name, the same as on a stack it is published to.
        models: member id to its model, or to why it could not be loaded.
    """

    release: Release
    digest: str
    models: Mapping[str, Model | MemberFailure]

    @classmethod
    def load(cls, manifest: str | Path) -> Ensemble:
        """Read a manifest and load every member.

        A member that cannot be loaded fails at each prediction, as it would on a stack.

        Raises:
            InvalidManifest: with every problem of the manifest and of the files it names.
        """
        sources = read_sources(Path(manifest))
        return cls.from_release(sources.release, sources.digest, sources.artifacts)

    @classmethod
    def from_release(cls, release: Release, digest: str, artifacts: Mapping[str, bytes]) -> Ensemble:
        """Load every member of a release.

        Args:
            release: as it was compiled, or read from a stack.
            digest: its name.
            artifacts: member id to the model file's content.
        """
        models: dict[str, Model | MemberFailure] = {}
        for member in release.members:
            try:
                models[member.id] = load_model(member.runtime, artifacts[member.id], member.signature)
            except MemberError as error:
                models[member.id] = _failure(error)
        return cls(release, digest, models)

    def predict(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a payload with what an execution of the published release would output, always inline.

        Args:
            payload: `{"features": {…}}` or `{"instances": [{…}, …]}`, with `prediction_id`, `metadata` and `quorum` if
                wanted.

        Raises:
            InvalidPayload: with every bad field of every row, or of the quorum.
            QuorumNotMet: too few members answered.
        """
        asked = parse_payload(payload)
        if isinstance(asked.rows, Pointer):
            problem = Problem("$.instances.s3", "there is no S3 in process", "give the rows themselves")
            raise InvalidPayload([problem])
        if asked.release is not None and not self.digest.startswith(asked.release):
            raise ReleaseNotCurrent(f"release {asked.release[:SHORT]} is not the loaded one, {self.digest[:SHORT]} is")
        policy = apply_quorum(asked, self.release.policy, self.release.members)
        columns = normalize(self.release.features, asked.rows, locate=asked.locate, images=read_images)

        def ask(tier: int, numbers: Numbers) -> Results:
            reaching = select_rows(columns, numbers)
            return {member.id: self._ask(member, reaching, len(numbers)) for member in self.release.in_tier(tier)}

        # Every tier answers as soon as it is asked, so nothing is left undecided.
        answer = cast("Answer", decide(self.release, policy, len(asked.rows), ask))
        if answer.cause is not None:
            raise QuorumNotMet(answer.cause)
        output = answer.to_output(asked.prediction_id or str(uuid.uuid4()), self.digest)
        # As JSON would carry it, where a tuple is a list; of the predictions, which have none, without the detour.
        document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(structs.replace(output, predictions=[])))
        return document | {"predictions": msgspec.to_builtins(output.predictions)}

    def _ask(self, member: ReleasedMember, columns: Columns, rows: int) -> MemberResult:
        model = self.models[member.id]
        if isinstance(model, MemberFailure):
            return MemberResult(member.id, failure=model)
        started = time.perf_counter()
        try:
            outputs = check_output(model.predict(bind_columns(columns, member.inputs), member.output.name), rows)
        except MemberError as error:
            return MemberResult(member.id, failure=_failure(error))
        duration_ms = round((time.perf_counter() - started) * 1000, 3)
        return MemberResult(member.id, outputs, duration_ms, cold=False)


def _failure(error: MemberError) -> MemberFailure:
    return MemberFailure(type(error).__name__, str(error))
