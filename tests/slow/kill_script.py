"""Trains a small model and keeps a log of its own: when each step was done, and what waited to be sent then.

Usage: kill_script.py LOG FINAL STEPS [STATES]
"""

import gc
import os
import struct
import sys
import time

import torch

ENTRY = struct.Struct("<dq")

log = open(sys.argv[1], "wb", buffering=0)  # noqa: SIM115 - open until the process dies
final, steps = sys.argv[2], int(sys.argv[3])
states = open(sys.argv[4], "wb") if len(sys.argv) > 4 else None  # noqa: SIM115
torch.manual_seed(0)
torch.set_num_threads(1)
X, Y, held = torch.randn(64, 6), torch.randn(64, 1), torch.randn(40, 6)
net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
sender = None


def flat() -> bytes:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()]).numpy().tobytes()


if states:
    states.write(flat())
for step in range(steps):
    rows = torch.randint(0, 64, (16,))
    optimizer.zero_grad()
    ((net(X[rows]) - Y[rows]) ** 2).mean().backward()
    optimizer.step()
    if states:
        states.write(flat())
    else:
        if sender is None:
            sender = next((o for o in gc.get_objects() if type(o).__name__ == "Sender"), None)
        log.write(ENTRY.pack(time.time(), -1 if sender is None else len(sender._frames)))
        time.sleep(0.0005)
    if step == 20:
        net.eval()
        with torch.no_grad():
            net(held)
        net.train()
with open(final + ".partial", "wb") as file:
    file.write(flat() + torch.get_rng_state().numpy().tobytes())
os.rename(final + ".partial", final)
