"""What view 6 paints, and what it leads to, as golden text at every tier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from layer_traces import save_all
from tscope_tui.spans import cells
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import finished

SIZES = [(60, 15), (80, 24), (120, 36), (160, 48)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    save_all(finished(folder / "mlp.zarr"))
    finished(folder / "nothing.zarr", 20)
    return folder


@pytest.fixture(autouse=True)
def inside(written, monkeypatch) -> None:
    """Name the traces by short relative paths, as one types them."""
    monkeypatch.chdir(written)


def painted(name: str, view: str, size: tuple[int, int], *actions: str, ascii: bool = False) -> str:
    host = FakeHost(*size, ascii=ascii)
    stage = RunStage(host, Path(name))
    stage.start()
    stage.state = replace(stage.state, view=view)
    stage.go(stage.state.last // 2)
    for action in actions:
        stage.act(action, "")
    text = screen(stage, host)
    assert all(cells(line) <= size[0] for line in text.split("\n"))
    return text


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", ["layers", "regime", "collapse"])
def test_the_views(golden, view, size):
    golden(f"screen_{view}_{size[0]}x{size[1]}.txt", painted("mlp.zarr", view, size, "down"))


def test_the_balance_of_pairs(golden):
    text = painted("mlp.zarr", "layers", (80, 24), "layer:-1", "layer:-1", "crosshair")
    golden("screen_balance_80x24.txt", text)


@pytest.mark.parametrize("view", ["layers", "regime", "collapse"])
def test_in_ascii(golden, view):
    text = painted("mlp.zarr", view, (80, 24), ascii=True)
    assert text.isascii()
    golden(f"screen_{view}_ascii_80x24.txt", text)


def test_nothing_saved(golden):
    golden("screen_layers_nothing_80x24.txt", painted("nothing.zarr", "layers", (80, 24)))


@pytest.mark.parametrize("view", ["layers", "regime", "collapse"])
@pytest.mark.parametrize("name", ["mlp.zarr", "nothing.zarr"])
def test_any_size_can_be_painted(view, name):
    host = FakeHost()
    stage = RunStage(host, Path(name))
    stage.start()
    stage.state = replace(stage.state, view=view)
    for size in [(1, 2), (3, 2), (10, 4), (20, 5), (40, 10), (71, 19), (72, 20), (300, 100)]:
        host.dimensions = size
        text = screen(stage, host)
        # Below that the lines of the frame meet.
        assert size[1] < 5 or max(map(cells, text.split("\n"))) <= size[0]
