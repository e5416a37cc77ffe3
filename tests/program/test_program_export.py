from __future__ import annotations

import ast
import inspect
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from program_case import case, exported
from program_models import GPT, MODELS, InPlace, LMOutput, Out, Returning, mlp, tokens
from torch import nn

from tscope.program import ExportError, OutputFunctional, ad_friendly, evaluate, export


@pytest.mark.parametrize("name", MODELS)
def test_the_program_gives_the_modules_eval_output_bit_for_bit(name):
    made = case(name)
    # The module's own parameters: torch's RNN cell rounds differently for tensors that require no gradient.
    with torch.no_grad():
        got = made.program(dict(made.module.named_parameters()), made.buffers, made.inputs)
    assert torch.equal(got, made.expected())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_the_number_of_rows_is_free(name, rows):
    made = case(name)
    assert made.program.batch
    args = MODELS[name][1](rows)
    got = evaluate(made.program, OutputFunctional(), made.parameters, made.buffers, args)
    torch.testing.assert_close(got, made.expected(*args).flatten(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_run_with_few_rows_exports_a_free_number_too(rows):
    made = case("cnn", rows)
    assert made.program.batch
    x = torch.randn(9, 1, 10, 10)
    got = evaluate(made.program, OutputFunctional(), made.parameters, made.buffers, [x])
    torch.testing.assert_close(got, made.expected(x))


def test_other_parameters_and_buffers_can_be_put_in():
    made = case("resnet")
    other, _ = MODELS["resnet"]
    module = other().eval()
    with torch.no_grad():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2)
        with ad_friendly():
            expected = module(*made.args)
    got = made.program(dict(module.named_parameters()), dict(module.named_buffers()), made.inputs)
    assert torch.equal(got, expected)


def test_tied_weights_have_the_name_of_the_parameter_table():
    made = case("gpt")
    assert "wte.weight" in made.program.parameters
    assert "lm_head.weight" not in made.program.parameters
    assert set(made.program.parameters) == set(made.parameters)


def test_the_loss_and_its_targets_are_removed():
    made = case("gpt")
    assert made.program.output_path == "0"
    assert made.graph["outputs"] == ["0", "1"]
    assert made.program.inputs == 1
    assert [entry.name for entry in made.program.arguments] == ["idx"]
    assert torch.equal(made.program(made.parameters, {}, made.inputs[:1]), made.expected())


def test_a_gradient_that_arrives_at_the_loss_still_selects_the_logits():
    torch.manual_seed(0)
    made = exported(GPT(), (tokens(4), tokens(4)), gradient_path="1")
    assert made.program.output_path == "0"


@pytest.mark.parametrize(
    ("shape", "path"),
    [
        (lambda h, z: {"loss": z.mean(), "logits": z, "hidden": h}, "logits"),
        (lambda h, z: Out(h, z), "hidden"),
        (lambda h, z: LMOutput(loss=z.mean(), logits=z), "logits"),
        (lambda h, z: ([h, z], {"a": z}), "0.0"),
        (lambda h, z: (h.argmax(1), z), "1"),
    ],
)
def test_the_first_floating_output_of_the_batch_is_selected(shape, path):
    made = exported(Returning(shape), (torch.randn(5, 4),))
    assert made.program.output_path == path
    assert torch.equal(made.program(made.parameters, {}, made.inputs), made.expected())


def test_the_output_the_gradient_arrived_at_is_preferred():
    made = exported(Returning(lambda h, z: Out(h, z)), (torch.randn(5, 4),), gradient_path="logits")
    assert made.program.output_path == "logits"
    assert made.expected().shape == (5, 3)


def test_a_named_output_is_selected_and_an_unknown_one_lists_the_paths():
    module = Returning(lambda h, z: {"logits": z, "more": (h, z)})
    assert exported(module, (torch.randn(5, 4),), output="more.0").program.output_path == "more.0"
    with pytest.raises(ExportError, match=r"no output 'x'; its outputs are: 'logits', 'more.0', 'more.1'"):
        export(module, (torch.randn(5, 4),), {}, output="x", gradient_path=None)


def test_keyword_arguments_options_and_nested_inputs_are_inputs_or_constants():
    module = Returning(lambda h, z: z)
    mask = torch.rand(5, 6) > 0.3
    x = torch.randn(5, 4)
    made = exported(module, (x,), {"mask": mask, "scale": 2.0})
    assert [(entry.name, entry.index) for entry in made.program.arguments] == [("x", 0), ("mask", 1)]
    assert torch.equal(made.program(made.parameters, {}, [x, mask]), made.expected(x, mask=mask, scale=2.0))

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, batch, flag):
            return self.layer(batch["x"]) + batch["more"][0] if flag else batch["x"]

    nested = exported(Nested(), ({"x": x, "more": [torch.randn(5, 2)]}, True))
    assert [entry.name for entry in nested.program.arguments] == ["batch.x", "batch.more.0"]
    assert torch.equal(nested.program(nested.parameters, {}, nested.inputs), nested.expected())


