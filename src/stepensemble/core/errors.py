"""Everything that can go wrong, as one tree.

The class names are contract: a Lambda's `errorType` is the class name, and that is what a state machine's
`ErrorEquals` matches and what an execution's `error` says.

    EnsembleError
    ├── InvalidManifest          the manifest has problems; all of them are listed
    ├── InvalidPayload           the payload has problems; all of them are listed
    │   └── PayloadTooLarge      it is more than an execution carries, even without its rows
    ├── QuorumNotMet             too few members answered
    ├── PredictionConflict       the prediction id is taken by another input
    ├── RecordNotFound           no record under that prediction id
    ├── RecordsClosed            what is recorded is not read by this way
    ├── RecordUnreadable         a record was written by another version
    ├── TierMismatch             the tiers that were asked are not those that an answer needs
    ├── ReplayRefused            what a replay shall try does not fit what is recorded; all problems are listed
    ├── ReleaseError
    │   ├── NothingPublished     the stack has no current release
    │   ├── ReleaseNotCurrent    the payload asks for a release that is not the current one
    │   ├── ReleaseCorrupt       a release's bytes are not what its name says
    │   ├── ReleaseNotFound      no release of that name, or several
    │   ├── FingerprintMissing   a release has nothing it could be verified by
    │   ├── VerificationFailed   a stack answers the golden rows otherwise than its release did at the gate
    │   ├── CanaryConflict       a canary must be ended first, or cannot begin
    │   ├── NoCanary             there is no canary to end
    │   ├── ServableNotFound     no ensemble, member or version of that name is served
    │   ├── LabelUnknown         no version has that label
    │   ├── NotEnoughSlots       more members than slots
    │   └── PublishConflict      somebody else published meanwhile
    ├── MemberError              one member's failure; the others' answers stand
    │   ├── ArtifactMissing      the artifact is not in the store
    │   ├── ArtifactCorrupt      the artifact's bytes are not what its digest says
    │   ├── ModelRefused         the runtime cannot load the artifact
    │   ├── InputMismatch        the model does not take the columns it is given
    │   └── InvalidOutput        the model's output is not what the manifest declares
    ├── ModelFileError           a model's file is not taken
    │   ├── FormatUnknown        not a file that a model is read from
    │   ├── FileDamaged          truncated, or bits are flipped
    │   ├── FileUnsafe           could run code, write elsewhere, or fill memory or disk
    │   └── ConversionFailed     TensorFlow cannot read or convert it
    ├── AdditionRefused          a model cannot become a member as it is asked for; all problems are listed
    ├── TensorFlowMissing        what is asked for needs TensorFlow, which is not installed
    ├── DatasetError             a batch cannot read its dataset
    │   ├── DatasetMissing       there is none where it is looked for
    │   ├── DatasetRefused       it cannot be run as it is; all problems are listed
    │   ├── DatasetChanged       it was changed while it was read
    │   └── ShardUnreadable      a part of it is damaged, or not what its name says
    ├── BatchFailed              a run went beyond its tolerances, or its rows do not add up
    ├── ArrivalRefused           an object in the inbox is nothing that can be asked
    ├── RunTakenOver             another execution works on the run by now
    ├── InternalError            a fault in this software that was not foreseen
    ├── ExecutionFailed          an execution, or one member's call, ended as nobody expects
    ├── StillRunning             an execution takes longer than who asked may wait
    ├── Throttled                AWS takes no more requests at the moment
    ├── AnswerTooLarge           an answer is more than a response holds
    ├── ObjectMissing            an object is not in S3, or may not be read
    ├── StorageUnavailable       S3 or DynamoDB failed in a way worth a retry
    ├── StorageFull              the disk under the local stack has no room; a retry does not help
    ├── StackNotFound            no such deployed or local stack
    ├── StackOutdated            a stack lacks an output that this version reads
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


class PayloadTooLarge(InvalidPayload):
    """The payload is more than an execution carries, even with its rows in S3."""


class QuorumNotMet(EnsembleError):
    """Too few members answered for the answer to count."""


class PredictionConflict(EnsembleError):
    """The prediction id already names a prediction of another input."""


class RecordNotFound(EnsembleError):
    """No record is kept under that prediction id."""


class RecordsClosed(EnsembleError):
    """A stack's HTTP API does not answer what is recorded; its parameter `HttpRecords` decides."""


