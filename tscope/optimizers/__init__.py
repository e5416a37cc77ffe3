"""What an optimizer did, as numbers: each recorded update as a linear map of the gradient.

`training_steps` walks a run again with replayed gradients; `LinearStep` is the row of math.md §2's table.
`Loss` is the run's loss and labels, inferred from outputs and their gradients. Needs torch.
"""

from tscope.optimizers.inference import infer_loss
from tscope.optimizers.labels import read_labels
from tscope.optimizers.losses import Loss
from tscope.optimizers.positions import PositionLoss, Positions, infer_positions
from tscope.optimizers.step import LinearStep, StepResidual, TrainingStep
from tscope.optimizers.training import TrainingSteps, training_functional, training_steps

__all__ = [
    "LinearStep",
    "Loss",
    "PositionLoss",
    "Positions",
    "StepResidual",
    "TrainingStep",
    "TrainingSteps",
    "infer_loss",
    "infer_positions",
    "read_labels",
    "training_functional",
    "training_steps",
]
