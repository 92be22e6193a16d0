"""Finds what a SavedModel's graphs could do besides computing.

A SavedModel is a program: TensorFlow runs its operations when it is loaded and when it is called, and some operations
run Python, evaluate graphs in strings, or open files. Here it is read as data, before TensorFlow loads it. Every
operation must be one of `allowed_operations.ALLOWED`. Operations that open files may only open the SavedModel's own
files: SAVES and RESTORES, with which every SavedModel stores its variables, and TABLES, which read a vocabulary from
one of its assets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from stepensemble.core.errors import FileUnsafe
from stepensemble.core.problems import enumerate_values, show
from stepensemble.runtimes.allowed_operations import ALLOWED

TRUST = "If you know who made it and what it does, accept it with ensemble add --trust"

SAVES, RESTORES = frozenset({"MergeV2Checkpoints", "SaveV2"}), frozenset({"RestoreV2"})
"""They open files, and every SavedModel has them: for its own variables, in parts that no signature reaches."""

TABLES = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}
"""They read a vocabulary; the number of the input that is its path."""

PREFIX = 0
"""The number of the input of RESTORES that names the files."""

BY_POSITION = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
"""They call the function in their attribute `f` with their own inputs, in order."""

INITIALIZER = "__saved_model_init_op"
"""A signature that runs with the paths of the assets when the model is loaded, unless it has inputs."""

Place: TypeAlias = tuple[Literal["node", "function"], str]
"""A node of the graph itself, or a function of its library with all its nodes."""

Known: TypeAlias = Callable[[str], bool]
"""Returns whether TensorFlow has an operation of that name."""


def check_graphs(graphs: Iterable[Any], files: Collection[str], known: Known, what: str) -> None:
    """Reject a SavedModel that could do more than compute.

    Args:
        graphs: all its `MetaGraphDef`, since the loader may choose any of them.
        files: the names of its files, such as `assets/words.txt`.
        known: returns whether TensorFlow has an operation of a name.
        what: how the error names the SavedModel.

    Raises:
        FileUnsafe: with every reason.
    """
    raise_if_unsafe(sorted({reason for graph in graphs for reason in find_side_effects(graph, files, known)}), what)


def raise_if_unsafe(reasons: Collection[str], what: str) -> None:
    """Raise FileUnsafe with the reasons, if there are any."""
    if reasons:
        found = "; ".join(reasons)
        raise FileUnsafe(f"{what} is rejected, since loading it could do more than compute. It has {found}. {TRUST}")


def find_unknown_operations(graph: Any, known: Known) -> list[str]:
    """List the operations of a `MetaGraphDef` that TensorFlow does not have."""
    wiring = Wiring(graph)
    found = {node.op for _, node in wiring.all_nodes()}
    return sorted(op for op in found if op not in wiring.functions and not known(op))


def find_side_effects(graph: Any, files: Collection[str], known: Known) -> Iterator[str]:
    """Yield what a `MetaGraphDef` could do besides computing."""
    wiring = Wiring(graph)
    for asset in graph.asset_file_def:
        if f"assets/{asset.filename}" not in files:
            yield f"an asset that is not in its folder, {show(asset.filename)}"
    for name in wiring.duplicates:
        yield f"the name {show(name)} twice, and readers differ on which one they use"
    if "" in wiring.functions:
        yield "a function without a name"
    calls = {name for name in wiring.functions if not known(name)}
    unlisted = {node.op for _, node in wiring.all_nodes()} - ALLOWED - calls - SAVES - RESTORES - set(TABLES)
    if unlisted:
        what = "an operation that is" if len(unlisted) == 1 else "operations that are"
        yield f"{what} not known to only compute, {enumerate_values(sorted(unlisted), most=24)}"
    yield from _check_file_operations(wiring)


def _check_file_operations(wiring: Wiring) -> Iterator[str]:
    """Yield every operation that may open a file outside the SavedModel."""
    for place, node in wiring.all_nodes():
        where: Place = ("function", place) if place else ("node", node.name)
        if node.op in SAVES and where not in wiring.saving:
            yield f"{node.op}, which writes files, outside the part that saves its variables"
        elif node.op in RESTORES:
            own = {Origin(wiring.prefix, used=True)} - {UNKNOWN}
            if where not in wiring.restoring or not wiring.trace(place, node, PREFIX) <= own:
                yield f"{node.op}, which reads files, outside the part that restores its variables"
        elif node.op in TABLES:
            own = {Origin(asset, used=False) for asset in wiring.assets if asset}
            if not wiring.trace(place, node, TABLES[node.op]) <= own:
                yield f"{node.op}, which may read a file that is not one of its assets"


class Origin(NamedTuple):
    """The node of the main graph that a value comes from.

    Attributes:
        node: its name; "" if it is unknown.
        used: whether the value is used by anything but the model's initialization.
    """

    node: str
    used: bool


UNKNOWN = Origin("", used=True)


@dataclass(frozen=True)
class Wiring:
    """The connections between a graph's nodes and functions."""

    graph: Any

    @cached_property
    def functions(self) -> Mapping[str, Any]:
        """The functions of the library, by name."""
        return {function.signature.name: function for function in self.graph.graph_def.library.function}

    @cached_property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Nodes by name: those of the main graph under "", and those of every function."""
        bodies = {"": self.graph.graph_def.node} | {name: one.node_def for name, one in self.functions.items()}
        return {place: {node.name: node for node in body} for place, body in bodies.items()}

    @cached_property
    def duplicates(self) -> list[str]:
        """Duplicate names: of functions, or of nodes in the same graph or function."""
        library = self.graph.graph_def.library.function
        groups = [
            [function.signature.name for function in library],
            [node.name for node in self.graph.graph_def.node],
            *(
                [*(node.name for node in one.node_def), *(argument.name for argument in one.signature.input_arg)]
                for one in library
            ),
        ]
        return sorted({name for group in groups for name, count in Counter(group).items() if count > 1})

    @cached_property
    def assets(self) -> set[str]:
        """The nodes with the paths of the assets; the loader sets them to where it has unpacked them."""
        return {node_of(asset.tensor_info.name) for asset in self.graph.asset_file_def}

    @cached_property
    def prefix(self) -> str:
        """The node with the path of the variables' files."""
        return node_of(self.graph.saver_def.filename_tensor_name)

    @cached_property
    def saving(self) -> set[Place]:
        """Nodes that only saving reaches, which never happens: not restoring, and no signature or object."""
        return self._by_saving - self._by_restoring - self._by_others

    @cached_property
    def restoring(self) -> set[Place]:
        """Nodes that only saving and restoring reach; restoring happens when the model is loaded."""
        return (self._by_saving | self._by_restoring) - self._by_others

    @cached_property
    def _by_saving(self) -> set[Place]:
        return self._reach([self.graph.saver_def.save_tensor_name])

    @cached_property
    def _by_restoring(self) -> set[Place]:
        saver = self.graph.saver_def
        return self._reach([saver.filename_tensor_name, saver.restore_op_name])

    @cached_property
    def _by_signatures(self) -> set[Place]:
        return self._reach(
            info.name
            for name, signature in self.graph.signature_def.items()
            for info in (*signature.inputs.values(), *signature.outputs.values())
            if name != INITIALIZER or signature.inputs
        )

    @cached_property
    def _by_others(self) -> set[Place]:
        """Nodes that anything besides saving and restoring reaches."""
        others = [info.name for signature in self.graph.signature_def.values() for info in signature.outputs.values()]
        for key in ("saved_model_main_op", "legacy_init_op", "table_initializer"):
            others += self.graph.collection_def[key].node_list.value if key in self.graph.collection_def else []
        others += self.graph.object_graph_def.concrete_functions
        others += [name for name in self.functions if self._may_be_substituted(name)]
        return self._reach(others) | self._by_signatures

    def _may_be_substituted(self, function: str) -> bool:
        """Return whether TensorFlow may run this function instead of another one that implements the same."""
        return "api_implements" in self.functions[function].attr

    def all_nodes(self) -> Iterator[tuple[str, Any]]:
        """Yield every node with its function's name, "" for the main graph; functions may have the same name."""
        for node in self.graph.graph_def.node:
            yield "", node
        for function in self.graph.graph_def.library.function:
            for node in function.node_def:
                yield function.signature.name, node

    def _reach(self, roots: Iterable[str]) -> set[Place]:
        """Return everything computed for some nodes or functions: their inputs, the functions they call, and so on."""
        reached: set[Place] = set()
        waiting: list[Place] = [
            ("function" if root in self.functions else "node", root) for root in map(node_of, roots)
        ]
        while waiting:
            place = waiting.pop()
            if place in reached:
                continue
            reached.add(place)
            kind, name = place
            if kind == "node" and name in self.nodes[""]:
                waiting += (("node", node_of(source)) for source in self.nodes[""][name].input)
                waiting += _called(self.nodes[""][name])
            elif kind == "function":
                for node in self.nodes.get(name, {}).values():
                    waiting += _called(node)
        return reached

    def trace(self, place: str, node: Any, index: int) -> set[Origin]:
        """Return the origins of a node's input; those of a function's argument come from every call of that function.

        Args:
            place: the function that the node is in; "" for the main graph.
            node: the node with the input.
            index: of the input.
        """
        found: set[Origin] = set()
        seen: set[tuple[str, str, int]] = set()
        waiting = [(place, node, index)]
        while waiting:
            place, node, index = waiting.pop()
            if (place, node.name, index) in seen:
                continue
            seen.add((place, node.name, index))
            source = self._source(place, node, index)
            if not place:
                spot: Place = ("node", node.name)
                used = spot in self._by_signatures or spot in self._by_restoring
                found.add(Origin(source, used))
                continue
            arguments = self.functions[place].signature.input_arg
            names = [argument.name for argument in arguments]
            if source not in names or any(one.number_attr or one.type_list_attr for one in arguments):
                found.add(UNKNOWN)
                continue
            argument = names.index(source)
            waiting += [(caller, call, argument) for caller, call in self._calls.get(place, ())]
            found |= self._bound(place, argument - len(names))
            if place in self._called_indirectly or self._may_be_substituted(place):
                found.add(UNKNOWN)
        return found

    def _source(self, place: str, node: Any, index: int) -> str:
        """Return the node or the argument that an input comes from; "" if there is no such input."""
        passed = {node.name}
        while True:
            inputs = inputs_of(node)
            name = inputs[index] if index < len(inputs) else ""
            node, index = self.nodes[place].get(name), 0
            if node is not None and node.op == "ReadVariableOp" and not place:
                node, index = self._find_assignment(node), 1
            elif node is not None and node.op != "Identity":
                return name
            if node is None or name in passed:
                return name
            passed.add(name)

    def _find_assignment(self, reading: Any) -> Any | None:
        """Return the node that sets the variable which a node of the main graph reads, if no other node can set it."""
        handle = next(iter(inputs_of(reading)), "")
        sharing = [name for name, shared_name in self._variables if shared_name == dict(self._variables).get(handle)]
        users = [node for node in self.nodes[""].values() if handle in inputs_of(node)]
        setting = [node for node in users if node.op == "AssignVariableOp"]
        harmless = {"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"}
        if len(sharing) != 1 or len(setting) != 1 or any(node.op not in harmless for node in users):
            return None
        return setting[0]

    @cached_property
    def _variables(self) -> list[tuple[str, str]]:
        """Every node with a variable, in any function, and the name under which the variable is stored."""
        return [
            (node.name, node.attr["shared_name"].s.decode(errors="replace") or node.name)
            for _, node in self.all_nodes()
            if node.op == "VarHandleOp"
        ]

    def _bound(self, function: str, argument: int) -> set[Origin]:
        """Return what an object of the model binds to a function's argument, counted from the last one, -1."""
        saved = self.graph.object_graph_def
        if function not in saved.concrete_functions:
            return set()
        bound = saved.concrete_functions[function].bound_inputs
        if -argument > len(bound) or not 0 <= bound[argument] < len(saved.nodes):
            return {UNKNOWN}  # the caller passes it
        found = saved.nodes[bound[argument]]
        index, assets = found.asset.asset_file_def_index, self.graph.asset_file_def
        if found.WhichOneof("kind") != "asset" or not 0 <= index < len(assets):
            return {UNKNOWN}
        return {Origin(node_of(assets[index].tensor_info.name), used=False)}

    @cached_property
    def _calls(self) -> Mapping[str, list[tuple[str, Any]]]:
        """The calls that pass their inputs to a function in order, by function, each with the function it is in."""
        calls: dict[str, list[tuple[str, Any]]] = {}
        for place, node in self.all_nodes():
            called = node.attr["f"].func.name if node.op in BY_POSITION and "f" in node.attr else node.op
            if called in self.functions:
                calls.setdefault(called, []).append((place, node))
        return calls

    @cached_property
    def _called_indirectly(self) -> set[str]:
        """The functions that are called in any other way."""
        return {
            name
            for _, node in self.all_nodes()
            for key, value in node.attr.items()
            for name in _functions_in(value)
            if not (node.op in BY_POSITION and key == "f")
        }


def inputs_of(node: Any) -> list[str]:
    """Return the names of a node's inputs, in order, without control inputs."""
    return [node_of(source) for source in node.input if not source.startswith("^")]


def node_of(source: str) -> str:
    """Return the node that an input names, without the output's number and the mark of a control input."""
    return source.lstrip("^").split(":")[0]


def _called(node: Any) -> Iterator[Place]:
    yield "function", node.op  # a function may be called like an operation
    for value in node.attr.values():
        yield from (("function", name) for name in _functions_in(value))


def _functions_in(value: Any) -> Iterator[str]:
    """Yield the functions in an attribute's value, and those in their own attributes."""
    waiting = [*([value.func] if value.HasField("func") else ()), *value.list.func]
    while waiting:
        function = waiting.pop()
        yield function.name
        for inner in function.attr.values():
            waiting += [*([inner.func] if inner.HasField("func") else ()), *inner.list.func]
