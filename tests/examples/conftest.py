"""Each example run twice, bare and recorded, once for all the tests in this folder."""

from __future__ import annotations

import pytest
from recorded_example import ARGUMENTS, Example, recorder, run_script

# One worker of xdist runs all tests of an example (with --dist loadgroup), so that it is recorded once.
PARAMETERS = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ARGUMENTS]


@pytest.fixture(scope="session", params=PARAMETERS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    trace = folder / "trace.zarr"
    bare = run_script(folder / "bare", name, ARGUMENTS[name], [])
    recorded = run_script(folder / "recorded", name, ARGUMENTS[name], recorder(trace))
    return Example(name, bare, recorded, trace)
