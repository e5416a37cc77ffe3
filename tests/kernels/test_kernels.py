"""Blocks and products of J against explicit Jacobians of the original module, float64 (tests/reference)."""

from __future__ import annotations

import functools

import pytest
import torch
from kernel_models import BUILT, DOUBLE, Case, case, exported
from torch import Tensor, nn
from tscope_format import AnalysisError, UsageError

from tests.reference import jacobians
from tscope.kernels import Jacobian
from tscope.program import OutputFunctional, Program, export

# Even kernels with padding="same", and projected hidden states, are among the cases.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
]

FULL = OutputFunctional()
CASES = [(name, outputs) for name in BUILT for outputs in (1, 3)]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@functools.cache
def made(name: str, outputs: int) -> tuple[Case, dict[str, Tensor]]:
    built = case(name, outputs)
    return built, jacobians.jacobian(built.module, built.inputs)


def jacobian(built: Case, **options: object) -> Jacobian:
    return Jacobian(built.program, FULL, built.parameters, built.buffers, **options)


def rows(inputs: list[Tensor], *which: int) -> list[Tensor]:
    return [value[list(which)] for value in inputs]


def some(dense: dict[str, Tensor], *which: int) -> dict[str, Tensor]:
    return {name: value[list(which)] for name, value in dense.items()}


def random_like(parameters: dict[str, Tensor], *lead: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.randn((*lead, *value.shape), generator=generator, dtype=DOUBLE)
        for name, value in parameters.items()
    }


def flat(dense: Tensor) -> Tensor:
    return dense.reshape(*dense.shape[:2], -1)


def close(got: Tensor, expected: Tensor) -> None:
    scale = expected.abs().max().clamp(min=1e-30)
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_a_block_is_the_product_of_explicit_jacobians(name, outputs):
    built, dense = made(name, outputs)
    K = jacobian(built).block(built.inputs, rows(built.inputs, 3, 1))
    assert K.shape == (5, outputs, 2, outputs)
    close(K, jacobians.block(dense, some(dense, 3, 1)))


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_a_preconditioned_block_is_exact(name, outputs):
    built, dense = made(name, outputs)
    D = {n: value.exp() for n, value in random_like(built.parameters).items()}
    K = jacobian(built).block(built.inputs, rows(built.inputs, 3, 1), D)
    close(K, jacobians.block(dense, some(dense, 3, 1), D))


