"""Objects in the local stack's inbox without a response: the stack stopped first, and it does not keep executions."""

from __future__ import annotations

import msgspec

from stepensemble.cli.stacks import Stack
from stepensemble.local.emulation.sequencers import SEQUENCE
from stepensemble.storage.keys import FAILURE, INBOX, OUTBOX, RESPONSE, response_key


def resume_inbox(stack: Stack) -> list[str]:
    """Start the inbox's state machine for the latest version of every object without a response; return their keys.

    The executions have the same names as before, so nothing is recorded twice. Call it in the process of the stack,
    after a release is published.
    """
    responses = {listed.key for listed in stack.data.list(OUTBOX)}
    resumed = []
    pages = stack.session.client("s3", endpoint_url=stack.endpoint).get_paginator("list_object_versions")
    for page in pages.paginate(Bucket=stack.data.name, Prefix=INBOX):
        for one in page.get("Versions", []):
            key, version = one["Key"], one["VersionId"]
            if not one["IsLatest"] or key.endswith("/"):  # the marker of a folder
                continue
            if responses & {response_key(key, version, ending) for ending in (RESPONSE, FAILURE)}:
                continue
            arrived = {
                "key": key,
                "size": one["Size"],
                "etag": one["ETag"].strip('"'),
                "version-id": version,
                "sequencer": f"{next(SEQUENCE):016X}",  # the response to the object with the highest one is kept
            }
            stack.step_functions.start_execution(
                stateMachineArn=stack.inbox_machine, input=msgspec.json.encode({"object": arrived}).decode()
            )
            resumed.append(key)
    return resumed
