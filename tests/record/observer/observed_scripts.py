"""Training scripts as people write them; each writes down the state it ends with."""

from __future__ import annotations

from pathlib import Path

PRELUDE = """
import copy, random, sys
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

random.seed(1); np.random.seed(2); torch.manual_seed(3)
X = torch.randn(96, 6); Y = torch.randint(0, 3, (96,))

def batches(size=16, epochs=3):
    for epoch in range(epochs):
        order = torch.randperm(len(X))
        for start in range(0, len(X), size):
            chosen = order[start:start + size]
            yield X[chosen], Y[chosen]

def mlp():
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))

def save(*modules, optimizers=()):
    state = {
        "modules": [{
            "state": m.state_dict(),
            "grad": [p.grad for p in m.parameters()],
            "hooks": [len(p._backward_hooks or ()) for p in m.parameters()],
            "training": [part.training for part in m.modules()],
            "vars": [sorted(vars(part)) for part in m.modules()],
        } for m in modules],
        "optimizers": [o.state_dict() for o in optimizers],
        "torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state(),
        "settings": [torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(),
                     torch.are_deterministic_algorithms_enabled(), torch.is_autocast_enabled("cpu")],
    }
    print("last", random.random(), np.random.rand(), torch.rand(()).item())
    torch.save(state, sys.argv[1])
"""

SCRIPTS = {
    "sgd": """
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
for x, y in batches():
    opt.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    opt.step()
    print(loss.item())
save(net, optimizers=[opt])
""",
    "dropout_scheduler": """
net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3))
opt = torch.optim.Adadelta(net.parameters(), lr=0.5)
scheduler = torch.optim.lr_scheduler.StepLR(opt, 4, 0.5)
for x, y in batches():
    net.train()
    opt.zero_grad()
    F.cross_entropy(net(x), y).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.1)
    opt.step()
    scheduler.step()
    net.eval()
    with torch.no_grad():
        print(net(X[:8]).sum().item(), scheduler.get_last_lr())
save(net, optimizers=[opt])
""",
    "batchnorm": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(1, 4, 3).to(memory_format=torch.contiguous_format)
        self.norm = nn.BatchNorm1d(4)
        self.b = nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
    def forward(self, x):
        self.calls = self.calls + 1
        print("forward")
        return {"logits": self.b(torch.relu_(self.norm(self.a(x[:, None]))).flatten(1)), "extra": x}
net = Net()
opt = torch.optim.AdamW(net.parameters(), lr=0.01)
for x, y in batches():
    loss = F.cross_entropy(net(x)["logits"], y)
    opt.zero_grad(set_to_none=False)
    loss.backward()
    opt.step()
net.eval()
print(net(X)["logits"].sum().item())
save(net, optimizers=[opt])
""",
    "scaler": """
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
for number, (x, y) in enumerate(batches()):
    opt.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(net(x).float(), y) * (1e37 if number in (0, 7) else 1)
    scaler.scale(loss).backward()
    scaler.unscale_(opt)
    scaler.step(opt)
    scaler.update()
    print(loss.item(), scaler.get_scale())
save(net, optimizers=[opt])
""",
    "accumulation": """
net = mlp()
opt = torch.optim.Adam(net.parameters(), lr=0.01)
for number, (x, y) in enumerate(batches(size=8)):
    loss = F.cross_entropy(net(x), y) / 4
    loss.backward()
    if number % 4 == 3:
        opt.step()
        opt.zero_grad()
save(net, optimizers=[opt])
""",
    "lbfgs": """
net = mlp()
opt = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=4)
for x, y in batches(epochs=1):
    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss
    print(opt.step(closure).item())
save(net, optimizers=[opt])
""",
    "closure": """
net = mlp()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in batches(epochs=1):
    opt.zero_grad()
    def closure():
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss
    print(opt.step(closure).item())
save(net, optimizers=[opt])
""",
    "gan": """
G = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
D = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
opt_d = torch.optim.Adam(D.parameters(), lr=0.01)
opt_g = torch.optim.Adam(G.parameters(), lr=0.01)
one, zero = torch.ones(16, 1), torch.zeros(16, 1)
for x, _ in batches(epochs=1):
    opt_d.zero_grad()
    fake = G(torch.randn(16, 4))
    F.binary_cross_entropy_with_logits(D(x), one).backward()
    F.binary_cross_entropy_with_logits(D(fake.detach()), zero).backward()
    opt_d.step()
    opt_g.zero_grad()
    F.binary_cross_entropy_with_logits(D(fake), one).backward()
    opt_g.step()
