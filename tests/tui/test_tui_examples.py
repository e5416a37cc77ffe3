"""Single examples of a trace: their losses, orders, inputs and neighbours, without a screen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tscope_tui.data import examples as module
from tscope_tui.data.examples import CROSS_ENTROPY, Followed, losses
from tscope_tui.data.kernel import from_result, ordered
from tscope_tui.data.shown import Shown, image_of
from tscope_tui.panes.box import Look
from tscope_tui.panes.layermap import LayerMapPane
from tscope_tui.panes.layermap import shrunk as shrunk_map
from tscope_tui.panes.pane import Draw
from tscope_tui.panes.picture import PicturePane, fitted
from tscope_tui.spans import cells, plain
from tui_traces import kernel_result

ROWS, COUNT, OUTPUTS = 40, 5, 3


class Root:
    """A root with one probe set in memory."""

    def __init__(self, *, kind: str = "full", target: np.ndarray | None = None, trained: int = 0) -> None:
        random = np.random.default_rng(0)
        outputs = 1 if kind in ("loss", "logprob") else OUTPUTS
        self.data = {
            "probe/p/probe_step": np.arange(ROWS) * 2,
            "probe/p/output": random.standard_normal((ROWS, COUNT, outputs)).astype(np.float32),
            "probe/p/input/0": random.standard_normal((COUNT, 4)).astype(np.float32),
        }
        if target is not None:
            self.data["probe/p/target"] = target
        if trained:
            others = random.standard_normal((trained, 4)).astype(np.float32)
            self.data["examples/input/0"] = np.concatenate([others, self.data["probe/p/input/0"][::-1]])
        self.attributes = {"probes": {"p": {"functional": kind, "in_sample": bool(trained)}}}
        self.shown = ROWS

    def arrays(self) -> dict[str, SimpleNamespace]:
        grows = ("probe/p/probe_step", "probe/p/output")
        return {
            name: SimpleNamespace(shape=(self.shown if name in grows else len(values), *values.shape[1:]))
            for name, values in self.data.items()
        }

    def group_attributes(self, name: str) -> dict[str, object]:
        return {}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.data[name][start:stop]


def followed(root: Root) -> module.Examples:
    found = Followed(root, "p")
    found.advance(root)
    return found.result()


def test_cross_entropies_and_forgetting_are_those_of_the_definition():
    labels = np.array([0, 1, 2, 1, 0])
    root = Root(target=labels)
    found = followed(root)
    f = root.data["probe/p/output"].astype(np.float64)
    expected = -np.log(np.exp(f) / np.exp(f).sum(2, keepdims=True))[:, np.arange(COUNT), labels]
    assert found.measure == CROSS_ENTROPY
    for row in range(ROWS):
        np.testing.assert_allclose(found.loss(row), expected[row], rtol=1e-12)
    np.testing.assert_allclose(found.course(3), expected[:, 3], rtol=1e-12)
    right = f.argmax(2) == labels
    forgotten = [
        sum(right[row - 1, one] and not right[row, one] for row in range(1, ROWS)) for one in range(COUNT)
    ]
    assert found.forgotten.tolist() == forgotten
    assert max(forgotten) > 1
    assert found.wrong(7).tolist() == (~right[7]).tolist()


def test_labels_of_the_outputs_shape_are_compared_as_values():
    target = np.random.default_rng(1).standard_normal((COUNT, OUTPUTS)).astype(np.float32)
    root = Root(target=target)
    found = followed(root)
    f = root.data["probe/p/output"].astype(np.float64)
    np.testing.assert_allclose(found.loss(9), np.square(f[9] - target).mean(1), rtol=1e-12)
    assert (found.forgotten, found.told(9)) == (None, None)


@pytest.mark.parametrize(("kind", "sign"), [("loss", 1), ("logprob", -1)])
def test_outputs_that_are_losses_are_taken_as_such(kind, sign):
    root = Root(kind=kind, target=np.zeros(COUNT, np.int64))
    found = followed(root)
    np.testing.assert_array_equal(found.loss(3), sign * root.data["probe/p/output"][3, :, 0])
    assert found.classes is None


def test_without_labels_there_is_no_loss():
    found = followed(Root())
    assert (found.measure, found.loss(0), found.course(0), found.label) == ("", None, None, None)
    assert losses(np.full((2, 2), np.inf), np.zeros(2), CROSS_ENTROPY) == pytest.approx(
        [np.nan] * 2, nan_ok=True
    )


def test_rows_are_thinned_where_memory_is_full_and_forgetting_is_not(monkeypatch):
    labels = np.array([0, 1, 2, 1, 0])
    root = Root(target=labels)
    whole = followed(root)
    monkeypatch.setattr(module, "_ENTRIES", 8 * COUNT * OUTPUTS)
    monkeypatch.setattr(module, "_FEWEST", 2)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7 * 8 * COUNT * OUTPUTS)
    growing = Followed(root, "p")
    for rows in (3, 17, ROWS):
        root.shown = rows
        growing.advance(root)
    thin = growing.result()
    # Every eighth row, and the last one.
    assert thin.step.tolist() == [0, 16, 32, 48, 64, 78]
    np.testing.assert_array_equal(thin.outputs, whole.outputs[[0, 8, 16, 24, 32, 39]])
    assert thin.forgotten.tolist() == whole.forgotten.tolist()
    assert [thin.row(step) for step in (0, 15, 16, 77, 78, 99)] == [0, 0, 1, 4, 5, 5]


def test_what_was_made_of_examples_is_remembered_until_there_are_new_rows(monkeypatch):
    root = Root(target=np.zeros(COUNT, np.int64))
    root.shown = 10
    growing = Followed(root, "p")
    growing.advance(root)
    found = growing.result()
    growing.advance(root)
    assert growing.result() is found
    assert found.course(1) is found.course(1)
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    for example in range(COUNT):
        found.course(example)
    assert len(found.known) <= 3
    root.shown = ROWS
    growing.advance(root)
    assert growing.result() is not found
    assert len(growing.result().course(1)) == ROWS


def test_examples_of_an_in_sample_set_are_found_among_those_of_training():
    root = Root(trained=3)
    assert followed(root).numbers.tolist() == [7, 6, 5, 4, 3]
    root.data["probe/p/input/0"] = root.data["probe/p/input/0"] + 1
    assert followed(root).numbers.tolist() == [-1] * COUNT


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((64,), (8, 8, 1)),
        ((784,), (28, 28, 1)),
        ((65,), None),
        ((16,), None),
        ((28, 28), (28, 28, 1)),
        ((3, 32, 32), (32, 32, 3)),
        ((32, 32, 3), (32, 32, 3)),
        ((2, 32, 32), None),
        ((1000, 20), None),
        ((600, 600), None),
        ((1, 1, 8, 8), None),
    ],
)
def test_what_looks_like_an_image(shape, image):
    found = image_of(np.zeros(shape, np.float32))
    assert (None if found is None else found.shape) == image


def test_numbers_of_tokens_are_no_image():
    assert image_of(np.zeros(64, np.int64)) is None
    assert image_of(np.zeros((8, 8), np.int64)).shape == (8, 8, 1)
    assert image_of(np.zeros((8, 8), np.bool_)) is None


def test_pictures_are_enlarged_by_whole_numbers_or_averaged():
    image = np.arange(6.0).reshape(2, 3, 1)
    large = fitted(image, 5, 9)
    np.testing.assert_allclose(large[:, :, 0], (image / 5).repeat(2, 0).repeat(2, 1)[:, :, 0])
    small = fitted(np.arange(64.0).reshape(8, 8, 1), 4, 4)
    np.testing.assert_allclose(small[0, 0, 0], np.mean([0, 1, 8, 9]) / 63)
    assert fitted(np.full((7, 7, 1), np.nan), 40, 40).shape == (36, 35, 1)


@pytest.mark.parametrize("look", [Look(), Look(colour=False), Look(ascii=True)])
def test_an_image_fills_its_pane_in_every_look(look):
    values = np.zeros((8, 8), np.float32)
    values[:, 3] = 1.0
    pane = PicturePane(Shown(0, values, image_of(values)))
    for width, height in ((4, 2), (12, 6), (40, 20)):
        lines = pane.lines(width, height, Draw(look=look))
        assert len(lines) == height
        assert {cells(plain(line)) for line in lines} == {width}
    middle = plain(pane.lines(10, 6, Draw(look=look))[2])
    if look.colour and not look.ascii:
        spans = pane.lines(10, 6, Draw(look=look))[2]
        assert [span.tone for span in spans if "▀" in span.text] == [
            "#000000/#000000",
            "#ffffff/#ffffff",
            "#000000/#000000",
        ]
    else:
        assert middle[1:9] == "   █    ".replace("█", "@" if look.ascii else "█")


def test_an_input_that_is_no_image_is_shown_as_numbers():
    values = np.array([1.5, 2.0, -3.0])
    pane = PicturePane(Shown(0, values, image_of(values)))
    assert "1.5 2 -3" in plain(pane.lines(20, 5, Draw())[1])
    assert pane.table().columns == {"position": [0, 1, 2], "value": [1.5, 2.0, -3.0]}


def test_layers_are_mapped_over_the_steps_in_sight():
    step = np.arange(0.0, 9.0)
    values = np.stack([step, 8 - step], 1)
    values[5, 0] = np.nan
    pane = LayerMapPane(("first", "second"), step, values)
    cells_, starts = shrunk_map(pane, 4, None)
    # Row 0 is the state before training; two steps a column.
    np.testing.assert_allclose(cells_, [[1.5, 3.5, 6.0, 7.5], [6.5, 4.5, 2.5, 0.5]])
    assert starts.tolist() == [1, 3, 5, 7]
    near, _ = shrunk_map(pane, 4, (3.0, 4.0))
    np.testing.assert_allclose(near, [[3, 3, 4, 4], [5, 5, 4, 4]])
    for size in ((12, 3), (40, 4), (80, 12)):
        lines = pane.lines(*size, Draw(cursor=4.0, window=(0.0, 8.0)))
        assert len(lines) == size[1]
        assert {cells(plain(line)) for line in lines} == {size[0]}
    assert np.isnan(shrunk_map(pane, 3, (20.0, 30.0))[0]).all()


def test_neighbours_are_those_with_the_smallest_angle():
    matrices = from_result(kernel_result()).matrices
    K = matrices.pairs[1].astype(np.float64)
    order, cosine = matrices.nearest(1, 4)
    expected = K[4] / np.sqrt(K[4, 4] * np.diag(K))
    assert 4 not in order
    assert len(order) == len(K) - 1
    np.testing.assert_allclose(cosine, expected[order], rtol=1e-12)
    assert (np.diff(cosine) <= 0).all()
    assert matrices.point(train=True, number=104) == np.flatnonzero(matrices.numbers == 104)[0]
    assert matrices.point(train=False, number=104) is None


def test_points_are_ordered_within_their_set():
    matrices = from_result(kernel_result()).matrices
    by_number = ordered(matrices, "number")
    assert by_number.numbers.tolist() == [*range(100, 112), *range(8)]
    place = [int(np.flatnonzero(matrices.numbers == number)[0]) for number in by_number.numbers]
    np.testing.assert_array_equal(by_number.pairs, matrices.pairs[:, place][:, :, place])
    alike = ordered(matrices, "likeness")
    assert sorted(alike.numbers[:12]) == list(range(100, 112))
    # The two classes come apart, as they do by label.
    assert (np.diff(alike.label[:12]) != 0).sum() == 1
