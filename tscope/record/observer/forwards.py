"""What the observer does when the script calls a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import torch

from .batch import Batch, Inputs, copied_output, watch
from .called import Called
from .evaluation import Evaluation
from .memory import is_real
from .tree import leaves

if TYPE_CHECKING:
    from .recorder import Recorder

# Called at every forward: under their own names they need not be looked up part by part.
_transforms = torch._C._functorch.peek_interpreter_stack
_tracing = torch._C._get_tracing_state
_graph_task = torch._C._current_graph_task_id

_MOST_EVALUATED_OUTPUTS = 4
_MOST_EVALUATED_BYTES = 4 << 20


class Forwards:
    """Copies batches of training and samples of evaluation.

    Args:
        recorder: The process's recorder.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def before_forward(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        """Look at a call by the script itself; returns what `after_forward` needs, or None."""
        # A checkpoint computes its block again, within a backward.
        if _transforms() is not None or _tracing() is not None or _graph_task() != -1:
            return None
        recorder = self._recorder
        called = recorder.modules.meet(module)
        if called is None:
            return None
        if recorder.dead:
            self.bury()
        if not torch.is_grad_enabled():
            return self._evaluate(called, "no_grad" if module.training else "eval", args, kwargs)
        root = called.root
        if called.ignored or (called if root is None else root).parameters.replaced:
            return None
        called.budget.trained()
        if root is None or root.manual:
            self._compare(called)
            root = called.root
        if root is None and called.buffer_0 is None:
            called.buffer_0 = called.buffers.copy(recorder.pool)
        inputs = Inputs(args, kwargs, called.leading)
        batch = Batch(called, inputs.size)
        batch.eval_mode = not module.training
        if root is None or (root.steps + 1) % recorder.options.every == 0:
            batch.mine = True
            batch.inputs = inputs.copy(recorder.pool)
            for _, copied in batch.inputs:
                batch.bytes += copied.size
        if root is None or not root.exported:
            batch.call = (args, kwargs)
        return batch

    def after_forward(self, token: Any, result: Any) -> None:
        """Look at what the call returned."""
        if isinstance(token, Evaluation):
            self._evaluated(token, result)
            return
        batch: Batch = token
        called: Called = batch.owner
        recorder = self._recorder
        watched = watch(batch, result, recorder)
        if not watched:
            batch.owner = None
            if batch.eval_mode and batch.inputs:
                self._late_evaluation(called, batch, result)
            return
        called.untaken += 1
        called.pending.append(batch)
        if not batch.mine:
            return
        options = recorder.options
        wanted = options.output or (called.root.path if called.root is not None else None)
        if options.outputs == 0:
            return
        for path, tensor in watched:
            if wanted is not None and path != wanted:
                continue
            fits = tensor.dim() and (wanted is not None or tensor.size(0) in batch.lengths())
            # The output now, its gradient later.
            if fits and self._affordable(called, 8 * tensor.numel()):
                batch.outputs[path] = copied = copied_output(recorder.pool, tensor)
                batch.bytes += 2 * copied.size  # its gradient is to come

    def _affordable(self, called: Called, size: int) -> bool:
        limit = self._recorder.options.outputs
        if limit < 0:
            return True
        used = 0
        for batch in called.pending:
            for copied in batch.outputs.values():
                used += 2 * copied.size
        if used + size <= limit:
            return True
        text = "they and their gradients take {} bytes a step, over the limit of {} (--outputs all|BYTES)"
        self._recorder.faults.note("outputs", text.format(used + size, limit))
        return False

    def _compare(self, called: Called) -> None:
        """See whether the script changed the parameters itself since the last training forward."""
        if called.root is not None:
            if called.arrived() and not called.root.parameters.equals(called.root.theta, self._recorder.pool):
                self._recorder.rows.manual(called.root)
            return
        if called.theta_0 is not None:
            if called.parameters.equals(called.theta_0, self._recorder.pool):
                return
            if called.arrived():
                root = self._recorder.steps.root(called.module, manual=True)
                if root is not None:
                    self._recorder.rows.manual(root)
                return
            called.drop_parameters()
            called.buffer_0 = None
        if not any(not root.manual for root in self._recorder.roots):
            called.theta_0 = called.parameters.copy(self._recorder.pool)

    def _evaluate(self, called: Called, mode: str, args: Any, kwargs: Any) -> Optional[Evaluation]:
        inputs = Inputs(args, kwargs, called.leading)
        if called.leading is None and len({tensor.size(0) for _, tensor in inputs.tensors}) > 1:
            return None  # which of them hold examples is not known before a training step
        rows = called.budget.rows(inputs)
        if not rows or not called.budget.spend(inputs, rows):
            return None
        step = called.root.steps if called.root is not None else 0
        return Evaluation(mode, inputs.size or 0, rows, inputs.copy(self._recorder.pool, rows), step, called)

    def _evaluated(self, evaluation: Evaluation, result: Any) -> None:
        called: Called = evaluation.called
        rows, size, pool = evaluation.rows, evaluation.size, self._recorder.pool
        for path, tensor in leaves(result) if self._recorder.options.outputs != 0 else ():
            if len(evaluation.outputs) == _MOST_EVALUATED_OUTPUTS:
                break
            fits = tensor.is_floating_point() and tensor.dim() and tensor.shape[0] == size and is_real(tensor)
            if fits and tensor.numel() // size * rows * 4 <= _MOST_EVALUATED_BYTES:
                evaluation.outputs.append((path, copied_output(pool, tensor, rows)))
        self._keep_evaluation(called, evaluation)

    def _late_evaluation(self, called: Called, batch: Batch, result: Any) -> None:
        """A forward in evaluation mode that kept a graph for nothing: an evaluation all the same."""
        size = batch.size or 0
        if called.leading is None and len(batch.lengths()) > 1:
            return
        evaluation = Evaluation(
            "eval", size, size, batch.inputs, called.root.steps if called.root else 0, called
        )
        evaluation.outputs = list(batch.outputs.items())
        if called.budget.late(size, batch.inputs):
            batch.inputs, batch.outputs = [], {}
            self._keep_evaluation(called, evaluation)

    def _keep_evaluation(self, called: Called, evaluation: Evaluation) -> None:
        called.evaluations.append(evaluation)
        if called.root is not None and called.root.announced:
            rows, faults = self._recorder.rows, self._recorder.faults
            faults.aside("evaluation", rows.evaluations, called.root, called)

    def bury(self) -> None:
        """Let go of batches whose graph is gone: no gradient can come any more."""
        while self._recorder.dead:
            batch = self._recorder.dead.popleft()
            called = batch.owner
            if called is None or batch.arrived:
                continue
            if batch.eval_mode and batch.inputs:
                self._late_evaluation(called, batch, None)
            called.drop([batch])
