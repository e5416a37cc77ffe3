"""The user's own module in place of a recorded program."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import tscope
from tests import models
from tscope.program import OutputFunctional, evaluate, jvp
from tscope.replay.user_model import user_program


def tensors(module):
    return dict(module.named_parameters()), dict(module.named_buffers())


def test_parameters_and_buffers_given_are_used_not_the_modules_own():
    torch.manual_seed(0)
    wanted = models.Conv().eval()
    theta, buffers = tensors(wanted)
    buffers = {name: value + 1 for name, value in buffers.items()}
    x, _ = models.images(3)
    program = user_program(models.Conv, theta, buffers, (x,))
    with torch.no_grad():
        wanted.load_state_dict({**theta, **buffers})
        assert torch.equal(program(theta, buffers, (x,)), wanted(x))


def test_it_has_derivatives_in_chunks():
    torch.manual_seed(0)
    module = models.mlp(3)
    theta, _ = tensors(module)
    x = torch.randn(5, 4)
    program = user_program(lambda: models.mlp(3), theta, {}, (x,))
    tangents = {name: torch.randn_like(value) for name, value in theta.items()}
    whole = jvp(program, OutputFunctional(), theta, tangents, {}, (x,))
    split = jvp(program, OutputFunctional(), theta, tangents, {}, (x,), 2)
    expected = torch.func.jvp(
        lambda point: torch.func.functional_call(module, point, (x,)), (theta,), (tangents,)
    )
    for a, b, c in zip(whole, split, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert torch.allclose(a, c, atol=1e-6)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x):
        out = self.layer(x)
        return {"loss": out.sum(), "logits": out, "other": out * 2}


@pytest.mark.parametrize(("path", "factor"), [("logits", 1), ("other", 2), (None, 1)])
def test_the_followed_output_is_chosen_by_its_path(path, factor):
    module = Several()
    theta, _ = tensors(module)
    x = torch.randn(4, 2)
    program = user_program(lambda: module, theta, {}, (x,), path)
    assert torch.equal(
        evaluate(program, OutputFunctional(), theta, {}, (x,)), factor * module(x)["logits"].detach()
    )


def refused(spec, message):
    theta, _ = tensors(models.mlp(3))
    with pytest.raises(tscope.UsageError, match=message):
        user_program(spec, theta, {}, (torch.zeros(2, 4),))


def test_a_model_of_other_shapes_is_refused():
    refused(
        lambda: models.mlp(2), r"has other parameters .* 2 of them, such as 4\.bias: \(2,\) .* \(3,\) in the"
    )


def test_a_factory_that_raises_is_reported():
    def broken():
        raise ValueError("no weights")

    refused(broken, "--model broken raised ValueError: no weights")


def test_a_factory_of_something_else_is_refused():
    refused(dict, "--model dict made a dict; a torch.nn.Module is needed")


@pytest.mark.parametrize("spec", ["model", "model:", ":factory"])
def test_a_specification_without_both_parts_is_refused(spec):
    refused(spec, "--model must be module:factory, got")


def test_a_module_that_is_not_there_is_refused():
    refused("no_such_module_here:make", "--model no_such_module_here:make cannot be found: No module named")


def test_an_attribute_that_is_not_there_or_not_callable_is_refused(tmp_path, monkeypatch):
    (tmp_path / "own_model_file.py").write_text("number = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    refused("own_model_file:make", "cannot be found: .*no attribute 'make'")
    refused("own_model_file:number", "own_model_file:number is not callable")
    monkeypatch.delitem(sys.modules, "own_model_file")


def test_a_module_without_a_tensor_output_is_refused():
    class Scalar(Several):
        def forward(self, x):
            return {"loss": self.layer(x).sum()}

    module = Scalar()
    theta, _ = tensors(module)
    x = torch.zeros(2, 2)
    program = user_program(lambda: module, theta, {}, (x,))
    with pytest.raises(tscope.UsageError, match="Scalar returns no floating-point tensor with dimensions"):
        program(theta, {}, (x,))
