"""template.yaml fits the handlers, the state machines and the operator, and grants no right that is not needed."""

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
import polars as pl
import pytest
from cfnlint import lint
from cfnlint.config import ManualArgs
from samcli.yamlhelper import yaml_parse

from cloudformation import ARNS, GRANTED_ON_EVERYTHING, as_list, list_grants, properties_of, resolve
from stepensemble.batch.output.result_files import REJECTED
from stepensemble.batch.output.result_table import CLASS_COLUMNS, FILE, ID, ROW
from stepensemble.batch.request import choose_date, locate_dataset, parse_request
from stepensemble.core.errors import InvalidPayload
from stepensemble.core.payload import is_warmup, parse_payload
from stepensemble.core.schema.manifest import Member
from stepensemble.handlers.environment import (
    AggregateEnvironment,
    ApiEnvironment,
    Environment,
    NormalizeEnvironment,
    PlanEnvironment,
    ScoreEnvironment,
    SummarizeEnvironment,
)
from stepensemble.local.errors import TemplateRefused
from stepensemble.local.template import translate
from stepensemble.storage import keys
from stepensemble.storage.record_table import INDEX

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"
ASL = "statemachine/ensemble.asl.json"
BATCH_ASL = "statemachine/batch.asl.json"
INBOX_ASL = "statemachine/inbox.asl.json"
DIGEST = "0" * 64
EXECUTION = keys.execution_prefix("name", "id")
RUN = "0123456789abcdef"
PARTITION = keys.partition("results", "titanic", "2026-03-01", RUN)
FUNCTIONS = {
    "Normalize": "normalize",
    "Aggregate": "aggregate",
    "Api": "api",
    "Receive": "receive",
    "Deliver": "deliver",
    "Plan": "plan",
    "NormalizeShard": "normalize-shard",
    "AggregateShard": "aggregate-shard",
    "Summarize": "summarize",
}
"""The functions that are no slots: the prefix of the logical id, and the suffix of the function's name."""

BATCH_FUNCTIONS = ["Plan", "NormalizeShard", "AggregateShard", "Summarize"]
MACHINES = ["BatchRole", "EnsembleRole", "InboxRole"]
STARTERS = ["BatchScheduleRole", "InboxRuleRole", "WarmupScheduleRole"]
ROLES = sorted([*(f"{name}Role" for name in FUNCTIONS), *MACHINES, *STARTERS, "ScoreRole"])


@cache
def source() -> dict[str, Any]:
    """Return the template as it is written."""
    return dict(yaml_parse(TEMPLATE.read_text()))


@cache
def translated(stage: str = "dev", slots: int = 8, retention: int = 0) -> dict[str, Any]:
    """Return the template as CloudFormation receives it, expanded and translated."""
    return translate(TEMPLATE, parameters(stage, slots, retention))


@cache
def resolved(stage: str = "dev", slots: int = 8, retention: int = 0) -> dict[str, Any]:
    """Return the translated template with every reference resolved."""
    return resolve(translated(stage, slots, retention), parameters(stage, slots, retention))


def parameters(stage: str, slots: int, retention: int) -> dict[str, str]:
    listed = ",".join(str(slot + 1) for slot in range(slots))
    return {"Stage": stage, "Slots": listed, "RecordRetentionDays": str(retention)}


def resources(kind: str, **given: Any) -> dict[str, dict[str, Any]]:
    """Return the properties of every resource of a kind, by logical id."""
    return properties_of(kind, resolved(**given))


def functions(**given: Any) -> dict[str, dict[str, Any]]:
    return resources("AWS::Lambda::Function", **given)


def grants(role: str, **given: Any) -> Iterator[tuple[str, str]]:
    """Yield every (action, resource) that a role is allowed."""
    return list_grants(role, resolved(**given))


def may(role: str, action: str, bucket: str, key: str) -> bool:
    """Return whether a role is allowed an action on an object."""
    arn = f"arn:aws:s3:::stack-{bucket}-123456789012/{key}"
    return any(action == granted and fnmatchcase(arn, resource) for granted, resource in grants(role))


# ------------------------------------------------------------------------------------------------ the handlers

SET_BY_LAMBDA = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE"}
"""Variables that no template may set: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html."""

READ_BY_LIBRARIES = {"SummarizeFunction": {"MPLCONFIGDIR"}}
"""Variables that libraries read: Matplotlib this one, and Powertools POWERTOOLS_SERVICE_NAME in every function."""


@pytest.mark.parametrize(
    ("function", "environment"),
    [
        ("NormalizeFunction", NormalizeEnvironment),
        ("Score1", ScoreEnvironment),
        ("Score8", ScoreEnvironment),
        ("AggregateFunction", AggregateEnvironment),
        ("ApiFunction", ApiEnvironment),
        ("PlanFunction", PlanEnvironment),
        ("NormalizeShardFunction", NormalizeEnvironment),
        ("AggregateShardFunction", Environment),
        ("SummarizeFunction", SummarizeEnvironment),
    ],
)
def test_a_function_gets_exactly_the_variables_its_handler_reads(function: str, environment: type[Environment]) -> None:
    variables = functions()[function]["Environment"]["Variables"]
    declared = {field.encode_name for field in msgspec.structs.fields(environment)}
    others = {"POWERTOOLS_SERVICE_NAME"} | READ_BY_LIBRARIES.get(function, set())
    assert set(variables) == (declared - SET_BY_LAMBDA) | others


def test_matplotlib_writes_to_the_only_folder_that_a_function_may_write_to() -> None:
    assert functions()["SummarizeFunction"]["Environment"]["Variables"]["MPLCONFIGDIR"].startswith("/tmp/")  # noqa: S108 (Lambda's folder)


def test_summarize_is_given_the_memory_sizes_of_the_other_functions() -> None:
    variables = functions()["SummarizeFunction"]["Environment"]["Variables"]
    assert {str(functions()[f"{name}Function"]["MemorySize"]) for name in BATCH_FUNCTIONS[:3]} == {
        variables["BATCH_MEMORY_SIZE"]
    }
    assert functions()["Score1"]["MemorySize"] == variables["SCORE_MEMORY_SIZE"]


