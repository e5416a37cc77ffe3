"""What can be read from the examples' traces: the program, projections, telescoping, labelled arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray
from recorded_example import EXAMPLES, Example, build_network
from tscope_format.results import Result

import tscope


@pytest.fixture(scope="session")
def recorded(example: Example) -> Result:
    """Telescoping from the projections streamed while the run went on."""
    return tscope.analyze(example.trace, "telescoping")


@pytest.fixture(scope="session")
def replayed(example: Example) -> Result:
    """Telescoping replayed at every step."""
    return tscope.analyze(example.trace, "telescoping", replay=True)


def values(result: Result, name: str) -> np.ndarray:
    return np.asarray(result.arrays[name].data)


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_the_program_computes_what_the_module_does(example: Example) -> None:
    from tscope.program import ad_friendly

    trace = tscope.open(example.trace)
    step = int(trace.steps[-1])
    (probe,) = trace.probes.values()
    inputs = [torch.from_numpy(array) for array in probe.inputs]
    network = build_network(example.name, example.recorded.saved)
    with torch.no_grad(), ad_friendly():
        expected = network(*inputs)
        output = trace.program()(trace.theta(step), trace.buffers(step), inputs)
    if isinstance(expected, tuple):
        expected = expected[0]
    assert output.shape == expected.shape
    assert (output - expected).abs().max().item() == 0.0


def test_the_probe_set_was_held_out(example: Example) -> None:
    (probe,) = tscope.open(example.trace).probes.values()
    assert not probe.in_sample
    assert probe.examples >= 16


def test_recorded_projections_are_the_replayed_ones(recorded: Result, replayed: Result) -> None:
    assert recorded.scalars["source"] == "recorded"
    assert replayed.scalars["source"] == "replay"
    shared = np.searchsorted(values(replayed, "step"), values(recorded, "step"))
    for name in ("actual", "lazy"):
        assert relative_difference(values(recorded, name), values(replayed, name)[shared]) < 2e-5
    if len(shared) == len(values(replayed, "step")):  # else the recorder projected over coarser intervals
        assert relative_difference(values(recorded, "telescoped"), values(replayed, "telescoped")) < 2e-5


def test_telescoping_starts_at_the_network_and_its_terms_add_up(example: Example, replayed: Result) -> None:
    assert values(replayed, "step").tolist() == list(range(example.steps + 1))
    actual = values(replayed, "actual")
    for name in ("telescoped", "lazy"):
        assert np.array_equal(values(replayed, name)[0], actual[0])
        assert np.isfinite(values(replayed, name)).all()
    scale = np.abs(np.diff(actual, axis=0)).max()
    assert float(replayed.scalars["decomposition_check"]) < 1e-4 * scale
    assert len(replayed.provenance["layers"]) == values(replayed, "contribution").shape[1] >= 3


def test_batch_norm_statistics_have_their_own_term(example: Example, replayed: Result) -> None:
    drift = values(replayed, "change_buffer")
    if example.name == "resnet_batchnorm":
        assert (drift[1:] > 0).all()
    else:
        assert not drift.any()


@pytest.mark.parametrize("group", ["model", "model/theta", "model/batch"])
def test_xarray_opens_the_trace_with_named_dimensions(example: Example, group: str) -> None:
    data = xarray.open_zarr(example.trace, group=group)
    assert data.sizes["step"] == example.steps + 1
    assert not [dim for dim in data.dims if str(dim).startswith("dim_")]


def test_xarray_labels_losses_by_step(example: Example) -> None:
    data = xarray.open_zarr(example.trace, group="model")
    assert data["loss"].dims == ("step",)
    assert data["loss"].sel(step=slice(1, None)).notnull().all()
    assert data["step"].values.tolist() == list(range(example.steps + 1))


def test_every_example_is_described_in_the_readme() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in sorted(EXAMPLES.glob("*.py")) if f"`{path.name}`" not in text] == []
