"""Recurrent layers as the linear maps they are made of, so that their weights are those of affine layers.

torch's operators for them are single nodes that neither show the values between the linear maps nor have a
rule for batched derivatives. Written out, each direction of each layer multiplies W_ih with the inputs of
all positions, and W_hh with all hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

State = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, State], State]


@dataclass(frozen=True)
class Tap:
    """A value through which a weight and its bias enter: W·inputs + bias, for all positions at once.

    Attributes:
        inputs: what the weight is multiplied with (position, example, feature).
        value: a value that the products were added to, or are (position, example, gate).
    """

    inputs: Tensor
    value: Tensor


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, -1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), h.chunk(3, -1)
    z = (xz + hz).sigmoid()
    new = (xn + (xr + hr).sigmoid() * hn).tanh()
    return ((1 - z) * new + z * state[0],)


def _tanh(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).tanh(),)


def _relu(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).relu(),)


STEPS: dict[str, Step] = {
    "aten.lstm.input": _lstm,
    "aten.gru.input": _gru,
    "aten.rnn_tanh.input": _tanh,
    "aten.rnn_relu.input": _relu,
}


def weights(arguments: Mapping[str, Any]) -> list[tuple[Any, ...]] | None:
    """Return (weight, bias) of each tap, or (weight,) without biases; None for what is not written out here.

    The taps are, for each layer and direction, the input's and the hidden state's. Hidden states of another
    size than the cells' (projections) have a third weight.
    """
    params, biases = list(arguments["params"]), bool(arguments["has_biases"])
    maps = 2 * arguments["num_layers"] * (2 if arguments["bidirectional"] else 1)
    if len(params) != maps * (2 if biases else 1):
        return None
    if not biases:
        return [(weight,) for weight in params]
    groups = (params[start : start + 4] for start in range(0, len(params), 4))
    return [pair for ih, hh, b_ih, b_hh in groups for pair in ((ih, b_ih), (hh, b_hh))]


def evaluate(target: str, arguments: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], list[Tap]]:
    """Return what the operator returns (output, *last states), and its taps.

    The operator itself, up to rounding; one step of Python for each position, layer and direction.
    """
    step = STEPS[target]
    maps = weights(arguments)
    assert maps is not None  # else there are no sites at the node
    x: Tensor = arguments["input"]
    given = arguments["hx"]
    states = (given,) if isinstance(given, Tensor) else tuple(given)  # each (layer·direction, example, …)
    if arguments["batch_first"]:
        x = x.transpose(0, 1)
    directions = 2 if arguments["bidirectional"] else 1
    taps: list[Tap] = []
    last: list[State] = []
    for layer in range(arguments["num_layers"]):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            state = tuple(value[index] for value in states)
            found, state, pair = _direction(
                step, x, state, maps[2 * index], maps[2 * index + 1], backwards=direction == 1
            )
            outputs.append(found)
            last.append(state)
            taps += pair
        x = torch.cat(outputs, -1)
    final = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
    return (x.transpose(0, 1) if arguments["batch_first"] else x, *final), taps


def _direction(
    step: Step,
    x: Tensor,
    state: State,
    forward: Sequence[Tensor],
    recurrent: Sequence[Tensor],
    *,
    backwards: bool,
) -> tuple[Tensor, State, list[Tap]]:
    products = linear(x, *forward)
    if not products.requires_grad:
        products.requires_grad_()
    # Zeros that are added to the hidden states' products, to be differentiated by.
    offsets = torch.zeros_like(products, requires_grad=True)
    order = range(len(x) - 1, -1, -1) if backwards else range(len(x))
    hidden: list[Tensor] = [state[0]] * len(x)
    outputs: list[Tensor] = [state[0]] * len(x)
    for position in order:
        hidden[position] = state[0]
        state = step(products[position], linear(state[0], *recurrent) + offsets[position], state)
        outputs[position] = state[0]
    return torch.stack(outputs), state, [Tap(x, products), Tap(torch.stack(hidden), offsets)]