@pytest.mark.parametrize("columns", [1, 7])
@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_a_pushforward_is_the_explicit_jacobian_times_each_tangent(name, outputs, columns):
    built, dense = made(name, outputs)
    V = random_like(built.parameters, columns)
    if name == "tokens":
        V["words.weight"][:, 0] = 0  # the padding entry is constant in training, though not in the forward
    expected = sum(torch.einsum("ncp,kp->nck", flat(dense[n]), V[n].reshape(columns, -1)) for n in dense)
    close(jacobian(built).pushforward(built.inputs, V), expected)


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_a_contraction_is_each_example_s_own_gradient_along_each_tangent(name, outputs):
    built, dense = made(name, outputs)
    V = random_like(built.parameters, 4)
    if name == "tokens":
        V["words.weight"][:, 0] = 0
    u = torch.randn(5, outputs, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
    expected = sum(torch.einsum("nc,ncp,kp->nk", u, flat(dense[n]), V[n].reshape(4, -1)) for n in dense)
    close(jacobian(built).contract(built.inputs, u, V), expected)
    # In chunks, where the examples do not fit together.
    close(jacobian(built, memory=1).contract(built.inputs, u, V), expected)


@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_the_parts_of_a_pushforward_are_those_of_its_parameters(name, outputs):
    built, dense = made(name, outputs)
    V = random_like(built.parameters, 2)
    if name == "tokens":
        V["words.weight"][:, 0] = 0
    groups = [tuple(V)[::2], (), tuple(V)[1::2]]
    found = jacobian(built).pushforward_parts(built.inputs, V, groups)
    assert found.shape == (3, 5, outputs, 2)
    for part, names in zip(found, groups, strict=True):
        products = (torch.einsum("ncp,kp->nck", flat(dense[n]), V[n].reshape(2, -1)) for n in names)
        close(part, sum(products, torch.zeros_like(part)))


@pytest.mark.parametrize("columns", [1, 7])
@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_a_pullback_is_the_transposed_jacobian_times_each_cotangent(name, outputs, columns):
    built, dense = made(name, outputs)
    R = torch.randn(5, outputs, columns, dtype=DOUBLE)
    found = jacobian(built).pullback(built.inputs, R)
    for n, value in found.items():
        expected = torch.einsum("ncp,nck->kp", flat(dense[n]), R).view(columns, *dense[n].shape[2:])
        torch.testing.assert_close(value, expected, **EXACT)


@pytest.mark.parametrize("memory", [512 << 20, 1])
@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_the_jacobian_itself_is_the_explicit_one(name, outputs, memory):
    built, dense = made(name, outputs)
    found = jacobian(built, memory=memory).each(built.inputs)
    assert set(found) == set(built.program.parameters)
    for n, value in found.items():
        torch.testing.assert_close(value, dense[n].flatten(0, 1), **EXACT)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        *(("mlp", 0), ("convolutions", 2), ("frames", 0), ("norms", 0), ("matrices", 2), ("sequence", 0)),
        *(("tokens", 3), ("projected", 9)),
    ],
)
def test_whatever_has_layers_is_done_by_layers(name, whole):
    """The rest: a transposed convolution, a left factor, an exponent, sliced weights."""
    built, _ = made(name, 3)
    assert len(jacobian(built)._plan(built.inputs).rest) == whole


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize(("name", "outputs"), CASES)
def test_the_parts_of_a_block_are_those_of_their_parameters(name, outputs, conditioned):
    """A weight and its bias apart, which a whole block does together; and some parameters left out."""
    built, dense = made(name, outputs)
    D = {n: value.exp() for n, value in random_like(built.parameters).items()} if conditioned else None
    groups = [tuple(dense)[::3], (), tuple(dense)[1::3]]
    found = jacobian(built).blocks(built.inputs, rows(built.inputs, 3, 1), groups, D)
    assert found.shape == (3, 5, outputs, 2, outputs)
    for part, names in zip(found, groups, strict=True):
        within = {n: dense[n] for n in names}
        expected = jacobians.block(within, some(within, 3, 1), D)
        close(part, expected.expand(part.shape))


