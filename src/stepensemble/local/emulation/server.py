"""moto with the stacks of one account: created from their templates, and the WSGI application that serves them."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from stepensemble.local.errors import TemplateRefused
from stepensemble.local.lambdas.pool import LocalFunction
from stepensemble.local.moto_patches.patch import LARGE_BODY, is_enabled
from stepensemble.local.moto_patches.speedups.lazy_imports import import_moto
from stepensemble.local.template import REGION, Blueprint


@dataclass(frozen=True)
class CreatedStacks:
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
    """Import what the blueprints need of moto, and patch it; the longest step of a start.

    Raises:
        PatchMismatch: a patch does not fit the installed moto.
        LocalStackError: the environment variable for speed-ups names one that does not exist.
    """
    # moto reads these when it is imported. Pages of other origins must not use the stack through a user's browser.
    os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")
    os.environ.setdefault("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", str(LARGE_BODY))
    # Would override the account that the endpoint puts into every request.
    os.environ.pop("MOTO_ACCOUNT_ID", None)
    for name in ("moto", "werkzeug"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    import_moto(body["Type"] for blueprint in blueprints for body in blueprint.template["Resources"].values())

    from stepensemble.local.moto_patches.registry import patch_moto

    patch_moto()


@contextmanager
def create_stacks(
    blueprints: Mapping[str, Blueprint], account: str, *, validated: bool = False
) -> Iterator[CreatedStacks]:
    """Create stacks, in order, in an account of their own, which is emptied when the block ends.

    Args:
        blueprints: by the stacks' names.
        account: twelve digits.
        validated: the same templates were created before, so definitions need not be parsed until they are executed
            (the speed-up known-definitions).

    Raises:
        TemplateRefused: moto cannot create one of them.
    """
    from moto.cloudformation.models import cloudformation_backends
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    created = CreatedStacks(DomainDispatcherApplication(create_backend_app), {}, [])
    try:
        with _without_validation() if validated and is_enabled("known-definitions") else nullcontext():
            for name, blueprint in blueprints.items():
                created.outputs[name], functions = _create(cloudformation_backends[account][REGION], blueprint, name)
                created.functions.extend(functions)
        yield created
    finally:
        _empty_account(account)


@contextmanager
def _without_validation() -> Iterator[None]:
    """Have moto accept definitions of state machines without parsing them while the block lasts."""
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
    except Exception as error:
        raise TemplateRefused(f"the template cannot be created locally: {error!r}") from error
    return outputs, functions


def _describe(stack: Any, logical_id: str, code: str) -> LocalFunction:
    """Read a function as moto resolved it."""
    from moto.cloudformation.parsing import clean_json

    resource = stack.resource_map[logical_id]
    properties = stack.template_dict["Resources"][logical_id]["Properties"]
    logging_config: Mapping[str, Any] = clean_json(properties.get("LoggingConfig", {}), stack.resource_map)
    return LocalFunction(
        logical_id=logical_id,
        name=resource.function_name,
        arn=resource.function_arn,
        handler=resource.handler,
        code=code,
        timeout=int(resource.timeout),
        memory=int(resource.memory_size),
        environment={key: str(value) for key, value in resource.environment_vars.items()},
        log_group=str(logging_config.get("LogGroup", f"/aws/lambda/{resource.function_name}")),
        log_format=str(logging_config.get("LogFormat", "Text")),
        log_level=str(logging_config.get("ApplicationLogLevel", "")),
    )


def _empty_account(account: str) -> None:
    """Remove everything of an account; moto itself can only remove all accounts at once."""
    from moto.core.base_backend import BackendDict
    from moto.s3.models import s3_backends

    registry: Any = BackendDict
    for backends in list(registry._instances):
        backends.pop(account, None)
    # Names of buckets are unique across accounts.
    owners = s3_backends.bucket_accounts
    for bucket in [bucket for bucket, (_, owner) in owners.items() if owner == account]:
        del owners[bucket]
