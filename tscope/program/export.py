"""A module as data: `torch.export` to a JSON graph and constants.

torch and the standard library only, and Python 3.9 syntax: this file and its `export_*` neighbours are copied
alone into the user's environment, and run there in a forked child. `tscope.program.graph` describes the
graph, and reads it.
"""

# ruff: noqa: B905 -- zip(strict=) is newer than Python 3.9

from __future__ import annotations

import contextlib
import warnings
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .export_json import ExportError, dtype_name, encode_node
from .export_select import Selected, examples
from .export_shield import ad_friendly, untouched
from .export_tree import argument_name, leaves, resize

VERSION = 1
# Batches of one are specialised by torch.export (1 broadcasts), so it is shown at least this many rows.
_LEAST_ROWS = 2
# Rows used to export and to check: shapes and operators do not depend on their number.
_MOST_ROWS = 32

Json = Dict[str, Any]


def export(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    output: Optional[str],
    gradient_path: Optional[str],
) -> Tuple[Json, Dict[str, Tensor]]:
    """Return the eval-mode `module(*args, **kwargs)` as a JSON graph, and the graph's constants by name.

    One output is selected: `output` by its path ("logits", "0", "" for a bare tensor); else the one at
    `gradient_path`, where the loss's gradient arrived; else the first floating one with the batch as its
    leading dimension. What the selected output does not need (a loss, its targets) is removed. The
    module, the global flags and the random states are left as they were.

    The graph is run once on the given inputs, and must give the module's own output bit for bit.

    Raises:
        ExportError: if `output` names no tensor, or torch cannot export the module, or the check fails.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(ad_friendly())
        stack.enter_context(untouched(module))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in {"cpu"} | {tensor.device.type for _, tensor in leaves((args, kwargs))}:
            stack.enter_context(torch.autocast(device, enabled=False))
        try:
            return _export(module, args, kwargs, output, gradient_path)
        except ExportError:
            raise
        except Exception as error:
            # Whatever the user's forward or torch.export raises is the reason, and only a reason.
            raise ExportError(_reason(error)) from error


def _export(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    output: Optional[str],
    gradient_path: Optional[str],
) -> Tuple[Json, Dict[str, Tensor]]:
    call = (tuple(args), dict(kwargs))
    named = list(leaves(call))
    if not named:
        raise ExportError("the module was called without a tensor")
    tensors = [tensor.detach() for _, tensor in named]
    size = examples(module, call, tensors, output, gradient_path)
    rows = None if size is None else min(max(size, _LEAST_ROWS), _MOST_ROWS)
    batched = [size is not None and tensor.dim() > 0 and tensor.shape[0] == size for tensor in tensors]

    def attempt(count: Optional[int], dynamic: bool) -> Tuple[Json, Dict[str, Tensor]]:
        given = [resize(t, count) if b and count is not None else t for t, b in zip(tensors, batched)]
        selected = Selected(module, call, given, output, gradient_path, count)
        dims = [b and dynamic for b in batched]
        varying = batched if selected.by_example else [True] * len(batched)
        graph, constants = _trace(selected, given, dims, varying, module)
        # Only examples are given to the program: their place among them counts.
        places = [sum(batched[:index]) if selected.by_example else index for index in range(len(batched))]
        for entry in graph["inputs"]:
            if entry["kind"] == "user":
                entry["name"] = argument_name(module, named[entry["index"]][0])
                entry["batch"] = batched[entry["index"]] and selected.by_example
                entry["index"] = places[entry["index"]]
        graph["output_path"] = selected.path
        graph["outputs"] = selected.paths
        graph["batch"] = dynamic
        graph["rows"] = count if selected.by_example else None
        return graph, constants

    if rows is not None:
        # A forward that needs a certain number of rows fails here, and gets exactly what it was called with.
        with contextlib.suppress(Exception):
            graph, constants = attempt(rows, True)
            if graph["rows"] is not None:
                return graph, constants
    return attempt(size, False)


def _trace(
    selected: Selected,
    tensors: Sequence[Tensor],
    dynamic: Sequence[bool],
    varying: Sequence[bool],
    module: torch.nn.Module,
) -> Tuple[Json, Dict[str, Tensor]]:
    dim = getattr(torch.export.Dim, "AUTO", None) or torch.export.Dim("batch")  # AUTO: since torch 2.5
    shapes = {"tensors": tuple({0: dim} if moving else {} for moving in dynamic)} if any(dynamic) else None
    exported: Any = torch.export.export(selected, tuple(tensors), dynamic_shapes=shapes, strict=False)
    _inline_grad_modes(exported.graph_module)
    if any(_mutates(node) for node in exported.graph.nodes):
        # In-place operators become functional ones; nothing else is decomposed by an empty table.
        exported = exported.run_decompositions({})
    _size_of_first(exported.graph, exported.graph_signature.user_inputs, dynamic)
    result = exported.graph_signature.user_outputs[-1]
    nodes = _needed(exported.graph, result)
    held = _held(exported, module, tensors, varying)
    _check(nodes, held, result, selected.expected, tensors)
    if any(dynamic):
        # Another number of rows: torch.export may have found conditions on it beyond a range.
        others = [resize(t, t.shape[0] + 1) if moving else t for t, moving in zip(tensors, dynamic)]
        with torch.no_grad():
            _check(nodes, held, result, selected(*others), others)
    inputs, constants = [], {}
    for node in nodes:
        if node.op != "placeholder":
            continue
        entry, tensor = held[node.name]
        moving = entry["kind"] == "user" and dynamic[entry["index"]]
        if moving and isinstance(node.meta["val"].shape[0], int):
            raise ExportError("the number of rows is fixed")
        if entry["kind"] == "constant":
            constants[entry["name"]] = tensor.detach().clone()
        inputs.append(dict(entry, node=node.name, dtype=dtype_name(tensor.dtype), shape=list(tensor.shape)))
    least, most = _range(exported)
    graph = {
        "version": VERSION,
        "inputs": inputs,
        "nodes": [encode_node(node) for node in nodes if node.op != "placeholder"],
        "output": {"$n": result},
        "rows_range": [least, most],
        "default_dtype": dtype_name(torch.get_default_dtype()),
    }
    return graph, constants


def _size_of_first(graph: torch.fx.Graph, users: Sequence[str], dynamic: Sequence[bool]) -> None:
    """Take the number of rows from the first input that has it.

    torch.export takes it from any, even one that is only needed for the loss.
    """
    by_name = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    moving = [by_name[name] for name, free in zip(users, dynamic) if free]
    for node in graph.nodes:
        if node.target is torch.ops.aten.sym_size.int and node.args[0] in moving and node.args[1] == 0:
            same = [other for other in moving if _rows(other) == _rows(node.args[0])]
            node.update_arg(0, same[0])


def _rows(placeholder: Node) -> str:
    return str(placeholder.meta["val"].shape[0])


def _held(
    exported: Any, module: torch.nn.Module, tensors: Sequence[Tensor], varying: Sequence[bool]
) -> Dict[str, Tuple[Json, Tensor]]:
    """Map each placeholder to what it stands for, by the module's own names, and to its tensor.

    Arguments that are not `varying` are constants: what the module was called with here.
    """
    first: Dict[int, str] = {}  # the first name of a tied tensor is the one in the parameter table
    tables = [module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)]
    own = {}
    for table in tables:
        for name, tensor in table:
            own[name] = tensor
            first.setdefault(id(tensor), name)
    held: Dict[str, Tuple[Json, Tensor]] = {}
    index = 0
    for spec in exported.graph_signature.input_specs:
        kind = spec.kind.name
        name = (spec.target or "").partition("root.")[2] or spec.target
        if kind == "USER_INPUT":
            user = {"kind": "user", "index": index}
            fixed = {"kind": "constant", "name": "argument.{}".format(index)}
            held[spec.arg.name] = (user if varying[index] else fixed, tensors[index])
            index += 1
        elif kind in ("PARAMETER", "BUFFER"):
            held[spec.arg.name] = ({"kind": kind.lower(), "name": first[id(own[name])]}, own[name])
        elif kind == "CONSTANT_TENSOR":
            held[spec.arg.name] = ({"kind": "constant", "name": name}, exported.constants[spec.target])
        else:
            raise ExportError(
                "the module holds something other than tensors ({} {})".format(kind.lower(), name)
            )
    return held


def _inline_grad_modes(graph_module: GraphModule) -> None:
    """Replace blocks under `torch.no_grad()` by their operators and a detach of what leaves the block.

    A functionalised graph forgets such blocks, and would let gradients through.
    """
    graph = graph_module.graph
    changed = False
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
        if name == "wrap_with_set_grad_enabled":
            tracked, body, operands = bool(node.args[0]), node.args[1], node.args[2:]
        elif name == "wrap_with_autocast":
            if node.args[2]:
                raise ExportError("forward uses torch.autocast, which a recorded program cannot express")
            tracked, body, operands = True, node.args[4], node.args[5:]
        else:
            continue
        inner = getattr(graph_module, body.target)
        _inline_grad_modes(inner)
        known = dict(zip((n for n in inner.graph.nodes if n.op == "placeholder"), operands))
        with graph.inserting_before(node):
            results = graph.graph_copy(inner.graph, known)
            results = results if isinstance(results, (tuple, list)) else (results,)
            if not tracked:
                results = tuple(_detached(graph, result) for result in results)
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
        changed = True
    if changed:
        graph.lint()
        graph_module.recompile()


def _detached(graph: torch.fx.Graph, node: Node) -> Node:
    if not isinstance(node.meta.get("val"), Tensor):
        return node
    detached = graph.call_function(torch.ops.aten.detach.default, (node,))
    detached.meta["val"] = node.meta["val"].detach()
    return detached


def _mutates(node: Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _needed(graph: torch.fx.Graph, result: str) -> List[Node]:
    """Return the nodes that the node named `result` depends on, in order."""
    by_name = {node.name: node for node in graph.nodes}
    wanted = set()
    stack = [by_name[result]]
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in wanted]


def _check(
    nodes: Sequence[Node],
    held: Mapping[str, Tuple[Json, Tensor]],
    result: str,
    expected: Tensor,
    tensors: Sequence[Tensor],
) -> None:
    """Run the nodes on the user inputs `tensors`, and compare with the module's own output bit for bit."""
    values: Dict[str, Any] = {}
    for name, (entry, tensor) in held.items():
        values[name] = tensors[entry["index"]] if entry["kind"] == "user" else tensor
    with torch.no_grad():
        for node in nodes:
            if node.op == "placeholder":
                continue
            if node.op != "call_function":
                raise ExportError("the graph has a node of the unknown kind {!r}".format(node.op))
            args = torch.fx.node.map_arg(node.args, lambda n: values[n.name])
            kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: values[n.name])
            values[node.name] = node.target(*args, **kwargs)  # type: ignore[operator]
    got = values[result]
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise ExportError(
            "the exported graph returns {} {}, the module {} {}".format(
                got.dtype, list(got.shape), expected.dtype, list(expected.shape)
            )
        )
    if not torch.equal(got.nan_to_num(), expected.nan_to_num()):
        difference = (got.double() - expected.double()).abs().max().item()
        raise ExportError(
            "in eval mode the exported graph's output differs from the module's by {:.3g}; "
            "does forward draw random numbers, or keep state between calls?".format(difference)
        )


def _range(exported: Any) -> Tuple[int, Optional[int]]:
    """Return the least and the most rows for which the graph was found valid."""
    least, most = 1, None
    for bounds in exported.range_constraints.values():
        least = max(least, int(bounds.lower))
        if str(bounds.upper).isdigit():  # else one of two kinds of infinity
            most = int(bounds.upper) if most is None else min(most, int(bounds.upper))
    return least, most


def _reason(error: BaseException) -> str:
    """Return the first telling line of what torch.export or the forward raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return "{}: {}".format(type(error).__name__, text[:300])
