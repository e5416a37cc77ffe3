"""What may be imported, in fresh interpreters: torch costs seconds, zarr and textual tenths of one."""

from __future__ import annotations

import pytest
from cli_runner import Runner

REPORT = "import sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
HELP = f"""
import atexit, sys
def report():
    {REPORT}
atexit.register(report)
from tscope_cli.main import main
sys.argv = ["tscope", *sys.argv[1:]]
main()
"""


def imported(fresh: Runner, code: str, *arguments: str) -> set[str]:
    outcome = fresh(code, *arguments)
    assert outcome.code == 0, outcome.err
    return set(outcome.out.splitlines()[-1].split())


@pytest.mark.parametrize(
    "package", ["tscope", "tscope_format", "tscope_tui", "tscope_tui.plot", "tscope_cli.main"]
)
def test_importing_a_package_loads_no_torch(fresh: Runner, package: str) -> None:
    assert "torch" not in imported(fresh, f"import {package}; {REPORT}")


@pytest.mark.parametrize("package", ["tscope", "tscope_format", "tscope_cli.main"])
def test_importing_a_package_loads_no_terminal_interface(fresh: Runner, package: str) -> None:
    assert not {"textual", "rich"} & imported(fresh, f"import {package}; {REPORT}")


def test_help_loads_only_the_command_table(fresh: Runner) -> None:
    heavy = {"torch", "zarr", "textual", "rich", "numpy", "numcodecs", "tscope", "tscope_tui", "pydantic"}
    assert not heavy & imported(fresh, HELP, "--help")


@pytest.mark.parametrize("command", ["record", "analyze", "browse", "info", "ls", "verify", "demo"])
def test_help_of_a_command_loads_neither_torch_nor_zarr(fresh: Runner, command: str) -> None:
    assert not {"torch", "zarr", "textual"} & imported(fresh, HELP, command, "--help")


def test_listing_the_metrics_loads_no_torch(fresh: Runner) -> None:
    assert not {"torch", "zarr", "textual"} & imported(fresh, HELP, "analyze", "--list")
