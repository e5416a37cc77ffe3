"""Train one workload and write down how long the loop took: the script that the benchmarks record.

With `--by-hand FOLDER` the loop also does what a user without tscope would write: `torch.save` of the
state after every step, and with `--jvp` the projection J·Δθ of the held-out inputs by `torch.func.jvp`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, jvp

from benchmarks.workloads import OPTIMIZERS, WORKLOADS, Workload


def train_step(work: Workload) -> None:
    *inputs, target = work.batch()
    loss = work.loss(work.model(*inputs), target)
    work.optimizer.zero_grad()
    loss.backward()
    if work.clip is not None:
        torch.nn.utils.clip_grad_norm_(work.model.parameters(), work.clip)
    work.optimizer.step()


def copy_parameters(work: Workload) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in work.model.named_parameters()}


def project(work: Workload, before: dict[str, Tensor], after: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The probe's outputs at `before`, and J·(after − before)."""

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        out = functional_call(work.model, parameters, work.probe)
        return out[0] if isinstance(out, tuple) else out

    work.model.eval()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        result = jvp(outputs, (before,), ({name: after[name] - before[name] for name in before},))
    work.model.train()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=list(WORKLOADS), required=True)
    parser.add_argument("--optimizer", help="default: the workload's own")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seconds", type=Path, required=True, help="write the loop's times here, as JSON")
    parser.add_argument("--by-hand", type=Path, metavar="FOLDER")
    parser.add_argument("--jvp", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    work = WORKLOADS[args.workload](args.optimizer or OPTIMIZERS[args.workload])
    wall, cpu = time.perf_counter(), time.process_time()
    if args.by_hand is None:
        for _ in range(args.steps):
            train_step(work)
    else:
        before = copy_parameters(work)
        for step in range(args.steps):
            train_step(work)
            torch.save(work.model.state_dict(), args.by_hand / f"{step:06d}.pt")
            if args.jvp:
                after = copy_parameters(work)
                torch.save(project(work, before, after), args.by_hand / f"{step:06d}.jvp.pt")
                before = after
    times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    args.seconds.write_text(json.dumps(times))


if __name__ == "__main__":
    main()
