"""The stack that a command uses: one deployed in AWS, a running local one, or a local one started for this command.

All three are used by the same code: CloudFormation's outputs name the parts; only endpoint and credentials differ.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepensemble.cli.terminal import print_warning
from stepensemble.core.errors import LocalStackError, StackNotFound, StackOutdated
from stepensemble.core.releases.release import Slots, name_add_on
from stepensemble.storage.objects import Bucket, open_bucket
from stepensemble.storage.releases import ReleaseStore

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_stepfunctions import SFNClient

    from stepensemble.core.releases.release import ReleasePointer
    from stepensemble.publishing.manifest_loader import Sources
    from stepensemble.storage.record_table import RecordTable
    from stepensemble.storage.review_log import ReviewLog

LOCAL_REGION = "us-east-1"


@dataclass(frozen=True)
class Stack:
    """A stack, deployed or local.

    Attributes:
        name: the stack's name in CloudFormation.
        outputs: the template's outputs, by name.
        session: the session of boto3 whose credentials and region are used.
        endpoint: the address of its services; None for AWS itself.
        local: whether it is this project's local stack, to which commands publish the manifest when it changes.

    A part raises `StackOutdated` if the output that names it is missing.
    """

    name: str
    outputs: Mapping[str, str]
    session: Session
    endpoint: str | None
    local: bool

    @cached_property
    def slots(self) -> Slots:
        """Its slots by runtime; those for TensorFlow are another stack's, if that is deployed."""
        add_on = _read_outputs(name_add_on(self.name), self.session, self.endpoint) or {}
        by_runtime = {"litert": self.outputs, "tensorflow": add_on}
        return {
            runtime: outputs["SlotNames"].split(",")
            for runtime, outputs in by_runtime.items()
            if "SlotNames" in outputs
        }

    @property
    def state_machine(self) -> str:
        """ARN of the durable state machine."""
        return self._output("StateMachineArn")

    @property
    def batch_machine(self) -> str:
        """ARN of the state machine of the batch."""
        return self._output("BatchStateMachineArn")

    @property
    def inbox_machine(self) -> str:
        """ARN of the state machine of the inbox."""
        return self._output("InboxStateMachineArn")

    @cached_property
    def step_functions(self) -> SFNClient:
        """A client of Step Functions."""
        from botocore.config import Config

        # For a synchronous execution boto3 puts "sync-" before the host, which only AWS's own hosts have.
        config = Config(inject_host_prefix=self.endpoint is None)
        return self.session.client("stepfunctions", endpoint_url=self.endpoint, config=config)

    @cached_property
    def scheduler(self) -> EventBridgeSchedulerClient:
        """A client of EventBridge Scheduler."""
        return self.session.client("scheduler", endpoint_url=self.endpoint)

    @property
    def schedule(self) -> str:
        """Name of the batch's schedule, as GROUP/NAME unless its group is the default one."""
        return self._output("BatchScheduleName")

    @property
    def warmup_schedule(self) -> str:
        """Name of the warm-up's schedule, in the same form."""
        return self._output("WarmupScheduleName")

    @cached_property
    def releases(self) -> ReleaseStore:
        """The releases in the artifact bucket."""
        return ReleaseStore(self._open(self._output("ArtifactBucketName")))

    @cached_property
    def data(self) -> Bucket:
        """The data bucket."""
        return self._open(self._output("DataBucketName"))

    @cached_property
    def records(self) -> RecordTable:
        """The records of predictions."""
        from stepensemble.storage.record_table import RecordTable

        client = self.session.client("dynamodb", endpoint_url=self.endpoint)
        return RecordTable(client, self._output("RecordsTableName"), self.data)

    @cached_property
    def reviews(self) -> ReviewLog:
        """The predictions that need a review."""
        from stepensemble.storage.review_log import ReviewLog

        client = self.session.client("logs", endpoint_url=self.endpoint)
        return ReviewLog(client, self._output("ReviewLogGroupName"))

    def _output(self, name: str) -> str:
        if name not in self.outputs:
            raise StackOutdated(
                f'the stack "{self.name}" has no output "{name}": an earlier version deployed it, or it is another '
                "project's; deploy it again, or name another stack with --stack"
            )
        return self.outputs[name]

    def _open(self, bucket: str) -> Bucket:
        config: dict[str, Any] = {"region": self.session.region_name}
        if self.endpoint is not None:
            config["endpoint"] = self.endpoint
        from obstore.auth.boto3 import Boto3CredentialProvider

        return open_bucket(bucket, credential_provider=Boto3CredentialProvider(self.session), **config)


def find_project(start: Path) -> Path:
    """Return the nearest folder with the template: the one given or one above it.

    Raises:
        StackNotFound: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "template.yaml").is_file() and (folder / "statemachine").is_dir():
            return folder
    raise StackNotFound(
        f"no template.yaml with its statemachine/ in {start} or above; go to a project's folder, or name a deployed "
        "stack with --stack"
    )


def state_folder(project: Path) -> Path:
    """Return the folder with the state of a project's local stack."""
    return project / ".stepensemble"


def ignore_aws_profile() -> None:
    """Remove AWS profiles from the environment: a local stack does not need one, and it may not exist here."""
    for variable in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        os.environ.pop(variable, None)


