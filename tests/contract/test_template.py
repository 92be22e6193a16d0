"""What template.yaml owes: to the handlers, to the state machine, to the operator and to an auditor."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cfnlint import lint
from cfnlint.config import ManualArgs
from samcli.yamlhelper import yaml_parse

from cloudformation import ARNS, GRANTED_ON_EVERYTHING, list_grants, properties_of, resolve
from stepensemble.core.manifest import Member
from stepensemble.handlers.environment import (
    AggregateEnvironment,
    Environment,
    NormalizeEnvironment,
    ScoreEnvironment,
)
from stepensemble.local.errors import TemplateRefused
from stepensemble.local.template import translate
from stepensemble.storage import keys
from stepensemble.storage.records import INDEX

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"
ASL = "statemachine/ensemble.asl.json"
DIGEST = "0" * 64
EXECUTION = keys.execution_prefix("name", "id")
ROLES = ["AggregateRole", "EnsembleRole", "NormalizeRole", "ScoreRole"]


@cache
def source() -> dict[str, Any]:
    """The template as it is written."""
    return dict(yaml_parse(TEMPLATE.read_text()))


@cache
def translated(stage: str = "dev", slots: int = 8, retention: int = 0) -> dict[str, Any]:
    """The template as CloudFormation gets it."""
    return translate(TEMPLATE, parameters(stage, slots, retention))


@cache
def resolved(stage: str = "dev", slots: int = 8, retention: int = 0) -> dict[str, Any]:
    """The template as CloudFormation reads it: every reference resolved."""
    return resolve(translated(stage, slots, retention), parameters(stage, slots, retention))


def parameters(stage: str, slots: int, retention: int) -> dict[str, str]:
    listed = ",".join(str(slot + 1) for slot in range(slots))
    return {"Stage": stage, "Slots": listed, "RecordRetentionDays": str(retention)}


def resources(kind: str, **given: Any) -> dict[str, dict[str, Any]]:
    """The properties of every resource of a kind, by logical id."""
    return properties_of(kind, resolved(**given))


def functions(**given: Any) -> dict[str, dict[str, Any]]:
    return resources("AWS::Lambda::Function", **given)


def grants(role: str, **given: Any) -> Iterator[tuple[str, str]]:
    """Every (action, resource) a role is allowed."""
    return list_grants(role, resolved(**given))


def may(role: str, action: str, bucket: str, key: str) -> bool:
    """Say whether a role may do something with an object."""
    arn = f"arn:aws:s3:::stack-{bucket}-123456789012/{key}"
    return any(action == granted and fnmatchcase(arn, resource) for granted, resource in grants(role))


# ------------------------------------------------------------------------------------------------ the handlers

SET_BY_LAMBDA = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE"}
"""Which no template may set: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html."""


@pytest.mark.parametrize(
    ("function", "environment"),
    [
        ("NormalizeFunction", NormalizeEnvironment),
        ("Score1", ScoreEnvironment),
        ("Score8", ScoreEnvironment),
        ("AggregateFunction", AggregateEnvironment),
    ],
)
def test_a_function_gets_exactly_the_variables_its_handler_reads(function: str, environment: type[Environment]) -> None:
    variables = functions()[function]["Environment"]["Variables"]
    declared = {field.encode_name for field in msgspec.structs.fields(environment)}
    assert set(variables) == (declared - SET_BY_LAMBDA) | {"POWERTOOLS_SERVICE_NAME"}


def test_normalize_names_slots_as_the_template_does() -> None:
    prefix = functions()["NormalizeFunction"]["Environment"]["Variables"]["SCORE_FUNCTION_PREFIX"]
    names = [functions()[f"Score{slot}"]["FunctionName"] for slot in range(1, 9)]
    assert names == [f"{prefix}{slot}" for slot in range(1, 9)]


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_there_are_the_slots_that_the_parameter_lists(slots: int) -> None:
    listed = [str(slot + 1) for slot in range(slots)]
    assert set(functions(slots=slots)) == {
        "NormalizeFunction",
        "AggregateFunction",
        *(f"Score{slot}" for slot in listed),
    }
    assert resolved(slots=slots)["Outputs"]["SlotNames"]["Value"] == ",".join(listed)


def test_slots_are_equal_but_for_their_names() -> None:
    slots = [dict(body) for name, body in functions().items() if name.startswith("Score")]
    assert len({slot.pop("FunctionName") for slot in slots}) == len(slots)
    assert all(slot == slots[0] for slot in slots)


def test_a_loop_says_what_linters_do_not_read_from_globals() -> None:
    slot = source()["Resources"]["Fn::ForEach::ScoreFunctions"][2]["Score${Slot}"]["Properties"]
    common = source()["Globals"]["Function"]
    assert (slot["Runtime"], slot["Handler"]) == (common["Runtime"], common["Handler"])


def test_a_function_outlives_every_call_that_is_waited_for() -> None:
    longest = msgspec.json.schema(Member)["$defs"]["Member"]["properties"]["timeout"]["maximum"]
    shipped = [member["timeout"] for member in json.loads((ROOT / "models/manifest.json").read_text())["members"]]
    timeouts = {name: body["Timeout"] for name, body in functions().items()}
    assert max(shipped) <= longest < min(timeout for name, timeout in timeouts.items() if name.startswith("Score"))
    states = json.loads((ROOT / ASL).read_text())["States"]
    assert states["Normalize"]["TimeoutSeconds"] <= timeouts["NormalizeFunction"]
    assert states["Aggregate"]["TimeoutSeconds"] <= timeouts["AggregateFunction"]


# ------------------------------------------------------------------------------------------- the state machines


def test_both_state_machines_are_the_same_definition_with_every_placeholder_filled() -> None:
    bodies = [body for body in source()["Resources"].values() if isinstance(body, dict)]
    machines = [body["Properties"] for body in bodies if body["Type"] == "AWS::Serverless::StateMachine"]
    placeholders = set(re.findall(r"\$\{(\w+)\}", (ROOT / ASL).read_text()))
    assert [machine["Type"] for machine in machines] == ["STANDARD", "EXPRESS"]
    for machine in machines:
        assert machine["DefinitionUri"] == ASL
        assert set(machine["DefinitionSubstitutions"]) == placeholders


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_the_state_machines_may_invoke_the_stacks_functions_and_no_others(slots: int) -> None:
    invoked = [
        resource for action, resource in grants("EnsembleRole", slots=slots) if action == "lambda:InvokeFunction"
    ]
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:{FunctionName}"
    assert sorted(invoked) == sorted(arn.format(**function) for function in functions(slots=slots).values())
    assert {machine["RoleArn"] for machine in resources("AWS::StepFunctions::StateMachine").values()} == {
        "EnsembleRole"
    }


def test_a_review_is_asked_for_as_the_rule_expects_it_and_on_the_bus_the_role_may_use() -> None:
    (entry,) = json.loads((ROOT / ASL).read_text())["States"]["Ask for review"]["Parameters"]["Entries"]
    bodies = [body for body in source()["Resources"].values() if isinstance(body, dict)]
    machines = [body["Properties"] for body in bodies if body["Type"] == "AWS::Serverless::StateMachine"]
    (rule,) = resources("AWS::Events::Rule").values()
    for machine in machines:
        placeholders = machine["DefinitionSubstitutions"]
        assert (entry["Detail"]["stack"], placeholders["StackName"]) == ("${StackName}", {"Ref": "AWS::StackName"})
        assert (entry["EventBusName"], placeholders["EventBusName"]) == ("${EventBusName}", {"Ref": "EventBusName"})
    assert rule["EventPattern"] == {
        "source": [entry["Source"]],
        "detail-type": [entry["DetailType"]],
        "detail": {"stack": ["stack"]},
    }
    assert rule["EventBusName"] == "default"
    assert [grant for grant in grants("EnsembleRole") if grant[0].startswith("events:")] == [
        ("events:PutEvents", "arn:aws:events:eu-central-1:123456789012:event-bus/default")
    ]


def test_reviews_asked_for_are_kept_in_a_log_group_that_admits_this_rule_only() -> None:
    (rule,) = resources("AWS::Events::Rule").values()
    (policy,) = resources("AWS::Logs::ResourcePolicy").values()
    group = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/events/stack-reviews"
    assert [target["Arn"] for target in rule["Targets"]] == [group]
    create, put = json.loads(policy["PolicyDocument"])["Statement"]
    assert (create["Action"], create["Resource"]) == ("logs:CreateLogStream", f"{group}:*")
    assert (put["Action"], put["Resource"]) == ("logs:PutLogEvents", f"{group}:*:*")
    assert put["Condition"] == {
        "ArnEquals": {"aws:SourceArn": "arn:aws:events:eu-central-1:123456789012:rule/stack-reviews"}
    }
    for statement in (create, put):
        assert statement["Principal"] == {"Service": ["events.amazonaws.com", "delivery.logs.amazonaws.com"]}
    assert resolved()["Outputs"]["ReviewLogGroupName"]["Value"] == "ReviewLogGroup"


# --------------------------------------------------------------------------------------------------- the rights


@pytest.mark.parametrize(
    ("role", "action", "bucket", "key"),
    [
        ("NormalizeRole", "s3:GetObject", "artifacts", keys.CURRENT),
        ("NormalizeRole", "s3:GetObject", "artifacts", keys.release_key(DIGEST)),
        ("NormalizeRole", "s3:GetObject", "data", keys.payload_key(b"")),
        ("NormalizeRole", "s3:PutObject", "data", keys.columns_key(EXECUTION)),
        ("ScoreRole", "s3:GetObject", "artifacts", keys.artifact_key(DIGEST)),
        ("ScoreRole", "s3:GetObject", "data", keys.columns_key(EXECUTION)),
        ("ScoreRole", "s3:PutObject", "data", keys.outputs_key(EXECUTION, "linear")),
        ("AggregateRole", "s3:GetObject", "artifacts", keys.release_key(DIGEST)),
        ("AggregateRole", "s3:GetObject", "data", keys.payload_key(b"")),
        ("AggregateRole", "s3:GetObject", "data", keys.outputs_key(EXECUTION, "linear")),
        ("AggregateRole", "s3:GetObject", "data", keys.columns_key(EXECUTION)),
        ("AggregateRole", "s3:PutObject", "data", keys.columns_key(EXECUTION, tier=2)),
        ("AggregateRole", "s3:PutObject", "data", keys.predictions_key(EXECUTION)),
        ("AggregateRole", "s3:GetObject", "data", keys.record_key(b"")),
        ("AggregateRole", "s3:PutObject", "data", keys.record_key(b"")),
    ],
)
def test_a_function_may_do_what_its_handler_does(role: str, action: str, bucket: str, key: str) -> None:
    assert may(role, action, bucket, key)


@pytest.mark.parametrize(
    ("role", "action", "bucket", "key"),
    [
        ("NormalizeRole", "s3:GetObject", "artifacts", keys.artifact_key(DIGEST)),
        ("NormalizeRole", "s3:PutObject", "data", keys.payload_key(b"")),
        ("NormalizeRole", "s3:GetObject", "data", keys.record_key(b"")),
        ("ScoreRole", "s3:GetObject", "artifacts", keys.CURRENT),
        ("ScoreRole", "s3:GetObject", "data", keys.payload_key(b"")),
        ("ScoreRole", "s3:GetObject", "data", keys.record_key(b"")),
        ("AggregateRole", "s3:GetObject", "artifacts", keys.artifact_key(DIGEST)),
        ("AggregateRole", "s3:PutObject", "artifacts", keys.CURRENT),
    ],
)
def test_a_function_may_not_do_what_another_does(role: str, action: str, bucket: str, key: str) -> None:
    assert not may(role, action, bucket, key)


def test_every_role_is_one_of_these_and_has_no_rights_by_another_name() -> None:
    roles = resources("AWS::IAM::Role")
    assert sorted(roles) == ROLES
    assert not any("ManagedPolicyArns" in role for role in roles.values())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_names_actions_and_resources(role: str) -> None:
    allowed = list(grants(role))
    assert not [action for action, _ in allowed if "*" in action]
    assert {action for action, resource in allowed if resource == "*"} <= GRANTED_ON_EVERYTHING
    assert {action for action, _ in allowed if action.startswith("s3:")} <= {"s3:GetObject", "s3:PutObject"}
    reached = [resource for action, resource in allowed if action.startswith("s3:")]
    prefix = r"arn:aws:s3:::stack-(artifacts|data)-123456789012/(current\.json|[a-z]+/\*)"
    assert [resource for resource in reached if not re.fullmatch(prefix, resource)] == []


@pytest.mark.parametrize("role", ROLES)
def test_only_aggregate_reaches_the_records(role: str) -> None:
    reached = {grant for grant in grants(role) if grant[0].startswith("dynamodb:")}
    table = "arn:aws:dynamodb:eu-central-1:123456789012:table/stack-records"
    expected = {("dynamodb:GetItem", table), ("dynamodb:PutItem", table)}
    assert reached == (expected if role == "AggregateRole" else set())


# -------------------------------------------------------------------------------------------------- the storage


@pytest.mark.parametrize("name", ["ArtifactBucket", "DataBucket"])
def test_a_bucket_is_private_encrypted_and_reached_by_tls_only(name: str) -> None:
    bucket, policy = resources("AWS::S3::Bucket")[name], resources("AWS::S3::BucketPolicy")[f"{name}Policy"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    arn = f"arn:aws:s3:::{bucket['BucketName']}"
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [arn, f"{arn}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": False}}


def test_what_was_published_and_recorded_outlives_the_stack() -> None:
    for name in ("ArtifactBucket", "DataBucket", "RecordsTable"):
        kept = translated()["Resources"][name]
        assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert resources("AWS::S3::Bucket")["ArtifactBucket"]["VersioningConfiguration"] == {"Status": "Enabled"}


@pytest.mark.parametrize(("retention", "kept"), [(0, {}), (365, {keys.RECORDS: "365"})])
def test_what_an_execution_leaves_expires_and_records_when_asked(retention: int, kept: dict[str, str]) -> None:
    rules = resources("AWS::S3::Bucket", retention=retention)["DataBucket"]["LifecycleConfiguration"]["Rules"]
    days = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert days.pop(keys.EXECUTIONS) == days.pop(keys.PAYLOADS) == 30
    assert days == kept


def test_the_table_is_the_one_the_records_module_uses() -> None:
    (table,) = resources("AWS::DynamoDB::Table").values()
    (index,) = table["GlobalSecondaryIndexes"]
    assert table["KeySchema"] == [{"AttributeName": "prediction_id", "KeyType": "HASH"}]
    assert index["IndexName"] == INDEX
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["day", "recorded_at"]
    assert set(index["Projection"]["NonKeyAttributes"]) == {"status", "release", "rows", "execution"}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
    assert table["SSESpecification"]["SSEEnabled"]


# ------------------------------------------------------------------------------------------------- the operator


@pytest.mark.parametrize(("stage", "level", "protected"), [("dev", "DEBUG", False), ("prod", "INFO", True)])
def test_the_stage_decides_how_much_is_logged_and_protected(stage: str, level: str, *, protected: bool) -> None:
    for function in functions(stage=stage).values():
        variables = function["Environment"]["Variables"]
        assert (variables["STAGE"], variables["LOG_LEVEL"]) == (stage, level)
        assert function["LoggingConfig"]["ApplicationLogLevel"] == level
    (table,) = resources("AWS::DynamoDB::Table", stage=stage).values()
    assert table["DeletionProtectionEnabled"] is protected


def test_there_is_no_other_stage() -> None:
    assert source()["Parameters"]["Stage"]["AllowedValues"] == ["dev", "prod"]
    with pytest.raises(TemplateRefused, match="Stage must be one of dev, prod"):
        translate(TEMPLATE, {"Stage": "test"})


def test_everything_logs_to_a_group_that_forgets() -> None:
    groups = resources("AWS::Logs::LogGroup")
    assert {group["RetentionInDays"] for group in groups.values()} == {"14"}
    used = {function["LoggingConfig"]["LogGroup"] for function in functions().values()}
    assert used == {"NormalizeLogGroup", "ScoreLogGroup", "AggregateLogGroup"}
    assert set(groups) == used | {"EnsembleLogGroup", "ReviewLogGroup"}


def test_the_state_machines_log_errors_and_no_feature_values() -> None:
    arn = ARNS["AWS::Logs::LogGroup"].format(**resources("AWS::Logs::LogGroup")["EnsembleLogGroup"])
    for machine in resources("AWS::StepFunctions::StateMachine").values():
        assert machine["LoggingConfiguration"] == {
            "Level": "ERROR",
            "IncludeExecutionData": False,
            "Destinations": [{"CloudWatchLogsLogGroup": {"LogGroupArn": arn}}],
        }


@pytest.mark.parametrize(
    ("function", "role"),
    [("NormalizeFunction", "NormalizeRole"), ("Score3", "ScoreRole"), ("AggregateFunction", "AggregateRole")],
)
def test_a_function_may_write_to_its_log_group_only(function: str, role: str) -> None:
    body = functions()[function]
    arn = ARNS["AWS::Logs::LogGroup"].format(**resources("AWS::Logs::LogGroup")[body["LoggingConfig"]["LogGroup"]])
    assert body["Role"] == role
    assert {grant for grant in grants(role) if grant[0].startswith("logs:")} == {
        ("logs:CreateLogStream", arn),
        ("logs:PutLogEvents", arn),
    }


def test_everything_is_traced() -> None:
    assert {function["TracingConfig"]["Mode"] for function in functions().values()} == {"Active"}
    machines = resources("AWS::StepFunctions::StateMachine").values()
    assert {machine["TracingConfiguration"]["Enabled"] for machine in machines} == {True}


def test_a_client_finds_what_it_needs_in_the_outputs() -> None:
    assert set(resolved()["Outputs"]) == {
        "AggregateFunctionName",
        "ArtifactBucketName",
        "DataBucketName",
        "EnsembleRoleName",
        "ExpressStateMachineArn",
        "NormalizeFunctionName",
        "RecordsTableName",
        "ReviewLogGroupName",
        "ScoreFunctionPrefix",
        "SlotNames",
        "StateMachineArn",
    }


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_samconfig_deploys_a_stage_without_questions(stage: str) -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())
    common, deploy = settings[stage]["global"]["parameters"], settings[stage]["deploy"]["parameters"]
    assert common == {"language_extensions": True, "stack_name": f"stepensemble-{stage}"}
    assert f"Stage={stage}" in deploy["parameter_overrides"]
    assert deploy["capabilities"] == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    assert deploy["resolve_s3"] is True
    assert deploy["confirm_changeset"] is (stage == "prod")


# ------------------------------------------------------------------------------------------------------ linters


def test_sam_finds_the_template_valid() -> None:
    command = [str(Path(sys.executable).with_name("sam")), "validate", "--lint"]
    quietly = os.environ | {"SAM_CLI_TELEMETRY": "0"}
    checked = subprocess.run(command, cwd=ROOT, env=quietly, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("stage", "slots", "retention"), [("dev", 8, 0), ("prod", 16, 365)])
def test_nothing_is_wrong_with_the_translated_template(stage: str, slots: int, retention: int) -> None:
    assert lint(json.dumps(translated(stage, slots, retention)), config=ManualArgs()) == []
