"""Import moto without the services that nobody asks for.

moto's CloudFormation and its Step Functions engine import some forty services with all they depend on: 200 MB and, on a
small machine, more than two seconds, of which a template needs a fraction. While these two are being imported, every
service that the template does not use is stood in for by modules whose names stand for the real ones, which are
imported when something is first done with such a name. Nothing is missing, it only comes later. Two large things that
come with what is used are left for later, too: the managed policies of IAM, and moto's grammars, see `programs`.
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

from stepensemble.local.emulation.asl_cache import postpone_grammars

ALWAYS = frozenset({"cloudformation", "core", "iam", "moto_api", "moto_server", "stepfunctions", "utilities"})
"""Packages of moto that are no service, or are needed by any template."""

ENTRANCES = ("moto.moto_server.werkzeug_app", "moto.stepfunctions.parser.models", "moto.cloudformation.parsing")
"""What imports everything."""

LARGE = frozenset({"moto.iam.aws_managed_policies"})
"""Modules of services that are used, which are themselves not."""

HIDDEN = frozenset({"awscrt.auth", "awscrt.crypto", "urllib3.contrib.pyopenssl"})
"""What botocore has its own in place of, where they are not installed: signatures and TLS, and a local stack needs none
that it does not have; they take 0.2 seconds."""

PACKAGES = {"lambda": "awslambda"}
"""Where moto's package is not called as CloudFormation calls the service."""


def import_moto(resource_types: Iterable[str]) -> None:
    """Import moto's server, CloudFormation and Step Functions engine, for a template with resources of these types."""
    services = {kind.split("::")[1].lower() for kind in resource_types if kind.count("::") == 2}
    found = find_spec("moto")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("no module named moto", name="moto")
    folder = Path(found.origin).parent
    packages = {PACKAGES.get(service, service) for service in services}
    used = {package for package in packages if (folder / package / "__init__.py").is_file()}
    stand_ins = _StandIns(folder, ALWAYS | used)
    sys.meta_path.insert(0, stand_ins)
    try:
        with postpone_grammars():
            for entrance in ENTRANCES:
                import_module(entrance)
        for service in sorted(used):
            import_module(f"moto.{service}.models")
    finally:
        sys.meta_path.remove(stand_ins)
        stand_ins.withdraw()
    # CloudFormation creates what it finds imported, and remembers what it found.
    parsing = sys.modules[ENTRANCES[-1]]
    for remembered in ("get_model_list", "get_model_map", "get_name_type_map"):
        getattr(parsing, remembered).cache_clear()


class _StandIns(MetaPathFinder, Loader):
    """Finds a stand-in for every service of moto but those kept and those imported already."""

    def __init__(self, folder: Path, kept: Iterable[str]) -> None:
        self.kept = set(kept)
        self.services = {path.parent.name for path in folder.glob("*/__init__.py")}
        self.made: list[str] = []

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name in HIDDEN:
            raise ModuleNotFoundError(f"{name} is not imported here", name=name)
        parent, *rest = name.split(".")
        if parent != "moto" or not rest or rest[0] not in self.services:
            return None
        if name in self.kept or (rest[0] in self.kept and name not in LARGE):
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.made.append(spec.name)
        return _StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""

    def withdraw(self, service: str | None = None) -> None:
        """Make the next import of a service, or of any, the real one."""
        if service is not None:
            self.kept |= {service, *(name for name in LARGE if name.split(".")[1] == service)}
        for name in [made for made in self.made if service is None or made.split(".")[1] == service]:
            self.made.remove(name)
            sys.modules.pop(name, None)
            parent, _, child = name.rpartition(".")
            if parent == "moto":
                vars(sys.modules["moto"]).pop(child, None)


class _StandIn(ModuleType):
    """A module that has every name one may import from it."""

    def __init__(self, name: str, stand_ins: _StandIns) -> None:
        super().__init__(name)
        vars(self)["_stand_ins"] = stand_ins

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(vars(self)["_stand_ins"], self.__name__, (name,))


class _Later:
    """A name of a real module, which is imported when something is done with it."""

    def __init__(self, stand_ins: _StandIns, module: str, path: tuple[str, ...]) -> None:
        self.__dict__.update(_stand_ins=stand_ins, _module=module, _path=path)

    def _real(self) -> Any:
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
        # Merely naming something, as in a module's constants, is no reason yet.
        return _Later(stand_ins, module, (*path, name)) if module in stand_ins.made else getattr(self._real(), name)

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[type, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: object) -> bool:
        # Where the module was never imported, nothing can be an instance of its classes.
        module = sys.modules.get(self.__dict__["_module"])
        return module is not None and not isinstance(module, _StandIn) and isinstance(instance, self._real())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __contains__(self, item: object) -> bool:
        return item in self._real()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._real())

    def __str__(self) -> str:
        return str(self._real())