@contextmanager
def open_stack(
    name: str | None, *, notify: Callable[[str], None], fresh: bool = False, read_only: bool = False
) -> Iterator[Stack]:
    """Open the stack that a command uses. If the local one has lost state, print that on standard error.

    Args:
        name: name of a deployed stack; None for the local one, which is started if it does not run.
        notify: called with what the command is doing.
        fresh: delete the local stack's state first.
        read_only: the command writes nothing, so it can use a copy of a state that cannot be written.

    Raises:
        StackNotFound: there is no such stack.
        LocalStackError: the local stack cannot start, or it runs and its state should be deleted.
    """
    if name is not None:
        yield describe_deployed_stack(name)
        return
    from stepensemble.local.errors import StackRuns, StateUnwritable
    from stepensemble.local.options import LocalStackOptions
    from stepensemble.local.stack import LocalStack, find_running

    ignore_aws_profile()
    project = find_project(Path.cwd())
    running, started = find_running(state_folder(project)), None
    if running is None:
        notify("Starting the local stack")
        try:
            started = LocalStack.start(
                project, LocalStackOptions(state_dir=state_folder(project), fresh=fresh, on_wait=notify)
            )
        except StackRuns:  # another command has started one meanwhile
            running = find_running(state_folder(project))
        except StateUnwritable as error:
            if not read_only:
                raise
            print_warning(f"{error}; reading from a copy")
            started = LocalStack.start_copy(project, state_folder(project))
    if started is not None:
        for loss in started.losses:
            print_warning(loss)
        with started as stack:
            yield local_stack(stack.name, stack.endpoint, stack.outputs)
    elif running is None:
        raise LocalStackError("another local stack started and stopped meanwhile; run the command again")
    elif fresh:
        raise LocalStackError("the local stack is running and uses its state; stop it first with: ensemble local stop")
    else:
        yield local_stack(running.name, running.endpoint)


def local_stack(name: str, endpoint: str, outputs: Mapping[str, str] | None = None) -> Stack:
    """Describe a running local stack; its CloudFormation is read unless `outputs` are given."""
    import boto3

    session = boto3.session.Session(
        region_name=LOCAL_REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 (the local stack does not check it)
    )
    if outputs is not None:
        return Stack(name, outputs, session, endpoint, local=True)
    return _describe(name, session, endpoint, local=True)


def describe_deployed_stack(name: str) -> Stack:
    """Describe a deployed stack. The environment variable `AWS_ENDPOINT_URL` replaces AWS's own address.

    Raises:
        StackNotFound: this account and region have no stack of that name.
    """
    import boto3

    return _describe(name, boto3.session.Session(), os.environ.get("AWS_ENDPOINT_URL"), local=False)


def _describe(name: str, session: Session, endpoint: str | None, *, local: bool) -> Stack:
    outputs = _read_outputs(name, session, endpoint)
    if outputs is None:
        raise StackNotFound(
            f'no stack named "{name}" in {session.region_name}; deploy it, or give another name with --stack'
        )
    return Stack(name, outputs, session, endpoint, local)


def _read_outputs(name: str, session: Session, endpoint: str | None) -> dict[str, str] | None:
    """Return a stack's outputs by name; None if there is no such stack."""
    from botocore.exceptions import ClientError

    try:
        client = session.client("cloudformation", endpoint_url=endpoint)
        described = client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def prepare_release(
    stack: Stack,
    sources: Sources | None,
    *,
    named: bool,
    notify: Callable[[str], None],
    note: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Publish the manifest to a local stack if that is due, and return the release that must predict.

    A manifest that the user names is published unless it is current or the canary, and its release must predict. The
    project's manifest is published if nothing is current, if it has changed, or if another ensemble is current
    (`publishing.publish.is_due`); then the current release predicts, or the canary, by its share. The current release
    is returned by name, since Normalize caches the pointer for some seconds, and a publish or a rollback must take
    effect at once.

    Args:
        stack: a local stack.
        sources: the manifest; None if the project has none.
        named: whether the user names the manifest; otherwise it is the project's.
        notify: called with what the command is doing.
        note: called with what the user may not expect.

    Returns:
        The digest of the release that must predict; None if there is a canary, which predicts for its share.

    Raises:
        NothingPublished: nothing is current, and there is no manifest.
    """
    from stepensemble.core.releases.pointer import serves
    from stepensemble.core.releases.release import SHORT
    from stepensemble.publishing.publish import is_due

    if sources is None:
        return _name_current(stack.releases.read_current()[0])
    if named:
        ensure_published(stack, sources, notify=notify, note=note)
        return sources.digest
    if is_due(sources, stack.releases):
        ensure_published(stack, sources, notify=notify, note=note)
    current, _ = stack.releases.read_current()
    if not serves(current, sources.digest):
        note(
            f"release {current.release[:SHORT]} is current and predicts; the manifest, release "
            f"{sources.digest[:SHORT]}, has not changed since an earlier command; to make it current: ensemble publish"
        )
    if stack.releases.read_seen_manifest() != sources.digest:
        stack.releases.note_manifest(sources.digest)
    return _name_current(current)


def _name_current(current: ReleasePointer) -> str | None:
    return current.release if current.canary is None else None


def ensure_published(
    stack: Stack,
    sources: Sources,
    *,
    notify: Callable[[str], None],
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the gate and publish the release, unless it is already current or the canary.

    `note` is called if another ensemble's release was current.
    """
    from stepensemble.core.errors import NothingPublished
    from stepensemble.core.releases.pointer import serves
    from stepensemble.publishing.publish import find_other, publish

    try:
        current, _ = stack.releases.read_current()
        if serves(current, sources.digest):
            return
        replaced = find_other(current, sources.release, stack.releases)
        if replaced is not None:
            note(f"the ensemble {sources.release.name} replaces {replaced} as the current one of {stack.name}")
    except NothingPublished:
        pass
    from stepensemble.cli.gate import pass_gate

    fingerprint = pass_gate(sources, notify).fingerprint()
    notify("Publishing")
    publish(sources, stack.releases, stack.slots, fingerprint=fingerprint)
