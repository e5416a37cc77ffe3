"""Small traces for the tests of the terminal interface, written by the real writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tscope_format import Array, Result, RootWriter, Row, TraceWriter, save_result, table

PARAMETERS = table(
    [
        ("fc1.weight", (4, 3), "float32", (), True),
        ("fc1.bias", (4,), "float32", (), True),
        ("head.weight", (1, 4), "float32", (), True),
    ]
)
SIZE = sum(tensor.size for tensor in PARAMETERS)
EXAMPLES = 6
SPIKE = 40


class Run:
    """A synthetic run: a decaying loss with one spike, and predictions that curve away from the lazy ones."""

    def __init__(
        self,
        path: Path,
        *,
        facts: Mapping[str, object] | None = None,
        labels: bool = True,
        probe: bool = True,
    ) -> None:
        self.path, self.step = path, 0
        self._random = np.random.default_rng(0)
        self._theta = self._random.standard_normal(SIZE).astype(np.float32)
        known = {
            "command": ["python", "train.py", "--lr", "0.1"],
            "host": "gpu17",
            "git": {"commit": "a1b2c3d4e5f6"},
        }
        self.writer = TraceWriter.create(path, facts={**known, **(facts or {})}, flush_seconds=0.0)
        self.root: RootWriter = self.writer.add_root(
            "model",
            parameters=PARAMETERS,
            buffers=(),
            groups=1,
            theta={"float32": self._theta},
            buffer={},
            time=1000.0,
            attributes={
                "class": "MLP",
                "optimizers": [{"class": "SGD", "groups": [{"hyper": {"lr": 0.1, "momentum": 0.9}}]}],
            },
        )
        self._probe = None
        if probe:
            inputs = [self._random.standard_normal((EXAMPLES, 3)).astype(np.float32)]
            target = np.where(np.arange(EXAMPLES) % 2 == 0, 1.0, -1.0).astype(np.float32) if labels else None
            self._probe = self.root.add_probe(
                "heldout", inputs=inputs, target=target, attributes={"functional": {"kind": "full"}}
            )
            zero = np.zeros((EXAMPLES, 1), np.float32)
            self._probe.append(0, self.output(0), zero, zero)

    @staticmethod
    def output(step: int) -> np.ndarray:
        """Return f (example, output) at a step."""
        sign = np.where(np.arange(EXAMPLES) % 2 == 0, 1.0, -1.0)[:, None]
        return (sign * np.tanh(step / 60) + 0.05 * np.arange(EXAMPLES)[:, None] - 0.2).astype(np.float32)

    @staticmethod
    def loss(step: int) -> float:
        """Return the loss of a step."""
        return float(np.exp(-step / 50) * (5.0 if step == SPIKE else 1.0) + 0.01)

    def train(self, steps: int, *, loss: float | None = None, skipped: bool = False) -> None:
        """Append steps; the writer flushes at `commit`."""
        for _ in range(steps):
            self.step += 1
            self._theta = self._theta - (0.01 * self._random.standard_normal(SIZE)).astype(np.float32)
            norms = np.abs(self._random.standard_normal(len(PARAMETERS))).astype(np.float32)
            self.root.append(
                Row(
                    step=self.step,
                    time=1000.0 + 0.01 * self.step,
                    loss=self.loss(self.step) if loss is None else loss,
                    lr=np.array([0.1]),
                    theta={"float32": self._theta},
                    buffer=None,
                    grad_norm=norms,
                    skipped=skipped,
                    foreign=False,
                    micro=(),
                )
            )
            if self._probe is not None:
                change = self.output(self.step) - self.output(self.step - 1)
                jvp = change * np.float32(1.02)
                slope = self.output(1) - self.output(0)
                self._probe.append(self.step, self.output(self.step), jvp, slope * np.float32(self.step))
        self.writer.commit()

    def close(self, status: str = "complete", reason: str | None = None) -> Path:
        """Finish the trace."""
        self.writer.close(status, reason)  # type: ignore[arg-type]
        return self.path


def finished(path: Path, steps: int = 120, **options: object) -> Path:
    """Write a whole run."""
    run = Run(path, **options)  # type: ignore[arg-type]
    run.train(steps)
    return run.close()


def save_telescoping(
    path: Path, steps: int = 120, layers: tuple[str, ...] = ("fc1", "head"), *, own: bool = False
) -> str:
    """Save a telescoping result with contributions, as `analyze --replay` does; `own`: of each example."""
    step = np.arange(steps + 1)
    actual = np.stack([Run.output(int(at)) for at in step])
    telescoped, lazy = actual * 1.01, actual[:1] + (actual[1] - actual[0]) * step[:, None, None]
    share = np.linspace(1.0, 0.2, len(layers))
    moved = np.abs(np.diff(actual, axis=0, prepend=actual[:1])).sum((1, 2))
    arrays = {
        "step": Array(("step",), step),
        "actual": Array(("step", "example", "output"), actual),
        "telescoped": Array(("step", "example", "output"), telescoped.astype(np.float32)),
        "lazy": Array(("step", "example", "output"), lazy.astype(np.float32)),
        "residual": Array(("step",), 0.01 * moved),
        "contribution": Array(("step", "layer"), moved[:, None] * share),
    }
    if own:
        parts = np.random.default_rng(2).standard_normal((steps + 1, len(layers), *actual.shape[1:]))
        arrays["layer_contribution"] = Array(("step", "layer", "example", "output"), parts)
    result = Result("telescoping", {"probe": "heldout"}, arrays, {"layers": list(layers)})
    return save_result(path, result, "model")


def effective_result(
    steps: int = 120,
    *,
    train: int = 40,
    test: int = 30,
    error: float = 0.0,
    every: int = 1,
    options: Mapping[str, object] | None = None,
) -> Result:
    """Return effective parameters as the metric names them: p_test peaks halfway, p_train only rises."""
    step = np.arange(0, steps + 1, every)
    along = step / max(steps, 1)
    random = np.random.default_rng(0)
    norms, p = {}, {}
    for part, count, course in (
        ("train", train, 0.5 * along),
        ("test", test, 1.2 * np.exp(-(((along - 0.5) / 0.2) ** 2)) * (along > 0) + 0.3 * along),
    ):
        weight = np.exp(random.standard_normal(count))
        norms[part] = course[:, None] * weight / (weight.mean() if count else 1.0)
        p[part] = train / max(count, 1) * norms[part].sum(1)
    arrays = {"step": Array(("step",), step)}
    for part in ("train", "test") if test else ("train",):
        arrays |= {
            f"p_{part}": Array(("step",), p[part]),
            f"p_{part}_se": Array(("step",), error * p[part]),
            f"norms_{part}": Array(("step", part), norms[part]),
        }
    arrays["train"] = Array(("train",), np.arange(train) + 100)
    if test:
        arrays["gap"] = Array(("step",), p["test"] - p["train"])
        arrays["gap_se"] = Array(("step",), 0.5 * error * p["test"])
    scalars = {
        **{f"p_{part}": float(p[part][-1]) for part in ("train", "test") if test or part == "train"},
        "form": "probes" if error else "kernel",
        "exact": not error,
        "probes": 64 if error else 0,
        "loss": "mse",
        "decay": "none",
        "examples_train": train,
        "examples_test": test,
        "discrepancy_telescoped": 0.02,
        "prediction_scale": 1.0,
        "adapter_residual": 3e-7,
        "label_residual": 2e-7,
    }
    provenance = {"probe": "heldout" if test else None, "options": dict(options or {})}
    notes = () if test else ("no held-out examples: give some with `--probe FILE.npz` for p_test",)
    return Result("effective-params", scalars, arrays, provenance, notes)


def save_effective(path: Path, steps: int = 120, **options: Any) -> str:
    """Save a result of `effective_result` in a trace."""
    return save_result(path, effective_result(steps, **options), "model")


def kernel_result(
    steps: int = 120,
    *,
    train: int = 12,
    test: int = 8,
    outputs: int = 2,
    labels: bool = True,
    matrices: tuple[int, ...] = (0, 120),
    options: Mapping[str, object] | None = None,
) -> Result:
    """Return kernels as the metric names them: two classes that come apart, alignment jumping halfway."""
    random = np.random.default_rng(0)
    step = np.arange(0, steps + 1, 10)
    along = step / max(steps, 1)
    classes = {"train": np.arange(train) % 2, "test": np.arange(test) % 2}
    jump = np.where(along < 0.5, 0.1, 0.6)
    arrays = {"step": Array(("step",), step)}
    for part in ("train", "test") if test else ("train",):
        values = {
            "trace": 10 + along,
            "effective_rank": 8 - 4 * along,
            "movement": 0.8 * along,
            "distance": 0.3 * along**2,
            "weight_norm_max": 3 + along * (2 if part == "test" else 1),
        }
        if labels:
            values["alignment"] = jump if part == "train" else 0.5 * jump
        arrays |= {f"{name}_{part}": Array(("step",), data) for name, data in values.items()}
        arrays[part] = Array((part,), np.arange(len(classes[part])) + (100 if part == "train" else 0))
        if labels:
            unit = np.eye(outputs)[classes[part]] if outputs > 1 else 2.0 * classes[part][:, None] - 1
            arrays[f"label_{part}"] = Array((part, "output"), unit)
    spectrum = np.geomspace(100, 1, 5) * (1 + along[:, None])
    arrays["eigenvalues_train"] = Array(("step", "eigenvalue"), spectrum)
    arrays["share_trace_train"] = Array(("step", "layer"), np.full((step.size, 2), [0.7, 0.3]))
    if matrices:
        both = np.concatenate([classes["train"], classes["test"]])
        same = (both[:, None] == both).astype(float)
        noise = random.standard_normal((both.size, outputs, both.size, outputs)) * 0.01
        kept = [
            same[:, None, :, None] * (1 + at / 100) * np.eye(outputs)[None, :, None, :] + noise
            for at in matrices
        ]
        dims = ("matrix_step", "point", "output", "point_column", "output_column")
        arrays["kernel"] = Array(dims, np.stack(kept))
        arrays["matrix_step"] = Array(("matrix_step",), np.array(matrices))
    scalars = {
        "examples_train": train,
        "examples_test": test,
        "outputs": outputs,
        "preconditioned": False,
        "probe": "heldout" if test else None,
    }
    notes = () if test else ("no held-out examples: give some with `--probe FILE.npz`",)
    provenance = {"layers": ["fc1", "head"], "dtype": "float32", "options": dict(options or {})}
    return Result("kernel", scalars, arrays, provenance, notes)


def save_kernel(path: Path, **options: Any) -> str:
    """Save a result of `kernel_result` in a trace."""
    return save_result(path, kernel_result(**options), "model")


def updates_result(
    steps: int = 120,
    *,
    train: int = 40,
    traced: tuple[int, ...] = (0, 2, 5),
    outputs: int = 2,
    influences: bool = True,
    options: Mapping[str, object] | None = None,
) -> Result:
    """Return updates as the metric names them: memory takes over from preconditioning, against decay."""
    step = np.arange(1, steps + 1)
    along = step / steps
    shares = {
        "gradient": np.full(steps, 0.05),
        "clipping": np.zeros(steps),
        "preconditioning": 1.2 - 0.8 * along,
        "memory": 0.8 * along - 0.15,
        "coupled_decay": np.zeros(steps),
        "decoupled_decay": np.full(steps, -0.1),
        "adapter_residual": np.zeros(steps),
    }
    random = np.random.default_rng(1)
    arrays = {"step": Array(("step",), step), "first_order": Array(("step",), 1.5 - along)}
    for term, share in shares.items():
        arrays[f"share_{term}"] = Array(("step",), share)
        arrays[f"effect_{term}"] = Array(("step",), np.abs(share) * (1.5 - along))
    if influences:
        whole = random.standard_normal((len(traced), outputs, train))
        example = np.tile(np.arange(5), (steps, len(traced), 1)) + 100 + step[:, None, None] % 7
        example[:, :, 4] = -1
        arrays |= {
            "traced": Array(("traced",), np.array(traced)),
            "train": Array(("train",), np.arange(train) + 100),
            "influence": Array(("traced", "output", "train"), whole),
            "influence_memory": Array(("traced", "output", "train"), 0.4 * whole),
            "top_example": Array(("step", "traced", "rank"), example),
            "top_influence": Array(
                ("step", "traced", "rank", "output"), random.standard_normal((*example.shape, outputs)) / 50
            ),
        }
    provenance = {"terms": list(shares), "layers": ["fc1"], "options": dict(options or {})}
    scalars = {"probe": "heldout", "from_step": 1, "steps": steps}
    return Result("updates", scalars, arrays, provenance, ("12% of the change is not first-order",))


def save_updates(path: Path, steps: int = 120, **options: Any) -> str:
    """Save a result of `updates_result` in a trace."""
    return save_result(path, updates_result(steps, **options), "model")


def boosting_result(*, options: Mapping[str, object] | None = None) -> Result:
    """Return a comparison with trees as the metric names it: the network's norms and errors rise."""
    share = np.linspace(0, 1, 11)
    series = {
        "norm_net": 0.8 + 2.2 * share,
        "norm_trees": 0.9 + 0.1 * share,
        "error_net": 0.2 + 0.6 * share,
        "error_trees": 0.2 + 0.2 * share,
    }
    series["gap"] = series["error_net"] - series["error_trees"]
    series["relative_increase"] = series["gap"] / series["error_trees"]
    arrays = {"share": Array(("share",), share)}
    for name, values in series.items():
        arrays |= {
            name: Array(("share",), values),
            f"{name}_sd": Array(("share",), np.full(11, 0.05)),
        }
    scalars = {
        "probe": "heldout",
        "irregularity": "pca",
        "examples_train": 100,
        "examples_test": 60,
        "examples_irregular": 6,
        "draws": 50,
        "trees": 200,
    }
    against = {"path": "trees.zarr", "class": "GradientBoostingRegressor"}
    provenance = {"against": against, "options": {"against": "trees.zarr", **(options or {})}}
    return Result("boosting", scalars, arrays, provenance, ("one note",))


