"""Corrections of moto's EventBridge, and of the events that S3 sends to it."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from jsonpath_ng.parser import parse
from moto.events.models import Rule, events_backends
from moto.s3 import notifications
from moto.s3.models import FakeKey

from stepensemble.local.emulation.sequencers import SEQUENCE
from stepensemble.local.emulation.task_clients import find_client
from stepensemble.local.moto_patches.patch import MotoPatch, PatchKind

REASONS = {
    "Put": "PutObject",
    "Post": "POST Object",
    "Copy": "CopyObject",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}

logger = logging.getLogger(__name__)


def _replace_rules() -> None:
    rules: Any = Rule
    original = rules.send_to_targets

    def send_to_targets(rule: Any, event: Mapping[str, Any], transform_input: bool = True) -> None:  # noqa: FBT001, FBT002 (moto's)
        if rule.state != "ENABLED" or not rule.event_pattern.matches_event(event):
            return
        for target in rule.targets:
            try:
                if target["Arn"].split(":")[2] == "states":
                    _start_in_thread(rule, target, event)
                else:
                    single = copy.copy(rule)
                    single.targets = [target]
                    original(single, event, transform_input)
            except Exception:
                logger.exception("rule %s: target %s", rule.name, target["Id"])

    rules.send_to_targets = send_to_targets


def _replace_s3_events() -> None:
    module: Any = notifications
    module._send_event_bridge_message = _send_s3_event


def _send_s3_event(account: str, bucket: Any, name: str, key: Any) -> None:
    """Send an event about an object to the default bus, in the form that S3 documents (see `PATCHES`)."""
    kind = name.rsplit(":", 1)[-1]
    if kind == "Put" and key.multipart is not None:
        return  # the upload in parts has an event of its own, which follows
    described: dict[str, Any] = {"key": key.name}
    if isinstance(key, FakeKey):
        described |= {"size": key.size, "etag": key.etag.strip('"')}
    if bucket.is_versioned:
        described["version-id"] = key.version_id
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
            "object": {**described, "sequencer": f"{next(SEQUENCE):016X}"},
            "request-id": uuid4().hex[:16].upper(),
            "requester": account,
            "source-ip-address": "127.0.0.1",
            "reason": REASONS.get(kind, kind),
        },
    }
    for rule in list(events_backends[account][bucket.region_name].event_buses["default"].rules.values()):
        rule.send_to_targets(event, transform_input=False)


def _start_in_thread(rule: Any, target: Mapping[str, Any], event: Mapping[str, Any]) -> None:
    """Start an execution in a thread, so that the sender of the event does not wait."""
    value = json.dumps(_select_input(target, {**event, "time": _format_time(event["time"])}))
    name = f"{event['id']}_{uuid4()}"[:80]

    def start() -> None:
        client = find_client(rule.account_id, rule.region_name, "stepfunctions")
        if client is not None:
            try:
                client.start_execution(stateMachineArn=target["Arn"], name=name, input=value)
            except Exception:
                logger.exception("rule %s: target %s", rule.name, target["Id"])

    threading.Thread(target=start, name=f"rule {rule.name}", daemon=True).start()


def _select_input(target: Mapping[str, Any], event: Mapping[str, Any]) -> Any:
    """Return what a target receives of an event."""
    if "Input" in target:
        return json.loads(target["Input"])
    found: Any = parse(target.get("InputPath", "$")).find(event)
    return found[0].value if found else None


def _format_time(moment: Any) -> str:
    return f"{datetime.fromtimestamp(float(moment), UTC):%Y-%m-%dT%H:%M:%SZ}"


PATCHES = (
    MotoPatch(
        "rule-targets",
        PatchKind.CORRECTION,
        ("moto.events.models:Rule.send_to_targets",),
        "A rule cannot start an execution (moto starts them only for some events of its own backends), and a disabled "
        "rule is followed. A fault at one target keeps the event from the other targets.",
        "https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-targets.html",
        _replace_rules,
        upstream=("https://github.com/getmoto/moto/pull/9132",),
    ),
    MotoPatch(
        "s3-events",
        PatchKind.CORRECTION,
        ("moto.s3.notifications:_send_event_bridge_message", "moto.s3.notifications:_detail_type"),
        "All events of S3 have the same sequencer, an upload in parts sends two events, and the fields differ from "
        "AWS's, such as `eTag` for `etag`.",
        "https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html",
        _replace_s3_events,
        upstream=("https://github.com/getmoto/moto/pull/7252", "https://github.com/getmoto/moto/pull/7435"),
    ),
)
