"""Corrections of moto's CloudFormation: what it does not set, or does not create, when a stack is created."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.parsing import clean_json

from stepensemble.local.moto_patches.patch import MotoPatch, PatchKind

CREATE_STACK = "moto.cloudformation.models:CloudFormationBackend.create_stack"
TEMPLATE_REFERENCE = "https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide"


def _after_creation(complete: Callable[[Any], None]) -> None:
    """Have a function complete every stack that CloudFormation has created."""
    backends: Any = CloudFormationBackend
    create = backends.create_stack

    def create_and_complete(self: Any, *args: Any, **kwargs: Any) -> Any:
        stack = create(self, *args, **kwargs)
        complete(stack)
        return stack

    backends.create_stack = create_and_complete


def _list_resources(stack: Any, resource_type: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return logical id and properties, references unresolved, of a stack's resources of a type."""
    for logical_id, body in stack.template_dict["Resources"].items():
        if body["Type"] == resource_type:
            yield logical_id, body.get("Properties", {})


def _set_state_machine_types(stack: Any) -> None:
    for logical_id, properties in _list_resources(stack, "AWS::StepFunctions::StateMachine"):
        stack.resource_map[logical_id].type = properties.get("StateMachineType", "STANDARD")


def _set_bucket_properties(stack: Any) -> None:
    for logical_id, properties in _list_resources(stack, "AWS::S3::Bucket"):
        bucket = stack.resource_map[logical_id]
        bucket.versioning_status = properties.get("VersioningConfiguration", {}).get("Status")
        if properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration"):
            bucket.set_notification_configuration({"EventBridgeConfiguration": {}})


def _create_schedules(stack: Any) -> None:
    """Create schedules for clients to read; no schedule starts anything here."""
    from moto.scheduler.models import scheduler_backends

    for _, properties in _list_resources(stack, "AWS::Scheduler::Schedule"):
        resolved = clean_json(properties, stack.resource_map)
        scheduler_backends[stack.account_id][stack.region_name].create_schedule(
            name=resolved["Name"],
            group_name=resolved.get("GroupName", ""),
            description=resolved.get("Description", ""),
            state=resolved.get("State", "ENABLED"),
            schedule_expression=resolved["ScheduleExpression"],
            schedule_expression_timezone=resolved.get("ScheduleExpressionTimezone", "UTC"),
            flexible_time_window=resolved["FlexibleTimeWindow"],
            target=resolved["Target"],
            start_date=resolved.get("StartDate"),
            end_date=resolved.get("EndDate"),
            kms_key_arn=resolved.get("KmsKeyArn"),
            action_after_completion=None,
        )


PATCHES = (
    MotoPatch(
        "state-machine-types",
        PatchKind.CORRECTION,
        (CREATE_STACK,),
        "CloudFormation ignores `StateMachineType`: every state machine is STANDARD.",
        f"{TEMPLATE_REFERENCE}/aws-resource-stepfunctions-statemachine.html",
        lambda: _after_creation(_set_state_machine_types),
    ),
    MotoPatch(
        "bucket-properties",
        PatchKind.CORRECTION,
        (
            CREATE_STACK,
            "moto.s3.models:FakeBucket.is_versioned",
            "moto.s3.models:FakeBucket.set_notification_configuration",
        ),
        "CloudFormation ignores a bucket's `VersioningConfiguration` and `EventBridgeConfiguration`.",
        f"{TEMPLATE_REFERENCE}/aws-resource-s3-bucket.html",
        lambda: _after_creation(_set_bucket_properties),
    ),
    MotoPatch(
        "schedules",
        PatchKind.CORRECTION,
        (CREATE_STACK, "moto.scheduler.models:EventBridgeSchedulerBackend.create_schedule"),
        "CloudFormation skips `AWS::Scheduler::Schedule`. With the patch clients can read the schedules; none starts "
        "anything.",
        f"{TEMPLATE_REFERENCE}/aws-resource-scheduler-schedule.html",
        lambda: _after_creation(_create_schedules),
    ),
)
