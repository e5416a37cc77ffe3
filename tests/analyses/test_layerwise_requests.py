"""What `layers` can be asked for, what it refuses in one line, and what it says beside the figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim
from tscope_format.errors import AnalysisError, MissingDataError, TscopeError, UsageError

import tscope
from tests.analyses.layer_runs import Run, deep, make_run
from tests.boosting.tree_traces import recorded
from tests.optimizers.recorded import Recorder, data, train
from tests.traces import Probe
from tests.traces import train as plain_train
from tscope import analyses
from tscope.analyses.layerwise.pairs import find_pairs
from tscope.program import Program, export


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("layers"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tscope.Trace:
    """A trace with a program, and neither batches nor a probe set."""
    x, y = data(3, dtype=torch.float32)
    module = deep().float()
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    path = tmp_path_factory.mktemp("plain") / "run.zarr"
    plain_train(path, module, optimizer, [(x, y)] * 3, nn.functional.mse_loss)
    return tscope.open(path)


def analysed(trace, **options):
    return tscope.analyze(trace, "layers", save=False, **options)


def refused(trace, kind: type[TscopeError], **options) -> str:
    with pytest.raises(kind) as caught:
        analysed(trace, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"parts": "norms,ranks"},
            "unknown part 'ranks' in parts; there is norms, spectra, contributions, steps, balance",
        ),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"singular_values": 0}, "singular_values must be at least 1, got 0"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; there is auto, mse, cross_entropy, bce"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there is float32, float64"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
        ({"probe": "other"}, "no probe set 'other'; the trace has none, and a file must be named *.npz"),
    ],
)
def test_bad_requests_are_one_line(run, options, message):
    assert refused(run.trace, UsageError, **options) == message


def test_only_the_parts_that_are_asked_for_are_computed(run):
    norms = run.analysed(parts="norms")
    assert {"theta_norm", "update_norm", "movement", "gradient_norm"} <= set(norms.arrays)
    assert not {"singular_values", "contribution", "batch_loss_contribution", "balance"} & set(norms.arrays)
    assert norms.notes == ()
    spectra = run.analysed(parts="spectra, contributions", singular_values=2)
    assert spectra.arrays["singular_values"].data.shape == (10, 3, 2)
    assert "contribution" in spectra.arrays
    assert "balance" not in spectra.arrays
    assert "batch_loss_contribution" not in spectra.arrays


def test_what_it_costs_is_said_before(run):
    said: list[str] = []
    run.analysed(every=4, say=said.append)
    assert said == ["3 layers at 4 rows, singular values of 3 matrices: about 0 s of arithmetic"]
    assert analyses.plan(run.trace, "layers", parts="norms", every=3) == "3 layers at 4 rows"


def test_what_the_trace_lacks_is_left_out_with_a_note_and_refused_if_asked_for(plain):
    found = analysed(plain)
    assert "theta_norm" in found.arrays
    assert "balance" in found.arrays
    assert not {"contribution", "batch_loss_contribution", "balance_off"} & set(found.arrays)
    notes = " / ".join(found.notes)
    assert "no part in the predictions: " in notes
    assert "holds no probe set; give examples with `--probe FILE.npz`" in notes
    assert "no part in the losses of batches and no check of balancedness: " in notes
    assert "the steps of exactly one of torch.optim can be followed" in notes
    assert "holds no probe set" in refused(plain, MissingDataError, parts="contributions")
    message = refused(plain, AnalysisError, parts="norms,steps")
    assert "the steps of exactly one of torch.optim can be followed" in message
    # Balancedness is of θ; that it cannot be checked does not take it away.
    found = analysed(plain, parts="balance")
    assert "balance" in found.arrays
    assert [note.partition(":")[0] for note in found.notes] == ["no check of balancedness"]


def test_a_trace_without_updates_is_refused_and_names_the_option(tmp_path):
    module, (x, y) = deep(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    sparse = train(
        tmp_path / "t.zarr", module, optimizer, [(x, y)] * 3, nn.functional.mse_loss, updates=False
    )
    message = refused(sparse, MissingDataError)
    assert message.endswith(
        "lacks what layers needs: the parameters at every row. The run was recorded with `--updates none`: "
        "record it without"
    )


def test_trees_have_no_layers(tmp_path):
    trees = recorded(tmp_path / "trees.zarr")
    assert "lacks what layers needs: a network" in refused(trees, MissingDataError)


def test_a_model_without_program_has_norms_and_spectra(tmp_path):
    module, (x, y) = deep(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    plain_train(tmp_path / "t.zarr", module, optimizer, [(x, y)], nn.functional.mse_loss, program=False)
    trace = tscope.open(tmp_path / "t.zarr")
    found = analysed(trace)
    assert {"theta_norm", "stable_rank"} <= set(found.arrays)
    assert sum("holds no program of the model" in note for note in found.notes) >= 1
    assert "forward branches on data" in refused(trace, MissingDataError, parts="balance")


def test_a_probe_set_without_labels_has_no_loss(run, tmp_path):
    np.savez(tmp_path / "bare.npz", x=run.points.numpy())
    found = analysed(run.trace, probe=str(tmp_path / "bare.npz"))
    assert "contribution" in found.arrays
    assert "loss_change" not in found.arrays
    assert (
        "no part in the loss of the probe set: bare has no labels that fit the model's outputs (`--probe "
        "FILE.npz` with y)"
    ) in found.notes
    chosen = run.analysed(probe_output="1")
    assert any("index of the output is followed, not the output itself" in note for note in chosen.notes)


def test_outputs_at_several_positions_have_contributions(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Unflatten(1, (3, 2)))
    x, y = torch.randn(10, 4), torch.randn(10, 3, 2)
    probes = {"held": Probe((torch.randn(5, 4),), torch.randn(5, 3, 2))}
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    plain_train(tmp_path / "t.zarr", module, optimizer, [(x, y)] * 3, nn.functional.mse_loss, probes)
    found = analysed(tscope.open(tmp_path / "t.zarr"))
    assert found.arrays["contribution"].data.shape == (4, 2)
    assert "loss_contribution" not in found.arrays
    told = [
        note for note in found.notes if note.startswith("no part in the loss of the probe set: the train")
    ]
    assert "no batch was recorded" in told[0]
    assert any("the residual holds the drift of its buffers" in note for note in found.notes)


def test_an_in_sample_probe_set_is_named(tmp_path):
    module, (x, y) = deep().float(), data(3, dtype=torch.float32)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    probes = {"train": Probe((x,), y, in_sample=True)}
    plain_train(tmp_path / "t.zarr", module, optimizer, [(x, y)] * 2, nn.functional.mse_loss, probes)
    notes = analysed(tscope.open(tmp_path / "t.zarr")).notes
    assert "probe set train is in-sample: its examples were trained on" in notes


def test_a_run_that_diverges_is_followed_to_where_it_ends(tmp_path):
    module, (x, y) = deep(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=1e30)
    recorder = Recorder(tmp_path / "t.zarr", module, optimizer, x)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.mse_loss(recorder.forward(x), y).backward()
        recorder.step()
    found = analysed(recorder.close())
    stopped = found.scalars["stopped"]
    assert 1 <= stopped < 6
    assert found.arrays["step"].data[-1] == stopped - 1
    assert (
        f"the parameters or their squares are not finite at step {stopped}; figures end before" in found.notes
    )
    assert np.isfinite(found.arrays["theta_norm"].data).all()


def test_parameters_that_are_nan_from_the_start_are_refused(tmp_path):
    module, (x, y) = deep(), data(3)
    with torch.no_grad():
        module[0].weight.fill_(float("nan"))
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    plain_train(tmp_path / "t.zarr", module, optimizer, [(x, y)], nn.functional.mse_loss)
    message = refused(tscope.open(tmp_path / "t.zarr"), AnalysisError)
    assert message == "the parameters are NaN or infinite at step 0: there is nothing to measure"


def test_matrices_of_balancedness_that_do_not_fit_are_refused(run):
    message = refused(run.trace, AnalysisError, parts="balance", max_memory_mb=0.001)
    assert message == (
        "balancedness of 2 pairs of layers needs 0.00262 MB (0 → 1: a matrix of 6²) of the 0.001 MB allowed "
        "(`--max-memory MB`)"
    )


class Tied(nn.Module):
    """A layer that is used twice, and one that is read beside the next."""

    def __init__(self):
        super().__init__()
        self.twice, self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        h = self.first(self.twice(torch.relu(self.twice(x))))
        return self.third(self.second(h) + h)


class Held(nn.Module):
    """Weights held as (input, output), applied by addmm and matmul."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5, 3))
        self.shift = nn.Parameter(torch.randn(5))

    def forward(self, x):
        return torch.addmm(self.shift, x, self.a).relu() @ self.b


def pairs_of(module: nn.Module):
    graph, constants = export(module, (torch.randn(3, 4),), {}, output=None, gradient_path=None)
    return find_pairs(Program.load(graph, constants))


def test_layers_that_are_used_or_read_twice_are_in_no_pair():
    assert pairs_of(Tied()) == ()


def test_weights_on_the_right_are_found_with_their_bias():
    module = Held()
    (pair,) = pairs_of(module)
    assert (pair.below, pair.bias, pair.above) == ("a", "shift", "b")
    assert (pair.below_flipped, pair.above_flipped, pair.units, pair.linear) == (True, True, 5, False)
    theta = {name: value.detach().double() for name, value in module.named_parameters()}
    expected = theta["b"].square().sum(1) - theta["a"].square().sum(0) - theta["shift"].square()
    assert torch.allclose(pair.balance(theta), expected, rtol=0, atol=1e-14)
