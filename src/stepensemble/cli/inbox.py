"""Objects in the local stack's inbox that have no answer: it has ended before they had one, and forgets executions."""

from __future__ import annotations

import msgspec

from stepensemble.cli.stacks import Stack
from stepensemble.local.emulation.sequencers import SEQUENCE
from stepensemble.storage.keys import ANSWER, FAILURE, INBOX, OUTBOX, response_key


def resume_inbox(stack: Stack) -> list[str]:
    """Start the inbox's state machine for the latest version of every object that has no answer; return their keys.

    What is started has the names that it had before, so nothing is recorded twice. Call it in the process of the stack,
    when a release is published.
    """
    answered = {listed.key for listed in stack.data.list(OUTBOX)}
    resumed = []
    pages = stack.session.client("s3", endpoint_url=stack.endpoint).get_paginator("list_object_versions")
    for page in pages.paginate(Bucket=stack.data.name, Prefix=INBOX):
        for one in page.get("Versions", []):
            key, version = one["Key"], one["VersionId"]
            if not one["IsLatest"] or key.endswith("/"):  # the marker of a folder
                continue
            if answered & {response_key(key, version, ending) for ending in (ANSWER, FAILURE)}:
                continue
            arrived = {
                "key": key,
                "size": one["Size"],
                "etag": one["ETag"].strip('"'),
                "version-id": version,
                "sequencer": f"{next(SEQUENCE):016X}",  # so that its answer is the latest, and those to come later
            }
            stack.step_functions.start_execution(
                stateMachineArn=stack.inbox_machine, input=msgspec.json.encode({"object": arrived}).decode()
            )
            resumed.append(key)
    return resumed
