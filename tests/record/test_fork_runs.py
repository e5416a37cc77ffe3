"""Forks, with the runs played: what is started, verified, said and returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_run import Run, Script, rows
from tscope_format import open_trace
from tscope_format.errors import RecordError

from tscope.averaging import last_common_step
from tscope.record import RecordOptions, fork_runs, recorder
from tscope.record.fork import Forks
from tscope.record.outcome import Outcome
from tscope.trace import open as open_run

STEPS = 12
EPOCH = 5


@dataclass
class Training:
    """How the script behaves, and what was run.

    Attributes:
        noise: Its updates are drawn anew after a fork.
        order: Its batches are drawn anew after a fork: "at once", "next epoch" or "never".
        wanders_from: The step from which each run is another one, fork or not.
        code: What the forks end with.
        reseeds: The observer gets to reseed.
        known: Its examples are identified.
    """

    noise: bool = True
    order: str = "at once"
    wanders_from: int = STEPS
    code: int = 0
    reseeds: bool = True
    known: bool = True
    started: list[Path] = field(default_factory=list)

    def play(self, folder: Callable[[], Path], options: RecordOptions, out: Path) -> tuple[int, Outcome]:
        self.started.append(out)
        run = Run(folder(), out=out, fork=options.fork, every=options.every, force=options.force)
        script, fork = Script(run.address), options.fork
        script.root()
        for step in range(STEPS):
            if step == self.wanders_from:
                script.random = np.random.default_rng(len(self.started))
            if fork is not None and step == fork.step:
                if self.reseeds:
                    script.send("fork", {"numpy": True, "own": {"torch.Generator": 2}})
                if self.noise:
                    script.random = np.random.default_rng(100 + fork.seed)
            parted = fork is not None and step >= self._from(fork.step)
            seed = step + 50 * parted
            if (step + 1) % options.every == 0:
                script.step(rows(8, seed) if self.known else None)
            else:
                script.step_number += 1
        script.send("bye", {"hook_ns": 1, "wait_ns": 0})
        script.leave()
        return self.code if fork else 0, run.finish()

    def _from(self, step: int) -> int:
        later = -(-step // EPOCH) * EPOCH
        return {"at once": step, "next epoch": later, "never": STEPS}[self.order]


@dataclass
class Sweep:
    training: Training
    out: Path
    code: int
    said: list[str]

    def fork(self, step: int = 4, seed: int = 1) -> Path:
        return self.out.with_name(f"t-fork{step}-seed{seed}.zarr")

    def facts(self, step: int = 4, seed: int = 1) -> dict[str, Any]:
        fork: dict[str, Any] = open_trace(self.fork(step, seed)).facts["fork"]
        return fork


@pytest.fixture
def sweep(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Sweep]:
    """Record a training, and its forks."""

    def record(forks: Forks | None = None, options: dict[str, Any] | None = None, **training: Any) -> Sweep:
        played, said = Training(**training), []
        monkeypatch.setattr(
            fork_runs,
            "run",
            lambda command, options, out: played.play(lambda: tmp_path_factory.mktemp("r"), options, out),
        )
        for module in (fork_runs, recorder):
            monkeypatch.setattr(module, "say", said.append)
        chosen = RecordOptions(out=tmp_path / "t.zarr", **(options or {}))
        code = fork_runs.record_forks(["python", "train.py"], chosen, forks or Forks((4,)))
        return Sweep(played, tmp_path / "t.zarr", code, said)

    return record


def test_a_fork_is_the_same_up_to_its_step_and_another_one_after(sweep: Callable[..., Sweep]) -> None:
    done = sweep()
    assert done.code == 0
    assert done.training.started == [done.out, done.fork()]
    fork = done.facts()
    assert (fork["verified"], fork["problem"]) == (True, None)
    assert (fork["step"], fork["seed"], fork["same_until"], fork["batches_from"]) == (4, 1, 4, 5)
    assert (fork["base"], fork["base_id"]) == ("t.zarr", open_trace(done.out).facts["id"])
    assert fork["reseeded"] == {"numpy": True, "own": {"torch.Generator": 2}}
    assert last_common_step([open_run(done.out), open_run(done.fork())], STEPS) == fork["same_until"]
    assert open_trace(done.out).facts["forks"] == [
        {"trace": "t-fork4-seed1.zarr", "step": 4, "seed": 1, "same_until": 4}
    ]
    assert "fork" not in open_trace(done.out).facts
    assert done.said[-2:] == [
        "fork at step 4, seed 1: parameters are those of t.zarr up to step 4, and others after it; batches "
        "differ from step 5 on",
        f"next: tscope forks {done.out} --compute",
    ]


def test_an_order_drawn_before_the_fork_is_used_up_first(sweep: Callable[..., Sweep]) -> None:
    done = sweep(order="next epoch")
    assert done.facts()["batches_from"] == 6
    assert done.said[-2].endswith(
        "batches differ from step 6 on (until then in an order drawn before the fork)"
    )


def test_batches_that_stay_the_same_are_told(sweep: Callable[..., Sweep]) -> None:
    done = sweep(order="never")
    assert done.code == 0
    assert done.facts()["verified"]
    assert done.facts()["batches_from"] is None
    assert (
        "the 8 batches after the fork are the same in both: the order of the data is fixed, or was not "
        "reseeded; --reseed-generators looks for generators that the script made"
    ) in done.said[-2]


def test_batches_that_are_not_identified_are_not_compared(sweep: Callable[..., Sweep]) -> None:
    done = sweep(known=False)
    assert done.code == 0
    assert done.said[-2].endswith(
        "whether batches differ is not known, since their examples were not identified"
    )


@pytest.mark.parametrize(
    ("generators", "hint"),
    [
        (False, "or draws from generators of its own: --reseed-generators looks for those"),
        (True, "draws from a generator that is not among the 2 of its own that were found"),
    ],
)
def test_a_script_that_ignores_the_reseeding_is_no_fork(
    sweep: Callable[..., Sweep], generators: bool, hint: str
) -> None:
    done = sweep(Forks((4,), (1,), generators), noise=False, order="never")
    assert done.code == 1
    assert not done.facts()["verified"]
    assert "the script ignores the reseeding: its parameters and batches are those of t.zarr" in done.said[-1]
    assert "up to the end, 8 steps later" in done.said[-1]
    assert done.said[-1].endswith(hint)
    assert "forks" not in open_trace(done.out).facts


def test_a_script_that_does_not_repeat_itself_is_no_fork(sweep: Callable[..., Sweep]) -> None:
    done = sweep(wanders_from=2)
    assert done.code == 1
    assert (done.facts()["verified"], done.facts()["same_until"]) == (False, 2)
    assert done.said[-1].endswith(
        "this is no fork, the script does not repeat itself: its parameters differ from those of t.zarr "
        "after step 2 already"
    )


def test_a_fork_that_is_not_reached_is_not_run(sweep: Callable[..., Sweep]) -> None:
    done = sweep(Forks((4, 12, 13)))
    assert done.code == 1
    assert done.training.started == [done.out, done.fork()]
    earlier = "; take an earlier one for `--fork-at`"
    assert f"fork at step 12, seed 1: never reached: step 12 is the last of the run{earlier}" in done.said
    assert (
        f"fork at step 13, seed 1: never reached: step 13 is beyond the run's last step, 12{earlier}"
        in done.said
    )


def test_an_observer_that_could_not_reseed_is_told(sweep: Callable[..., Sweep]) -> None:
    done = sweep(reseeds=False, noise=False, order="never")
    assert done.code == 1
    assert "nothing was reseeded: the observer failed or was disconnected before" in done.said[-1]


def test_the_scripts_exit_code_wins_and_ends_the_sweep(sweep: Callable[..., Sweep]) -> None:
    done = sweep(Forks((4,), (1, 2)), code=3)
    assert done.code == 3
    assert done.training.started == [done.out, done.fork()]
    assert "the script ended with exit code 3" in done.said
    assert done.said[-1] == "1 fork not run, since this one failed"
    assert sweep(options={"force": True}, code=-2).code == 130


def test_there_is_a_run_for_each_step_and_seed(sweep: Callable[..., Sweep]) -> None:
    done = sweep(Forks((0, 4), (1, 2)), {"every": 2})
    assert done.code == 0
    places = [(0, 1), (0, 2), (4, 1), (4, 2)]
    assert done.training.started == [done.out, *(done.fork(*place) for place in places)]
    assert [done.facts(*place)["same_until"] for place in places] == [0, 0, 4, 4]
    listed = open_trace(done.out).facts["forks"]
    assert [(fork["step"], fork["seed"]) for fork in listed] == places


def test_quiet_says_only_what_went_wrong(sweep: Callable[..., Sweep]) -> None:
    assert sweep(options={"quiet": True}).said == []
    ignored = sweep(options={"quiet": True, "force": True}, noise=False, order="never")
    assert len(ignored.said) == 1


def test_any_output_that_exists_is_refused_before_anything_starts(
    sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    (tmp_path / "t-fork4-seed2.zarr").mkdir()
    with pytest.raises(RecordError, match=r"t-fork4-seed2\.zarr exists already"):
        sweep(Forks((4,), (1, 2)))
    assert not (tmp_path / "t.zarr").exists()