class Language(nn.Module):
    """Tied input and output embeddings, positions added, an output for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4), nn.Embedding(3, 4)
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x) + self.places(torch.arange(x.shape[1]))
        return self.head(torch.tanh(self.mix(x)))


def language() -> tuple[Case, dict[str, Tensor]]:
    torch.manual_seed(0)
    built = exported(Language(), (torch.randint(0, 7, (4, 3)),))
    return built, jacobians.jacobian(built.module, built.inputs)


def test_tied_weights_have_cross_terms():
    built, dense = language()
    J = jacobian(built)
    assert J._plan(built.inputs).rest == ("places.weight",)
    close(J.block(built.inputs, built.inputs), jacobians.block(dense, dense))
    D = {name: value.exp() for name, value in random_like(built.parameters).items()}
    close(J.block(built.inputs, built.inputs, D), jacobians.block(dense, dense, D))


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("name", BUILT)
def test_memory_changes_nothing(name, preconditioned):
    built, _ = made(name, 3)
    D = {n: value.exp() for n, value in random_like(built.parameters).items()} if preconditioned else None
    few, many = jacobian(built, memory=1), jacobian(built)
    close(few.block(built.inputs, built.inputs, D), many.block(built.inputs, built.inputs, D))
    V, R = random_like(built.parameters, 4), torch.randn(5, 3, 4, dtype=DOUBLE)
    close(few.pushforward(built.inputs, V), many.pushforward(built.inputs, V))
    expected = many.pullback(built.inputs, R)
    for n, value in few.pullback(built.inputs, R).items():
        torch.testing.assert_close(value, expected[n], **EXACT)


@pytest.mark.parametrize("name", ["mlp", "frames", "tokens", "sequence"])
def test_pullback_and_pushforward_make_the_block(name):
    built, _ = made(name, 3)
    J = jacobian(built)
    columns = rows(built.inputs, 1, 2)
    tangents = J.pullback(columns, torch.eye(6, dtype=DOUBLE).view(2, 3, 6))
    K = J.block(built.inputs, columns)
    close(J.pushforward(built.inputs, tangents).view(K.shape), K)


def test_some_outputs_only():
    built, dense = made("mlp", 3)
    J = Jacobian(built.program, OutputFunctional("index", (2, 0)), built.parameters, {})
    chosen = {name: value[:, [2, 0]] for name, value in dense.items()}
    close(J.block(built.inputs, built.inputs), jacobians.block(chosen, chosen))


def test_frozen_parameters_are_left_out():
    built, dense = made("matrices", 3)
    trained = ["right", "left", "factor"]
    J = jacobian(built, wrt=trained)
    assert set(J.names) == set(trained)
    part = {name: dense[name] for name in trained}
    close(J.block(built.inputs, built.inputs), jacobians.block(part, part))
    assert set(J.pullback(built.inputs, torch.ones(5, 3, 4, dtype=DOUBLE))) == set(trained)
    none = jacobian(built, wrt=[])
    assert none.block(built.inputs, rows(built.inputs, 0, 1)).shape == (5, 3, 2, 3)
    assert not none.block(built.inputs, built.inputs).any()


@pytest.mark.parametrize("name", ["mlp", "tokens"])
def test_one_example_is_enough(name):
    built, dense = made(name, 3)
    K = jacobian(built).block(rows(built.inputs, 2), rows(built.inputs, 4))
    close(K, jacobians.block(some(dense, 2), some(dense, 4)))


def test_a_head_that_starts_at_zero_is_no_reason_to_be_slow():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    nn.init.zeros_(module[2].weight)
    built = exported(module, (torch.randn(5, 6),))
    J, dense = jacobian(built), jacobians.jacobian(built.module, built.inputs)
    assert J._plan(built.inputs).rest == ()
    close(J.block(built.inputs, built.inputs), jacobians.block(dense, dense))


class Positive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.power = nn.Linear(3, 4), nn.Parameter(torch.full((4,), 1e-3))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * self.power.log()


def test_parameters_that_cannot_be_moved_freely():
    torch.manual_seed(0)
    built = exported(Positive(), (torch.randn(5, 3),))
    J, dense = jacobian(built), jacobians.jacobian(built.module, built.inputs)
    assert J._plan(built.inputs).rest == ("power",)
    close(J.block(built.inputs, built.inputs), jacobians.block(dense, dense))


class Distances(nn.Module):
    """torch.cdist has a gradient, but no other derivative, and the gradient's batched form is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.centres = nn.Linear(4, 4), nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(self.first(x), self.centres)


@pytest.mark.parametrize("columns", [1, 5])
def test_a_gradient_is_enough(columns):
    torch.manual_seed(0)
    built = exported(Distances(), (torch.randn(5, 4),))
    J, dense = jacobian(built), jacobians.jacobian(built.module, built.inputs)
    close(J.block(built.inputs, built.inputs), jacobians.block(dense, dense))
    V = random_like(built.parameters, columns)
    expected = sum(torch.einsum("ncp,kp->nck", flat(dense[n]), V[n].reshape(columns, -1)) for n in dense)
    close(J.pushforward(built.inputs, V), expected)


