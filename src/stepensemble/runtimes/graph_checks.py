"""What a SavedModel's graphs could do besides computing.

A SavedModel is a program: TensorFlow runs what is in it when it is loaded and when it is called, and of its operations
some run Python, evaluate graphs that are kept in strings, or open files. It is read here as data, before TensorFlow
loads it. Every operation has to be one of `operations.COMPUTES`; those that open files have to open the SavedModel's
own: SAVES and RESTORES, with which every SavedModel keeps its variables, and TABLES, which read a vocabulary from one
of its assets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from stepensemble.core.errors import FileUnsafe
from stepensemble.core.problems import enumerate_values, show
from stepensemble.runtimes.allowed_operations import COMPUTES

TRUST = "If you know who made it and what it does, take it with ensemble add --trust"

SAVES, RESTORES = frozenset({"MergeV2Checkpoints", "SaveV2"}), frozenset({"RestoreV2"})
"""They touch files, and every SavedModel has them: for its own variables, in parts that no signature reaches."""

TABLES = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}
"""They read a vocabulary; which of their inputs is its path."""

PREFIX = 0
"""Which input of RESTORES names the files."""

BY_POSITION = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
"""They call the function in their attribute `f` with their own inputs, in order."""

INITIALIZER = "__saved_model_init_op"
"""A signature that runs when the model is loaded, with the paths of its assets put in; unless it has inputs."""

Place: TypeAlias = tuple[Literal["node", "function"], str]
"""A node of the graph itself, or a function of its library with all its nodes."""

Known: TypeAlias = Callable[[str], bool]
"""Whether TensorFlow has an operation of that name."""


def check_graphs(graphs: Iterable[Any], files: Collection[str], known: Known, what: str) -> None:
    """Refuse a SavedModel that could do more than compute.

    Args:
        graphs: all `MetaGraphDef` of it: which of them is loaded is the loader's choice.
        files: the names of its files, such as `assets/words.txt`.
        known: whether TensorFlow has an operation, by its name.
        what: how the error names the SavedModel.

    Raises:
        FileUnsafe: with every reason.
    """
    raise_if_unsafe(sorted({reason for graph in graphs for reason in find_side_effects(graph, files, known)}), what)


def raise_if_unsafe(reasons: Collection[str], what: str) -> None:
    """Raise FileUnsafe with the reasons, if there are any."""
    if reasons:
        found = "; ".join(reasons)
        raise FileUnsafe(f"{what} is refused, since loading it could do more than compute. It has {found}. {TRUST}")


def find_unknown_operations(graph: Any, known: Known) -> list[str]:
    """Name the operations of a `MetaGraphDef` that TensorFlow does not have."""
    wiring = Wiring(graph)
    found = {node.op for _, node in wiring.all_nodes()}
    return sorted(op for op in found if op not in wiring.functions and not known(op))


def find_side_effects(graph: Any, files: Collection[str], known: Known) -> Iterator[str]:
    """Yield what a `MetaGraphDef` could do besides computing."""
    wiring = Wiring(graph)
    for asset in graph.asset_file_def:
        if f"assets/{asset.filename}" not in files:
            yield f"an asset that is not in its folder, {show(asset.filename)}"
    for name in wiring.twice:
        yield f"the name {show(name)} twice, and readers differ on which counts"
    if "" in wiring.functions:
        yield "a function without a name"
    calls = {name for name in wiring.functions if not known(name)}
    unlisted = {node.op for _, node in wiring.all_nodes()} - COMPUTES - calls - SAVES - RESTORES - set(TABLES)
    if unlisted:
        what = "an operation that is" if len(unlisted) == 1 else "operations that are"
        yield f"{what} not known to compute and do nothing else, {enumerate_values(sorted(unlisted), most=24)}"
    yield from _judge_files(wiring)


def _judge_files(wiring: Wiring) -> Iterator[str]:
    """Yield every operation that opens a file which may be another than the SavedModel's own."""
    for place, node in wiring.all_nodes():
        where: Place = ("function", place) if place else ("node", node.name)
        if node.op in SAVES and where not in wiring.saving:
            yield f"{node.op}, which writes files, outside the part that saves its variables"
        elif node.op in RESTORES:
            own = {(wiring.prefix, True)} - {UNKNOWN}
            if where not in wiring.restoring or not wiring.trace(place, node, PREFIX) <= own:
                yield f"{node.op}, which reads files, outside the part that restores its variables"
        elif node.op in TABLES:
            own = {(asset, False) for asset in wiring.assets if asset}
            if not wiring.trace(place, node, TABLES[node.op]) <= own:
                yield f"{node.op}, which reads a file that may be another than its assets"


Origin: TypeAlias = tuple[str, bool]
"""A node of the graph itself that a value comes from, "" where that is unknown; and whether something else than the
model's initialization has the value used."""

UNKNOWN: Origin = ("", True)