@pytest.mark.parametrize("function", ["NormalizeFunction", "NormalizeShardFunction", "ApiFunction"])
def test_functions_that_name_slots_use_the_templates_prefix(function: str) -> None:
    prefix = functions()[function]["Environment"]["Variables"]["SCORE_FUNCTION_PREFIX"]
    names = [functions()[f"Score{slot}"]["FunctionName"] for slot in range(1, 9)]
    assert names == [f"{prefix}{slot}" for slot in range(1, 9)]


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_there_are_the_slots_that_the_parameter_lists(slots: int) -> None:
    listed = [str(slot + 1) for slot in range(slots)]
    assert set(functions(slots=slots)) == {
        *(f"{name}Function" for name in FUNCTIONS),
        *(f"Score{slot}" for slot in listed),
    }
    assert {functions(slots=slots)[f"{name}Function"]["FunctionName"] for name in FUNCTIONS} == {
        f"stack-{suffix}" for suffix in FUNCTIONS.values()
    }
    assert resolved(slots=slots)["Outputs"]["SlotNames"]["Value"] == ",".join(listed)


def test_the_docs_list_every_parameter_with_its_default() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    table = page[page.index("## Parameters") :].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (`[^`]+`|\S+) \|", table, re.MULTILINE)
    documented = {name: shown.strip("`") for name, shown in rows}
    defaults = {name: str(one["Default"]) or "none" for name, one in source()["Parameters"].items()}
    assert documented == defaults | {"Slots": "1,…,8"}


def test_slots_differ_in_their_names_only() -> None:
    slots = [dict(body) for name, body in functions().items() if name.startswith("Score")]
    assert len({slot.pop("FunctionName") for slot in slots}) == len(slots)
    assert all(slot == slots[0] for slot in slots)


def test_a_loop_repeats_the_globals_that_linters_do_not_apply_to_it() -> None:
    slot = source()["Resources"]["Fn::ForEach::ScoreFunctions"][2]["Score${Slot}"]["Properties"]
    common = source()["Globals"]["Function"]
    assert (slot["Runtime"], slot["Handler"]) == (common["Runtime"], common["Handler"])


def test_a_functions_timeout_is_not_below_that_of_the_states_that_invoke_it() -> None:
    longest = msgspec.json.schema(Member)["$defs"]["Member"]["properties"]["timeout"]["maximum"]
    shipped = [member["timeout"] for member in json.loads((ROOT / "models/manifest.json").read_text())["members"]]
    timeouts = {name: body["Timeout"] for name, body in functions().items()}
    assert max(shipped) <= longest < min(timeout for name, timeout in timeouts.items() if name.startswith("Score"))
    states = json.loads((ROOT / ASL).read_text())["States"]
    batch = json.loads((ROOT / BATCH_ASL).read_text())["States"]
    states |= batch | batch["Run shards"]["ItemProcessor"]["States"]
    for function, names in {
        "Normalize": ["Normalize"],
        "Aggregate": ["Aggregate"],
        "Plan": ["Plan"],
        "NormalizeShard": ["Normalize shard"],
        "AggregateShard": ["Aggregate shard", "Store the failure"],
        "Summarize": ["Summarize"],
    }.items():
        for name in names:
            assert states[name]["Parameters"]["FunctionName"] == f"${{{function}FunctionArn}}"
            assert states[name]["TimeoutSeconds"] <= timeouts[f"{function}Function"]


@pytest.mark.parametrize(
    ("function", "layers"),
    [
        *((f"{name}Function", ["CoreLayer", "RuntimeLayer"]) for name in ("Normalize", "Aggregate", "Api")),
        ("Score3", ["CoreLayer", "RuntimeLayer"]),
        *((f"{name}Function", ["CoreLayer", "BatchLayer"]) for name in ("Plan", "NormalizeShard", "AggregateShard")),
        ("SummarizeFunction", ["CoreLayer", "ReportLayer"]),
    ],
)
def test_a_function_has_our_package_and_one_layer_of_its_dependencies(function: str, layers: list[str]) -> None:
    found = translated()["Resources"]
    versions = [next(name for name in found if name.startswith(layer)) for layer in layers]
    assert [layer["Ref"] for layer in found[function]["Properties"]["Layers"]] == versions


# ------------------------------------------------------------------------------------------- the state machines


def machines(definition: str) -> list[dict[str, Any]]:
    """Return the state machines of a definition, as they are written in the template."""
    bodies = [body for body in source()["Resources"].values() if isinstance(body, dict)]
    found = [body["Properties"] for body in bodies if body["Type"] == "AWS::Serverless::StateMachine"]
    return [machine for machine in found if machine["DefinitionUri"] == definition]


@pytest.mark.parametrize(("definition", "types"), [(ASL, ["STANDARD", "EXPRESS"]), (BATCH_ASL, ["STANDARD"])])
def test_every_placeholder_of_a_definition_has_a_value_in_every_state_machine(
    definition: str, types: list[str]
) -> None:
    placeholders = set(re.findall(r"\$\{(\w+)\}", (ROOT / definition).read_text()))
    assert [machine["Type"] for machine in machines(definition)] == types
    for machine in machines(definition):
        assert set(machine["DefinitionSubstitutions"]) == placeholders


@pytest.mark.parametrize("slots", [1, 3, 16])
@pytest.mark.parametrize(
    ("role", "others"), [("EnsembleRole", ["Normalize", "Aggregate"]), ("BatchRole", BATCH_FUNCTIONS)]
)
def test_a_state_machine_may_invoke_its_functions_and_the_slots_and_no_others(
    role: str, others: list[str], slots: int
) -> None:
    invoked = [resource for action, resource in grants(role, slots=slots) if action == "lambda:InvokeFunction"]
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:{FunctionName}"
    known = functions(slots=slots)
    names = [f"{name}Function" for name in others] + [name for name in known if name.startswith("Score")]
    assert sorted(invoked) == sorted(arn.format(**known[name]) for name in names)


