"""Every error, as one tree.

The class names are a contract: a Lambda's `errorType` is the class name, a state machine's `ErrorEquals` matches it,
and the `error` of a failed execution is it.

    EnsembleError
    ├── InvalidManifest          the manifest has problems; all of them are listed
    ├── InvalidPayload           the payload has problems; all of them are listed
    │   └── PayloadTooLarge      it exceeds what an execution carries, even without its rows
    ├── QuorumNotMet             too few members responded
    ├── PredictionConflict       the prediction id belongs to another input
    ├── RecordNotFound           no record has that prediction id
    ├── RecordsClosed            this endpoint does not return records
    ├── RecordUnreadable         another version wrote the record
    ├── TierMismatch             the invoked tiers are not those that the decision needs
    ├── ReplayRefused            a replay does not fit the records; all problems are listed
    ├── ReleaseError
    │   ├── NothingPublished     the stack has no current release
    │   ├── ReleaseNotCurrent    the requested release is not the current one
    │   ├── ReleaseCorrupt       a release's bytes do not match its digest
    │   ├── ReleaseNotFound      no release has that name, or several have
    │   ├── FingerprintMissing   a release has no fingerprint to verify against
    │   ├── VerificationFailed   golden rows are predicted differently than at the gate
    │   ├── CanaryConflict       a canary must end first, or cannot start
    │   ├── NoCanary             there is no canary to end
    │   ├── ServableNotFound     no ensemble, member or version of that name is served
    │   ├── LabelUnknown         no version has that label
    │   ├── NotEnoughSlots       a release needs more slots than are free
    │   └── PublishConflict      another publisher moved the pointer meanwhile
    ├── MemberError              one member failed; the others still count
    │   ├── ArtifactMissing      the artifact is not stored
    │   ├── ArtifactCorrupt      the artifact's bytes do not match its digest
    │   ├── ModelRefused         the runtime cannot load the artifact
    │   ├── InputMismatch        the model does not take the given columns
    │   └── InvalidOutput        the model's output is not what the manifest declares
    ├── ModelFileError           a model file is refused
    │   ├── FormatUnknown        not a supported model format
    │   ├── FileDamaged          truncated or corrupted
    │   ├── FileUnsafe           could run code, write elsewhere, or fill memory or disk
    │   └── ConversionFailed     TensorFlow cannot read or convert it
    ├── AdditionRefused          a model cannot become a member; all problems are listed
    ├── TensorFlowMissing        TensorFlow is needed and not installed
    ├── DatasetError             a batch cannot read its dataset
    │   ├── DatasetMissing       no dataset under that key or for that day
    │   ├── DatasetRefused       it cannot be predicted as it is; all problems are listed
    │   ├── DatasetChanged       it changed while it was read
    │   └── ShardUnreadable      a part of it is damaged, or has another format
    ├── BatchFailed              a run exceeded its tolerances, or its counts disagree
    ├── InboxObjectRefused       an object in the inbox is not a payload or dataset
    ├── RunTakenOver             another execution works on the run now
    ├── InternalError            an unexpected fault in this software
    ├── ExecutionFailed          an execution, or one invocation, ended unexpectedly
    ├── StillRunning             an execution takes longer than the caller may wait
    ├── Throttled                AWS accepts no more requests at the moment
    ├── ResponseTooLarge         a response exceeds its limit
    ├── ObjectMissing            an object is not in S3, or may not be read
    ├── StorageUnavailable       S3 or DynamoDB failed; a retry may succeed
    ├── StorageFull              the disk of the local stack is full; a retry does not help
    ├── StackNotFound            no such deployed or local stack
    ├── StackOutdated            a stack lacks an output that this version reads
    └── LocalStackError          the local stack cannot start or continue (see `stepensemble.local`)
"""

from __future__ import annotations

from collections.abc import Sequence

from stepensemble.core.problems import Problem, list_problems


class EnsembleError(Exception):
    """Root of the tree. The message is written for a person and names the remedy."""


