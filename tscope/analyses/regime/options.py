"""The options of the metric `regime`."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_format.errors import UsageError, clean

from tscope.analyses.kernel.options import Options as KernelOptions

PARTS = ("kernel", "features", "modes")


@dataclass(frozen=True)
class Options:
    """The options of the metric; those not named here are those of the metric `kernel`.

    Attributes:
        parts: What to compute beside the movement of the parameters, comma-separated: kernel, features (the
            input of the last linear layer), modes (singular modes of a linear net, with closed forms).
            Default: all that the trace allows.
    """

    parts: str | None = None
    at: str | None = None
    every: int | None = None
    train: int | None = None
    test: int | None = None
    probe: str | None = None
    seed: int = 0
    loss: str = "auto"
    labels: str | None = None
    dtype: str | None = None
    max_memory_mb: float = 1024

    def __post_init__(self) -> None:
        unknown = sorted(set(self.asked or ()) - set(PARTS))
        if unknown:
            raise UsageError(f"unknown part {clean(unknown[0])!r} in parts; there is {', '.join(PARTS)}")
        self.kernel()

    @property
    def asked(self) -> tuple[str, ...] | None:
        """The parts that were asked for by name; None for all that there can be."""
        return None if self.parts is None else tuple(part.strip() for part in self.parts.split(","))

    def wants(self, part: str) -> bool:
        """Whether a part is to be computed, if it can be."""
        return self.asked is None or part in self.asked

    def kernel(self) -> KernelOptions:
        """Return the options of the kernels, which also choose rows and examples.

        Raises:
            UsageError: One of them is out of range.
        """
        return KernelOptions(
            at=self.at,
            every=self.every,
            form="exact",
            train=self.train,
            test=self.test,
            probe=self.probe,
            seed=self.seed,
            layers=False,
            loss=self.loss,
            labels=self.labels,
            dtype=self.dtype,
            max_memory_mb=self.max_memory_mb,
        )