def save_boosting(path: Path, **options: Any) -> str:
    """Save a result of `boosting_result` in a trace."""
    return save_result(path, boosting_result(**options), "model")


def events_result(
    steps: int = 120,
    events: Sequence[tuple[str, int, int, int, float, str]] = (
        ("interpolation", 30, 29, 30, 0.9996, "training examples are fitted: accuracy 1"),
        ("loss spike", SPIKE, SPIKE - 1, SPIKE + 1, 1.0, "loss spike: 2.26, 3.8 times the level before"),
        ("grokking", 80, 60, 100, 1.0, "held-out examples follow 50 steps after the fit"),
    ),
    *,
    options: Mapping[str, object] | None = None,
) -> Result:
    """Return a search for events as the metric names it, without a result of the kernel to look at."""
    names = ("kind", "step", "low", "high", "confidence", "text")
    definitions = {
        "interpolation": "the first row at which the fit of the training examples is 0.99 or more, there and "
        "in at least half of all later rows",
        "grokking": "the first row, at twice the step of interpolation or later, from which held-out "
        "examples have half of what they gain after it, which is 0.2 or more",
        "loss spike": "a loss 2 times the median of the 24 rows before it or more, of which half is lost "
        "again",
    }
    provenance = {
        "events": [dict(zip(names, event, strict=True)) for event in events],
        "definitions": definitions,
        "missing": [{"event": "alignment jump", "lacks": "a saved kernel result", "remedy": "kernel"}],
        "results": {},
        "options": dict(options or {}),
    }
    return Result("events", {"steps": steps}, {}, provenance, ("not looked for: alignment jump",))


def save_events(path: Path, **options: Any) -> str:
    """Save a result of `events_result` in a trace."""
    return save_result(path, events_result(**options), "model")
