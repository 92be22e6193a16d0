"""moto, holding one account: the stacks created from their templates, and the WSGI application that serves them."""

from __future__ import annotations

import json
import logging
import os
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stepensemble.local.emulation.lazy_imports import import_moto
from stepensemble.local.errors import TemplateRefused
from stepensemble.local.lambdas.pool import LocalFunction
from stepensemble.local.template import REGION, Blueprint

LARGE_BODY = 16 * 1024 * 1024
"""Bytes beyond which moto has an object on disk, as well as the state database; its own 5 MiB cost every part of an
upload, and every shard's columns, a third of their time."""


@dataclass(frozen=True)
class Created:
    """The stacks as moto created them.

    Attributes:
        application: serves every AWS API of moto; WSGI.
        outputs: of each stack, by its name.
        functions: of all of them.
    """

    application: Any
    outputs: dict[str, dict[str, str]]
    functions: list[LocalFunction]


def load_moto(blueprints: Iterable[Blueprint]) -> None:
    """Import what the blueprints need of moto; the longest step of a start."""
    # Read by moto when it is imported: no page of another origin shall talk to the stack through somebody's browser.
    os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")
    os.environ.setdefault("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", str(LARGE_BODY))
    # Would override the account that the gateway names in every request.
    os.environ.pop("MOTO_ACCOUNT_ID", None)
    for name in ("moto", "werkzeug"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    import_moto(body["Type"] for blueprint in blueprints for body in blueprint.template["Resources"].values())
    _share_regions()
    _list_actions_once()
    _parse_json_first()
    _keep_last_body()
    _sum_when_asked()

    from stepensemble.local.emulation.eventbridge import repair

    repair()


@contextmanager
def create_stacks(blueprints: Mapping[str, Blueprint], account: str, *, sound: bool = False) -> Iterator[Created]:
    """Create stacks, in order, in an account of their own, which is emptied when the block ends.

    Args:
        blueprints: by the stacks' names.
        account: twelve digits.
        sound: the same was created before, so no definition is parsed until it is executed, which saves half a second.

    Raises:
        TemplateRefused: moto cannot create one of them.
    """
    from moto.cloudformation.models import cloudformation_backends
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    application: Any = DomainDispatcherApplication(create_backend_app)
    # For every request it lists its own folders and tries two hundred patterns, holding a lock.
    application.get_backend_for_host = lru_cache(maxsize=1024)(application.get_backend_for_host)
    # moto's own routes: one forgets everything, others show it, or hand out credentials as an EC2 instance does.
    application.app_instances |= dict.fromkeys(("moto_api", "instance_metadata"), _find_nothing)
    created = Created(application, {}, [])
    try:
        with _unparsed() if sound else nullcontext():
            for name, blueprint in blueprints.items():
                created.outputs[name], functions = _create(cloudformation_backends[account][REGION], blueprint, name)
                created.functions.extend(functions)
        yield created
    finally:
        _empty(account)


def _find_nothing(_environ: Any, start_response: Any) -> list[bytes]:
    """Answer, as a WSGI application, that there is nothing at a path."""
    start_response("404 Not Found", [("Content-Type", "application/json")])
    return [b'{"message": "Not Found"}']


@contextmanager
def _unparsed() -> Iterator[None]:
    """Have moto take definitions of state machines as they are, while the block lasts."""
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend

    backend: Any = StepFunctionsParserBackend
    validate = backend._validate_definition
    backend._validate_definition = staticmethod(lambda definition: None)  # noqa: ARG005 (moto names it)
    try:
        yield
    finally:
        backend._validate_definition = staticmethod(validate)


def _create(backend: Any, blueprint: Blueprint, name: str) -> tuple[dict[str, str], list[LocalFunction]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # moto names what it does not create: policies of buckets, schedules
            stack = backend.create_stack(name, json.dumps(blueprint.template), dict(blueprint.parameters))
            outputs = {key: str(stack.output_map[key].value) for key in stack.output_map}
        functions = [_describe(stack, logical_id, code) for logical_id, code in blueprint.code.items()]
        _complete(stack, blueprint)
    except Exception as error:
        raise TemplateRefused(f"the template cannot be created locally: {error!r}") from error
    return outputs, functions


@lru_cache
def _share_regions() -> None:
    """Have moto look up once which regions there are: for every service it reads all that botocore knows of that."""
    from moto.core.base_backend import AccountSpecificBackend

    backends: Any = AccountSpecificBackend

    @lru_cache
    def list_regions() -> list[str]:
        session = backends.get_session()
        partitions = session.get_available_partitions()
        return [region for one in partitions for region in session.get_available_regions("s3", partition_name=one)]

    backends._generate_regions = lambda _backend, _service: list_regions()


@lru_cache
def _list_actions_once() -> None:
    """Have moto inspect once what a service can do, not at every request to it."""
    from moto.core import responses

    inspecting: Any = responses
    inspecting.method_names_from_class = lru_cache(inspecting.method_names_from_class)


@lru_cache
def _parse_json_first() -> None:
    """Have moto parse a template as JSON if it is that; as YAML, which it tries first, it takes much longer."""
    from moto.cloudformation.models import Stack

    stacks: Any = Stack
    parse_yaml = stacks.parse_template

    def parse_template(template: str) -> Any:
        try:
            return json.loads(template)
        except ValueError:
            return parse_yaml(template)

    stacks.parse_template = staticmethod(parse_template)


@lru_cache
def _keep_last_body() -> None:
    """Have moto keep the large object that it read last: for every range of one it would read all of it from disk."""
    from moto.s3.models import FakeKey

    keys: Any = FakeKey
    read, write = keys.value.fget, keys.value.fset
    kept: list[tuple[Any, bytes]] = []

    def get(key: Any) -> bytes:
        for kept_key, body in kept:
            if kept_key() is key:
                return body
        body = bytes(read(key))
        if len(body) >= LARGE_BODY:
            kept[:] = [(weakref.ref(key), body)]
        return body

    def put(key: Any, body: bytes) -> None:
        kept.clear()
        write(key, body)

    keys.value = property(get, put)


@lru_cache
def _sum_when_asked() -> None:
    """Have moto check-sum an upload of several parts where a checksum was asked for: else nobody is told of it."""
    from moto.s3.models import MultipartChecksumBuilder

    builder: Any = MultipartChecksumBuilder
    create, add, build = builder.__init__, builder.addPart, builder.build

    def __init__(self: Any, algorithm: str | None, kind: str | None) -> None:  # noqa: N807 (moto's)
        create(self, algorithm, kind)
        self.asked = algorithm is not None

    builder.__init__ = __init__
    builder.addPart = lambda self, part: add(self, part) if self.asked else None
    builder.build = lambda self: build(self) if self.asked else None


def _describe(stack: Any, logical_id: str, code: str) -> LocalFunction:
    """Read a function as moto resolved it."""
    from moto.cloudformation.parsing import clean_json

    made = stack.resource_map[logical_id]
    properties = stack.template_dict["Resources"][logical_id]["Properties"]
    logging_config: Mapping[str, Any] = clean_json(properties.get("LoggingConfig", {}), stack.resource_map)
    return LocalFunction(
        logical_id=logical_id,
        name=made.function_name,
        arn=made.function_arn,
        handler=made.handler,
        code=code,
        timeout=int(made.timeout),
        memory=int(made.memory_size),
        environment={key: str(value) for key, value in made.environment_vars.items()},
        log_group=str(logging_config.get("LogGroup", f"/aws/lambda/{made.function_name}")),
        log_format=str(logging_config.get("LogFormat", "Text")),
        log_level=str(logging_config.get("ApplicationLogLevel", "")),
    )


def _complete(stack: Any, blueprint: Blueprint) -> None:
    """Set what moto's CloudFormation forgets: types of state machines, versioning and events of buckets, schedules."""
    for logical_id, body in blueprint.template["Resources"].items():
        properties = body.get("Properties", {})
        if body["Type"] == "AWS::StepFunctions::StateMachine":
            stack.resource_map[logical_id].type = properties.get("StateMachineType", "STANDARD")
        elif body["Type"] == "AWS::S3::Bucket":
            versioning = properties.get("VersioningConfiguration", {}).get("Status")
            stack.resource_map[logical_id].versioning_status = versioning
            if properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration"):
                stack.resource_map[logical_id].set_notification_configuration({"EventBridgeConfiguration": {}})
        elif body["Type"] == "AWS::Scheduler::Schedule":
            _create_schedule(stack, properties)


def _create_schedule(stack: Any, properties: Mapping[str, Any]) -> None:
    """Create a schedule, for clients to read: nothing here starts anything by itself."""
    from moto.cloudformation.parsing import clean_json
    from moto.scheduler.models import scheduler_backends

    given = clean_json(properties, stack.resource_map)
    scheduler_backends[stack.account_id][REGION].create_schedule(
        name=given["Name"],
        group_name=given.get("GroupName", ""),
        description=given.get("Description", ""),
        state=given.get("State", "ENABLED"),
        schedule_expression=given["ScheduleExpression"],
        schedule_expression_timezone=given.get("ScheduleExpressionTimezone", "UTC"),
        flexible_time_window=given["FlexibleTimeWindow"],
        target=given["Target"],
        start_date=given.get("StartDate"),
        end_date=given.get("EndDate"),
        kms_key_arn=given.get("KmsKeyArn"),
        action_after_completion=None,
    )


def _empty(account: str) -> None:
    """Forget an account; moto itself offers to forget all of them at once, only."""
    from moto.core.base_backend import BackendDict
    from moto.s3.models import s3_backends

    registry: Any = BackendDict
    for backends in list(registry._instances):
        backends.pop(account, None)
    # The names of buckets are taken for everybody.
    owners = s3_backends.bucket_accounts
    for bucket in [bucket for bucket, (_, owner) in owners.items() if owner == account]:
        del owners[bucket]