def test_every_state_machine_has_the_role_made_for_it() -> None:
    roles = {name: machine["RoleArn"] for name, machine in resources("AWS::StepFunctions::StateMachine").items()}
    assert roles == {
        "EnsembleStateMachine": "EnsembleRole",
        "EnsembleExpressStateMachine": "EnsembleRole",
        "BatchStateMachine": "BatchRole",
        "InboxStateMachine": "InboxRole",
    }


def test_the_batch_has_the_rights_that_a_distributed_map_needs_and_starts_no_other_machine() -> None:
    arn = "arn:aws:states:eu-central-1:123456789012"
    assert {grant for grant in grants("BatchRole") if grant[0].startswith("states:")} == {
        ("states:StartExecution", f"{arn}:stateMachine:stack-batch"),
        *(
            (f"states:{action}Execution", f"{arn}:execution:stack-batch{which}")
            for action in ("Describe", "Stop")
            for which in (":*", "/*")
        ),
    }
    assert may("BatchRole", "s3:GetObject", "data", keys.shard_list_key(RUN, 1))
    assert may("BatchRole", "s3:PutObject", "data", f"{keys.run_prefix(RUN)}/outputs/manifest.json")


def test_the_review_event_matches_the_rule_and_goes_to_the_bus_that_the_role_may_use() -> None:
    (entry,) = json.loads((ROOT / ASL).read_text())["States"]["Request review"]["Parameters"]["Entries"]
    rule = resources("AWS::Events::Rule")["ReviewRule"]
    for machine in machines(ASL):
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


@pytest.mark.parametrize(("given", "statuses"), [({}, "none"), ({"AnnouncePredictions": "true"}, "*")])
def test_predictions_are_announced_if_the_parameter_is_set(given: dict[str, str], statuses: str) -> None:
    values = parameters("dev", 1, 0) | given
    found = properties_of("AWS::StepFunctions::StateMachine", resolve(translate(TEMPLATE, values), values))
    for name in ("EnsembleStateMachine", "EnsembleExpressStateMachine"):
        placeholders = found[name]["DefinitionSubstitutions"]
        assert placeholders["AnnouncedStatuses"] == statuses
        assert placeholders["RecordsTable"] == "RecordsTable"


def test_the_combined_state_sends_the_events_of_the_two_others_to_the_same_bus() -> None:
    states = json.loads((ROOT / ASL).read_text())["States"]
    (review,), (announcement,), both = (
        states[name]["Parameters"]["Entries"] for name in ("Request review", "Announce", "Request review and announce")
    )
    assert both == [review, announcement]
    assert announcement["DetailType"] == "PredictionCompleted"
    same = ("Source", "EventBusName")
    assert [announcement[name] for name in same] == [review[name] for name in same]


def test_review_events_are_stored_in_a_log_group_that_only_this_rule_may_write_to() -> None:
    rule = resources("AWS::Events::Rule")["ReviewRule"]
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


# ------------------------------------------------------------------------------------------------- the HTTP API


def http(kind: str, **given: str) -> dict[str, dict[str, Any]]:
    """Return the properties of every API Gateway resource of a kind, by logical id; conditions are not evaluated."""
    values = parameters("dev", 1, 0) | given
    return properties_of(f"AWS::ApiGatewayV2::{kind}", resolve(translate(TEMPLATE, values), values))


@pytest.mark.parametrize(
    ("given", "kind", "authorizer"),
    [
        ({}, "AWS_IAM", False),
        ({"HttpAuth": "JWT"}, "JWT", True),
        ({"HttpAuth": "OPEN"}, "NONE", False),
    ],
)
def test_the_http_api_takes_signed_requests_only_unless_a_parameter_is_set(
    given: dict[str, str], kind: str, authorizer: bool
) -> None:
    routes = http("Route", **given)
    assert {route["RouteKey"] for route in routes.values()} == {"GET /{proxy+}", "POST /{proxy+}"}
    for route in routes.values():
        assert route["AuthorizationType"] == kind
        assert (route.get("AuthorizerId") is not None) == authorizer
    with pytest.raises(TemplateRefused, match="HttpAuth must be one of IAM, JWT, OPEN"):
        http("Route", HttpAuth="no")


def test_tokens_must_be_from_the_issuer_and_for_the_audience_of_the_parameters() -> None:
    (authorizer,) = http("Authorizer", HttpAuth="JWT", HttpJwtIssuer="https://id.example/").values()
    assert authorizer["JwtConfiguration"]["Issuer"] == "https://id.example/"
    assert translated()["Resources"]["HttpAuthorizer"]["Condition"] == "HttpTakesTokens"


def test_the_http_api_is_throttled_and_logs_the_caller_and_the_path_but_no_body() -> None:
    (stage,) = http("Stage", HttpRateLimit="5", HttpBurstLimit="7").values()
    settings = stage["DefaultRouteSettings"]
    assert (settings["ThrottlingRateLimit"], settings["ThrottlingBurstLimit"]) == ("5", "7")
    logged = json.loads(stage["AccessLogSettings"]["Format"])
    assert {"requestId", "path", "status", "caller"} <= set(logged)
    assert not [value for value in logged.values() if "authorizer" in value or "body" in value.lower()]


def test_pages_may_use_the_http_api_if_a_parameter_names_their_origins() -> None:
    (closed,), (opened,) = http("Api").values(), http("Api", HttpCorsOrigins="https://example.com").values()
    assert closed.get("CorsConfiguration") is None
    assert opened["CorsConfiguration"]["AllowMethods"] == ["GET", "POST", "OPTIONS"]


