"""Kernels of recorded sketches: against the sketches' own products and exact kernels; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tscope_format import AnalysisError, UsageError
from tscope_format.errors import TscopeError

import tscope
from tests.reference import jacobians
from tests.traces import Probe, Run, train
from tscope.analyses.kernel.sketched import estimate

COLUMNS = 2048
STEPS = 9
EXAMPLES = 7
_STORED = 2**-24  # matrices are rounded to float32, once


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3))


def recorded(folder, updates: bool, columns: int = COLUMNS, **probe: object) -> Run:
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    x, y = torch.randn(16, 5), torch.randn(16, 3)
    held = Probe((torch.randn(EXAMPLES, 5),), torch.arange(EXAMPLES) % 3, columns=columns, **probe)
    batches = [(x, y)] * STEPS
    loss = torch.nn.functional.mse_loss
    return train(folder / "run.zarr", module, optimizer, batches, loss, {"held": held}, updates=updates)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return recorded(tmp_path_factory.mktemp("sketched"), updates=False)


@pytest.fixture(scope="module")
def result(run: Run):
    return analysed(run, matrix="0,last")


def analysed(run: Run, **options: object):
    return tscope.analyze(run.path, "kernel", save=False, **options)


def refused(run: Run, kind: type[TscopeError], **options: object) -> str:
    with pytest.raises(kind) as caught:
        analysed(run, **options)
    return str(caught.value)


def exact(run: Run, step: int) -> np.ndarray:
    """K (row, column) from explicit Jacobians, float64."""
    module = network()
    module.load_state_dict(run.states[step])
    inputs = [torch.from_numpy(tscope.open(run.path)["probe/held/input/0"])]
    dense = jacobians.jacobian(module, inputs)
    return jacobians.block(dense, dense).reshape(EXAMPLES * 3, -1).numpy()


def estimates(run: Run) -> np.ndarray:
    """K̂ (step, row, column) from the sketches in the trace."""
    found = tscope.open(run.path)["probe/held/sketch"].astype(np.float64)
    phi = found.reshape(len(found), EXAMPLES * 3, -1)
    return phi @ phi.transpose(0, 2, 1)


def test_the_series_are_those_of_the_products_of_the_sketches(run, result):
    K = estimates(run)
    values = np.linalg.eigvalsh(K)[:, ::-1]
    norm = np.linalg.norm(K, axis=(1, 2))
    y = np.eye(3)[np.arange(EXAMPLES) % 3].reshape(-1)
    expected = {
        "trace_test": np.trace(K, axis1=1, axis2=2),
        "frobenius_test": norm,
        "eigenvalues_test": values[:, :10],
        "participation_ratio_test": np.trace(K, axis1=1, axis2=2) ** 2 / norm**2,
        "alignment_test": (K @ y @ y) / (norm * (y @ y)),
        "movement_test": np.linalg.norm(K - K[0], axis=(1, 2)) / norm[0],
        "distance_test": 1 - (K * K[0]).sum((1, 2)) / (norm * norm[0]),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result.arrays[name].data, values, rtol=1e-12, atol=1e-14, err_msg=name)
    assert result.arrays["step"].data.tolist() == list(range(STEPS + 1))
    assert not [name for name in result.arrays if name.endswith("train") or name.startswith("share")]


def test_the_error_is_that_against_exact_kernels_where_the_parameters_are_known(run, result):
    steps = result.arrays["exact_step"].data.tolist()
    assert steps[0] == 0
    assert steps[-1] == STEPS
    assert set(steps) < {0, 1, 2, 4, 8, STEPS}
    K, truth = estimates(run), [exact(run, step) for step in steps]
    errors = [np.linalg.norm(K[s] - k) / np.linalg.norm(k) for s, k in zip(steps, truth, strict=True)]
    np.testing.assert_allclose(result.arrays["error_exact_test"].data, errors, rtol=1e-6)
    assert result.scalars["error_exact_test"] == pytest.approx(max(errors), rel=1e-6)
    # What the halves say is of the same size, and both are that of so many columns.
    assert 0.3 < float(result.arrays["error_test"].data[0]) / errors[0] < 3
    assert max(errors) < 10 / COLUMNS**0.5


def test_the_series_are_near_the_exact_ones(run, result):
    for step in (0, STEPS):
        K = exact(run, step)
        error = float(result.arrays["error_test"].data[step])
        trace = float(result.arrays["trace_test"].data[step])
        assert trace == pytest.approx(np.trace(K), rel=3 * error)
    moved = np.linalg.norm(exact(run, STEPS) - exact(run, 0)) / np.linalg.norm(exact(run, 0))
    assert float(result.arrays["movement_test"].data[-1]) == pytest.approx(moved, rel=0.2)


@pytest.mark.parametrize("columns", [64, 65])
def test_the_halves_tell_the_error_on_average(columns):
    random = np.random.default_rng(0)
    J = torch.from_numpy(random.standard_normal((6, 200)) * np.geomspace(1, 0.01, 200))
    K = J @ J.T
    told, true = [], []
    for _ in range(400):
        signs = torch.from_numpy(random.choice([-1.0, 1.0], (200, columns)))
        found, error = estimate(J @ signs / columns**0.5)
        told.append(error**2)
        true.append(float((found - K).square().sum() / K.square().sum()))
    assert np.mean(told) == pytest.approx(np.mean(true), rel=0.2)


def test_what_is_estimated_says_so(result):
    assert result.scalars["form"] == "sketch"
    assert result.scalars["columns"] == COLUMNS
    assert result.notes[0].startswith(
        "ESTIMATES from sketches of 2,048 columns: the error of the kernel is at most"
    )
    assert "sketches are of the probe set alone" in result.notes[2]
    assert result.provenance["generator"] == {"generator": "splitmix64", "seed": 0, "columns": COLUMNS}


def test_rows_examples_outputs_and_matrices_are_chosen(run, result):
    K = estimates(run).reshape(STEPS + 1, EXAMPLES, 3, EXAMPLES, 3)
    np.testing.assert_allclose(result.arrays["kernel"].data, K[[0, -1]], rtol=_STORED, atol=1e-12)
    few = analysed(run, at="3,last", test=4, probe_output="1", eigenvalues=2, matrix="3")
    assert few.arrays["step"].data.tolist() == [0, 3, STEPS]
    numbers = few.arrays["test"].data
    assert len(numbers) == 4
    part = K[3][np.ix_(numbers, [1], numbers, [1])]
    np.testing.assert_allclose(few.arrays["kernel"].data[0], part, rtol=_STORED, atol=1e-12)
    assert few.arrays["eigenvalues_test"].data.shape == (3, 2)
    assert few.arrays["label_test"].data.tolist() == [[float(number % 3 == 1)] for number in numbers]
    assert analysed(run, every=4).arrays["step"].data.tolist() == [0, 4, 8, 9]


def test_a_trace_with_updates_is_compared_anywhere_and_taken_when_asked(tmp_path):
    run = recorded(tmp_path, updates=True, columns=64, in_sample=True)
    found = analysed(run, form="sketch")
    assert found.arrays["exact_step"].data.tolist() == [0, 3, 6, 9]
    assert "probe set held is in-sample: its examples were trained on" in found.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 3}, "--train: sketches are of a probe set only, not of training examples"),
        ({"labels": "y.npz"}, "--labels: sketches are of a probe set only, not of training examples"),
        ({"loss": "mse"}, "--loss: sketches are of a probe set only, not of training examples"),
        ({"probe": "other"}, "--probe other: there are sketches of the probe sets held only"),
        ({"form": "sketch", "at": "12"}, "--at: step 12 was not sketched; the nearest that was is 9"),
        (
            {"at": "3", "matrix": "5"},
            "--matrix: no kernel is taken at step 5; name it in `--at` too, which chooses the rows",
        ),
        ({"test": 8}, "--test 8: there are 7 probe examples"),
        ({"form": "best"}, "unknown form 'best' of kernel; there is auto, exact, sketch"),
        (
            {"form": "sketch", "preconditioned": True},
            "preconditioned kernels are exact ones: sketches know nothing of D",
        ),
    ],
)
def test_requests_that_cannot_be_met(run, options, message):
    assert refused(run, UsageError, **options) == message


def test_matrices_that_do_not_fit_are_refused(run):
    message = refused(run, AnalysisError, max_memory_mb=0.01)
    assert message.startswith("kernels of 21 rows (examples times 3 outputs) need 0.57 MB of the 0.01 MB")


def test_a_sketch_that_is_not_finite_ends_the_series(run, monkeypatch):
    from tscope.analyses.kernel import sketched

    reads = sketched.Sketches.read

    def broken(self, trace, after):
        for place, value in enumerate(reads(self, trace)):
            yield value if place < after else value * float("nan")

    monkeypatch.setattr(sketched.Sketches, "read", lambda self, trace: broken(self, trace, 3))
    found = analysed(run)
    assert found.arrays["step"].data.tolist() == [0, 1, 2]
    assert found.scalars["stopped"] == 3
    assert any("not finite at step 3; figures end before" in note for note in found.notes)
    monkeypatch.setattr(sketched.Sketches, "read", lambda self, trace: broken(self, trace, 0))
    assert "NaN or infinite values from their beginning" in refused(run, AnalysisError)
