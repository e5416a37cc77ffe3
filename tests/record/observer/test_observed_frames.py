"""What the frames say about the ways people train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_parent import Run, python
from observed_runs import observe, printed, script, sizes
from observed_scripts import write


@pytest.fixture(scope="module")
def sgd(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return observe(tmp_path_factory.mktemp("sgd"), "sgd")


def test_steps_carry_loss_rates_batches_and_gradients(sgd: Run) -> None:
    done = sgd
    assert [step["step"] for step in done.steps] == list(range(1, 19))
    assert [step["loss"] for step in done.steps] == pytest.approx(printed(done))
    for step in done.steps:
        assert step["lr"] == [[0.1]]
        assert step["micro"] == [{"size": 16, "scale": 1.0, "inputs": True, "input_dtypes": ["float32"]}]
        assert step.arrays["input:0:0"].shape == (16, 6)
        assert step.arrays["output:0"].shape == step.arrays["output_grad:0"].shape == (16, 3)
        # The gradient of a mean cross-entropy sums to zero over the classes.
        assert np.abs(step.arrays["output_grad:0"].sum(1)).max() < 1e-6
        assert step.arrays["grad_norm"].shape == (4,)
        assert not step["foreign"]
        assert not step["skipped"]
    # The last layer's bias gradient is the sum of the output gradients.
    first = done.steps[0]
    expected = np.linalg.norm(first.arrays["output_grad:0"].sum(0))
    assert first.arrays["grad_norm"][3] == pytest.approx(expected, rel=1e-5)
    (bye,) = done.of("bye")
    assert bye["roots"] == {"0": {"steps": 18, "skipped": 0}}
    assert bye["hook_ns"] > 0


def test_each_row_is_the_optimizers_own_update(sgd: Run) -> None:
    done = sgd
    theta = [done.of("root")[0].arrays["theta:float32"], *(s.arrays["theta:float32"] for s in done.steps)]
    updates = np.diff(np.stack(theta).astype(np.float64), axis=0)
    # SGD with momentum: the last layer's bias moves by -lr (0.9 v + g), and g is known from the batch.
    velocity = np.zeros(3)
    for step, update in zip(done.steps, updates, strict=True):
        velocity = 0.9 * velocity + step.arrays["output_grad:0"].astype(np.float64).sum(0)
        assert update[-3:] == pytest.approx(-0.1 * velocity, rel=1e-3, abs=1e-7)


def test_evaluations_are_sent_once_and_bounded(tmp_path: Path) -> None:
    done = observe(tmp_path, "dropout_scheduler", eval_rows=4)
    (evaluation,) = done.of("eval")  # the same rows after every step: once
    assert evaluation["mode"] == "eval"
    assert evaluation.arrays["input:0"].shape == (4, 6)
    assert evaluation.arrays["output"].shape == (4, 3)
    assert [step["lr"] for step in done.steps][3:5] == [[[0.5]], [[0.25]]]  # before the scheduler's step


def test_accumulation_is_several_micro_batches(tmp_path: Path) -> None:
    done = observe(tmp_path, "accumulation")
    assert [sizes(step) for step in done.steps] == [[8, 8, 8, 8]] * 9
    assert "output_grad:3" in done.steps[0].arrays


def test_scaler_gives_scale_loss_and_skipped_steps(tmp_path: Path) -> None:
    done = observe(tmp_path, "scaler")
    skipped = [step["skipped"] for step in done.steps]
    assert [number for number, skip in enumerate(skipped) if skip] == [0, 7]
    assert len(done.steps) == 18
    assert [step["loss"] for step in done.steps] == pytest.approx(printed(done), rel=1e-5)
    assert done.steps[0]["micro"][0]["scale"] == 2.0**16
    theta = [s.arrays["theta:float32"] for s in done.steps]
    for before, after, skip in zip(theta, theta[1:], skipped[1:], strict=False):
        assert np.array_equal(before, after) == skip
    assert done.of("bye")[0]["roots"]["0"]["skipped"] == sum(skipped)


def test_lbfgs_evaluations_are_micro_batches_and_the_loss_is_the_first(tmp_path: Path) -> None:
    done = observe(tmp_path, "lbfgs")
    assert [step["loss"] for step in done.steps] == pytest.approx(printed(done))
    assert all(len(step["micro"]) > 1 for step in done.steps)


def test_closure_steps_have_gradients_too(tmp_path: Path) -> None:
    done = observe(tmp_path, "closure")
    assert [step["loss"] for step in done.steps] == pytest.approx(printed(done))
    assert all(np.isfinite(step.arrays["grad_norm"]).all() for step in done.steps)


def test_gan_has_two_roots_with_their_own_batches(tmp_path: Path) -> None:
    done = observe(tmp_path, "gan")
    assert len(done.of("root")) == 2
    discriminator, generator = done.of("step", 0), done.of("step", 1)
    assert [sizes(step) for step in discriminator] == [[16, 16]] * 6  # not the generator's pass through it
    assert [sizes(step) for step in generator] == [[16]] * 6
    assert generator[0].arrays["output:0"].shape == (16, 6)


def test_tied_parameters_are_one_and_groups_name_them(tmp_path: Path) -> None:
    done = observe(tmp_path, "tied")
    (root,) = done.of("root")
    tied = {entry["name"]: entry["tied"] for entry in root["parameters"]}
    assert tied == {"embed.weight": ["head.weight"], "body.weight": [], "body.bias": []}
    (optimizer,) = done.of("optimizer")
    assert [group["tensors"] for group in optimizer["groups"]] == [[1, 2], [0]]
    step = done.steps[0]
    assert step["lr"] == [[0.01, 0.01]]
    assert {name for name in step.arrays if name.startswith("input")} == {"input:0:0", "input:0:1"}
    assert step.arrays["input:0:0"].dtype == np.int64
    assert step.arrays["output:0"].shape == (4, 6 * 11)


def test_manual_updates_are_steps_without_an_optimizer(tmp_path: Path) -> None:
    done = observe(tmp_path, "manual")
    assert [step["optimizer"] for step in done.steps] == [None] * 6
    assert all(sizes(step) == [16] and step["loss"] is not None for step in done.steps)


def test_foreign_changes_are_flagged_in_the_next_row(tmp_path: Path) -> None:
    done = observe(tmp_path, "foreign")
    assert [step["foreign"] for step in done.steps] == [False, False, False, True, False, False]


def test_two_optimizers_share_a_root_and_a_loss(tmp_path: Path) -> None:
    done = observe(tmp_path, "two_optimizers")
    assert len(done.of("root")) == 1
    assert [step["optimizer"] for step in done.steps] == [0, 1] * 6
    assert [len(step["micro"]) for step in done.steps] == [1, 0] * 6
    assert all(a["loss"] == b["loss"] for a, b in zip(done.steps[::2], done.steps[1::2], strict=True))
    assert done.steps[-1]["lr"] == [[0.1], [0.01]]


def test_gradient_penalty_does_not_hide_the_losss_gradient(tmp_path: Path) -> None:
    done = observe(tmp_path, "penalty")
    for step in done.steps:
        assert sizes(step) == [16]
        assert not np.array_equal(step.arrays["output_grad:0"], np.ones((16, 1)))


def test_recomputed_blocks_are_no_batches(tmp_path: Path) -> None:
    done = observe(tmp_path, "checkpoint")
    assert [root["class"] for root in done.of("root")] == ["Net"]
    assert all(sizes(step) == [16] for step in done.steps)


def test_double_precision_and_other_layouts_are_in_logical_order(tmp_path: Path) -> None:
    done = observe(tmp_path, "channels_last_float64")
    assert set(done.steps[0].arrays) >= {"theta:float64", "input:0:0", "output:0"}
    assert done.steps[0].arrays["output:0"].dtype == np.float64


def test_every_k_sends_multiples_and_the_last(tmp_path: Path, sgd: Run) -> None:
    done = observe(tmp_path, "sgd", every=4)
    assert [step["step"] for step in done.steps] == [4, 8, 12, 16, 18]
    for step in done.steps:
        whole = sgd.steps[step["step"] - 1]
        assert np.array_equal(step.arrays["theta:float32"], whole.arrays["theta:float32"])
        assert step["loss"] == whole["loss"]


def test_optimizer_state_comes_at_anchors(tmp_path: Path) -> None:
    done = observe(tmp_path, "accumulation", anchor=4)
    assert [state["step"] for state in done.of("state")] == [4, 8]
    state = done.of("state")[0]
    assert set(state.arrays) == {"state:exp_avg:float32", "state:exp_avg_sq:float32"}
    assert state["scalars"] == {"step": [4.0] * 4}
    assert state["lacking"] == []
    position = done.frames.index(state)
    assert done.frames[position - 1].kind == "step"


def test_outputs_over_the_budget_are_left_out_and_said_once(tmp_path: Path) -> None:
    path = write(tmp_path, "sgd")
    done = python(path, str(tmp_path / "out.pt"), options={"outputs": 100, "export": "process"}, export=False)
    assert not any("output:0" in step.arrays for step in done.steps)
    assert all("input:0:0" in step.arrays for step in done.steps)
    (report,) = done.of("report")
    assert report["where"] == "outputs"
    assert "over the limit of 100" in report["error"]


def test_held_out_rows_are_found_after_evaluations_of_training_rows(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
held_out = torch.randn(32, 6) + 100
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for epoch in range(2):
    for x, y in batches(epochs=1):
        opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
    with torch.no_grad():
        net.eval()
        for start in range(0, 96, 8):
            net(X[start:start + 8])
        for start in range(0, 32, 8):
            net(held_out[start:start + 8])
        net.train()
""",
        options={"eval_rows": 16, "export": "process"},
    )
    assert any((frame.arrays["input:0"] > 50).any() for frame in done.of("eval"))
    assert sum(len(frame.arrays["input:0"]) for frame in done.of("eval")) <= 16 * 16


def test_evaluation_with_gradients_on_is_no_micro_batch(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in batches(epochs=1):
    net.eval()
    print(F.cross_entropy(net(X[:5]), Y[:5]).item())
    net.train()
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
    )
    assert [sizes(step) for step in done.steps] == [[16]] * 6
    assert {frame.arrays["input:0"].shape for frame in done.of("eval")} == {(5, 6)}