class _WithProblems(EnsembleError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(list_problems(self.problems))


class InvalidManifest(_WithProblems):
    """The manifest has problems; `problems` holds all of them."""


class InvalidPayload(_WithProblems):
    """The payload has problems; `problems` holds all of them."""


class PayloadTooLarge(InvalidPayload):
    """The payload exceeds what an execution carries, even with its rows in S3."""


class QuorumNotMet(EnsembleError):
    """Too few members responded for a prediction to count."""


class PredictionConflict(EnsembleError):
    """The prediction id already names a prediction of another input."""


class RecordNotFound(EnsembleError):
    """No record is stored under that prediction id."""


class RecordsClosed(EnsembleError):
    """The HTTP API does not return records; the parameter `HttpRecords` decides."""


class RecordUnreadable(EnsembleError):
    """A version with another record format wrote the record."""


class TierMismatch(EnsembleError):
    """The invoked tiers, or their numbers of rows, are not those that the decision needs."""


class ReplayRefused(_WithProblems):
    """The policy to replay does not fit the records; `problems` holds why."""


class ReleaseError(EnsembleError):
    """A fault of a published release."""


class NothingPublished(ReleaseError):
    """The stack has no current release."""


class ReleaseNotCurrent(ReleaseError):
    """The payload names a release that is neither the current one nor the canary."""


class ReleaseCorrupt(ReleaseError):
    """A release's bytes do not match its digest."""


class ReleaseNotFound(ReleaseError):
    """No release has that name, or several names begin with it."""


class FingerprintMissing(ReleaseError):
    """No usable fingerprint of the release is stored, so there is nothing to verify against."""


class VerificationFailed(ReleaseError):
    """A stack predicts the golden rows differently than the fingerprint of the release records."""


class CanaryConflict(ReleaseError):
    """Another canary must end first, or the release is already the current one."""


class NoCanary(ReleaseError):
    """There is no canary."""


class ServableNotFound(ReleaseError):
    """No ensemble, member or version of that name is served."""


class LabelUnknown(ReleaseError):
    """No version has that label: `stable` always exists, `canary` while there is a canary."""


class NotEnoughSlots(ReleaseError):
    """A release needs more slots than the stack has free."""


class PublishConflict(ReleaseError):
    """Another publisher moved the pointer between reading and writing it."""


class MemberError(EnsembleError):
    """One member's failure. It becomes that member's result and never stops the others."""


class ArtifactMissing(MemberError):
    """The artifact is not stored."""


class ArtifactCorrupt(MemberError):
    """The artifact's bytes do not have the digest that the release names."""


class ModelRefused(MemberError):
    """The runtime cannot load the artifact."""


class InputMismatch(MemberError):
    """The model does not take the columns that it is given."""


class InvalidOutput(MemberError):
    """The model's output is not what the manifest declares."""


class ModelFileError(EnsembleError):
    """A model file is refused; nothing was written."""


class FormatUnknown(ModelFileError):
    """The file has no supported model format, or holds more than one model."""


class FileDamaged(ModelFileError):
    """The file is truncated or corrupted."""


class FileUnsafe(ModelFileError):
    """The file could run code, write elsewhere, or fill memory or disk."""


class ConversionFailed(ModelFileError):
    """TensorFlow cannot read the file, or cannot convert it to an artifact."""


class AdditionRefused(_WithProblems):
    """A model cannot become a member with these options; `problems` holds why."""


class TensorFlowMissing(EnsembleError):
    """The operation needs TensorFlow, which is not installed."""


class DatasetError(EnsembleError):
    """A batch cannot read its dataset."""


class DatasetMissing(DatasetError):
    """No dataset is stored under that key, or for that day."""


class DatasetRefused(_WithProblems, DatasetError):
    """The dataset cannot be predicted as it is; `problems` holds why."""


class DatasetChanged(DatasetError):
    """A file changed, or was deleted, after the run was planned."""


class ShardUnreadable(DatasetError):
    """A part of a dataset is damaged, or does not have the format of its name."""


class BatchFailed(EnsembleError):
    """A run exceeded what its options tolerate, or its counts of rows disagree; started again, it resumes."""


class InboxObjectRefused(EnsembleError):
    """An object in the inbox is no payload, image or dataset: unknown, empty, too large, or damaged."""


class RunTakenOver(EnsembleError):
    """Another execution has claimed the run since, so this one stops."""


class InternalError(EnsembleError):
    """An unexpected fault in this software; the message names its type and place, and quotes no value."""


class ExecutionFailed(EnsembleError):
    """An execution, or the invocation of one member, ended unexpectedly; its log has the reason."""


class StillRunning(EnsembleError):
    """An execution takes longer than the caller may wait; its prediction will be recorded."""


class Throttled(EnsembleError):
    """AWS accepts no more requests at the moment; a later one may succeed."""


class ResponseTooLarge(EnsembleError):
    """A response exceeds what API Gateway or Lambda returns."""


class ObjectMissing(EnsembleError):
    """No object under that key, or none this role may read: without `s3:ListBucket` S3 does not distinguish them."""


class StorageUnavailable(EnsembleError):
    """S3 or DynamoDB failed in a way worth a retry; the state machines retry exactly this name."""


class StorageFull(EnsembleError):
    """DynamoDB takes no writes and a retry would not help, such as on a local stack whose disk is full."""


class StackNotFound(EnsembleError):
    """No such deployed or local stack."""


class StackOutdated(EnsembleError):
    """A stack lacks an output that this version reads: an earlier version deployed it, or another project."""


class LocalStackError(EnsembleError):
    """The local stack cannot start or continue."""
