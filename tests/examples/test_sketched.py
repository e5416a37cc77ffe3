"""An example recorded with sketches and without updates: the run stays as it is, what is kept is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recorded_example import ARGUMENTS, STEPS, build_network, recorder, run_script
from test_identity import differences
from tscope_format import MissingDataError, verify

import tscope
from tests.reference import jacobians, signs

pytestmark = pytest.mark.slow

NAME = "cnn_adadelta"
COLUMNS = 64


def test_a_sketched_run_is_bit_identical_and_its_sketches_are_right(tmp_path: Path) -> None:
    trace = tmp_path / "trace.zarr"
    bare = run_script(tmp_path / "bare", NAME, ARGUMENTS[NAME], [])
    options = ("--sketch", str(COLUMNS), "--updates", "none")
    recorded = run_script(tmp_path / "recorded", NAME, ARGUMENTS[NAME], recorder(trace, *options))
    assert differences(bare.state, recorded.state) == []
    assert recorded.stdout == bare.stdout
    assert "sketched in 64 columns" in recorded.stderr
    assert verify(trace).ok
    found = tscope.open(trace)
    # The last state is kept: it is what the script saved.
    assert differences(found.state_dict(STEPS[NAME]), recorded.saved) == []
    with pytest.raises(MissingDataError, match="at row 3 were not kept"):
        found.theta(3)
    name = next(name for name in found.probes if f"probe/{name}/sketch" in found.reader.arrays())
    sketch, steps = found[f"probe/{name}/sketch"], found[f"probe/{name}/sketch_step"].tolist()
    few = torch.from_numpy(found.probes[name].inputs[0][:4])
    order = [entry.name for entry in found.parameters]
    checked = [step for step in steps if step in (0, 1, 2, 4, 8, 16, 32, STEPS[NAME])]
    assert checked[0] == 0
    for step in checked[:3]:
        dense = jacobians.jacobian(build_network(NAME, found.state_dict(step)), [few])
        expected = signs.sketch(dense, order, 0, COLUMNS).numpy()
        np.testing.assert_allclose(
            sketch[steps.index(step), :4], expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )
