"""Resolves the references of a translated template, and lists what its roles are allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PSEUDO = {
    "AWS::StackName": "stack",
    "AWS::AccountId": "123456789012",
    "AWS::Region": "eu-central-1",
    "AWS::Partition": "aws",
}
ARNS = {
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:eu-central-1:123456789012:table/{TableName}",
    "AWS::Events::Rule": "arn:aws:events:eu-central-1:123456789012:rule/{Name}",
    "AWS::Lambda::Function": "arn:aws:lambda:eu-central-1:123456789012:function:{FunctionName}",
    "AWS::Logs::LogGroup": "arn:aws:logs:eu-central-1:123456789012:log-group:{LogGroupName}:*",
    "AWS::S3::Bucket": "arn:aws:s3:::{BucketName}",
    "AWS::SQS::Queue": "arn:aws:sqs:eu-central-1:123456789012:{QueueName}",
    "AWS::StepFunctions::StateMachine": "arn:aws:states:eu-central-1:123456789012:stateMachine:{StateMachineName}",
}
NAMES = {"AWS::Logs::LogGroup": "LogGroupName", "AWS::S3::Bucket": "BucketName"}
"""The property that a reference in Fn::Sub returns, by type."""

# These actions have no resources: AWS grants them on "*" only.
GRANTED_ON_EVERYTHING = {
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}


@dataclass(frozen=True)
class Resolver:
    """Resolves the intrinsic functions that the templates use. A role is represented by its logical id.

    Attributes:
        document: the translated template.
        values: of parameters, pseudo parameters and other stacks' exports.
    """

    document: Mapping[str, Any]
    values: Mapping[str, str]

    def __call__(self, value: Any) -> Any:  # noqa: C901 - one case for each intrinsic function
        match value:
            case {"Ref": "AWS::NoValue"}:
                return None
            case {"Ref": str(name)}:
                return self.values.get(name, name)
            case {"Fn::GetAtt": [str(name), "Arn"]}:
                return self.arn(name)
            case {"Fn::GetAtt": [str(name), str(attribute)]}:
                return self(self.document["Resources"][name]["Properties"].get(attribute, f"{name}.{attribute}"))
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([^}]+)\}", lambda found: self.substitute(found[1]), text)
            case {"Fn::ImportValue": name}:
                return self.values[self(name)]
            case {"Fn::FindInMap": [str(table), row, str(column)]}:
                return self.document["Mappings"][table][self(row)][column]
            case {"Fn::If": [str(condition), then, otherwise]}:
                return self(then if self(self.document["Conditions"][condition]) else otherwise)
            case {"Fn::Not": [condition]}:
                return not self(condition)
            case {"Fn::Or": conditions}:
                return any(self(condition) for condition in conditions)
            case {"Fn::And": conditions}:
                return all(self(condition) for condition in conditions)
            case {"Fn::Equals": [one, other]}:
                return str(self(one)) == str(self(other))
            case {"Fn::Join": [str(separator), {"Ref": str(name)}]}:
                return separator.join(self.values[name].split(","))
            case {"Fn::Join": [str(separator), parts]}:
                return separator.join(self(parts))
            case dict():
                return {key: self(inner) for key, inner in value.items()}
            case list():
                return [inner for inner in map(self, value) if inner is not None]
        return value

    def substitute(self, name: str) -> str:
        if name.endswith(".Arn"):
            return self.arn(name.removesuffix(".Arn"))
        if name in self.values:
            return self.values[name]
        body = self.document["Resources"][name]
        return str(self(body["Properties"][NAMES[body["Type"]]])) if body["Type"] in NAMES else name

    def arn(self, name: str) -> str:
        body = self.document["Resources"][name]
        return ARNS[body["Type"]].format(**self(body["Properties"])) if body["Type"] in ARNS else name


def resolve(document: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return a template's resources and outputs; a parameter without a value has its default."""
    defaults = {name: str(body["Default"]) for name, body in document["Parameters"].items() if "Default" in body}
    resolver = Resolver(document, PSEUDO | defaults | dict(values))
    return {section: resolver(document[section]) for section in ("Resources", "Outputs")}


def properties_of(kind: str, resolved: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the properties of every resource of a kind, by logical id."""
    return {name: body["Properties"] for name, body in resolved["Resources"].items() if body["Type"] == kind}


def list_grants(role: str, resolved: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every (action, resource) that a template allows a role, its own or another stack's."""
    roles = properties_of("AWS::IAM::Role", resolved)
    attached = [policy for policy in properties_of("AWS::IAM::Policy", resolved).values() if role in policy["Roles"]]
    for policy in [*(roles[role]["Policies"] if role in roles else []), *attached]:
        for statement in filter(None, policy["PolicyDocument"]["Statement"]):  # a condition may leave one out
            assert statement["Effect"] == "Allow"
            for action in as_list(statement["Action"]):
                for resource in as_list(statement["Resource"]):
                    yield action, resource


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
