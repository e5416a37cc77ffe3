import subprocess
import sys


def loaded_after(statement):
    code = f"import sys; {statement}; print(*sorted({{'torch', 'zarr', 'xarray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_tscope_loads_neither_torch_nor_zarr():
    assert loaded_after("import tscope") == []


def test_listing_and_preparing_analyses_loads_no_torch():
    assert loaded_after("import tscope; tscope.metrics(); tscope.open; tscope.UsageError") == []


def test_every_public_name_can_be_had():
    import tscope

    for name in tscope.__all__:
        assert getattr(tscope, name) is not None
    assert set(tscope.__all__) < set(dir(tscope))
    assert tscope.__version__


def test_an_unknown_name_is_an_attribute_error():
    done = subprocess.run(
        [sys.executable, "-c", "import tscope; tscope.nonsense"], capture_output=True, text=True
    )
    assert "module 'tscope' has no attribute 'nonsense'" in done.stderr