class Masked(nn.Module):
    """Tensors without examples before and between those that hold some; one output holds none either."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, mask, x, scale, labels, more):
        return mask * 2, self.layer(x * mask[0]) * scale + more + labels[:, None]


def test_tensors_without_examples_are_constants_and_the_others_are_counted():
    mask, scale = torch.rand(3, 4), torch.tensor(0.5)
    x, labels, more = torch.randn(6, 4), torch.randint(0, 2, (6,)), torch.randn(6, 4)
    made = exported(Masked(), (mask, x, scale, labels, more), gradient_path="1")
    arguments = [(entry.name, entry.index, entry.batch) for entry in made.program.arguments]
    assert arguments == [("x", 0, True), ("labels", 1, True), ("more", 2, True)]
    for rows in (6, 2, 9):
        inputs = [torch.randn(rows, 4), torch.randint(0, 2, (rows,)), torch.randn(rows, 4)]
        expected = made.expected(mask, inputs[0], scale, *inputs[1:])
        assert torch.equal(made.program(made.parameters, {}, inputs), expected)


def test_a_model_for_one_number_of_rows_keeps_it_and_is_evaluated_in_padded_chunks():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            if x.shape[0] != 6:
                raise ValueError("six rows please")
            return self.layer(x)

    made = exported(Pairs(), (torch.randn(6, 4),))
    assert made.graph["batch"] is False
    assert made.graph["rows"] == 6
    x = torch.randn(14, 4)
    got = evaluate(made.program, OutputFunctional(), made.parameters, {}, [x], 5)
    torch.testing.assert_close(got, made.module.layer(x).detach())


def test_rows_that_are_not_examples_are_passed_whole():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.LSTM(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][-1])

    made = exported(TimeFirst(), (torch.randn(7, 4, 3),))
    assert made.graph["batch"] is False
    assert made.graph["rows"] is None
    got = evaluate(made.program, OutputFunctional(), made.parameters, {}, made.inputs, 2)
    assert torch.equal(got, made.expected())


def test_constants_and_buffers_that_forward_changes():
    made = case("in place")
    assert made.constants
    assert made.program.buffers == ()
    before = made.inputs[0].clone()
    made.program(made.parameters, made.buffers, made.inputs)
    assert torch.equal(made.inputs[0], before)


def test_export_leaves_no_trace_of_itself():
    module = InPlace().train()
    module.b.eval()
    module.register_forward_hook(lambda m, a, o: None)
    x = torch.randn(5, 4, requires_grad=True)
    attributes = {name: dict(part.__dict__) for name, part in module.named_modules()}
    state = {name: value.clone() for name, value in module.state_dict().items()}
    ids = {name: id(value) for name, value in [*module.named_parameters(), *module.named_buffers()]}
    versions = {name: value._version for name, value in module.state_dict().items()}
    randoms = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    flags = torch._C._get_mkldnn_enabled(), torch.backends.mha.get_fastpath_enabled()
    export(module, (x,), {}, output=None, gradient_path=None)
    assert {name: dict(part.__dict__) for name, part in module.named_modules()} == attributes
    assert module.training
    assert not module.b.training
    assert len(module._forward_hooks) == 1
    assert x.grad is None
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert {n: id(v) for n, v in [*module.named_parameters(), *module.named_buffers()]} == ids
    assert {name: value._version for name, value in module.state_dict().items()} == versions
    assert torch.equal(torch.get_rng_state(), randoms[0])
    assert random.getstate() == randoms[1]
    assert np.array_equal(np.random.get_state()[1], randoms[2])
    assert (torch._C._get_mkldnn_enabled(), torch.backends.mha.get_fastpath_enabled()) == flags


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        x = self.norm(self.layer(x))
        return x if x.sum() > 0 else -x


def test_control_flow_on_data_is_refused_and_leaves_the_module_as_it_was():
    module = Branching()
    module.norm.eval()
    attributes = {name: dict(part.__dict__) for name, part in module.named_modules()}
    x = torch.randn(5, 4)
    state = torch.get_rng_state()
    with pytest.raises(ExportError) as caught:
        export(module, (x,), {}, output=None, gradient_path=None)
    assert "data-dependent" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {name: dict(part.__dict__) for name, part in module.named_modules()} == attributes
    assert module.training
    assert not module.norm.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_draws_random_numbers_in_eval_mode_is_refused():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 30)

        def forward(self, x):
            return nn.functional.dropout(self.layer(x))

    with pytest.raises(ExportError, match=r"output differs from the module's by .*random numbers"):
        export(Noisy(), (torch.randn(8, 4),), {}, output=None, gradient_path=None)


def test_a_forward_that_raises_gives_its_reason():
    with pytest.raises(ExportError, match="RuntimeError: mat1 and mat2 shapes cannot be multiplied"):
        export(mlp(), (torch.randn(5, 7),), {}, output=None, gradient_path=None)


def test_a_module_called_without_a_tensor_or_returning_none_is_refused():
    with pytest.raises(ExportError, match="called without a tensor"):
        export(mlp(), (3,), {}, output=None, gradient_path=None)
    with pytest.raises(ExportError, match="returns no floating tensor with a dimension; its outputs are: ''"):
        export(Returning(lambda h, z: z.mean()), (torch.randn(5, 4),), {}, output=None, gradient_path=None)


def test_autocast_inside_forward_is_refused():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                x = self.layer(x)
            return x.float()

    with pytest.raises(ExportError, match="autocast"):
        export(Mixed(), (torch.randn(5, 4),), {}, output=None, gradient_path=None)


def test_export_needs_no_tscope_and_the_syntax_of_python_3_9():
    sources = sorted(Path(inspect.getfile(export)).parent.glob("export*.py"))
    assert len(sources) > 1
    for source in sources:
        tree = ast.parse(source.read_text(), feature_version=(3, 9))
        imports = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imports += [str(node.module) for node in froms if node.level == 0]
        assert {name.split(".")[0] for name in imports} - {"torch"} <= set(sys.stdlib_module_names)
        siblings = {node.module for node in froms if node.level > 0}
        assert siblings <= {other.stem for other in sources}  # what is copied along
