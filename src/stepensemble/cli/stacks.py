"""The stack a command talks to: one deployed in AWS, a local one that runs, or a local one while the command lasts.

All three are reached by the same code: CloudFormation's outputs name the parts; only endpoint and credentials differ.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepensemble.cli.terminal import warn
from stepensemble.core.errors import LocalStackError, StackNotFound, StackOutdated
from stepensemble.core.releases.release import Slots, name_add_on
from stepensemble.storage.objects import Bucket, open_bucket
from stepensemble.storage.releases import ReleaseStore

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_stepfunctions import SFNClient

    from stepensemble.core.releases.release import Current
    from stepensemble.publishing.manifest_loader import Sources
    from stepensemble.storage.record_table import RecordTable
    from stepensemble.storage.review_log import ReviewLog

LOCAL_REGION = "us-east-1"


@dataclass(frozen=True)
class Stack:
    """A stack, deployed or local.

    Attributes:
        outputs: the template's outputs.
        endpoint: where its services are; None for AWS itself.
        local: it is this project's local stack, so publishing to it concerns nobody else.

    Its parts raise `StackOutdated` where the output that names them is missing.
    """

    name: str
    outputs: Mapping[str, str]
    session: Session
    endpoint: str | None
    local: bool

    @cached_property
    def slots(self) -> Slots:
        """Its slots; those for TensorFlow are another stack's, where that is deployed."""
        add_on = _read_outputs(name_add_on(self.name), self.session, self.endpoint) or {}
        found = {"litert": self.outputs, "tensorflow": add_on}
        return {
            runtime: outputs["SlotNames"].split(",") for runtime, outputs in found.items() if "SlotNames" in outputs
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
        """A client for executions."""
        from botocore.config import Config

        # For a synchronous execution boto3 puts "sync-" before the host, which only AWS's own hosts answer to.
        config = Config(inject_host_prefix=self.endpoint is None)
        return self.session.client("stepfunctions", endpoint_url=self.endpoint, config=config)

    @cached_property
    def scheduler(self) -> EventBridgeSchedulerClient:
        """A client for schedules."""
        return self.session.client("scheduler", endpoint_url=self.endpoint)

    @property
    def schedule(self) -> str:
        """Name of the batch's schedule, with its group and a slash before it where that is not the default one."""
        return self._output("BatchScheduleName")

    @property
    def warmup_schedule(self) -> str:
        """The same of the warm-up's."""
        return self._output("WarmupScheduleName")

    @cached_property
    def releases(self) -> ReleaseStore:
        """The artifact bucket."""
        return ReleaseStore(self._open(self._output("ArtifactBucketName")))

    @cached_property
    def data(self) -> Bucket:
        """The data bucket."""
        return self._open(self._output("DataBucketName"))

    @cached_property
    def records(self) -> RecordTable:
        """The records."""
        from stepensemble.storage.record_table import RecordTable

        client = self.session.client("dynamodb", endpoint_url=self.endpoint)
        return RecordTable(client, self._output("RecordsTableName"), self.data)

    @cached_property
    def reviews(self) -> ReviewLog:
        """The events that ask for a review."""
        from stepensemble.storage.review_log import ReviewLog

        client = self.session.client("logs", endpoint_url=self.endpoint)
        return ReviewLog(client, self._output("ReviewLogGroupName"))

    def _output(self, name: str) -> str:
        if name not in self.outputs:
            raise StackOutdated(
                f'the stack "{self.name}" has no output "{name}": an earlier version deployed it, or it is another '
                "project's; deploy it again, or look at --stack"
            )
        return self.outputs[name]

    def _open(self, bucket: str) -> Bucket:
        config: dict[str, Any] = {"region": self.session.region_name}
        if self.endpoint is not None:
            config["endpoint"] = self.endpoint
        from obstore.auth.boto3 import Boto3CredentialProvider

        return open_bucket(bucket, credential_provider=Boto3CredentialProvider(self.session), **config)


def find_project(start: Path) -> Path:
    """Return the nearest folder, upwards, that holds the template.

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
    """Where the local stack of a project keeps its state."""
    return project / ".stepensemble"


def forget_profile() -> None:
    """Let no AWS profile of the environment, which may not even exist here, reach a local stack's clients."""
    for variable in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        os.environ.pop(variable, None)


@contextmanager
def open_stack(
    name: str | None, *, notify: Callable[[str], None], fresh: bool = False, reading: bool = False
) -> Iterator[Stack]:
    """Open the stack a command talks to. What the local one has lost is said on standard error.

    Args:
        name: of a deployed stack; None for the local one, which is started where none runs.
        notify: told what takes a while.
        fresh: forget first what the local stack has kept.
        reading: nothing is going to be written, so a copy will do of a state that cannot be written.

    Raises:
        StackNotFound: there is no such stack.
        LocalStackError: the local stack cannot start, or runs and should be fresh.
    """
    if name is not None:
        yield deployed_stack(name)
        return
    from stepensemble.local.errors import StackRuns, StateUnwritable
    from stepensemble.local.options import LocalStackOptions
    from stepensemble.local.stack import LocalStack, find_running

    forget_profile()
    project = find_project(Path.cwd())
    running, started = find_running(state_folder(project)), None
    if running is None:
        notify("Starting the local stack")
        try:
            started = LocalStack.start(
                project, LocalStackOptions(state_dir=state_folder(project), fresh=fresh, on_wait=notify)
            )
        except StackRuns:  # another command has started one to stay
            running = find_running(state_folder(project))
        except StateUnwritable as error:
            if not reading:
                raise
            warn(f"{error}; read from a copy")
            started = LocalStack.start_copy(project, state_folder(project))
    if started is not None:
        for loss in started.losses:
            warn(loss)
        with started as stack:
            yield local_stack(stack.name, stack.endpoint, stack.outputs)
    elif running is None:
        raise LocalStackError("a local stack has started and ended meanwhile; run the command again")
    elif fresh:
        raise LocalStackError("the local stack is running, and keeps its state; stop it with: ensemble local stop")
    else:
        yield local_stack(running.name, running.endpoint)


def local_stack(name: str, endpoint: str, outputs: Mapping[str, str] | None = None) -> Stack:
    """Describe a local stack that runs; `outputs` as its CloudFormation tells them, where they are known."""
    import boto3

    session = boto3.session.Session(
        region_name=LOCAL_REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 (nobody checks)
    )
    if outputs is not None:
        return Stack(name, outputs, session, endpoint, local=True)
    return _describe(name, session, endpoint, local=True)


def deployed_stack(name: str) -> Stack:
    """Describe a deployed stack; `AWS_ENDPOINT_URL` is honoured.

    Raises:
        StackNotFound: there is none of that name in this account and region.
    """
    import boto3

    return _describe(name, boto3.session.Session(), os.environ.get("AWS_ENDPOINT_URL"), local=False)


def _describe(name: str, session: Session, endpoint: str | None, *, local: bool) -> Stack:
    outputs = _read_outputs(name, session, endpoint)
    if outputs is None:
        raise StackNotFound(f'no stack named "{name}" in {session.region_name}; deploy it, or look at --stack')
    return Stack(name, outputs, session, endpoint, local)


def _read_outputs(name: str, session: Session, endpoint: str | None) -> dict[str, str] | None:
    """Return a stack's outputs; None where there is no such stack."""
    from botocore.exceptions import ClientError

    try:
        client = session.client("cloudformation", endpoint_url=endpoint)
        described = client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def settle_release(
    stack: Stack,
    sources: Sources | None,
    *,
    named: bool,
    notify: Callable[[str], None],
    remark: Callable[[str], None] = lambda _: None,
) -> str | None:
    """See to it that a local stack has a release to predict with, and return the one that must; None beside a canary.

    A manifest that the caller names is published unless it is current or the canary, and must predict. The project's is
    published where nothing is current, where it has changed, or where another ensemble is current
    (`publishing.publish.is_due`); then whichever release is current predicts, or the canary, by its share. The current
    release is named, since Normalize keeps the pointer for some seconds, and what was just published or rolled back
    must be seen at once.

    Args:
        stack: a local one.
        sources: the manifest; None where the project has none.
        named: whether the caller names it, or it is the project's.
        notify: is given what takes a while.
        remark: is given what the caller may not expect.

    Raises:
        NothingPublished: nothing is current, and there is no manifest.
    """
    from stepensemble.core.releases.pointer import serves
    from stepensemble.core.releases.release import SHORT
    from stepensemble.publishing.publish import is_due

    if sources is None:
        return _name_current(stack.releases.read_current()[0])
    if named:
        ensure_published(stack, sources, notify=notify, remark=remark)
        return sources.digest
    if is_due(sources, stack.releases):
        ensure_published(stack, sources, notify=notify, remark=remark)
    current, _ = stack.releases.read_current()
    if not serves(current, sources.digest):
        remark(
            f"release {current.release[:SHORT]} is current and predicts; the manifest, release "
            f"{sources.digest[:SHORT]}, was seen before and has not changed; ensemble publish makes it current"
        )
    if stack.releases.read_seen_manifest() != sources.digest:
        stack.releases.note_manifest(sources.digest)
    return _name_current(current)


def _name_current(current: Current) -> str | None:
    return current.release if current.canary is None else None


def ensure_published(
    stack: Stack,
    sources: Sources,
    *,
    notify: Callable[[str], None],
    remark: Callable[[str], None] = lambda _: None,
) -> None:
    """Make the sources' release the stack's current one, through the gate, unless it is already, or is the canary.

    `remark` is given a note where another ensemble's release was current.
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
            remark(f"the ensemble {sources.release.name} replaces {replaced} as the current one of {stack.name}")
    except NothingPublished:
        pass
    from stepensemble.cli.gate import admit

    fingerprint = admit(sources, notify).fingerprint()
    notify("Publishing")
    publish(sources, stack.releases, stack.slots, fingerprint=fingerprint)
