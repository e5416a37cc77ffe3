from __future__ import annotations

import pytest
import torch
from program_case import Case, case, exported
from program_models import MODELS
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.utils.parametrizations import weight_norm
from tscope_format import AnalysisError, UsageError

from tscope.program import OutputFunctional, ad_friendly, evaluate, jvp, jvp_layers, leaves, vjp

FULL = OutputFunctional()
DOUBLE = torch.float64


def double(made: Case):
    parameters = {name: value.to(DOUBLE) for name, value in made.parameters.items()}
    tangents = {name: value.to(DOUBLE) for name, value in made.tangents().items()}
    inputs = [value.to(DOUBLE) if value.is_floating_point() else value for value in made.inputs]
    buffers = {n: v.to(DOUBLE) if v.is_floating_point() else v for n, v in made.buffers.items()}
    return made.program.to(DOUBLE), parameters, tangents, buffers, inputs


def dense(program, parameters, buffers, inputs, tangents):
    """J·v from the explicit Jacobian by reverse mode, a row at a time."""
    jacobian = jacrev(lambda point: FULL(program(point, buffers, inputs)), chunk_size=1)(parameters)
    return sum(
        (jacobian[name].flatten(2) @ tangents[name].flatten() for name in parameters),
        torch.zeros((), dtype=DOUBLE),
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_float64_program_is_the_float64_module(name):
    made = case(name)
    program, parameters, _, buffers, inputs = double(made)
    module = made.module.eval().to(DOUBLE)
    for part in module.modules():
        if "scale" in part.__dict__ and isinstance(part.__dict__["scale"], torch.Tensor):
            part.scale = part.scale.to(DOUBLE)
    torch.set_default_dtype(DOUBLE)
    try:
        with torch.no_grad(), ad_friendly():
            expected = dict(leaves(module(*inputs)))[program.output_path]
    finally:
        torch.set_default_dtype(torch.float32)
    got = program(parameters, buffers, inputs)
    assert got.dtype == DOUBLE
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_jvp_is_the_dense_jacobian_times_the_tangent(name):
    made = case(name, 3)
    program, parameters, tangents, buffers, inputs = double(made)
    output, product = jvp(program, FULL, parameters, tangents, buffers, inputs)
    assert program.forward_derivatives == (name != "norms")  # torch's weight_norm has no forward derivative
    assert torch.equal(output, evaluate(program, FULL, parameters, buffers, inputs))
    with ad_friendly():
        expected = dense(program, parameters, buffers, inputs, tangents)
    torch.testing.assert_close(product, expected, rtol=1e-10, atol=1e-10)


# Under no_grad the derivative is not that of the function, as it is not in training.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "in place"])
def test_jvp_is_the_limit_of_finite_differences(name):
    made = case(name, 3)
    program, parameters, tangents, buffers, inputs = double(made)
    step = 1e-6

    def at(place):
        moved = {n: parameters[n] + place * tangents[n] for n in parameters}
        return evaluate(program, FULL, moved, buffers, inputs)

    _, product = jvp(program, FULL, parameters, tangents, buffers, inputs)
    difference = (at(step) - at(-step)) / (2 * step)
    torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_double_backward_agrees_with_forward_mode(name):
    made = case(name, 3)
    program, parameters, tangents, buffers, inputs = double(made)
    output, product = jvp(program, FULL, parameters, tangents, buffers, inputs)
    program.forward_derivatives = False
    again, other = jvp(program, FULL, parameters, tangents, buffers, inputs)
    torch.testing.assert_close(again, output, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(other, product, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_layers_add_up_to_the_whole(name):
    made = case(name, 4)
    program, parameters, tangents, buffers, inputs = double(made)
    names = list(parameters)
    groups = (
        [names[i : i + 2] for i in range(0, len(names), 2)] if name != "deep" else [names[::2], names[1::2]]
    )
    output, whole = jvp(program, FULL, parameters, tangents, buffers, inputs)
    same, parts = jvp_layers(program, FULL, parameters, tangents, groups, buffers, inputs, 3)
    assert parts.shape == (len(groups), *output.shape)
    torch.testing.assert_close(same, output, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(parts.sum(0), whole, rtol=1e-11, atol=1e-11)
    for group, part in zip(groups, parts, strict=True):
        alone = {n: tangents[n] for n in group}
        _, expected = jvp(program, FULL, parameters, alone, buffers, inputs)
        torch.testing.assert_close(part, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_vjp_is_the_adjoint_of_jvp(name):
    made = case(name, 5)
    program, parameters, tangents, buffers, inputs = double(made)
    output, product = jvp(program, FULL, parameters, tangents, buffers, inputs)
    u = torch.randn(output.shape, dtype=DOUBLE)
    same, grads = vjp(program, FULL, parameters, buffers, inputs, u, 2)
    torch.testing.assert_close(same, output, rtol=1e-12, atol=1e-12)
    left = (u * product).sum()
    right = sum((grads[n] * tangents[n]).sum() for n in grads)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mlp", "gpt", "resnet"])
def test_chunks_change_nothing(name):
    made = case(name)
    made.args = MODELS[name][1](7)
    whole = jvp(made.program, FULL, made.parameters, made.tangents(), made.buffers, made.inputs)
    for chunk in (1, 3, 100):
        parts = jvp(made.program, FULL, made.parameters, made.tangents(), made.buffers, made.inputs, chunk)
        for got, expected in zip(parts, whole, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_repeated_evaluation_is_bit_identical():
    made = case("resnet")
    first, second = (
        jvp(made.program, FULL, made.parameters, made.tangents(), made.buffers, made.inputs) for _ in range(2)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_functional_call_agrees_in_float32():
    made = case("cnn")
    made.module.eval()
    with ad_friendly():
        expected = torch.func.jvp(
            lambda point: functional_call(made.module, point, made.args),
            (made.parameters,),
            (made.tangents(),),
        )
    got = jvp(made.program, FULL, made.parameters, made.tangents(), made.buffers, made.inputs)
    assert torch.equal(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1])


def test_a_loss_functional_is_followed_through_padded_rows():
    made = case("cnn", 5)
    target = torch.tensor([0, 1, 2, 3, 4])
    loss = OutputFunctional("loss", target=target)
    value, product = jvp(made.program, loss, made.parameters, made.tangents(), made.buffers, made.inputs, 4)
    logits = made.expected()
    expected = nn.functional.cross_entropy(logits, target, reduction="none")[:, None]
    torch.testing.assert_close(value, expected)
    assert product.shape == (5, 1)


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), weight_norm(nn.Linear(3, 2))

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return torch.cdist(x, self.centres)


def test_an_operator_without_any_second_derivative_is_named():
    made = exported(Distances(), (torch.randn(5, 4),))
    with pytest.raises(AnalysisError, match=r"no Jacobian-vector product.*cdist"):
        jvp(made.program, FULL, made.parameters, made.tangents(), {}, made.inputs)


def test_an_operator_without_forward_derivative_falls_back_to_double_backward():
    torch.manual_seed(0)
    made = exported(Normalised(), (torch.randn(5, 4),))
    program, parameters, tangents, buffers, inputs = double(made)
    _, product = jvp(program, FULL, parameters, tangents, buffers, inputs)
    moved = {n: parameters[n] + 1e-6 * tangents[n] for n in parameters}
    back = {n: parameters[n] - 1e-6 * tangents[n] for n in parameters}
    difference = (
        evaluate(program, FULL, moved, buffers, inputs) - evaluate(program, FULL, back, buffers, inputs)
    ) / 2e-6
    torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-8)
    _, parts = jvp_layers(program, FULL, parameters, tangents, [list(parameters), []], buffers, inputs)
    torch.testing.assert_close(parts[0], product)
    assert not program.forward_derivatives
    assert not parts[1].any()


def test_wrong_shapes_and_dtypes_are_said():
    made = case("mlp")
    program, parameters = made.program, made.parameters
    with pytest.raises(UsageError, match=r"shape \(2, 7\), the model takes \(rows, 6\)"):
        evaluate(program, FULL, parameters, {}, [torch.randn(2, 7)])
    with pytest.raises(UsageError, match="is int64, the model takes float32"):
        evaluate(program, FULL, parameters, {}, [torch.ones(2, 6, dtype=torch.long)])
    with pytest.raises(UsageError, match="needs 1 inputs, got 0"):
        evaluate(program, FULL, parameters, {}, [])
    with pytest.raises(UsageError, match="no rows"):
        evaluate(program, FULL, parameters, {}, [torch.randn(0, 6)])
    with pytest.raises(UsageError, match=r"tangent of '0.weight' has the shape \(1,\)"):
        jvp(program, FULL, parameters, {"0.weight": torch.ones(1)}, {}, made.inputs)
    pair = exported(nn.Bilinear(2, 3, 4), (torch.randn(5, 2), torch.randn(5, 3)))
    with pytest.raises(UsageError, match=r"different numbers of rows: \[2, 3\]"):
        evaluate(pair.program, FULL, pair.parameters, {}, [torch.ones(2, 2), torch.ones(3, 3)])
