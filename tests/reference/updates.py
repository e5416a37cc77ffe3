"""The terms of torch's own optimizers: observed while they step, and put together from their documentation.

Short, slow, float64, without tscope: what went in and came out is copied by hooks of torch, second moments
are those in the optimizer's state, and all else is torch's documented update with some of its parts left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim

Named = dict[str, Tensor]
TERMS = (
    "gradient",
    "clipping",
    "preconditioning",
    "memory",
    "coupled_decay",
    "decoupled_decay",
    "adapter_residual",
)


@dataclass
class Seen:
    """One step of one optimizer, by parameter name."""

    theta: Named
    raw: Named  # the gradient that backward left
    used: Named  # the gradient that the optimizer found, after clipping
    hyper: dict[str, dict[str, Any]]
    state: dict[str, dict[str, Any]]  # after the step
    after: Named

    @property
    def names(self) -> list[str]:
        return list(self.used)

    @property
    def change(self) -> Named:
        return {name: value - self.theta[name] for name, value in self.after.items()}


class Observer:
    """Watches an optimizer; `steps` are what it did."""

    def __init__(self, module: nn.Module, optimizer: optim.Optimizer) -> None:
        self.kind = type(optimizer).__name__
        self.steps: list[Seen] = []
        self._raw: Named = {}
        self._parameters = dict(module.named_parameters())
        for name, parameter in self._parameters.items():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name: self._raw.__setitem__(name, p.grad.clone())
                )
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, optimizer: optim.Optimizer, args: object, kwargs: object) -> None:
        name_of = {id(p): name for name, p in self._parameters.items()}
        hyper = {
            name_of[id(p)]: {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        }
        used = {name: self._parameters[name].grad.clone() for name in hyper}
        self._seen = Seen(self._values(), dict(self._raw), used, hyper, {}, {})

    def _after(self, optimizer: optim.Optimizer, args: object, kwargs: object) -> None:
        for name in self._seen.names:
            state = optimizer.state.get(self._parameters[name], {})
            self._seen.state[name] = {k: v.clone() for k, v in state.items() if isinstance(v, Tensor)}
        self._seen.after = self._values()
        self.steps.append(self._seen)

    def _values(self) -> Named:
        return {name: p.detach().clone() for name, p in self._parameters.items()}


def documented(
    kind: str, h: Mapping[str, Any], state: Mapping[str, Tensor], t: int, g: Tensor, moment: Tensor
) -> tuple[Tensor, Tensor]:
    """The update of a gradient by torch.optim's documentation, without decay, second moments as they are.

    `moment` is the first moment before; the second value is that after.
    """
    lr = float(h["lr"])
    if kind == "SGD":
        if h["momentum"] == 0:
            return -lr * g, moment
        after = g if t == 1 else h["momentum"] * moment + (1 - h["dampening"]) * g
        return -lr * (g + h["momentum"] * after if h["nesterov"] else after), after
    if kind == "Adagrad":
        clr = lr / (1 + (t - 1) * h["lr_decay"])
        return -clr * g / (state["sum"].sqrt() + h["eps"]), moment
    if kind == "RMSprop":
        v = state["square_avg"]
        v = v - state["grad_avg"] ** 2 if h["centered"] else v
        g = g / (v.sqrt() + h["eps"])
        if h["momentum"] == 0:
            return -lr * g, moment
        after = h["momentum"] * moment + g
        return -lr * after, after
    beta1, beta2 = h["betas"]
    after = beta1 * moment + (1 - beta1) * g
    mean = after / (1 - beta1**t)
    if kind == "Adamax":
        return -lr * mean / state["exp_inf"], after
    v = state["exp_avg_sq"]
    if kind == "RAdam":
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        if length <= 5:
            return -lr * mean, after
        r = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        return -lr * mean * math.sqrt(r) * math.sqrt(1 - beta2**t) / (v.sqrt() + h["eps"]), after
    if kind in ("Adam", "AdamW"):
        v = state["max_exp_avg_sq"] if h["amsgrad"] else v
        return -lr * mean / ((v / (1 - beta2**t)).sqrt() + h["eps"]), after
    assert kind == "NAdam"
    denominator = (v / (1 - beta2**t)).sqrt() + h["eps"]
    mu, ahead = (beta1 * (1 - 0.5 * 0.96 ** (k * h["momentum_decay"])) for k in (t, t + 1))
    # torch keeps the product of the momenta in its default dtype; without momentum it is 0.
    product = float(state["mu_product"]) if beta1 else 0.0
    own = (1 - mu) / (1 - product) * g + ahead / (1 - product * ahead) * after
    return -lr * own / denominator, after


def forgetful(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """The same hyper-parameters with the momentum switched off."""
    found = dict(hyper)
    if "momentum" in found:
        found |= {"momentum": 0, "nesterov": False}
    if "betas" in found:
        found["betas"] = (0.0, found["betas"][1])
    return found


def rate(kind: str, h: Mapping[str, Any], t: int) -> float:
    return float(h["lr"]) / (1 + (t - 1) * h["lr_decay"] if kind == "Adagrad" else 1)


def terms(kind: str, steps: Sequence[Seen]) -> list[dict[str, Named]]:
    """The terms of every step, by term and parameter name."""
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    counts: dict[str, int] = {}
    found = []
    for seen in steps:
        parts: dict[str, Named] = {term: {} for term in TERMS}
        for name, change in seen.change.items():
            parts["adapter_residual"][name] = change
            if name not in seen.used:
                continue
            h, state, theta = seen.hyper[name], seen.state[name], seen.theta[name]
            t = counts[name] = counts.get(name, 0) + 1
            sign = -1.0 if h["maximize"] else 1.0
            raw, used = sign * seen.raw[name], sign * seen.used[name]
            learned, decayed = moments.get(name, (torch.zeros_like(theta),) * 2)
            decoupled = kind == "AdamW" or h.get("decoupled_weight_decay", False)
            step = rate(kind, h, t)
            plain, clipped = -step * raw, -step * used
            alone, _ = documented(kind, forgetful(h), state, t, used, torch.zeros_like(theta))
            whole, learned = documented(kind, h, state, t, used, learned)
            penalty = torch.zeros_like(theta) if decoupled else h["weight_decay"] * theta
            decay, decayed = documented(kind, h, state, t, penalty, decayed)
            beside = -float(h["lr"]) * h["weight_decay"] * theta if decoupled else torch.zeros_like(theta)
            moments[name] = learned, decayed
            values = (plain, clipped - plain, alone - clipped, whole - alone, decay, beside)
            for term, value in zip(TERMS, values, strict=False):
                parts[term][name] = value
            parts["adapter_residual"][name] = change - sum(values)
        found.append(parts)
    return found


def influences(
    kind: str,
    steps: Sequence[Seen],
    gradients: Sequence[Mapping[int, Named]],
    jacobians: Sequence[Named],
    examples: int,
    first: int,
) -> tuple[Tensor, Tensor]:
    """What each training example did to each point, forward: a moment for every example.

    Args:
        kind: The optimizer's class.
        steps: What it did.
        gradients: Of each step, each visiting example's own part of the raw gradient.
        jacobians: Of each step, J (point, output, parameter) by name.
        examples: How many there are.
        first: The first step (from 0) whose effects count.

    Returns:
        Through the gradient of the same step, and through the memory of earlier ones, each
        (point, output, example).
    """
    shape = (*next(iter(jacobians[0].values())).shape[:2], examples)
    direct, later = torch.zeros(shape).double(), torch.zeros(shape).double()
    moments: Named = {}
    for index, (seen, own, J) in enumerate(zip(steps, gradients, jacobians, strict=True)):
        norms = [math.hypot(*(float(v.norm()) for v in values.values())) for values in (seen.used, seen.raw)]
        for name in seen.names:
            h, state, t = seen.hyper[name], seen.state[name], index + 1
            zero = torch.zeros(examples, *seen.theta[name].shape, dtype=torch.float64)
            g = zero.clone()  # a gradient of its own for every example, in the first dimension
            for example, values in own.items():
                g[example] = values[name] * (-1.0 if h["maximize"] else 1.0) * norms[0] / norms[1]
            moment = moments.get(name, zero)
            new, _ = documented(kind, h, state, t, g, zero)
            old, _ = documented(kind, h, state, t, zero, moment)
            _, moments[name] = documented(kind, h, state, t, g, moment)
            if index >= first:
                direct += J[name] @ new.flatten(1).T
                later += J[name] @ old.flatten(1).T
    return direct, later
