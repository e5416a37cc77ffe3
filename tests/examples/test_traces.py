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


def test_streamed_projections_are_the_replayed_ones(example: Example, replayed: Result) -> None:
    """Row by row from the arrays, however few the recorder had time for on a busy machine."""
    trace = tscope.open(example.trace)
    (name,) = trace.probes
    if f"probe/{name}/probe_step" not in trace.reader.arrays():
        # The machine was busy to the end of the run: it is said, and not that there are projections.
        assert ", no projections → " in example.recorded.stderr
        return
    step, output, jvp, lazy = (
        trace[f"probe/{name}/{key}"] for key in ("probe_step", "output", "jvp", "lazy")
    )
    assert step[0] == 0
    assert not jvp[0].any()
    assert not lazy[0].any()
    actual, telescoped, linear = (values(replayed, key) for key in ("actual", "telescoped", "lazy"))
    assert relative_difference(output, actual[step]) < 2e-5
    for k in range(1, len(step)):
        assert relative_difference(lazy[k], linear[step[k]] - actual[0]) < 2e-4
        if step[k] == step[k - 1] + 1:
            change = telescoped[step[k]] - telescoped[step[k - 1]]
            assert relative_difference(jvp[k], change) < 2e-4


def test_the_recorded_result_is_the_replayed_one_where_no_step_was_skipped(
    recorded: Result, replayed: Result
) -> None:
    if len(values(recorded, "step")) < len(values(replayed, "step")):
        assert recorded.notes  # says that intervals are coarse, or that everything had to be replayed
        return
    for name in ("actual", "telescoped", "lazy"):
        assert relative_difference(values(recorded, name), values(replayed, name)) < 2e-5


def test_telescoping_starts_at_the_network_and_its_terms_add_up(example: Example, replayed: Result) -> None:
    assert values(replayed, "step").tolist() == list(range(example.steps + 1))
    actual = values(replayed, "actual")
    for name in ("telescoped", "lazy"):
        assert np.array_equal(values(replayed, name)[0], actual[0])
        assert np.isfinite(values(replayed, name)).all()
    scale = np.abs(np.diff(actual, axis=0)).max()
    assert float(replayed.scalars["decomposition_check"]) < 1e-4 * scale
    assert len(replayed.provenance["layers"]) == values(replayed, "contribution").shape[1] >= 2


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


def test_the_first_row_is_the_state_before_training(example: Example) -> None:
    trace = tscope.open(example.trace)
    counters = [value for name, value in trace.buffers(0).items() if name.endswith("num_batches_tracked")]
    assert len(counters) == (9 if example.name == "resnet_batchnorm" else 0)
    assert not any(counters)


def test_xarray_labels_losses_by_step(example: Example) -> None:
    data = xarray.open_zarr(example.trace, group="model")
    assert data["loss"].dims == ("step",)
    assert data["loss"].sel(step=slice(1, None)).notnull().all()
    assert data["step"].values.tolist() == list(range(example.steps + 1))


def test_every_example_is_described_in_the_readme() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in sorted(EXAMPLES.glob("*.py")) if f"`{path.name}`" not in text] == []