class Fixed(nn.Module):
    """Exported for the recorded number of rows only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.start, self.out = nn.Linear(3, 4), nn.Parameter(torch.randn(1, 4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == 4
        return self.out(torch.tanh(self.first(x)) * self.start.expand(4, -1).exp())


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_programs_of_a_fixed_number_of_rows(rows):
    torch.manual_seed(0)
    built = exported(Fixed(), (torch.randn(4, 3),))
    assert not built.program.batch
    x = torch.randn(rows, 3, dtype=DOUBLE)
    padded = torch.cat([x, torch.zeros(8 - rows, 3, dtype=DOUBLE)]).split(4)
    names = dict(built.module.named_parameters())
    explicit = [
        torch.func.jacrev(lambda theta, part=part: torch.func.functional_call(built.module, theta, (part,)))(
            names
        )
        for part in padded
    ]
    dense = {n: torch.cat([part[n] for part in explicit])[:rows].detach() for n in names}
    close(jacobian(built).block([x], [x]), jacobians.block(dense, dense))


class Graph(nn.Module):
    """Nodes of one graph: the rows are not examples, and depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.first(x).mean(0) + self.first(x)))


def test_examples_that_influence_each_other_are_refused():
    built = exported(Graph(), (torch.randn(5, 3),))
    with pytest.raises(AnalysisError, match=r"examples influence each other .*'first.weight'.*not defined"):
        jacobian(built).block(built.inputs, built.inputs)


def test_float32_is_close_to_float64():
    built, dense = made("mlp", 3)
    program = built.program.to(torch.float32)
    J = Jacobian(program, FULL, built.parameters, built.buffers)
    K = J.block(built.inputs, built.inputs)
    assert K.dtype == torch.float32
    torch.testing.assert_close(K.double(), jacobians.block(dense, dense), rtol=1e-5, atol=1e-5)


def test_half_precision_models_are_summed_in_float32():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).bfloat16()
    args = (torch.randn(5, 3, dtype=torch.bfloat16),)
    program = Program.load(*export(module, args, {}, output=None, gradient_path=None))
    J = Jacobian(program, FULL, dict(module.named_parameters()), {})
    assert J.block(args, args).dtype == torch.float32


def test_wrong_arguments_are_said():
    built, _ = made("mlp", 3)
    J, x = jacobian(built), built.inputs
    with pytest.raises(UsageError, match=r"functional 'loss' has the targets of one set.*full or index"):
        Jacobian(built.program, OutputFunctional("loss", target=torch.ones(5)), built.parameters, {})
    with pytest.raises(UsageError, match="'bias' is not a floating parameter that the model uses"):
        jacobian(built, wrt=["bias"])
    with pytest.raises(AnalysisError, match=r"the parameter '0.weight' of the model was not given"):
        Jacobian(built.program, FULL, {}, {})
    with pytest.raises(UsageError, match=r"preconditioner of the parameter '0.weight' is missing"):
        J.block(x, x, {})
    wrong = dict(built.parameters, **{"2.bias": torch.ones(2)})
    with pytest.raises(UsageError, match=r"'2.bias' has the shape \(2,\), not \(7,\)"):
        J.block(x, x, wrong)
    with pytest.raises(UsageError, match=r"the shape \(4, 3, 2\), expected \(5, 3, columns\)"):
        J.pullback(x, torch.ones(4, 3, 2))
    with pytest.raises(UsageError, match=r"the cotangents have the shape \(5, 2\), expected \(5, 3\)"):
        J.contract(x, torch.ones(5, 2), random_like(built.parameters, 2))
    with pytest.raises(UsageError, match=r"tangents of '0.weight' have the shape \(9, 6\), not \(9, 9, 6\)"):
        J.pushforward(x, built.parameters)
    with pytest.raises(UsageError, match="no tangent is of a parameter"):
        J.pushforward(x, {"other": torch.ones(1)})
    with pytest.raises(UsageError, match="no rows"):
        J.block(x, [torch.ones(0, 6)])


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.view_as_complex(torch.stack([x, x], -1)) * self.weight).real


def test_complex_parameters_are_refused():
    module = Wave()
    program = Program.load(*export(module, (torch.randn(4, 3),), {}, output=None, gradient_path=None))
    with pytest.raises(AnalysisError, match="'weight' is complex"):
        Jacobian(program, FULL, dict(module.named_parameters()), {})
