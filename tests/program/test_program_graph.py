from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from program_case import case
from tscope_format import TraceError

from tscope.program import Program
from tscope.program.whitelist import ATEN, SIZES, operator_named


@pytest.fixture(scope="module")
def stored():
    made = case("gpt")
    return made.graph, {name: value.numpy() for name, value in made.constants.items()}


def first(graph, target):
    return next(node for node in graph["nodes"] if node[1] == target)


ATTENTION = "aten.scaled_dot_product_attention.default"


def put(graph, target, place, value):
    first(graph, f"aten.{target}")[2][place] = value


def put_element(graph, place, value):
    first(graph, "operator.getitem")[2][place] = value


def tensor(graph):
    return first(graph, "aten.linear.default")[2][0]


def append(graph, target, args, **kwargs):
    graph["nodes"].append(["appended", target, args, kwargs])


def refused(stored, change, message):
    graph = copy.deepcopy(stored[0])
    change(graph)
    with pytest.raises(TraceError, match=message) as caught:
        Program.load(json.loads(json.dumps(graph)), stored[1])
    assert "\n" not in str(caught.value)


def test_an_unaltered_graph_is_read(stored):
    assert Program.load(*stored).output_path == "0"


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default",
        "aten.add_.Tensor",
        "aten.add.out",
        "aten.empty.memory_format",
        "aten.rand.default",
        "aten.as_strided.default",
        "aten.set_.source_Tensor",
        "aten.__class__.default",
        "aten.linear.__init__",
        "prims.add.default",
        "torch.load",
        "os.system",
        "builtins.eval",
        "operator.attrgetter",
        "operator.pow",
        "operator.call",
        "math.factorial",
        "\x1b[31maten",
        "",
    ],
)
def test_an_operator_outside_the_table_is_refused_by_name(stored, target):
    def change(graph):
        graph["nodes"][0][1] = target

    refused(stored, change, "is not allowed in a recorded model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.update(version=2), "reads version 1, not 2"),
        (lambda g: g.update(nodes={}), "'nodes' is not a list"),
        (lambda g: g.update(inputs=None), "'inputs' is not a list"),
        (lambda g: g.update(output={"$n": "nothing"}), "'nothing' is used before it is computed"),
        (lambda g: g.update(output=3), "the output is not a tensor"),
        (lambda g: g.update(batch="yes"), "batch or rows"),
        (lambda g: g.update(rows=0), "batch or rows"),
        (lambda g: g.update(rows_range=[5, 2]), "rows_range"),
        (lambda g: g.update(default_dtype="float31"), "unknown dtype 'float31'"),
        (lambda g: g.update(outputs=[3]), "paths are not text"),
        (lambda g: g["inputs"][0].update(kind="file"), "not of a known kind"),
        (lambda g: g["inputs"][0].update(dtype="object"), "unknown dtype 'object'"),
        (lambda g: g["inputs"][0].update(shape=[-1]), "no shape"),
        (lambda g: g["inputs"][0].update(shape=[2**20, 2**20]), "has 1099511627776 elements"),
        (lambda g: g["inputs"][0].update(node=g["inputs"][1]["node"]), "two nodes are named"),
        (lambda g: g["inputs"][-1].update(index="0"), "has no index"),
        (lambda g: g["nodes"].append(["x"]), "not \\[name, target, args, kwargs\\]"),
        (lambda g: g["nodes"][0].__setitem__(0, None), "a node has no name"),
        (lambda g: g["nodes"].reverse(), "is used before it is computed"),
        (lambda g: first(g, "aten.linear.default")[2].clear(), "lacks its argument 'input'"),
        (lambda g: first(g, "aten.linear.default")[2].extend([1, 2]), "arguments it does not have"),
        (lambda g: first(g, "aten.linear.default")[3].update(out=1), "arguments it does not have"),
        (lambda g: put(g, "linear.default", 0, "text"), "'input' of .* is not a tensor"),
        (lambda g: put(g, "linear.default", 0, {"$n": 3}), "an argument is"),
        (lambda g: put(g, "linear.default", 0, {"$code": "1"}), "an argument is"),
        (lambda g: put(g, "linear.default", 0, {"a": 1, "b": 2}), "not as expected"),
        (lambda g: put(g, "linear.default", 0, [[[[[[[[1]]]]]]]]), "nested too deeply"),
        (lambda g: put(g, "transpose.int", 1, 2**70), "does not fit 64 bits"),
        (lambda g: put(g, "view.default", 1, [2**31, 2**31]), "asks for"),
        (lambda g: put(g, "arange.start", 1, 2**40), "asks for"),
        (lambda g: put(g, "transpose.int", 1, tensor(g)), "is a tensor"),
        (lambda g: put_element(g, 1, "__class__"), "one of the results"),
        (lambda g: put_element(g, 0, {"$n": g["nodes"][0][0]}), "one of the results"),
        (lambda g: append(g, "aten.dropout.default", [tensor(g), 0.5, True]), "draws random numbers"),
        (lambda g: append(g, "aten.alpha_dropout.default", [tensor(g), 0.5, True]), "draws random numbers"),
        (lambda g: append(g, ATTENTION, [tensor(g)] * 3 + [None, 0.1]), "draws random numbers"),
        (lambda g: append(g, ATTENTION, [tensor(g)] * 3, dropout_p=0.1), "draws random numbers"),
        (lambda g: append(g, "operator.mul", [[0], 2**40]), "takes sizes only"),
        (lambda g: append(g, "operator.mul", ["a", 9]), "takes sizes only"),
    ],
)
def test_an_altered_graph_is_refused_in_one_line(stored, change, message):
    refused(stored, change, message)