@dataclass(frozen=True)
class Wiring:
    """How a graph's nodes and functions lead to each other."""

    graph: Any

    @cached_property
    def functions(self) -> Mapping[str, Any]:
        """The functions of the library, by name."""
        return {function.signature.name: function for function in self.graph.graph_def.library.function}

    @cached_property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Nodes by name, of the graph itself, named "", and of every function."""
        bodies = {"": self.graph.graph_def.node} | {name: one.node_def for name, one in self.functions.items()}
        return {place: {node.name: node for node in body} for place, body in bodies.items()}

    @cached_property
    def twice(self) -> list[str]:
        """Names that stand twice: of functions, or of nodes beside each other."""
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
        """The nodes that hold the paths of the assets; the loader puts in where it has unpacked them."""
        return {node_of(asset.tensor_info.name) for asset in self.graph.asset_file_def}

    @cached_property
    def prefix(self) -> str:
        """The node that holds the path of the variables' files."""
        return node_of(self.graph.saver_def.filename_tensor_name)

    @cached_property
    def saving(self) -> set[Place]:
        """What only saving reaches, which never happens: not what restoring does, and no signature or object."""
        return self._by_saving - self._by_restoring - self._by_others

    @cached_property
    def restoring(self) -> set[Place]:
        """What only saving and restoring reach; restoring happens when the model is loaded."""
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
        """What something else than saving and restoring reaches."""
        others = [info.name for signature in self.graph.signature_def.values() for info in signature.outputs.values()]
        for key in ("saved_model_main_op", "legacy_init_op", "table_initializer"):
            others += self.graph.collection_def[key].node_list.value if key in self.graph.collection_def else []
        others += self.graph.object_graph_def.concrete_functions
        others += [name for name in self.functions if self._stands_in(name)]
        return self._reach(others) | self._by_signatures

    def _stands_in(self, function: str) -> bool:
        """Return whether TensorFlow may put a function in another one's place that is said to do the same."""
        return "api_implements" in self.functions[function].attr

    def all_nodes(self) -> Iterator[tuple[str, Any]]:
        """Yield every node with the function it is in, "" for the graph itself; also of functions named alike."""
        for node in self.graph.graph_def.node:
            yield "", node
        for function in self.graph.graph_def.library.function:
            for node in function.node_def:
                yield function.signature.name, node

    def _reach(self, roots: Iterable[str]) -> set[Place]:
        """Return what is computed for nodes, or for functions: the nodes before them, what they call, and so on."""
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
        """Return where an input of a node comes from; of a function's argument, from every call of that function.

        Args:
            place: the function that the node is in; "" for the graph itself.
            node: whose input it is.
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
                found.add((source, spot in self._by_signatures or spot in self._by_restoring))
                continue
            arguments = self.functions[place].signature.input_arg
            names = [argument.name for argument in arguments]
            if source not in names or any(one.number_attr or one.type_list_attr for one in arguments):
                found.add(UNKNOWN)
                continue
            argument = names.index(source)
            waiting += [(caller, call, argument) for caller, call in self._calls.get(place, ())]
            found |= self._bound(place, argument - len(names))
            if place in self._called_otherwise or self._stands_in(place):
                found.add(UNKNOWN)
        return found

    def _source(self, place: str, node: Any, index: int) -> str:
        """Name the node, or the argument, that an input comes from; "" where there is no such input."""
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
        """Return the node that sets the variable which a node of the graph itself reads, if no other one can."""
        handle = next(iter(inputs_of(reading)), "")
        shared = [name for name, kept_as in self._variables if kept_as == dict(self._variables).get(handle)]
        users = [node for node in self.nodes[""].values() if handle in inputs_of(node)]
        setting = [node for node in users if node.op == "AssignVariableOp"]
        harmless = {"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"}
        if len(shared) != 1 or len(setting) != 1 or any(node.op not in harmless for node in users):
            return None
        return setting[0]

    @cached_property
    def _variables(self) -> list[tuple[str, str]]:
        """Every node that has a variable, wherever it is, and the name that the variable is kept under."""
        return [
            (node.name, node.attr["shared_name"].s.decode(errors="replace") or node.name)
            for _, node in self.all_nodes()
            if node.op == "VarHandleOp"
        ]

    def _bound(self, function: str, argument: int) -> set[Origin]:
        """Return what an object of the model binds to an argument of a function, counted from the last one, -1."""
        saved = self.graph.object_graph_def
        if function not in saved.concrete_functions:
            return set()
        bound = saved.concrete_functions[function].bound_inputs
        if -argument > len(bound) or not 0 <= bound[argument] < len(saved.nodes):
            return {UNKNOWN}  # the caller gives it
        found = saved.nodes[bound[argument]]
        index, assets = found.asset.asset_file_def_index, self.graph.asset_file_def
        if found.WhichOneof("kind") != "asset" or not 0 <= index < len(assets):
            return {UNKNOWN}
        return {(node_of(assets[index].tensor_info.name), False)}

    @cached_property
    def _calls(self) -> Mapping[str, list[tuple[str, Any]]]:
        """The calls of every function that hand it their inputs in order, each with the function it is in."""
        calls: dict[str, list[tuple[str, Any]]] = {}
        for place, node in self.all_nodes():
            called = node.attr["f"].func.name if node.op in BY_POSITION and "f" in node.attr else node.op
            if called in self.functions:
                calls.setdefault(called, []).append((place, node))
        return calls

    @cached_property
    def _called_otherwise(self) -> set[str]:
        """The functions that are called in any other way."""
        return {
            name
            for _, node in self.all_nodes()
            for key, value in node.attr.items()
            for name in _functions_in(value)
            if not (node.op in BY_POSITION and key == "f")
        }


def inputs_of(node: Any) -> list[str]:
    """Return what a node's inputs name, in order, without those that only mark an order."""
    return [node_of(source) for source in node.input if not source.startswith("^")]


def node_of(source: str) -> str:
    """Return the node that an input names: without its output, and without the mark of order alone."""
    return source.lstrip("^").split(":")[0]


def _called(node: Any) -> Iterator[Place]:
    yield "function", node.op  # a function may be called as if it were an operation
    for value in node.attr.values():
        yield from (("function", name) for name in _functions_in(value))


def _functions_in(value: Any) -> Iterator[str]:
    """Name the functions that the value of an attribute leads to, and those that their own attributes do."""
    waiting = [*([value.func] if value.HasField("func") else ()), *value.list.func]
    while waiting:
        function = waiting.pop()
        yield function.name
        for inner in function.attr.values():
            waiting += [*([inner.func] if inner.HasField("func") else ()), *inner.list.func]