def test_the_http_api_invokes_its_function_and_the_functions_timeout_is_shorter() -> None:
    (integration,) = http("Integration").values()
    assert integration["IntegrationUri"].endswith(":function:stack-api")
    assert integration["PayloadFormatVersion"] == "2.0"
    assert functions()["ApiFunction"]["Timeout"] * 1000 < integration["TimeoutInMillis"]
    (permission,) = resources("AWS::Lambda::Permission").values()
    assert permission["Principal"] == "apigateway.amazonaws.com"
    assert permission["SourceArn"].startswith("arn:aws:execute-api:eu-central-1:123456789012:")


def test_the_http_apis_function_reads_the_pointer_and_releases_and_writes_neither() -> None:
    for key in ("current.json", "releases/1.json"):
        assert may("ApiRole", "s3:GetObject", "artifacts", key)
        assert not may("ApiRole", "s3:PutObject", "artifacts", key)
    for key in ("artifacts/1", "fingerprints/1.json"):
        assert not may("ApiRole", "s3:GetObject", "artifacts", key)


def test_the_http_apis_function_may_invoke_the_ensemble_and_its_slots_only() -> None:
    allowed = {grant for grant in grants("ApiRole") if grant[0].startswith(("states:", "lambda:", "dynamodb:"))}
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:{FunctionName}"
    slots = {arn.format(**body) for name, body in functions().items() if name.startswith("Score")}
    assert allowed == {
        ("states:StartSyncExecution", "EnsembleExpressStateMachine"),
        ("dynamodb:GetItem", ARNS["AWS::DynamoDB::Table"].format(TableName="stack-records")),
        *(("lambda:InvokeFunction", slot) for slot in slots),
    }


@pytest.mark.parametrize(
    ("given", "reads"),
    [
        ({}, True),
        ({"HttpAuth": "JWT"}, False),
        ({"HttpAuth": "OPEN"}, False),
        ({"HttpRecords": "NONE"}, False),
        ({"HttpAuth": "OPEN", "HttpRecords": "NONE"}, False),
        ({"HttpAuth": "JWT", "HttpRecords": "CALLERS"}, True),
    ],
)
def test_records_are_readable_by_signed_http_requests_only_unless_a_parameter_is_set(
    given: dict[str, str], reads: bool
) -> None:
    values = parameters("dev", 1, 0) | given
    template = resolve(translate(TEMPLATE, values), values)
    function = template["Resources"]["ApiFunction"]["Properties"]
    assert function["Environment"]["Variables"]["READS_RECORDS"] == str(reads).lower()
    (policy,) = template["Resources"]["ApiRole"]["Properties"]["Policies"]
    allowed = {statement["Sid"] for statement in policy["PolicyDocument"]["Statement"] if statement is not None}
    assert {"ReadRecords", "ReadLargeRecords"} & allowed == ({"ReadRecords", "ReadLargeRecords"} if reads else set())


# ---------------------------------------------------------------------------------------------------- the inbox


def inbox_rule(**given: str) -> dict[str, Any]:
    values = parameters("dev", 1, 0) | given
    return properties_of("AWS::Events::Rule", resolve(translate(TEMPLATE, values), values))["InboxRule"]