@pytest.mark.parametrize("graph", [None, [], "graph", 3, {}, {"version": 1}])
def test_what_is_no_graph_is_refused(graph):
    with pytest.raises(TraceError):
        Program.load(graph, {})


def test_statistics_that_would_be_updated_are_refused():
    made = case("cnn")
    graph = copy.deepcopy(made.graph)
    x = {"$n": graph["inputs"][-1]["node"]}
    b = {"$n": next(entry["node"] for entry in graph["inputs"] if entry["name"] == "conv1.bias")}
    graph["nodes"].append(["n", "aten.batch_norm.default", [x, b, b, b, b, True, 0.1, 1e-5, False], {}])
    with pytest.raises(TraceError, match="would update its statistics"):
        Program.load(graph, {})


def test_constants_must_be_there_and_be_what_the_graph_says():
    made = case("in place")
    arrays = {name: value.numpy() for name, value in made.constants.items()}
    name = next(iter(arrays))
    with pytest.raises(TraceError, match=rf"the constant '{name}' is missing"):
        Program.load(made.graph, {k: v for k, v in arrays.items() if k != name})
    with pytest.raises(TraceError, match=rf"the constant '{name}' is float64"):
        Program.load(made.graph, arrays | {name: arrays[name].astype(np.float64)})


def test_a_graph_that_passes_the_checks_but_makes_no_sense_fails_in_one_line():
    made = case("mlp")
    graph = copy.deepcopy(made.graph)
    first(graph, "aten.linear.default")[2][1] = first(graph, "aten.linear.default")[2][2]
    with pytest.raises(TraceError, match=r"the node 'linear' \(aten.linear.default\) failed") as caught:
        Program.load(graph, {})(made.parameters, {}, made.inputs)
    assert "\n" not in str(caught.value)


def test_every_operator_in_the_table_is_pure():
    training_only = {
        *("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout", "rrelu"),
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention"),
        "_scaled_dot_product_attention_math",
    }
    assert len(ATEN) > 500
    for target in ATEN:
        function = operator_named(target)
        schema = function._schema
        assert not schema.is_mutable, target
        assert not any(a.alias_info and a.alias_info.is_write for a in schema.arguments), target
        if torch.Tag.nondeterministic_seeded in function.tags:
            assert target.split(".")[1] in training_only, target
        assert torch.Tag.data_dependent_output not in function.tags, target
        kinds = {str(argument.type) for argument in schema.arguments}
        assert not any("Storage" in kind or "Stream" in kind for kind in kinds), target
        assert not {a.name for a in schema.arguments} & {"filename", "callback"}, target
    assert not {"operator.pow", "operator.getitem", "operator.attrgetter"} & set(SIZES)
