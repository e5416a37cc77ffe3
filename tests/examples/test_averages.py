"""Averages of the examples' models, beside the scripts' own networks loaded with the averaged state."""

from __future__ import annotations

import pytest
import torch
from recorded_example import Example, build_network
from torch.nn import functional

import tscope

SEQUENCES = [
    pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("transformer_lm", "lstm_classifier")
]
ROUNDING = 3e-8  # of losses of float32 outputs, relative; measured with 80 steps: at most 3.1e-9


@pytest.mark.parametrize("example", SEQUENCES, indirect=True)
def test_averages_of_two_steps_are_those_of_the_scripts_own_network(example: Example) -> None:
    trace = tscope.open(example.trace)
    middle, last = example.steps // 2, example.steps
    found = tscope.analyze(trace, "weight-averaging", at=f"{middle},last", points=3, layers=False, save=False)
    first, second = trace.state_dict(middle), trace.state_dict(last)
    network = build_network(example.name, {name: (value + second[name]) / 2 for name, value in first.items()})
    inputs = [torch.from_numpy(trace[f"examples/input/{k}"]) for k in range(len(trace.input_specs))]
    with torch.no_grad():
        if example.name == "transformer_lm":  # it is given its targets: a label at each position
            logits, _ = network(*inputs)
            f, y = logits.flatten(0, 1), inputs[1].flatten()
            assert found.scalars["positions"] == inputs[1].shape[1]
        else:
            f, y = network(*inputs), tscope.optimizers.infer_loss(trace).labels.argmax(1)
    expected = float(functional.cross_entropy(f.double(), y))
    assert found.scalars["examples_train"] == len(inputs[0])
    assert found.scalars["loss_average_train"] == pytest.approx(expected, rel=ROUNDING)
    assert found.scalars["accuracy_average_train"] == float((f.argmax(1) == y).double().mean())
