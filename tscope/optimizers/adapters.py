"""One function for each optimizer of torch: its row of math.md §2's table, from its own state.

Each takes what the optimizer keeps for one parameter, and the gradient G as the optimizer uses it (clipped,
with coupled weight decay in it); it advances the second moments, and returns the numbers of the linear step.
The first moment is linear in G and is left to `OptimizerState`. Averages are taken by torch's own operations,
so that they round alike: D is the inverse of what may be a difference of nearly equal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, clean


class Hyper:
    """The hyper-parameters of a parameter group, as they were recorded.

    Args:
        values: By name.
        optimizer: The optimizer's class, for messages.
    """

    def __init__(self, values: Mapping[str, object], optimizer: str) -> None:
        self.values = dict(values)
        self.optimizer = optimizer

    def number(self, name: str) -> float:
        """Return a hyper-parameter that must be there.

        Raises:
            AnalysisError: It is not, or is not a number.
        """
        return self._float(name, self.values.get(name))

    def optional(self, name: str) -> float:
        """Return a hyper-parameter, 0 where this version of torch has none of that name."""
        return self._float(name, self.values.get(name, 0.0))

    def flag(self, name: str) -> bool:
        """Return whether an option is set; None and absent count as not."""
        return bool(self.values.get(name))

    def betas(self) -> tuple[float, float]:
        """Return (β1, β2)."""
        pair = self.values.get("betas")
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise self._error("betas", pair)
        return self._float("betas", pair[0]), self._float("betas", pair[1])

    def _float(self, name: str, value: object) -> float:
        # Infinities are recorded by their names, which float() reads.
        if isinstance(value, bool | int | float | str):
            try:
                return float(value)
            except ValueError:
                pass
        raise self._error(name, value)

    def _error(self, name: str, value: object) -> AnalysisError:
        return AnalysisError(
            f"the hyper-parameter {name!r} of {clean(self.optimizer)} was recorded as {clean(value)[:60]}, "
            "and a number is needed; pass plain numbers to the optimizer and record again"
        )


@dataclass(eq=False)
class Memory:
    """What an optimizer keeps for one parameter, under torch's own names.

    Attributes:
        step: how often the parameter was updated, this update included once it has begun.
        tensors: states of the parameter's shape.
        mu_product: NAdam's product of its momenta, which torch keeps as a tensor of the run's default dtype.
    """

    mu_product: Tensor
    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Row:
    """The row of the table for one parameter; the symbols are those of `LinearStep`.

    `moment` is the name of the state that M is; None where the update has no M. `rate` is γ where the
    optimizer itself lowers the group's learning rate; None where that is γ.
    """

    a: float
    b: float = 0.0
    mu: float = 0.0
    nu: float = 1.0
    d_in: Tensor | None = None
    d_out: Tensor | None = None
    moment: str | None = None
    rate: float | None = None


Adapter = Callable[[Hyper, float, Memory, Tensor], Row]


def sgd(hyper: Hyper, lr: float, memory: Memory, gradient: Tensor) -> Row:
    """M ← m M + (1 − d) G, the first time M = G; Δ = −γM, or −γ(G + mM) of Nesterov."""
    momentum = hyper.number("momentum")
    started = "momentum_buffer" in memory.tensors
    if momentum == 0:
        # M lies idle, for a momentum that was switched off on the way.
        return Row(a=0.0, b=lr, mu=1.0, nu=0.0) if started else Row(a=lr)
    mu = momentum if started else 0.0
    nu = 1 - hyper.optional("dampening") if started else 1.0
    if hyper.flag("nesterov"):
        return Row(a=lr * momentum, b=lr, mu=mu, nu=nu, moment="momentum_buffer")
    return Row(a=lr, mu=mu, nu=nu, moment="momentum_buffer")


def adam(hyper: Hyper, lr: float, memory: Memory, gradient: Tensor) -> Row:
    """M ← β1 M + (1 − β1) G; Δ = −γ/(1 − β1ᵗ) M / (√(v/(1 − β2ᵗ)) + ε), v or its maximum so far."""
    beta1, beta2 = hyper.betas()
    v = _mean_square(memory, "exp_avg_sq", gradient, beta2)
    if hyper.flag("amsgrad"):
        v = torch.maximum(memory.tensors.get("max_exp_avg_sq", torch.zeros_like(v)), v)
        memory.tensors["max_exp_avg_sq"] = v
    root = v.sqrt() / math.sqrt(1 - beta2**memory.step)
    scale = root.add_(hyper.number("eps")).reciprocal_()
    a = lr / (1 - beta1**memory.step)
    return Row(a=a, mu=beta1, nu=1 - beta1, d_out=scale, moment="exp_avg")


def nadam(hyper: Hyper, lr: float, memory: Memory, gradient: Tensor) -> Row:
    """Adam with momenta μ_t = β1(1 − ½·0.96^{tψ}), of which a looks ahead by one."""
    beta1, beta2 = hyper.betas()
    decay, t = hyper.number("momentum_decay"), memory.step
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * decay))
    memory.mu_product = memory.mu_product * mu
    product = float(memory.mu_product)
    v = _mean_square(memory, "exp_avg_sq", gradient, beta2)
    root = (v / (1 - beta2**t)).sqrt_()
    return Row(
        a=lr * mu_next / (1 - product * mu_next),
        b=lr * (1 - mu) / (1 - product),
        mu=beta1,
        nu=1 - beta1,
        d_out=root.add_(hyper.number("eps")).reciprocal_(),
        moment="exp_avg",
    )


def radam(hyper: Hyper, lr: float, memory: Memory, gradient: Tensor) -> Row:
    """Adam whose scale is rectified by the length ρ_t of its average, and 1 while ρ_t ≤ 5."""
    beta1, beta2 = hyper.betas()
    t = memory.step
    v = _mean_square(memory, "exp_avg_sq", gradient, beta2)
    correction = 1 - beta2**t
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / correction
    scale = None
    if length > 5:
        rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        scale = math.sqrt(rectified * correction) / v.sqrt().add_(hyper.number("eps"))
    return Row(a=lr / (1 - beta1**t), mu=beta1, nu=1 - beta1, d_out=scale, moment="exp_avg")


def adamax(hyper: Hyper, lr: float, memory: Memory, gradient: Tensor) -> Row:
    """Δ = −γ/(1 − β1ᵗ) M / u, u ← max(β2 u, |G| + ε)."""
    beta1, beta2 = hyper.betas()
    largest = gradient.abs().add_(hyper.number("eps"))
    if "exp_inf" in memory.tensors:
        largest = torch.maximum(memory.tensors["exp_inf"] * beta2, largest)
    memory.tensors["exp_inf"] = largest
    a = lr / (1 - beta1**memory.step)
    return Row(a=a, mu=beta1, nu=1 - beta1, d_out=largest.reciprocal(), moment="exp_avg")


def rmsprop(hyper: Hyper, lr: float, memory: Memory, gradient: Tensor) -> Row:
    """M ← m M + G/(√v + ε); Δ = −γM; v less the squared mean gradient if it is centered."""
    alpha, momentum = hyper.number("alpha"), hyper.number("momentum")
    v = _mean_square(memory, "square_avg", gradient, alpha)
    if hyper.flag("centered"):
        average = memory.tensors.get("grad_avg", torch.zeros_like(v)).lerp(gradient, 1 - alpha)
        memory.tensors["grad_avg"] = average
        v = v.addcmul(average, average, value=-1)
    scale = v.sqrt().add_(hyper.number("eps")).reciprocal_()
    if momentum == 0:
        idle = "momentum_buffer" in memory.tensors
        return Row(a=0.0, b=lr, mu=1.0, nu=0.0, d_out=scale) if idle else Row(a=lr, d_in=scale)
    return Row(a=lr, mu=momentum, d_in=scale, moment="momentum_buffer")


def adagrad(hyper: Hyper, lr: float, memory: Memory, gradient: Tensor) -> Row:
    """Δ = −γ/(1 + (t − 1)η) G / (√ΣG² + ε)."""
    start = hyper.optional("initial_accumulator_value")
    total = memory.tensors.get("sum", torch.full_like(gradient, start)).addcmul(gradient, gradient)
    memory.tensors["sum"] = total
    scale = total.sqrt().add_(hyper.number("eps")).reciprocal_()
    rate = lr / (1 + (memory.step - 1) * hyper.optional("lr_decay"))
    return Row(a=rate, d_out=scale, rate=rate)


ADAPTERS: Mapping[str, Adapter] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adam,
    "NAdam": nadam,
    "RAdam": radam,
    "Adamax": adamax,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
}


def adapter(optimizer: str) -> Adapter:
    """Return the adapter of an optimizer by the name of its class.

    Raises:
        AnalysisError: There is none.
    """
    if optimizer not in ADAPTERS:
        raise AnalysisError(
            f"the run was trained with {clean(optimizer)}, whose steps are not known as linear maps of the "
            f"gradient; that is known of {', '.join(ADAPTERS)} of torch.optim"
        )
    return ADAPTERS[optimizer]


def weight_decay(hyper: Hyper, lr: float) -> tuple[float, float]:
    """Return (λ, w): weight decay within the gradient, and beside it."""
    decay = hyper.optional("weight_decay")
    # Before torch 2.7 AdamW was a class of its own, without the flag.
    if hyper.flag("decoupled_weight_decay") or hyper.optimizer == "AdamW":
        return 0.0, lr * decay
    return decay, 0.0


def _mean_square(memory: Memory, name: str, gradient: Tensor, beta: float) -> Tensor:
    """Return the exponential average of G², advanced by this one; it starts at 0."""
    before = memory.tensors.get(name, torch.zeros_like(gradient))
    memory.tensors[name] = before.mul(beta).addcmul_(gradient, gradient, value=1 - beta)
    return memory.tensors[name]
