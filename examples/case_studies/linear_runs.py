"""The runs of two linear layers, whose modes have closed forms, in `regimes.py`.

saxe    whitened inputs, from a start that is balanced and aligned with the task, and from a small random one,
        at several sizes of step;
skills  inputs that hold one skill each, of different frequencies, in mini-batches;
lazy    random starts whose second layer is larger than the first by different amounts, Λ/s.
"""

from collections.abc import Iterable, Sequence

from subject import Found, Subject

SPAN = 4.0  # the time of gradient flow that the runs `saxe` take
RATES, QUICK_RATES = (0.04, 0.02, 0.01, 0.005), (0.04, 0.01)
INDICES, QUICK_INDICES = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0), (0.0, 1.0, 10.0)
LAZY_UNITS, LAZY_FIRST, LAZY_TARGETS = 100, 0.01, (1.2, 1.0, 0.8)
SKILLS = 8
MODES = {"regime": ("--parts", "modes", "--every", "1")}
BALANCE = {**MODES, "layers": ("--parts", "balance", "--every", "1")}


def saxe(start: str, rate: float, seed: int) -> Subject:
    """Return a run on whitened inputs."""
    scale = 0.2 if start == "aligned" else 0.02
    # What starts small and has to align first takes longer.
    steps = round(SPAN * (1 if start == "aligned" else 2) / rate)
    given = {"--start": start, "--first": scale, "--second": scale, "--rate": rate, "--steps": steps}
    # The aligned start is balanced, and stays so but for rounding.
    metrics = MODES if start == "aligned" else BALANCE
    return Subject(f"{start}-{rate:g}-{seed}", "train_linear.py", given, seed, metrics)


def skills(seed: int, steps: int) -> Subject:
    """Return a run on inputs that hold one skill each."""
    size = {"--inputs": SKILLS, "--targets": (1,) * SKILLS, "--examples": 2000, "--batch-size": 50}
    given = {"--task": "skills", **size, "--first": 0.1, "--second": 0.1, "--rate": 0.1, "--steps": steps}
    return Subject(f"skills-{seed}", "train_linear.py", given, seed, MODES)


def lazy(index: float, seed: int) -> Subject:
    """Return a run whose Λ is about units·(second² − first²); 25 steps make the unit of its fastest mode."""
    second = (index / LAZY_UNITS + LAZY_FIRST**2) ** 0.5
    rate = 0.04 / (index**2 + 4) ** 0.5
    given = {
        "--start": "random",
        "--targets": LAZY_TARGETS,
        "--units": LAZY_UNITS,
        "--first": LAZY_FIRST,
        "--second": round(second, 4),
        "--rate": round(rate, 6),
        "--steps": 500,
    }
    metrics = {"regime": ("--parts", "modes,kernel", "--every", "5")}
    return Subject(f"lazy-{index:g}-{seed}", "train_linear.py", given, seed, metrics)


def subjects(quick: bool, seeds: Iterable[int]) -> list[Subject]:
    """Return all runs."""
    rates, indices = (QUICK_RATES, QUICK_INDICES) if quick else (RATES, INDICES)
    made = []
    for seed in seeds:
        made += [saxe(start, rate, seed) for start in ("aligned", "random") for rate in rates]
        made += [skills(seed, 1200 if quick else 1600)]
        made += [lazy(index, seed) for index in indices]
    return made


def kind(run: Found) -> str:
    """Return aligned, random, skills or lazy."""
    return run.subject.name.split("-")[0]


def setting(run: Found) -> float:
    """Return the size of the steps, or which Λ/s was aimed at."""
    return float(run.subject.name.split("-")[1]) if kind(run) != "skills" else float("nan")


def grouped(found: Sequence[Found], name: str) -> dict[float, list[Found]]:
    """Return the runs of a kind by their setting, one a seed."""
    groups: dict[float, list[Found]] = {}
    for run in found:
        if kind(run) == name:
            groups.setdefault(setting(run) if name != "skills" else 0.0, []).append(run)
    return dict(sorted(groups.items()))


def balance_drift(run: Found) -> float:
    """Return ‖Q_T − Q_0‖ over the weights' squares at the end."""
    drift, size = (run.array("layers", name)[-1, 0] for name in ("balance_drift", "balance_size"))
    return float(drift / size)
