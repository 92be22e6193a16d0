"""Everything that can go wrong, as one tree.

The class names are contract: a Lambda's `errorType` is the class name, and that is what a state machine's
`ErrorEquals` matches and what an execution's `error` says.

    EnsembleError
    ├── InvalidManifest          the manifest has problems; all of them are listed
    ├── InvalidPayload           the payload has problems; all of them are listed
    ├── QuorumNotMet             too few members answered
    ├── PredictionConflict       the prediction id is taken by another input
    ├── RecordNotFound           no record under that prediction id
    ├── ReleaseError
    │   ├── NothingPublished     the stack has no current release
    │   ├── ReleaseNotCurrent    the payload asks for a release that is not the current one
    │   ├── ReleaseCorrupt       a release's bytes are not what its name says
    │   ├── NotEnoughSlots       more members than slots
    │   └── PublishConflict      somebody else published meanwhile
    ├── MemberError              one member's failure; the others' answers stand
    │   ├── ArtifactMissing      the artifact is not in the store
    │   ├── ArtifactCorrupt      the artifact's bytes are not what its digest says
    │   ├── ModelRefused         the runtime cannot load the artifact
    │   ├── InputMismatch        the model does not take the columns it is given
    │   └── InvalidOutput        the model's output is not what the manifest declares
    ├── ObjectMissing            an object is not in S3, or may not be read
    ├── StorageUnavailable       S3 or DynamoDB failed in a way worth a retry
    ├── StackNotFound            no such deployed or local stack
    └── LocalStackError          the local stack cannot start or go on (see `stepensemble.local`)
"""

from __future__ import annotations

from collections.abc import Sequence

from stepensemble.core.problems import Problem, list_problems


class EnsembleError(Exception):
    """Root of the tree. The message is written for a person and says what to do."""


class _WithProblems(EnsembleError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(list_problems(self.problems))


class InvalidManifest(_WithProblems):
    """The manifest has problems; `problems` holds all of them."""


class InvalidPayload(_WithProblems):
    """The payload has problems; `problems` holds all of them."""


class QuorumNotMet(EnsembleError):
    """Too few members answered for the answer to count."""


class PredictionConflict(EnsembleError):
    """The prediction id already names a prediction of another input."""


class RecordNotFound(EnsembleError):
    """No record is kept under that prediction id."""


class ReleaseError(EnsembleError):
    """Something about the published release."""


class NothingPublished(ReleaseError):
    """The stack has no current release."""


class ReleaseNotCurrent(ReleaseError):
    """The payload asks for a release that is not the current one."""


class ReleaseCorrupt(ReleaseError):
    """A release's bytes are not what its name says."""


class NotEnoughSlots(ReleaseError):
    """The manifest has more members than the stack has slots."""


class PublishConflict(ReleaseError):
    """Somebody else moved the pointer between reading and writing it."""


class MemberError(EnsembleError):
    """One member's failure. It becomes that member's result and never stops the others."""


class ArtifactMissing(MemberError):
    """The artifact is not in the store."""


class ArtifactCorrupt(MemberError):
    """The artifact's bytes do not have the digest the release names."""


class ModelRefused(MemberError):
    """The runtime cannot load the artifact."""


class InputMismatch(MemberError):
    """The model does not take the columns it is given."""


class InvalidOutput(MemberError):
    """The model's output is not what the manifest declares."""


class ObjectMissing(EnsembleError):
    """No object under that key, or none this role may read: without `s3:ListBucket` S3 does not tell the two apart."""


class StorageUnavailable(EnsembleError):
    """S3 or DynamoDB failed in a way worth a retry; the state machines retry exactly this name."""


class StackNotFound(EnsembleError):
    """No such deployed or local stack."""


class LocalStackError(EnsembleError):
    """The local stack cannot start or go on."""
