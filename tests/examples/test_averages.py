"""Averages of every example's model, beside the script's own network loaded with the averaged state."""

from __future__ import annotations

import pytest
import torch
from recorded_example import Example, build_network
from torch.nn import functional

import tscope
from tscope.analyses.kernel.setup import drawn
from tscope.optimizers import infer_loss

EXAMPLES = 48
ROUNDING = 3e-8  # of losses of float32 outputs, relative; a language model of 80 steps had at most 3.1e-9


def test_averages_of_two_steps_are_those_of_the_scripts_own_network(example: Example) -> None:
    trace = tscope.open(example.trace)
    middle, last = example.steps // 2, example.steps
    asked = {"at": f"{middle},last", "points": 3, "layers": False, "train": EXAMPLES, "recalibrate": False}
    if example.name == "cnn_adadelta":  # its log_softmax is in the model
        with pytest.raises(tscope.AnalysisError, match="no softmax or sigmoid within the model"):
            tscope.analyze(trace, "weight-averaging", save=False, **asked)
        return
    found = tscope.analyze(trace, "weight-averaging", save=False, **asked)
    first, second = trace.state_dict(middle), trace.state_dict(last)
    average = {
        name: (value + second[name]) / 2 if value.is_floating_point() else value
        for name, value in first.items()
    }
    network = build_network(example.name, average)
    count = len(trace["examples/hash"])
    numbers = drawn("train", "training", count, EXAMPLES, 1, 0)
    inputs = [torch.from_numpy(trace[f"examples/input/{k}"][numbers]) for k in range(len(trace.input_specs))]
    with torch.no_grad():
        if example.name == "transformer_lm":  # it is given its targets: a label at each position
            logits, _ = network(*inputs)
            f, y = logits.flatten(0, 1), inputs[1].flatten()
            assert found.scalars["positions"] == inputs[1].shape[1]
        else:
            f, y = network(*inputs), infer_loss(trace).labels[numbers].argmax(1)
    expected = float(functional.cross_entropy(f.double(), y))
    assert found.scalars["examples_train"] == EXAMPLES
    assert found.scalars["loss_average_train"] == pytest.approx(expected, rel=ROUNDING)
    assert found.scalars["accuracy_average_train"] == float((f.argmax(1) == y).double().mean())
