"""How much longer training takes when it is recorded, beside a loop that does the same by hand."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.report import Section, Table, run_alone
from benchmarks.runs import Timing, recorder, train, write_probe
from benchmarks.workloads import OPTIMIZERS, PROBES, WORKLOADS

# Steps of a loop of some 6 s when bare, so that the export of the model (2 s of CPU, once) does not rule it;
# what is done by hand is 2 to 20 times slower.
STEPS = {"mlp": 2000, "cnn": 2000, "transformer": 400}
STEPS_BY_HAND = {"mlp": 150, "cnn": 150, "transformer": 20}
VARIANTS = ("bare", "updates", "projections")
BY_HAND = ("save", "save+jvp")
ROUNDS = 3  # of the variants; what is done by hand takes part in the first

TEXT = f"""
Wall time of the training loop, recorded over bare. *Updates*: every θ, batch output and output gradient
(`--probe none`). *Projections*: also outputs, J·Δθ and the lazy model on {PROBES} held-out examples; the
recorder computes them at as many steps as it can keep up with, replay fills in the rest. *By hand*: a loop
that calls `torch.save` on the state after every step, without and with `torch.func.jvp` on the same examples
(at every step). *Hooks*: time inside the recorder's hooks as a share of the loop; *wait*: time the loop
stood still because the recorder's queue was full, as a share of the loop. Medians of rounds in which the
variants took turns.

With 1 thread on a machine of 2 cores the recorder has a core to itself; with 2 threads training and
recorder share them. Aims: hooks ≤ 5 %; updates ≤ 1.15 and projections ≤ 1.3 with a core to spare, ≤ 1.8
without; always less than by hand.
"""


def measure_round(
    folder: Path, workload: str, threads: int, scale: float, variants: Sequence[str]
) -> dict[str, Timing]:
    """Run every variant once, in turn."""
    probe = write_probe(folder, workload)
    trace, by_hand = folder / "trace.zarr", folder / "by-hand"
    steps = max(10, int(scale * STEPS[workload]))
    steps_by_hand = max(5, int(scale * STEPS_BY_HAND[workload]))
    timings = {}
    for variant in variants:
        print(f"overhead: {workload}, {threads} thread(s), {variant}", file=sys.stderr)
        shutil.rmtree(trace, ignore_errors=True)
        shutil.rmtree(by_hand, ignore_errors=True)
        by_hand.mkdir()
        match variant:
            case "bare":
                timings[variant] = train(folder, workload, steps, threads=threads)
            case "updates":
                prefix = recorder(trace, "--probe", "none")
                timings[variant] = train(folder, workload, steps, threads=threads, prefix=prefix, trace=trace)
            case "projections":
                prefix = recorder(trace, "--probe", str(probe))
                timings[variant] = train(folder, workload, steps, threads=threads, prefix=prefix, trace=trace)
            case "save":
                options = ["--by-hand", str(by_hand)]
                timings[variant] = train(folder, workload, steps_by_hand, threads=threads, options=options)
            case "save+jvp":
                options = ["--by-hand", str(by_hand), "--jvp"]
                timings[variant] = train(folder, workload, steps_by_hand, threads=threads, options=options)
    return timings


def ratio(rounds: Sequence[dict[str, Timing]], variant: str) -> float:
    """The median over the rounds of a variant's time per step over the bare one's."""
    return median(timings[variant].step / timings["bare"].step for timings in rounds if variant in timings)


def percent(shares: Sequence[float]) -> str:
    return f"{100 * median(shares):.1f} %"


def measure(quick: bool) -> Section:
    orders = [(*VARIANTS, *BY_HAND)] + [VARIANTS[:: (-1) ** k] for k in range(1, ROUNDS)]
    loops, commands = [], []
    for workload in WORKLOADS:
        for threads in (1,) if quick else (1, 2):
            with tempfile.TemporaryDirectory() as name:
                rounds = [
                    measure_round(Path(name), workload, threads, 0.1 if quick else 1.0, variants)
                    for variants in orders[: 1 if quick else ROUNDS]
                ]
            updates = [timings["updates"] for timings in rounds]
            projections = [timings["projections"] for timings in rounds]
            label = [f"{workload}, {OPTIMIZERS[workload]}", str(threads)]
            loops.append(
                [
                    *label,
                    f"{1e3 * median(timings['bare'].step for timings in rounds):.2f} ms",
                    *(f"{ratio(rounds, variant):.2f}" for variant in (*VARIANTS[1:], *BY_HAND)),
                    percent([run.hooks / run.loop for run in updates]),
                    percent([run.wait / run.loop for run in updates]),
                    percent([run.wait / run.loop for run in projections]),
                    percent([run.projected for run in projections]),
                ]
            )
            totals = (f"{median(timings[variant].total for timings in rounds):.1f} s" for variant in VARIANTS)
            commands.append([*label, *totals])
    head = ["run", "threads", "bare step", "updates", "projections", "by hand: save", "by hand: save, jvp"]
    shares = ["hooks", "wait, updates", "wait, projections", "steps projected"]
    return Section(
        "overhead",
        "What recording costs",
        TEXT,
        [
            Table("Training loop, as multiples of the bare step:", [*head, *shares], loops),
            Table(
                "The whole command, from start to exit:",
                ["run", "threads", "bare", "updates", "projections"],
                commands,
            ),
        ],
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