def test_objects_in_the_inbox_and_no_others_start_its_state_machine() -> None:
    rule = inbox_rule()
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": ["DataBucket"]}, "object": {"key": [{"prefix": keys.INBOX}]}},
    }
    assert "EventBusName" not in rule  # S3 sends its events to the default bus only
    bucket = resources("AWS::S3::Bucket")["DataBucket"]
    assert bucket["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    (target,) = rule["Targets"]
    assert (target["Arn"], target["RoleArn"]) == ("InboxStateMachine", "InboxRuleRole")
    assert set(grants("InboxRuleRole")) == {("states:StartExecution", "InboxStateMachine")}
    # The state machine reads the part of S3's event that the target gets.
    first = json.loads((ROOT / INBOX_ASL).read_text())["States"]["Receive"]["Parameters"]["Payload"]
    assert (target["InputPath"], first) == ("$.detail", {"object.$": "$.object"})


def test_the_inbox_is_enabled_by_default() -> None:
    assert inbox_rule()["State"] == "ENABLED"
    assert inbox_rule(InboxState="DISABLED")["State"] == "DISABLED"
    with pytest.raises(TemplateRefused, match="InboxState must be one of ENABLED, DISABLED"):
        inbox_rule(InboxState="off")


def test_an_inbox_event_that_starts_nothing_is_retried_and_then_sent_to_an_encrypted_queue() -> None:
    (target,) = inbox_rule()["Targets"]
    queue = resources("AWS::SQS::Queue")["InboxMissedQueue"]
    assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0
    assert target["DeadLetterConfig"]["Arn"] == ARNS["AWS::SQS::Queue"].format(**queue)
    assert queue["SqsManagedSseEnabled"] is True
    _, send = resources("AWS::SQS::QueuePolicy")["InboxMissedQueuePolicy"]["PolicyDocument"]["Statement"]
    assert (send["Principal"], send["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
    assert send["Condition"] == {
        "ArnEquals": {"aws:SourceArn": "arn:aws:events:eu-central-1:123456789012:rule/stack-inbox"}
    }


def test_alarms_are_raised_for_objects_without_a_result() -> None:
    alarms = resources("AWS::CloudWatch::Alarm")
    failed, missed = alarms["InboxFailedAlarm"], alarms["InboxMissedAlarm"]
    assert failed["Dimensions"] == [{"Name": "StateMachineArn", "Value": "InboxStateMachine"}]
    assert missed["Dimensions"] == [{"Name": "QueueName", "Value": "stack-inbox-missed"}]
    for alarm in (failed, missed):
        assert (alarm["Threshold"], alarm["TreatMissingData"]) == (0, "notBreaching")


def test_the_inbox_starts_the_ensemble_and_the_batch_and_manages_its_own_executions_only() -> None:
    arn = "arn:aws:states:eu-central-1:123456789012:execution:stack"
    rule = "arn:aws:events:eu-central-1:123456789012:rule/StepFunctionsGetEventsForStepFunctionsExecutionRule"
    allowed = {grant for grant in grants("InboxRole") if grant[0].startswith(("states:", "events:", "lambda:"))}
    function = "arn:aws:lambda:eu-central-1:123456789012:function:stack-{}"
    # The rights that Step Functions documents for startExecution.sync.
    assert allowed == {
        *(("lambda:InvokeFunction", function.format(name)) for name in ("receive", "deliver")),
        *(("states:StartExecution", f"{name}StateMachine") for name in ("Ensemble", "Batch")),
        *(
            (f"states:{action}Execution", f"{arn}-{machine}:inbox-*")
            for action in ("Describe", "Stop")
            for machine in ("ensemble", "batch")
        ),
        *((f"events:{action}", rule) for action in ("PutTargets", "PutRule", "DescribeRule")),
    }


# ------------------------------------------------------------------------------------------------- the schedule


def schedule(name: str = "BatchSchedule", **given: str) -> dict[str, Any]:
    values = parameters("dev", 1, 0) | given
    return properties_of("AWS::Scheduler::Schedule", resolve(translate(TEMPLATE, values), values))[name]


def test_the_schedule_is_disabled_by_default() -> None:
    assert schedule()["State"] == "DISABLED"
    assert schedule(BatchScheduleState="ENABLED")["State"] == "ENABLED"
    with pytest.raises(TemplateRefused, match="BatchScheduleState must be one of ENABLED, DISABLED"):
        schedule(BatchScheduleState="on")


def test_the_schedule_starts_the_batch_with_a_request_that_plan_reads() -> None:
    found = schedule(
        BatchScheduleExpression="cron(30 4 * * ? *)", BatchTimezone="Europe/Berlin", BatchDataset="inbox/{date}.csv"
    )
    assert (found["ScheduleExpression"], found["ScheduleExpressionTimezone"]) == ("cron(30 4 * * ? *)", "Europe/Berlin")
    target = found["Target"]
    assert (target["Arn"], target["RoleArn"]) == ("BatchStateMachine", "BatchScheduleRole")
    # EventBridge Scheduler replaces its keyword with the time.
    sent = target["Input"].replace("<aws.scheduler.scheduled-time>", "2026-03-01T03:30:00Z")
    request = parse_request(json.loads(sent))
    assert choose_date(request, "2026-03-07T00:00:00Z") == "2026-03-01"
    assert locate_dataset(request, "2026-03-01", "stack-data-123456789012").endswith("/inbox/2026-03-01.csv")


def test_a_run_that_cannot_be_started_is_retried_and_then_sent_to_an_encrypted_queue() -> None:
    target = schedule()["Target"]
    queue = resources("AWS::SQS::Queue")["BatchMissedQueue"]
    assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0
    assert target["DeadLetterConfig"]["Arn"] == ARNS["AWS::SQS::Queue"].format(**queue)
    assert queue["SqsManagedSseEnabled"] is True
    assert set(grants("BatchScheduleRole")) == {
        ("states:StartExecution", "BatchStateMachine"),
        ("sqs:SendMessage", target["DeadLetterConfig"]["Arn"]),
    }


@pytest.mark.parametrize("role", ["BatchScheduleRole", "WarmupScheduleRole"])
def test_a_schedules_role_is_for_the_scheduler_of_this_account(role: str) -> None:
    (statement,) = resources("AWS::IAM::Role")[role]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_the_warm_up_is_disabled_by_default_and_runs_as_often_as_the_parameter_sets() -> None:
    found = schedule("WarmupSchedule")
    assert (found["State"], found["ScheduleExpression"]) == ("DISABLED", "rate(5 minutes)")
    wanted = schedule("WarmupSchedule", WarmupState="ENABLED", WarmupExpression="cron(0/5 8-18 ? * MON-FRI *)")
    assert (wanted["State"], wanted["ScheduleExpression"]) == ("ENABLED", "cron(0/5 8-18 ? * MON-FRI *)")
    with pytest.raises(TemplateRefused, match="WarmupState must be one of ENABLED, DISABLED"):
        schedule("WarmupSchedule", WarmupState="on")


def test_the_warm_up_is_an_express_execution_with_a_warm_up_payload() -> None:
    target = schedule("WarmupSchedule")["Target"]
    assert (target["Arn"], target["RoleArn"]) == ("EnsembleExpressStateMachine", "WarmupScheduleRole")
    assert is_warmup(json.loads(target["Input"]))
    assert set(grants("WarmupScheduleRole")) == {("states:StartExecution", "EnsembleExpressStateMachine")}


def test_a_late_warm_up_is_dropped() -> None:
    target = schedule("WarmupSchedule")["Target"]
    assert target["RetryPolicy"]["MaximumRetryAttempts"] <= 1
    assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] < 5 * 60
    assert "DeadLetterConfig" not in target


def test_each_schedules_input_is_rejected_by_the_other_state_machine() -> None:
    batch, warmup = (json.loads(schedule(name)["Target"]["Input"]) for name in ("BatchSchedule", "WarmupSchedule"))
    assert not is_warmup(batch)
    with pytest.raises(InvalidPayload, match='"warmup" is not a known key'):
        parse_request({**batch, **warmup})
    with pytest.raises(InvalidPayload, match="dataset"):
        parse_request(warmup)
    with pytest.raises(InvalidPayload, match='"dataset" is not a known key'):
        parse_payload(batch)


def test_an_alarm_is_raised_for_a_failed_run_and_for_a_run_that_could_not_be_started() -> None:
    alarms = resources("AWS::CloudWatch::Alarm")
    failed, missed = alarms["BatchFailedAlarm"], alarms["BatchMissedAlarm"]
    assert (failed["MetricName"], failed["ComparisonOperator"]) == ("ExecutionsFailed", "GreaterThanThreshold")
    assert failed["Dimensions"] == [{"Name": "StateMachineArn", "Value": "BatchStateMachine"}]
    assert missed["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert missed["Dimensions"] == [{"Name": "QueueName", "Value": "stack-batch-missed"}]
    for alarm in (failed, missed):
        assert (alarm["Threshold"], alarm["TreatMissingData"]) == (0, "notBreaching")


def test_an_alarm_is_raised_for_a_missing_day_if_the_schedule_is_enabled() -> None:
    missing = resources("AWS::CloudWatch::Alarm")["BatchMissingAlarm"]
    assert translated()["Resources"]["BatchMissingAlarm"]["Condition"] == "BatchIsScheduled"
    assert translated()["Conditions"]["BatchIsScheduled"] == {"Fn::Equals": [{"Ref": "BatchScheduleState"}, "ENABLED"]}
    assert missing["Period"] * missing["EvaluationPeriods"] == 26 * 3600
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    assert missing["Period"] >= 3600
    assert missing["Period"] * missing["EvaluationPeriods"] <= 7 * 24 * 3600
    assert (missing["MetricName"], missing["Statistic"]) == ("ExecutionsSucceeded", "Sum")
    assert (missing["ComparisonOperator"], missing["Threshold"]) == ("LessThanThreshold", 1)
    assert missing["TreatMissingData"] == "breaching"


# -------------------------------------------------------------------------------------------------- the results


@pytest.mark.parametrize(("table", "root"), [("ResultsTable", "results"), ("RejectedTable", "results-rejected")])
def test_athena_finds_a_days_results_under_the_keys_that_a_run_stores_them(table: str, root: str) -> None:
    found = resources("AWS::Glue::Table")[table]["TableInput"]
    projected = found["Parameters"]
    assert [key["Name"] for key in found["PartitionKeys"]] == ["ensemble", "dt"]
    assert (projected["projection.enabled"], projected["projection.ensemble.type"]) == ("true", "injected")
    template = projected["storage.location.template"]
    folder = template.replace("${ensemble}", "titanic").replace("${dt}", "2026-03-01")
    part = f"s3://stack-data-123456789012/{keys.partition(root, 'titanic', '2026-03-01', RUN)}/part-00000.parquet"
    assert part.startswith(folder)
    assert found["StorageDescriptor"]["Location"] == f"s3://stack-data-123456789012/{root}/"


def test_the_tables_have_the_columns_that_do_not_depend_on_the_members() -> None:
    types = {
        pl.Boolean: "boolean",
        pl.Float64: "double",
        pl.Int64: "bigint",
        pl.String: "string",
        pl.List(pl.Float64): "array<double>",
        pl.List(pl.String): "array<string>",
    }
    tables = {
        name: {column["Name"]: column["Type"] for column in body["TableInput"]["StorageDescriptor"]["Columns"]}
        for name, body in resources("AWS::Glue::Table").items()
    }
    predicted = {ID: pl.String, FILE: pl.String, ROW: pl.Int64, **CLASS_COLUMNS}
    rest = {"decision": "string", "tier": "int", "status": "string"}
    assert tables["ResultsTable"] == {name: types[type_] for name, type_ in predicted.items()} | rest
    assert tables["RejectedTable"] == {name: types[type_] for name, type_ in REJECTED.items()}


# --------------------------------------------------------------------------------------------------- the rights


SHARD = keys.shard_prefix(RUN, 0)
OBJECTS = {
    "pointer": ("artifacts", keys.CURRENT),
    "artifact": ("artifacts", keys.artifact_key(DIGEST)),
    "release": ("artifacts", keys.release_key(DIGEST)),
    "fingerprint": ("artifacts", keys.fingerprint_key(DIGEST)),
    "payload": ("data", keys.payload_key(b"")),
    "image": ("data", keys.image_key(b"")),
    "record": ("data", keys.record_key(b"")),
    "arrival": ("data", f"{keys.INBOX}a folder/a.png"),
    "response": ("data", keys.response_key(f"{keys.INBOX}a.png", None, keys.FAILURE)),
    "dataset": ("data", f"{keys.DATASETS}dt=2026-03-01/a.csv"),
    "columns": ("data", keys.columns_key(EXECUTION)),
    "columns of tier 2": ("data", keys.columns_key(EXECUTION, tier=2)),
    "outputs": ("data", keys.outputs_key(EXECUTION, "linear")),
    "predictions": ("data", keys.predictions_key(EXECUTION)),
    "plan": ("data", keys.plan_key(RUN)),
    "claim": ("data", keys.claim_key(RUN)),
    "result": ("data", keys.result_key(RUN)),
    "shards": ("data", keys.shards_key(RUN)),
    "sampling": ("data", keys.sampling_key(RUN)),
    "labelling": ("data", keys.labelling_key(RUN, 0)),
    "shard list": ("data", keys.shard_list_key(RUN, 1)),
    "map's outputs": ("data", f"{keys.run_prefix(RUN)}/outputs/manifest.json"),
    "shard's columns": ("data", keys.columns_key(SHARD)),
    "shard's columns of tier 2": ("data", keys.columns_key(SHARD, tier=2)),
    "shard's outputs": ("data", keys.outputs_key(SHARD, "linear")),
    "shard's rows": ("data", keys.accepted_key(SHARD)),
    "shard's counts": ("data", keys.read_key(SHARD)),
    "part": ("data", keys.staged_key(RUN, "part", 0, "parquet")),
    "rejected rows": ("data", keys.staged_key(RUN, "rejected", 0, "parquet")),
    "shard's report": ("data", keys.shard_report_key(RUN, 0)),
    "shard's failure": ("data", keys.shard_failure_key(RUN, 0)),
    "published part": ("data", f"{PARTITION}/part-00000.parquet"),
    "published success": ("data", keys.success_key(PARTITION)),
    "latest": ("data", keys.latest_key("results", "titanic")),
}
"""An object of every kind that `storage/keys.py` names: bucket and key."""

BATCHS = {name for name, (_, key) in OBJECTS.items() if key.startswith(keys.BATCH)}
PUBLISHED = {"published part", "published success", "latest"}
CARRIED = {"outputs", "predictions"}

READS = {
    "NormalizeRole": {"pointer", "release", "payload", "image", "arrival"},
    "ScoreRole": {"artifact", "columns", "columns of tier 2", "shard's columns", "shard's columns of tier 2"},
    "AggregateRole": {"release", "payload", "image", "record", "columns", "outputs"},
    "ApiRole": {"pointer", "release", "record"} | CARRIED,
    "ReceiveRole": {"pointer", "release", "arrival"},
    "DeliverRole": {"response"} | CARRIED,
    "PlanRole": {
        "pointer",
        "release",
        "dataset",
        "arrival",
        "plan",
        "claim",
        "result",
        "shards",
        "sampling",
        "labelling",
    }
    | PUBLISHED,
    "NormalizeShardRole": {"release", "dataset", "arrival", "plan"},
    "AggregateShardRole": {"release", "plan", "rejected rows"}
    | {name for name in BATCHS if name.startswith("shard's ")} - {"shard's report", "shard's failure"},
    "SummarizeRole": {"release"} | BATCHS | PUBLISHED,
    "BatchRole": {"shard list", "map's outputs"},
}
WRITES = {
    "NormalizeRole": {"columns"},
    "ScoreRole": {"outputs", "shard's outputs"},
    "AggregateRole": {"columns of tier 2", "record"} | CARRIED,
    "ApiRole": {"payload", "image", "columns"},
    "ReceiveRole": {"payload", "image"},
    "DeliverRole": {"response"},
    "PlanRole": {"plan", "claim", "shards", "shard list", "sampling", "labelling"},
    "NormalizeShardRole": {
        "shard's columns",
        "shard's rows",
        "shard's counts",
        "rejected rows",
        "shard's failure",
    },
    "AggregateShardRole": {
        "shard's columns of tier 2",
        "rejected rows",
        "part",
        "shard's report",
        "shard's failure",
    },
    "SummarizeRole": {"result"} | PUBLISHED,
    "BatchRole": {"map's outputs"},
}
READS_VERSIONS = {role: {"arrival", "dataset"} for role in ("PlanRole", "NormalizeShardRole")} | {
    "ReceiveRole": {"arrival"}
}
DELETES = {"DeliverRole": {"response"}, "SummarizeRole": BATCHS}


def test_every_kind_of_key_is_among_the_objects() -> None:
    changes_keys = {"parse_release_key", "parse_shard_report_key", "to_portable_key"}
    makes_keys = {name for name in vars(keys) if name.endswith("_key")} - changes_keys
    mentioned = set(re.findall(r"keys\.(\w+_key)\(", Path(__file__).read_text()))
    assert makes_keys <= mentioned


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("s3:GetObject", READS),
        ("s3:PutObject", WRITES),
        ("s3:GetObjectVersion", READS_VERSIONS),
        ("s3:DeleteObject", DELETES),
    ],
)
def test_a_role_reaches_the_objects_that_its_function_uses_and_no_others(
    role: str, action: str, expected: dict[str, set[str]]
) -> None:
    reached = {name for name, place in OBJECTS.items() if may(role, action, *place)}
    assert reached == expected.get(role, set())


def test_there_are_no_other_roles_and_no_managed_policies() -> None:
    roles = resources("AWS::IAM::Role")
    assert sorted(roles) == ROLES
    assert not any("ManagedPolicyArns" in role for role in roles.values())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_names_its_actions_and_resources(role: str) -> None:
    allowed = list(grants(role))
    assert not [action for action, _ in allowed if "*" in action]
    assert {action for action, resource in allowed if resource == "*"} <= GRANTED_ON_EVERYTHING
    reached = [resource for action, resource in allowed if action.startswith("s3:") and action != "s3:ListBucket"]
    prefix = r"arn:aws:s3:::stack-(artifacts|data)-123456789012/(current\.json|[a-z]+/[-*a-z./]+|results\*)"
    assert [resource for resource in reached if not re.fullmatch(prefix, resource)] == []


READ_AND_WRITE = {"s3:GetObject", "s3:PutObject"}


@pytest.mark.parametrize("role", ROLES)
def test_only_summarize_and_deliver_delete_and_only_plan_and_summarize_list(role: str) -> None:
    actions = {action for action, _ in grants(role) if action.startswith("s3:")}
    more: dict[str, set[str]] = {
        "PlanRole": {"s3:ListBucket", "s3:GetObjectVersion"},
        "NormalizeShardRole": {"s3:GetObjectVersion"},
        "ReceiveRole": {"s3:GetObjectVersion"},
        "DeliverRole": {"s3:DeleteObject"},
        "SummarizeRole": {"s3:ListBucket", "s3:DeleteObject"},
        # A ResultWriter may upload in parts.
        "BatchRole": {"s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"},
    }
    assert actions <= READ_AND_WRITE | more.get(role, set())
    for statement in resources("AWS::IAM::Role")[role]["Policies"][0]["PolicyDocument"]["Statement"]:
        if "s3:ListBucket" in as_list(statement["Action"]):
            listed = statement["Condition"]["StringLike"]["s3:prefix"]
            assert set(listed) <= {f"{keys.DATASETS}*", f"{keys.INBOX}*", f"{keys.BATCH}*", f"{keys.RESULTS}*"}


@pytest.mark.parametrize("role", ROLES)
def test_only_aggregate_writes_records_and_only_the_http_api_also_reads_them(role: str) -> None:
    reached = {grant for grant in grants(role) if grant[0].startswith("dynamodb:")}
    table = "arn:aws:dynamodb:eu-central-1:123456789012:table/stack-records"
    actions = {"AggregateRole": {"dynamodb:GetItem", "dynamodb:PutItem"}, "ApiRole": {"dynamodb:GetItem"}}
    assert reached == {(action, table) for action in actions.get(role, set())}


# -------------------------------------------------------------------------------------------------- the storage


@pytest.mark.parametrize("name", ["ArtifactBucket", "DataBucket"])
def test_a_bucket_is_private_encrypted_and_accessible_by_tls_only(name: str) -> None:
    bucket, policy = resources("AWS::S3::Bucket")[name], resources("AWS::S3::BucketPolicy")[f"{name}Policy"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    arn = f"arn:aws:s3:::{bucket['BucketName']}"
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [arn, f"{arn}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": False}}


def test_releases_and_records_outlive_the_stack() -> None:
    for name in ("ArtifactBucket", "DataBucket", "RecordsTable"):
        body = translated()["Resources"][name]
        assert (body["DeletionPolicy"], body["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    for name in ("ArtifactBucket", "DataBucket"):
        assert resources("AWS::S3::Bucket")[name]["VersioningConfiguration"] == {"Status": "Enabled"}


@pytest.mark.parametrize(("retention", "expected"), [(0, {}), (365, {keys.RECORDS: "365"})])
def test_intermediate_objects_expire_and_records_if_the_parameter_is_set(
    retention: int, expected: dict[str, str]
) -> None:
    rules = resources("AWS::S3::Bucket", retention=retention)["DataBucket"]["LifecycleConfiguration"]["Rules"]
    days = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert days.pop(keys.EXECUTIONS) == days.pop(keys.PAYLOADS) == days.pop(keys.BATCH) == 30
    assert days == expected


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
def test_the_stage_sets_the_log_level_and_the_deletion_protection(stage: str, level: str, *, protected: bool) -> None:
    for function in functions(stage=stage).values():
        variables = function["Environment"]["Variables"]
        assert (variables["STAGE"], variables["LOG_LEVEL"]) == (stage, level)
        assert function["LoggingConfig"]["ApplicationLogLevel"] == level
    (table,) = resources("AWS::DynamoDB::Table", stage=stage).values()
    assert table["DeletionProtectionEnabled"] is protected


def test_another_stage_is_rejected() -> None:
    assert source()["Parameters"]["Stage"]["AllowedValues"] == ["dev", "prod"]
    with pytest.raises(TemplateRefused, match="Stage must be one of dev, prod"):
        translate(TEMPLATE, {"Stage": "test"})


def test_every_log_group_expires_its_logs_and_every_function_has_one() -> None:
    groups = resources("AWS::Logs::LogGroup")
    assert {group["RetentionInDays"] for group in groups.values()} == {"14"}
    used = {function["LoggingConfig"]["LogGroup"] for function in functions().values()}
    assert used == {"ScoreLogGroup", *(f"{name}LogGroup" for name in FUNCTIONS)}
    assert set(groups) == used | {
        "BatchLogGroup",
        "EnsembleLogGroup",
        "HttpLogGroup",
        "InboxLogGroup",
        "ReviewLogGroup",
    }


def test_the_state_machines_log_errors_and_no_feature_values() -> None:
    for machine in resources("AWS::StepFunctions::StateMachine").values():
        group = machine["RoleArn"].replace("Role", "LogGroup")
        arn = ARNS["AWS::Logs::LogGroup"].format(**resources("AWS::Logs::LogGroup")[group])
        assert machine["LoggingConfiguration"] == {
            "Level": "ERROR",
            "IncludeExecutionData": False,
            "Destinations": [{"CloudWatchLogsLogGroup": {"LogGroupArn": arn}}],
        }


@pytest.mark.parametrize(
    ("function", "role"),
    [("Score3", "ScoreRole"), *((f"{name}Function", f"{name}Role") for name in FUNCTIONS)],
)
def test_a_function_may_write_to_its_log_group_only(function: str, role: str) -> None:
    body = functions()[function]
    arn = ARNS["AWS::Logs::LogGroup"].format(**resources("AWS::Logs::LogGroup")[body["LoggingConfig"]["LogGroup"]])
    assert body["Role"] == role
    assert {grant for grant in grants(role) if grant[0].startswith("logs:")} == {
        ("logs:CreateLogStream", arn),
        ("logs:PutLogEvents", arn),
    }


def test_every_function_and_state_machine_is_traced() -> None:
    assert {function["TracingConfig"]["Mode"] for function in functions().values()} == {"Active"}
    machines = resources("AWS::StepFunctions::StateMachine").values()
    assert {machine["TracingConfiguration"]["Enabled"] for machine in machines} == {True}


def test_the_outputs_name_what_a_client_needs() -> None:
    assert set(resolved()["Outputs"]) == {
        "AggregateFunctionName",
        "ApiRoleName",
        "ArtifactBucketName",
        "BatchRoleName",
        "BatchScheduleName",
        "BatchStateMachineArn",
        "DataBucketName",
        "EnsembleRoleName",
        "ExpressStateMachineArn",
        "HttpUrl",
        "InboxStateMachineArn",
        "NormalizeFunctionName",
        "RecordsTableName",
        "ReviewLogGroupName",
        "ScoreFunctionPrefix",
        "SlotNames",
        "StateMachineArn",
        "WarmupScheduleName",
    }


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_samconfig_deploys_a_stage_without_prompts(stage: str) -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())
    common, deploy = settings[stage]["global"]["parameters"], settings[stage]["deploy"]["parameters"]
    assert common == {"language_extensions": True, "stack_name": f"stepensemble-{stage}"}
    assert f"Stage={stage}" in deploy["parameter_overrides"]
    assert deploy["capabilities"] == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    assert deploy["resolve_s3"] is True
    assert deploy["confirm_changeset"] is (stage == "prod")


# ------------------------------------------------------------------------------------------------------ linters


@pytest.mark.slow
def test_sam_validates_the_template() -> None:
    command = [str(Path(sys.executable).with_name("sam")), "validate", "--lint"]
    quietly = os.environ | {"SAM_CLI_TELEMETRY": "0"}
    checked = subprocess.run(command, cwd=ROOT, env=quietly, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("stage", "slots", "retention"), [("dev", 8, 0), ("prod", 16, 365)])
@pytest.mark.slow
def test_the_translated_template_passes_the_linter(stage: str, slots: int, retention: int) -> None:
    assert lint(json.dumps(translated(stage, slots, retention)), config=ManualArgs()) == []
