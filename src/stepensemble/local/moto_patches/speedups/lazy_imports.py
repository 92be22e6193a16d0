"""Import moto without the services that no template uses.

moto's CloudFormation and its Step Functions engine import some forty services with all their dependencies: 200 MB and,
on a small machine, more than two seconds. A template needs a fraction of that. While these two are imported, every
service that the template does not use is replaced by stand-in modules, whose names import the real module when
something is first done with them. So everything remains available. The managed policies of IAM, a large part of a
service in use, are postponed too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from stepensemble.local.moto_patches.patch import MotoPatch, PatchKind, is_enabled

ALWAYS_IMPORTED = frozenset({"cloudformation", "core", "iam", "moto_api", "moto_server", "stepfunctions", "utilities"})
"""Packages of moto that are not services, or that every template needs."""

ENTRY_POINTS = ("moto.moto_server.werkzeug_app", "moto.stepfunctions.parser.models", "moto.cloudformation.parsing")
"""The modules that import everything."""

LARGE_MODULES = frozenset({"moto.iam.aws_managed_policies"})
"""Unused modules of services that are used."""

HIDDEN_MODULES = frozenset({"awscrt.auth", "awscrt.crypto", "urllib3.contrib.pyopenssl"})
"""Optional modules for which botocore has a fallback: signatures and TLS, of which a local stack needs no more than the
fallback. They take 0.2 seconds to import."""

PACKAGE_NAMES = {"lambda": "awslambda"}
"""moto's package, where CloudFormation has another name for the service."""


def import_moto(resource_types: Iterable[str]) -> None:
    """Import moto's server, CloudFormation and Step Functions engine, for a template with resources of these types.

    Raises:
        ModuleNotFoundError: moto is not installed.
    """
    services = {kind.split("::")[1].lower() for kind in resource_types if kind.count("::") == 2}
    found = find_spec("moto")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("no module named moto", name="moto")
    folder = Path(found.origin).parent
    packages = {PACKAGE_NAMES.get(service, service) for service in services}
    used = {package for package in packages if (folder / package / "__init__.py").is_file()}
    stand_ins = _StandIns(folder, ALWAYS_IMPORTED | used) if is_enabled("lazy-imports") else None
    if stand_ins is not None:
        sys.meta_path.insert(0, stand_ins)
    try:
        for module in ENTRY_POINTS:
            import_module(module)
        for service in sorted(used):
            import_module(f"moto.{service}.models")
    finally:
        if stand_ins is not None:
            sys.meta_path.remove(stand_ins)
            stand_ins.withdraw()
    # CloudFormation creates the resource types of imported services, and caches what it found.
    parsing = sys.modules[ENTRY_POINTS[-1]]
    for cached in ("get_model_list", "get_model_map", "get_name_type_map"):
        getattr(parsing, cached).cache_clear()


class _StandIns(MetaPathFinder, Loader):
    """Finds a stand-in for every service of moto, except the excluded ones and those that are imported already."""

    def __init__(self, folder: Path, excluded: Iterable[str]) -> None:
        self.excluded = set(excluded)
        self.services = {path.parent.name for path in folder.glob("*/__init__.py")}
        self.made: list[str] = []

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name in HIDDEN_MODULES:
            raise ModuleNotFoundError(f"{name} is not imported here", name=name)
        parent, *rest = name.split(".")
        if parent != "moto" or not rest or rest[0] not in self.services:
            return None
        if name in self.excluded or (rest[0] in self.excluded and name not in LARGE_MODULES):
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.made.append(spec.name)
        return _StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""

    def withdraw(self, service: str | None = None) -> None:
        """Remove the stand-ins of a service, or of all, so that the next import is the real one."""
        if service is not None:
            self.excluded |= {service, *(name for name in LARGE_MODULES if name.split(".")[1] == service)}
        for name in [made for made in self.made if service is None or made.split(".")[1] == service]:
            self.made.remove(name)
            sys.modules.pop(name, None)
            parent, _, child = name.rpartition(".")
            if parent == "moto":
                vars(sys.modules["moto"]).pop(child, None)


class _StandIn(ModuleType):
    """A module from which every name can be imported."""

    def __init__(self, name: str, stand_ins: _StandIns) -> None:
        super().__init__(name)
        vars(self)["_stand_ins"] = stand_ins

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _PostponedName(vars(self)["_stand_ins"], self.__name__, (name,))


class _PostponedName:
    """A name of a real module, which is imported when the name is first used."""

    def __init__(self, stand_ins: _StandIns, module: str, path: tuple[str, ...]) -> None:
        self.__dict__.update(_stand_ins=stand_ins, _module=module, _path=path)

    def _import(self) -> Any:
        found: Any = None
        module, path = self.__dict__["_module"], self.__dict__["_path"]
        self.__dict__["_stand_ins"].withdraw(module.split(".")[1])
        found = import_module(module)
        for name in path:
            try:
                found = getattr(found, name)
            except AttributeError:
                found = import_module(f"{found.__name__}.{name}")
        return found

    def __getattr__(self, name: str) -> Any:
        stand_ins, module, path = (self.__dict__[key] for key in ("_stand_ins", "_module", "_path"))
        if name.startswith("__"):
            raise AttributeError(name)
        # An attribute alone, as in a module's constants, does not import the module yet.
        return (
            _PostponedName(stand_ins, module, (*path, name))
            if module in stand_ins.made
            else getattr(self._import(), name)
        )

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[type, ...]:
        return (self._import(),)

    def __instancecheck__(self, instance: object) -> bool:
        # If the module was never imported, nothing can be an instance of its classes.
        module = sys.modules.get(self.__dict__["_module"])
        return module is not None and not isinstance(module, _StandIn) and isinstance(instance, self._import())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._import()(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self._import()[key]

    def __contains__(self, item: object) -> bool:
        return item in self._import()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._import())

    def __str__(self) -> str:
        return str(self._import())


PATCHES = (
    MotoPatch(
        "lazy-imports",
        PatchKind.SPEEDUP,
        tuple(
            f"moto.cloudformation.parsing:{name}" for name in ("get_model_list", "get_model_map", "get_name_type_map")
        ),
        "CloudFormation and the Step Functions engine import every service. With the patch the services that no "
        "template uses are imported when they are first used.",
        "A start: 2.45 s, 4.15 s.",
    ),
)