save(G, D, optimizers=[opt_d, opt_g])
""",
    "tied": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
    def forward(self, tokens, targets=None):
        logits = self.head(torch.tanh(self.body(self.embed(tokens))))
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss
net = Net()
opt = torch.optim.AdamW([{"params": [net.body.weight, net.body.bias], "weight_decay": 0.0},
                         {"params": [net.embed.weight]}], lr=0.01)
tokens = torch.randint(0, 11, (32, 7))
for step in range(8):
    rows = tokens[torch.randint(0, 32, (4,))]
    _, loss = net(rows[:, :-1], targets=rows[:, 1:])
    opt.zero_grad()
    loss.backward()
    opt.step()
save(net, optimizers=[opt])
""",
    "manual": """
net = mlp()
for x, y in batches(epochs=1):
    loss = F.cross_entropy(net(x), y)
    net.zero_grad()
    loss.backward()
    for p in net.parameters():
        p.data.add_(p.grad, alpha=-0.1)
save(net)
""",
    "foreign": """
net = mlp()
opt = torch.optim.RMSprop(net.parameters(), lr=0.01)
for number, (x, y) in enumerate(batches(epochs=1)):
    opt.zero_grad()
    F.cross_entropy(net(x), y).backward()
    opt.step()
    if number == 2:
        for p in net.parameters():
            p.data.clamp_(-0.05, 0.05)
save(net, optimizers=[opt])
""",
    "two_optimizers": """
net = mlp()
first = torch.optim.SGD(net[0].parameters(), lr=0.1)
second = torch.optim.Adam(net[2].parameters(), lr=0.01)
for x, y in batches(epochs=1):
    first.zero_grad(); second.zero_grad()
    F.cross_entropy(net(x), y).backward()
    first.step(); second.step()
save(net, optimizers=[first, second])
""",
    "penalty": """
net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for x, y in batches(epochs=1):
    x = x.clone().requires_grad_(True)
    out = net(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    loss = (out[:, 0] - y).pow(2).mean() + slope.pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
save(net, optimizers=[opt])
""",
    "channels_last_float64": """
net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))
net = net.double().to(memory_format=torch.channels_last)
opt = torch.optim.NAdam(net.parameters(), lr=0.01)
for x, y in batches(epochs=1):
    image = x.double()[:, :3, None, None].expand(-1, -1, 2, 2)
    opt.zero_grad()
    F.cross_entropy(net(image), y).backward()
    opt.step()
save(net, optimizers=[opt])
""",
    "checkpoint": """
from torch.utils.checkpoint import checkpoint
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Sequential(nn.Linear(6, 12), nn.Dropout(0.2), nn.Tanh()), nn.Linear(12, 3)
    def forward(self, x):
        return self.b(checkpoint(self.a, x, use_reentrant=True))
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for x, y in batches(epochs=1):
    opt.zero_grad()
    F.cross_entropy(net(x.clone().requires_grad_(True)), y).backward()
    opt.step()
save(net, optimizers=[opt])
""",
    "ema_and_averages": """
net = mlp()
ema = copy.deepcopy(net).requires_grad_(False)
opt = torch.optim.SGD(net.parameters(), lr=0.1, nesterov=True, momentum=0.5)
for number, (x, y) in enumerate(batches(epochs=2)):
    opt.zero_grad()
    F.cross_entropy(net(x), y).backward()
    opt.step()
    with torch.no_grad():
        for e, p in zip(ema.parameters(), net.parameters()):
            e.lerp_(p, 0.1)
    if number % 3 == 0:
        ema.eval(); print(ema(X[:5]).sum().item())
save(net, ema, optimizers=[opt])
""",
}  # fmt: skip


def write(folder: Path, name: str, before: str = "", after: str = "") -> Path:
    """Write a script into the folder; `before` is put behind the prelude, `after` at the end."""
    path = folder / (name + ".py")
    path.write_text(PRELUDE + before + SCRIPTS[name] + after)
    return path
