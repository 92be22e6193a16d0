"""moto's EventBridge, put right: what S3 tells it, and rules that start executions. All changes to it are made here.

1. CloudFormation forgets that a bucket tells its events (`emulator` sets it), and S3 gives all the same sequencer, and
   tells twice of what was uploaded in parts.
2. A rule cannot start an execution; and one that is disabled is followed all the same.
3. What goes wrong at one target keeps the event from the others, and from S3.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from typing import Any
from uuid import uuid4

from jsonpath_ng.parser import parse
from moto.events.models import Rule, events_backends
from moto.s3 import notifications
from moto.s3.models import FakeKey

from stepensemble.local.emulation.stepfunctions import client_of

SEQUENCE = count(time.time_ns())
"""Of S3's events: grows, in this process and from one to the next."""

REASONS = {
    "Put": "PutObject",
    "Post": "POST Object",
    "Copy": "CopyObject",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}

logger = logging.getLogger(__name__)


@lru_cache
def repair() -> None:
    """Change moto's EventBridge as the module says; once a process."""
    rules: Any = Rule
    told: Any = notifications
    plain = rules.send_to_targets

    def send_to_targets(rule: Any, event: Mapping[str, Any], transform_input: bool = True) -> None:  # noqa: FBT001, FBT002 (moto's)
        if rule.state != "ENABLED" or not rule.event_pattern.matches_event(event):
            return
        for target in rule.targets:
            try:
                if target["Arn"].split(":")[2] == "states":
                    _start_later(rule, target, event)
                else:
                    alone = copy.copy(rule)
                    alone.targets = [target]
                    plain(alone, event, transform_input)
            except Exception:
                logger.exception("rule %s: target %s", rule.name, target["Id"])

    rules.send_to_targets = send_to_targets
    told._send_event_bridge_message = _tell


def _tell(account: str, bucket: Any, name: str, key: Any) -> None:
    """Tell the default bus what has happened to an object.

    As S3 does: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    kind = name.rsplit(":", 1)[-1]
    if kind == "Put" and key.multipart is not None:
        return  # what was uploaded in parts is told of as such in a moment
    told: dict[str, Any] = {"key": key.name}
    if isinstance(key, FakeKey):
        told |= {"size": key.size, "etag": key.etag.strip('"')}
    if bucket.is_versioned:
        told["version-id"] = key.version_id
    event: Any = {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": notifications._detail_type(name),
        "source": "aws.s3",
        "account": account,
        "time": datetime.now(UTC).timestamp(),
        "region": bucket.region_name,
        "resources": [bucket.arn],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket.name},
            "object": {**told, "sequencer": f"{next(SEQUENCE):016X}"},
            "request-id": uuid4().hex[:16].upper(),
            "requester": account,
            "source-ip-address": "127.0.0.1",
            "reason": REASONS.get(kind, kind),
        },
    }
    for rule in list(events_backends[account][bucket.region_name].event_buses["default"].rules.values()):
        rule.send_to_targets(event, transform_input=False)


def _start_later(rule: Any, target: Mapping[str, Any], event: Mapping[str, Any]) -> None:
    """Start an execution, without keeping whoever told of the event waiting."""
    asked = json.dumps(_select(target, {**event, "time": _write_time(event["time"])}))
    name = f"{event['id']}_{uuid4()}"[:80]

    def start() -> None:
        client = client_of(rule.account_id, rule.region_name, "stepfunctions")
        if client is not None:
            try:
                client.start_execution(stateMachineArn=target["Arn"], name=name, input=asked)
            except Exception:
                logger.exception("rule %s: target %s", rule.name, target["Id"])

    threading.Thread(target=start, name=f"rule {rule.name}", daemon=True).start()


def _select(target: Mapping[str, Any], event: Mapping[str, Any]) -> Any:
    """Return what a target is sent of an event."""
    if "Input" in target:
        return json.loads(target["Input"])
    found: Any = parse(target.get("InputPath", "$")).find(event)
    return found[0].value if found else None


def _write_time(moment: Any) -> str:
    return f"{datetime.fromtimestamp(float(moment), UTC):%Y-%m-%dT%H:%M:%SZ}"
