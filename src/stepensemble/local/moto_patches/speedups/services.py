"""Speed-ups of moto's services: CloudFormation, S3 and the dispatch of requests."""

from __future__ import annotations

import json
import weakref
from functools import lru_cache
from typing import Any

from moto.cloudformation.models import Stack
from moto.core.base_backend import AccountSpecificBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.s3.models import FakeKey, MultipartChecksumBuilder

from stepensemble.local.moto_patches.patch import LARGE_BODY, MotoPatch, PatchKind


def _list_regions_once() -> None:
    backends: Any = AccountSpecificBackend

    @lru_cache(maxsize=1)
    def list_regions() -> list[str]:
        session = backends.get_session()
        partitions = session.get_available_partitions()
        return [region for one in partitions for region in session.get_available_regions("s3", partition_name=one)]

    backends._generate_regions = lambda _backend, _service: list_regions()


def _parse_json_first() -> None:
    stacks: Any = Stack
    parse_yaml = stacks.parse_template

    def parse_template(template: str) -> Any:
        try:
            return json.loads(template)
        except ValueError:
            return parse_yaml(template)

    stacks.parse_template = staticmethod(parse_template)


def _find_services_once() -> None:
    applications: Any = DomainDispatcherApplication
    create = applications.__init__

    def create_caching(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        self.get_backend_for_host = lru_cache(maxsize=1024)(self.get_backend_for_host)

    applications.__init__ = create_caching


def _cache_last_body() -> None:
    keys: Any = FakeKey
    read, write = keys.value.fget, keys.value.fset
    cached: list[tuple[Any, bytes]] = []

    def read_cached(key: Any) -> bytes:
        for cached_key, body in cached:
            if cached_key() is key:
                return body
        body = bytes(read(key))
        if len(body) >= LARGE_BODY:
            cached[:] = [(weakref.ref(key), body)]
        return body

    def write_through(key: Any, body: bytes) -> None:
        cached.clear()
        write(key, body)

    keys.value = property(read_cached, write_through)


def _compute_requested_checksums() -> None:
    builder: Any = MultipartChecksumBuilder
    create, add, build = builder.__init__, builder.addPart, builder.build

    def __init__(self: Any, algorithm: str | None, kind: str | None) -> None:  # noqa: N807 (moto's)
        create(self, algorithm, kind)
        self.is_requested = algorithm is not None

    builder.__init__ = __init__
    builder.addPart = lambda self, part: add(self, part) if self.is_requested else None
    builder.build = lambda self: build(self) if self.is_requested else None


PATCHES = (
    MotoPatch(
        "region-list",
        PatchKind.SPEEDUP,
        (
            "moto.core.base_backend:AccountSpecificBackend._generate_regions",
            "moto.core.base_backend:AccountSpecificBackend.get_session",
        ),
        "moto lists the regions for every service, and reads all that botocore knows of the service to do so.",
        "A start: 2.43 s, 2.66 s.",
        _list_regions_once,
    ),
    MotoPatch(
        "json-templates",
        PatchKind.SPEEDUP,
        ("moto.cloudformation.models:Stack.parse_template",),
        "moto parses a template as YAML first, and as JSON only if that fails.",
        "A start: 2.14 s, 2.44 s.",
        _parse_json_first,
    ),
    MotoPatch(
        "known-definitions",
        PatchKind.SPEEDUP,
        ("moto.stepfunctions.parser.models:StepFunctionsParserBackend._validate_definition",),
        "moto parses every definition when a stack is created. With the patch, definitions that an earlier start has "
        "parsed are not parsed until they are executed.",
        "A start: 2.10 s, 2.64 s.",
    ),
    MotoPatch(
        "service-lookup",
        PatchKind.SPEEDUP,
        (
            "moto.moto_server.werkzeug_app:DomainDispatcherApplication.__init__",
            "moto.moto_server.werkzeug_app:DomainDispatcherApplication.get_backend_for_host",
        ),
        "For every request moto lists its own folders and tries two hundred patterns, while it holds a lock.",
        "300 requests: 0.51 s, 0.59 s.",
        _find_services_once,
    ),
    MotoPatch(
        "last-object",
        PatchKind.SPEEDUP,
        ("moto.s3.models:FakeKey.value",),
        "For every range of a large object moto reads the whole object from disk. With the patch it holds the large "
        "object that was read last.",
        "64 ranges of 64 MB: 0.92 s, 2.92 s.",
        _cache_last_body,
    ),
    MotoPatch(
        "part-checksums",
        PatchKind.SPEEDUP,
        (
            "moto.s3.models:MultipartChecksumBuilder.addPart",
            "moto.s3.models:MultipartChecksumBuilder.build",
        ),
        "moto computes a checksum of every upload in parts, also where the request named no algorithm and no response "
        "has the checksum.",
        "An upload of 64 MB in 8 parts: 0.78 s, 0.86 s.",
        _compute_requested_checksums,
    ),
)
