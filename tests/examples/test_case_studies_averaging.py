"""Case study 3: its network and pictures, what it makes of the gradients, and the whole at a tiny size."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_case_studies import columns, load, run


def test_some_classes_are_numbered_in_their_order_and_each_channel_is_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10, dtype=np.uint8), 6)
    pictures = rng.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "cifar10_subset.npz",
        x_train=pictures,
        y_train=labels,
        x_test=pictures[:20],
        y_test=labels[:20],
    )
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    found = load("images", monkeypatch).load_classes((8, 1, 5), pool=2)
    kept = np.isin(labels, (1, 5, 8))
    assert found.y_train.tolist() == [{8: 0, 1: 1, 5: 2}[k] for k in labels[kept].tolist()]
    assert found.y_test.tolist() == [1, 2, 0] * 2
    means = pictures[kept].reshape(18, 2, 2, 2, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    scaled = (means - means.mean((0, 2, 3), keepdims=True)) / means.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(found.x_train.numpy(), scaled, atol=1e-5)
    np.testing.assert_allclose(found.x_test.numpy(), scaled[:6], atol=1e-5)


def test_the_network_is_resnet_20_and_a_trained_body_gets_a_new_last_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load("train_resnet", monkeypatch)
    trained = script.ResNet(16, 10)
    assert sum(value.numel() for value in trained.parameters()) == 269_722  # He et al.: 0.27 million
    convolutions = [m for m in trained.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == 20
    trained(torch.randn(4, 3, 16, 16))  # moves BatchNorm's statistics
    torch.save(trained.state_dict(), tmp_path / "body.pt")
    model = script.ResNet(16, 5)
    before = model.fc.weight.clone()
    script.load_body(model, tmp_path / "body.pt")
    assert torch.equal(model.fc.weight, before)
    for name, value in trained.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(model.state_dict()[name], value)
    assert float(model.stage3[2].bn2.running_mean.abs().max()) > 0


def test_augmented_pictures_are_flipped_and_shifted_by_up_to_two_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = load("train_resnet", monkeypatch)
    torch.manual_seed(0)
    x = torch.rand(40, 2, 6, 6)
    places = []
    for before, after in zip(x, script.augment(x), strict=True):
        found = [
            (flip, down, right)
            for flip in (False, True)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(moved(before.flip(2) if flip else before, down, right), after)
        ]
        assert len(found) == 1
        places += found
    assert len(set(places)) > 20  # of 50
    assert 7 < sum(flip for flip, _, _ in places) < 33  # binomial: 4 deviations


def moved(picture: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Shift a picture, pixel by pixel, with zeros from outside."""
    found = torch.zeros_like(picture)
    for i in range(picture.shape[1]):
        for j in range(picture.shape[2]):
            if 0 <= i - down < picture.shape[1] and 0 <= j - right < picture.shape[2]:
                found[:, i, j] = picture[:, i - down, j - right]
    return found


def test_changes_of_groups_of_layers_are_those_of_their_gradients_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = load("mode_connectivity", monkeypatch)
    rng = np.random.default_rng(0)
    layers = ["conv", "bn", "stage1.0.conv1", "stage1.2.bn1", "stage2.0.conv2", "stage3.1.bn2", "fc"]
    groups = ["first", "first", "stage1", "stage1", "stage2", "stage3", "fc"]
    gradients = rng.normal(size=(3, len(layers), 5))  # at steps 0, 20 and 60
    arrays: dict[str, dict[str, object]] = {"since": {"data": [0, 20]}, "step": {"data": [0, 20, 60]}}
    size = (gradients**2).sum(2)
    apart = ((gradients[2] - gradients[:2]) ** 2).sum(2)
    inner = (gradients[2] * gradients[:2]).sum(2)
    for name in ("train", "test"):
        arrays |= {
            f"size_{name}": {"data": size.tolist()},
            f"change_end_layer_{name}": {"data": (apart / size[:2]).tolist()},
            f"cosine_end_layer_{name}": {"data": (inner / np.sqrt(size[:2] * size[2])).tolist()},
            f"change_end_{name}": {"data": [1.0, 2.0]},
            f"cosine_end_{name}": {"data": [0.5, 0.25]},
        }
    found = study.changes({"arrays": arrays, "provenance": {"layers": layers}})
    assert [own["change_test"] for own in found] == [1.0, 2.0]
    assert [own["cosine_train"] for own in found] == [0.5, 0.25]
    for place in range(2):
        for group in study.GROUPS:
            own = [k for k, other in enumerate(groups) if other == group]
            a, b = gradients[place, own].ravel(), gradients[2, own].ravel()
            expected = float((b - a) @ (b - a) / (a @ a))
            assert found[place][f"change_test_{group}"] == pytest.approx(expected, rel=1e-12)
            expected = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            assert found[place][f"cosine_train_{group}"] == pytest.approx(expected, rel=1e-12)


def test_forks_that_no_row_records_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load("mode_connectivity", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["mode_connectivity.py", "--steps", "40", "--forks", "30", "40"])
    with pytest.raises(SystemExit, match=r"^2$"):
        study.main()
    assert capsys.readouterr().err.endswith("--forks must be multiples of 20 below 40, got 30 40\n")


@pytest.mark.slow
@pytest.mark.skipif("TSCOPE_DATA" not in os.environ, reason="TSCOPE_DATA names no folder with pictures")
def test_pairs_are_recorded_averaged_and_drawn_and_nothing_is_repeated(tmp_path: Path) -> None:
    sizes = ["--quick", "--width", "2", "--steps", "40", "--forks", "20", "--out", str(tmp_path)]
    first = run("mode_connectivity.py", *sizes)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count(": done") == 2
    rows = columns(tmp_path / "mode_connectivity.csv")
    assert [(row["start"], row["seed"], row["fork"]) for row in rows] == [
        ("random", "0", "20"),
        ("pretrained", "0", "20"),
    ]
    for row in rows:
        assert float(row["barrier_loss_train"]) >= 0
        assert 0 < float(row["change_test"]) < 100
        assert -1 <= float(row["cosine_test_stage2"]) <= 1
        # The networks parted, so their average is another network than either, and than both together.
        assert float(row["difference_test"]) > 0
    assert (tmp_path / "mode_connectivity.svg").stat().st_size > 0
    kept = json.loads((tmp_path / "pretrained-0.json").read_text())
    assert [pair["fork"] for pair in kept["pairs"]] == [20]
    again = run("mode_connectivity.py", *sizes)
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)
