"""Which modules the frames are of, and what becomes of their programs."""

from __future__ import annotations

from pathlib import Path

from fake_parent import python
from observed_runs import script, sizes
from observed_scripts import write

MASKED = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()
    def forward(self, mask, x, scale, weight):
        return mask + 1, self.body(x * mask[0]) * scale * weight[:, None]
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
with torch.no_grad():
    net.eval(); net(torch.ones(3, 6), X[:5], torch.tensor(2.0), torch.ones(5)); net.train()
for x, y in batches(epochs=1):
    opt.zero_grad()
    _, out = net(torch.ones(3, 6), x, torch.tensor(2.0), torch.ones(len(x)))
    F.cross_entropy(out, y).backward()
    opt.step()
"""


def test_only_tensors_with_a_row_for_each_output_are_inputs(tmp_path: Path) -> None:
    done = script(tmp_path, MASKED, options={"export": "process"}, export=True)
    for step in done.steps:
        assert {name for name in step.arrays if name.startswith("input")} == {"input:0:1", "input:0:3"}
        assert step.arrays["input:0:1"].shape == (16, 6)
        assert sizes(step) == [16]
    assert not done.of("eval")  # before any training step nothing tells its rows from the mask's
    (program,) = done.of("program")
    assert program["ok"], program["reason"]
    users = [entry for entry in program["graph"]["inputs"] if entry["kind"] == "user"]
    assert [(entry["name"], entry["index"]) for entry in users] == [("x", 0), ("weight", 1)]


APART = """
body, head = nn.Sequential(nn.Linear(6, 12), nn.Tanh()), nn.Linear(12, 3)
opt = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)
for x, y in batches(epochs=1):
    opt.zero_grad()
    F.cross_entropy(head(body(x)), y).backward()
    opt.step()
save(body, head)
"""


def test_parameters_outside_of_the_recorded_module_are_said(tmp_path: Path) -> None:
    done = script(tmp_path, APART, options={"export": "process"})
    (report,) = done.of("report")
    assert not report["failed"]
    assert report["error"] == (
        "2 of the 4 tensors of SGD are outside of Sequential, and not recorded; one module must hold all"
    )


MAML = """
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in batches(epochs=1):
    own = dict(net.named_parameters())
    inner = F.cross_entropy(torch.func.functional_call(net, own, (x,)), y)
    slopes = torch.autograd.grad(inner, tuple(own.values()), create_graph=True)
    fast = {name: p - 0.1 * g for (name, p), g in zip(own.items(), slopes)}
    opt.zero_grad()
    F.cross_entropy(torch.func.functional_call(net, fast, (x,)), y).backward()
    opt.step()
save(net)
"""


def test_calls_with_other_parameters_are_neither_updates_nor_batches(tmp_path: Path) -> None:
    done = script(tmp_path, MAML, options={"export": "process"}, export=True)
    assert [step["optimizer"] for step in done.steps] == [0] * 6
    assert not any(step["foreign"] for step in done.steps)
    assert [sizes(step) for step in done.steps] == [[16]] * 6
    (program,) = done.of("program")
    assert program["ok"], program["reason"]


def test_a_module_whose_parameters_change_shape_begins_a_new_root(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for number, (x, y) in enumerate(batches(epochs=1)):
    if number == 3:
        net[0], net[2] = nn.Linear(6, 5), nn.Linear(5, 3)
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
    )
    assert [root["parameters"][0]["shape"] for root in done.of("root")] == [[12, 6], [5, 6]]
    assert len(done.of("step", 1)) == 3


def test_a_step_that_raised_does_not_stop_the_recording(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
def broken():
    raise ValueError("no")
for number, (x, y) in enumerate(batches(epochs=1)):
    if number == 1:
        try:
            opt.step(broken)
        except ValueError:
            pass
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
    )
    assert len(done.steps) == 6
    assert all(sizes(step) == [16] for step in done.steps)


def test_compiled_modules_are_observed(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()
    def forward(self, x):
        return self.body(x) * 2
net = Net()
compiled = torch.compile(net, backend="eager", fullgraph=True)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in batches(epochs=1):
    opt.zero_grad(); F.cross_entropy(compiled(x), y).backward(); opt.step()
""",
    )
    assert not done.of("report")
    (root,) = done.of("root")
    assert root["class"] == "Net"
    assert [sizes(step) for step in done.steps] == [[16]] * 6


def test_program_is_exported_from_a_fork_and_knows_the_gradients_path(tmp_path: Path) -> None:
    done = python(write(tmp_path, "batchnorm"), str(tmp_path / "out.pt"))
    (program,) = done.of("program")
    assert program["ok"], program["reason"]
    assert program["output_path"] == "logits"
    assert program.connection != done.steps[0].connection
    assert done.stdout.count("forward\n") == 18 + 1  # nothing of the copy is seen


def test_a_copy_that_dies_is_made_up_for_at_the_end(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
import os
mine = os.getpid()
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()
    def forward(self, x):
        if os.getpid() != mine:
            os._exit(9)
        return self.body(x)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in batches(epochs=1):
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
        export=True,
    )
    (program,) = done.of("program")
    (report,) = done.of("report")
    assert report["where"] == "export"
    assert "died" in report["error"]
    assert program["ok"], program["reason"]


def test_modules_that_cannot_be_exported_say_why(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()
    def forward(self, x):
        return self.body(x) * (1 if x.sum() > 0 else 2)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in batches(epochs=1):
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
        export=True,
    )
    (program,) = done.of("program")
    assert not program["ok"]
    assert "left out" not in program["reason"] != ""
    assert len(done.steps) == 6