class ReplayRefused(_WithProblems):
    """What a replay shall try does not fit what is recorded; `problems` holds why."""


class RecordUnreadable(EnsembleError):
    """A record was written by a version that kept other things."""


class TierMismatch(EnsembleError):
    """The tiers that were asked, and of how many rows, are not those that the answer needs."""


class ReleaseError(EnsembleError):
    """Something about the published release."""


class NothingPublished(ReleaseError):
    """The stack has no current release."""


class ReleaseNotCurrent(ReleaseError):
    """The payload asks for a release that is not the current one."""


class ReleaseCorrupt(ReleaseError):
    """A release's bytes are not what its name says."""


class ReleaseNotFound(ReleaseError):
    """No release has that name, or several begin so."""


class FingerprintMissing(ReleaseError):
    """No sound fingerprint is kept of a release, so nothing tells what it should answer."""


class VerificationFailed(ReleaseError):
    """A stack does not answer the golden rows as the release's fingerprint says."""


class CanaryConflict(ReleaseError):
    """A canary is under way and must be ended first, or what shall be one is the current release."""


class NoCanary(ReleaseError):
    """There is no canary."""


class ServableNotFound(ReleaseError):
    """What is asked of is not served: neither the ensemble nor a member of it, or not in that version."""


class LabelUnknown(ReleaseError):
    """No version has that label: there are stable and, while there is a canary, canary."""


class NotEnoughSlots(ReleaseError):
    """A release needs more slots than the stack has free."""


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


class ModelFileError(EnsembleError):
    """A model's file is not taken; nothing has been made of it."""


class FormatUnknown(ModelFileError):
    """The file is not one that a model is read from, or holds more than one model."""


class FileDamaged(ModelFileError):
    """The file is truncated, or bits of it are flipped."""


class FileUnsafe(ModelFileError):
    """The file could run code, write elsewhere, or fill memory or disk."""


class ConversionFailed(ModelFileError):
    """TensorFlow cannot read the file, or cannot make of it what is served."""


class AdditionRefused(_WithProblems):
    """A model cannot become a member as it is asked for; `problems` holds why."""


class TensorFlowMissing(EnsembleError):
    """What is asked for needs TensorFlow, which is not installed."""


class DatasetError(EnsembleError):
    """A batch cannot read its dataset."""


class DatasetMissing(DatasetError):
    """There is no dataset where it is looked for."""


class DatasetRefused(_WithProblems, DatasetError):
    """A dataset cannot be run as it is; `problems` holds why."""


class DatasetChanged(DatasetError):
    """A file is of another version than when the dataset was planned, or is gone."""


class ShardUnreadable(DatasetError):
    """A part of a dataset is damaged, or not what its name says."""


class BatchFailed(EnsembleError):
    """A run of the batch went beyond what its options tolerate, or its rows do not add up; started again it resumes."""


class ArrivalRefused(EnsembleError):
    """An object in the inbox is nothing that can be asked: of an unknown kind, empty, too large, or damaged."""


class RunTakenOver(EnsembleError):
    """Another execution claimed the run since, so this one leaves it alone."""


class InternalError(EnsembleError):
    """A fault in this software that was not foreseen; the message names its type and place, and quotes no value."""


class ExecutionFailed(EnsembleError):
    """An execution, or the call of one member, ended in a way that nobody expects; its log says why."""


class StillRunning(EnsembleError):
    """An execution takes longer than who asked may wait; what it answers is recorded."""


class Throttled(EnsembleError):
    """AWS takes no more requests at the moment; a later one may succeed."""


class AnswerTooLarge(EnsembleError):
    """An answer is more than a response holds."""


class ObjectMissing(EnsembleError):
    """No object under that key, or none this role may read: without `s3:ListBucket` S3 does not tell the two apart."""


class StorageUnavailable(EnsembleError):
    """S3 or DynamoDB failed in a way worth a retry; the state machines retry exactly this name."""


class StorageFull(EnsembleError):
    """DynamoDB's place takes no writes, and a retry would not help: the disk of a local stack is full, say."""


class StackNotFound(EnsembleError):
    """No such deployed or local stack."""


class StackOutdated(EnsembleError):
    """A stack lacks an output that this version reads: it was deployed by an earlier one, or is another project's."""


class LocalStackError(EnsembleError):
    """The local stack cannot start or go on."""
