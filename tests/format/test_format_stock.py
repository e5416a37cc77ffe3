"""zarr-python and xarray, which know nothing of tscope, read the same values with named dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from format_run import PROBE, Run, bits, check, committed, killed_at, small_chunks

pytestmark = pytest.mark.filterwarnings(
    "ignore:Consolidated metadata is currently not part:zarr.errors.ZarrUserWarning"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    small_chunks(monkeypatch)
    run = Run(tmp_path / "t.zarr")
    for step in range(1, 20):
        run.append(slots=2 + step // 6, micros=1 + step // 10, buffer=step > 9)
        run.add_state()
        if step % 4 == 0:
            run.add_examples()
            run.project()
    run.root.set_program(b"{}", {"scale": np.array(2.5), "mask": np.ones((2, 2), np.bool_)})
    run.writer.commit()
    return run


def test_zarr_reads_every_array_as_we_do(run: Run) -> None:
    group = zarr.open_group(run.path, mode="r")
    root = committed(run)
    check(root, run.model)
    for name, info in root.arrays().items():
        array = group[f"model/{name}"]
        assert isinstance(array, zarr.Array)
        assert tuple(array.metadata.to_dict().get("dimension_names") or ()) == info.dims  # type: ignore[arg-type]
        values = np.asarray(array[...])
        assert values.dtype == root.read(name).dtype
        assert np.array_equal(bits(values), bits(root.read(name))), name


@pytest.mark.parametrize(
    ("group", "name", "dims"),
    [
        ("model", "loss", ("step",)),
        ("model", "grad_norm", ("step", "tensor")),
        ("model/theta", "update", ("step", "param")),
        ("model/theta", "anchor", ("anchor", "param")),
        ("model/batch", "example", ("step", "slot")),
        ("model/batch", "size", ("step", "micro")),
        ("model/batch", "output", ("step", "slot", "output")),
        ("model/optimizer", "exp_avg", ("anchor", "param")),
        (f"model/probe/{PROBE}", "jvp", ("probe_step", "example", "output")),
        (f"model/probe/{PROBE}/input", "0", ("example", "input0_1")),
    ],
)
def test_xarray_opens_each_group_with_named_dimensions(
    run: Run, group: str, name: str, dims: tuple[str, ...]
) -> None:
    with xarray.open_zarr(run.path, group=group) as dataset:
        assert dataset[name].dims == dims
        expected = committed(run).read(f"{group}/{name}".removeprefix("model/"))
        assert np.array_equal(dataset[name].values, expected, equal_nan=dataset[name].dtype.kind == "f")


def test_xarray_opens_the_whole_tree_with_step_as_coordinate(run: Run) -> None:
    with xarray.open_datatree(run.path, engine="zarr") as tree:
        assert tree["model"].coords["step"].values.tolist() == list(range(20))
        assert tree["model/theta"]["update"].sizes == {"step": 20, "param": 41}
        assert float(tree["model"]["loss"].sel(step=7)) == run.model.rows[7].loss


def test_what_is_padded_reads_as_missing(run: Run) -> None:
    with xarray.open_zarr(run.path, group="model/batch") as batch:
        assert (batch["example"].sel(step=0) == -1).all()
        assert batch["output"].sel(step=0).isnull().all()


@pytest.mark.parametrize("operation", range(0, 150, 9))
def test_a_killed_commit_leaves_every_group_consistent(
    run: Run, monkeypatch: pytest.MonkeyPatch, operation: int
) -> None:
    for _ in range(4):
        run.append(slots=9, groups=2, buffer=True)
    with killed_at(operation, monkeypatch):
        run.writer.commit()
    for group in ("model", "model/theta", "model/batch"):
        with xarray.open_zarr(run.path, group=group) as dataset:
            steps = dataset.sizes["step"]
            assert steps in (20, 24)
            name = {"model": "loss", "model/theta": "update", "model/batch": "size"}[group]
            values = dataset[name].values
            if group == "model":
                assert np.array_equal(values[1:], [row.loss for row in run.model.rows[1:steps]])
