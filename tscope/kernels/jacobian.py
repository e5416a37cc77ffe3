"""J = ∂f/∂θ of a recorded program: blocks of the tangent kernel, and products with many vectors at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, UsageError

from tscope.kernels.arguments import diagonal_of, names_of, tangents_of
from tscope.kernels.capture import Use, capture
from tscope.kernels.differentiate import gradient_of_each, per_example, pull_columns
from tscope.kernels.factors import Explicit
from tscope.kernels.plan import Plan, plan_for
from tscope.kernels.product import Columns, add_block, by_parameter, merged_biases
from tscope.kernels.sketch import Signs
from tscope.program.derivatives import Chunk, Tensors, chunks, detached, evaluate, jvp
from tscope.program.functional import OutputFunctional
from tscope.program.program import Program

_MEMORY = 512 << 20


class Jacobian:
    """J of one program at one (θ, buffers): rows (example, output), columns the parameters.

    J is never formed. Layers that are linear in their parameters give theirs as products of what they read
    and of the output's gradients behind them (math.md §4); what is used in any other way is differentiated an
    example at a time. All products are exact up to rounding, in the program's dtype and on its device.

    The examples must not influence each other, as they do not in eval mode.

    Attributes:
        names: the parameters that J is over.
    """

    def __init__(
        self,
        program: Program,
        functional: OutputFunctional,
        parameters: Tensors,
        buffers: Tensors,
        *,
        wrt: Collection[str] | None = None,
        memory: int = _MEMORY,
    ) -> None:
        """Prepare the products; nothing is computed yet.

        Args:
            program: the model.
            functional: what of the output to follow: all of it, or some positions.
            parameters: θ by name.
            buffers: by name.
            wrt: the parameters that J is over: those that were trained. None for all floating ones.
            memory: bytes to use for intermediate values, beside the arguments and the result.

        Raises:
            UsageError: if the functional has targets (they belong to one set of examples), or a name in
                `wrt` is not a floating parameter of the program.
            AnalysisError: if a parameter is missing or complex.
        """
        if functional.target is not None:
            raise UsageError(
                f"a Jacobian takes any examples, but the functional {functional.kind!r} has the targets of "
                "one set of them; use full or index"
            )
        self._program = program
        self._functional = functional
        self._point = detached(program, parameters)
        self._buffers = buffers
        # Half of it for the columns' values: each time that they do not fit, all the rows are passed again.
        self._columns, self._formed = memory // 2, memory // 4
        self._rows = self._kept = memory // 8
        self.names = names_of(program, self._point, wrt)
        self._device = next((value.device for value in self._point.values()), torch.device("cpu"))
        self._dtype = program.dtype or torch.float32
        for name in self.names if program.dtype is None else ():
            self._dtype = torch.promote_types(self._dtype, self._point[name].dtype)
        if self._dtype.itemsize < torch.float32.itemsize:
            self._dtype = torch.float32  # products of many terms need more digits than the model has

    def block(
        self, rows: Sequence[Tensor], columns: Sequence[Tensor], preconditioner: Tensors | None = None
    ) -> Tensor:
        """Return K = J(rows) diag(D) J(columns)ᵀ (row, output, column, output).

        Without D, a linear layer costs 2·N·B·(d_in + C²·d_out) flops, N rows and B columns; with D,
        2·N·B·C·(d_in·d_out) exactly. Both take C backward passes over the rows and the columns.

        Args:
            rows: inputs, each (row, …).
            columns: inputs, each (column, …).
            preconditioner: D by parameter name, of the parameters' shapes; None for the identity.

        Raises:
            UsageError: if D lacks a parameter or has another shape.
            AnalysisError: if examples influence each other, or memory runs out.
        """
        return self.blocks(rows, columns, [self.names], preconditioner)[0]

    def blocks(
        self,
        rows: Sequence[Tensor],
        columns: Sequence[Tensor],
        groups: Sequence[Collection[str]],
        preconditioner: Tensors | None = None,
    ) -> Tensor:
        """Return the part of K due to each group of parameters (group, row, output, column, output).

        Over groups that hold every parameter of J once, the parts add up to `block`, at its cost.

        Args:
            rows: inputs, each (row, …).
            columns: inputs, each (column, …).
            groups: names of parameters; those that J is not over contribute nothing.
            preconditioner: D by parameter name, of the parameters' shapes; None for the identity.

        Raises:
            UsageError: if D lacks a parameter or has another shape.
            AnalysisError: if examples influence each other, or memory runs out.
        """
        D = (
            None
            if preconditioner is None
            else diagonal_of(preconditioner, self.names, self._point, self._dtype)
        )
        plan = self._plan(rows)
        total, width, c = self._total(rows), self._total(columns), plan.outputs
        K = torch.zeros(len(groups), total, c, width, c, dtype=self._dtype, device=self._device)
        if not plan.sites and not plan.rest:
            return K
        left = 0
        for lefts in self._parts(columns, plan, self._columns):
            uses, rest = self._factors(lefts, plan)
            right = Columns(by_parameter(uses, rest), self._kept)
            m = lefts.count if lefts.count >= 0 else width
            top = 0
            for tops in self._parts(rows, plan, self._rows):
                uses, rest = self._factors(tops, plan)
                factors = by_parameter(uses, rest)
                biases = merged_biases(uses) if D is None else {}
                n = tops.count if tops.count >= 0 else total
                for part, group in zip(K, groups, strict=True):
                    within = {name: found for name, found in factors.items() if name in group}
                    merged = {w: b for w, b in biases.items() if w in group and b in group}
                    add_block(within, right, merged, D, self._formed, part[top : top + n, :, left : left + m])
                top += n
            left += m
        return K

    def pushforward(self, inputs: Sequence[Tensor], tangents: Mapping[str, Tensor]) -> Tensor:
        """Return J V (example, output, k).

        Fewer columns than outputs: a forward-mode pass for each column. Else C backward passes, and for a
        linear layer 2·N·k·(d_in·d_out + C·d_out) flops.

        Args:
            inputs: each (example, …).
            tangents: V (k, *parameter) by name; parameters without one stay fixed.

        Raises:
            UsageError: if a tangent's shape does not fit, or their numbers of columns differ.
        """
        V = tangents_of(tangents, self.names, self._point, self._dtype)
        k = len(next(iter(V.values())))
        plan = self._plan(inputs)
        if k < plan.outputs:
            return self._push_whole(inputs, V, plan)
        whole = {name: V[name] for name in plan.rest if name in V}
        found = self._push_whole(inputs, whole, plan) if whole else None
        strips = []
        for part in self._parts(inputs, plan, self._columns):
            uses = [use for use in self._uses(part, plan) if use.operand.parameter in V]
            if uses:
                products = (use.factor.push(V[use.operand.parameter], self._formed) for use in uses)
                strips.append(reduce(add, products))
        if not strips:
            return self._push_whole(inputs, V, plan) if found is None else found
        layers = torch.cat(strips)
        return layers if found is None else layers + found

    def pushforward_parts(
        self, inputs: Sequence[Tensor], tangents: Mapping[str, Tensor], groups: Sequence[Collection[str]]
    ) -> Tensor:
        """Return what each group of parameters adds to J V (group, example, output, k).

        C backward passes, whatever the number of groups, and the products of `pushforward`; a forward-mode
        pass for each column and each group with parameters that enter through no layer.

        Args:
            inputs: each (example, …).
            tangents: V (k, *parameter) by name; parameters without one stay fixed.
            groups: names of parameters, each in one group at most.

        Raises:
            UsageError: if a tangent's shape does not fit, or their numbers of columns differ.
        """
        V = tangents_of(tangents, self.names, self._point, self._dtype)
        plan = self._plan(inputs)
        place = {name: index for index, names in enumerate(groups) for name in names}
        k = len(next(iter(V.values())))
        shape = (len(groups), self._total(inputs), plan.outputs, k)
        found = torch.zeros(shape, dtype=self._dtype, device=self._device)
        start = 0
        for part in self._parts(inputs, plan, self._columns) if plan.sites else ():
            for use in self._uses(part, plan):
                name = use.operand.parameter
                if name in V and name in place:
                    product = use.factor.push(V[name], self._formed)
                    found[place[name], start : start + len(product)] += product
            start += max(part.count, 0)
        for names, total in zip(groups, found, strict=True):
            whole = {name: V[name] for name in plan.rest if name in V and name in names}
            if whole:
                total += self._push_whole(inputs, whole, plan)
        return found

    def contract(
        self, inputs: Sequence[Tensor], cotangents: Tensor, tangents: Mapping[str, Tensor]
    ) -> Tensor:
        """Return uᵀJ V (example, k): each example's gradient of its own u·f, along every column of V.

        One backward pass, whatever the number of outputs, and for a linear layer 2·N·k·d_in·d_out flops; for
        parameters that enter through no layer, a backward pass for each example. J V (example, output, k),
        which outputs of many positions make large, is never held.

        Args:
            inputs: each (example, …).
            cotangents: u (example, output).
            tangents: V (k, *parameter) by name; parameters without one stay fixed.

        Raises:
            UsageError: if a tangent's shape or that of u does not fit, or their numbers of columns differ.
        """
        V = tangents_of(tangents, self.names, self._point, self._dtype)
        plan = self._plan(inputs)
        total, k = self._total(inputs), len(next(iter(V.values())))
        if tuple(cotangents.shape) != (total, plan.outputs):
            raise UsageError(
                f"the cotangents have the shape {tuple(cotangents.shape)}, expected ({total}, {plan.outputs})"
            )
        u = cotangents.detach().to(self._dtype)
        found = u.new_zeros(total, k)
        start = 0
        rows = max(1, int(self._columns / (plan.single * self._dtype.itemsize)))
        whole = [name for name in plan.rest if name in V]
        for part in chunks(self._program, self._functional, inputs, rows):
            piece = u[start : start + part.count] if part.count >= 0 else u
            own = gradient_of_each(self._program, whole, self._point, self._buffers, part, piece)
            for row, gradients in enumerate(own if whole else (), start):
                for name, gradient in gradients.items():
                    found[row] += V[name].reshape(k, -1) @ gradient.reshape(-1).to(self._dtype)
            uses = capture(
                self._program, plan.sites, self._point, self._buffers, part, self._dtype, along=piece
            )
            for use in uses:
                if use.operand.parameter in V:
                    product = use.factor.push(V[use.operand.parameter], self._formed)[:, 0]
                    found[start : start + len(product)] += product
            start += max(part.count, 0)
        return found

    def pullback(self, inputs: Sequence[Tensor], cotangents: Tensor) -> dict[str, Tensor]:
        """Return Jᵀ R (k, *parameter) for every parameter of J.

        Fewer columns than outputs: a backward pass for each column. Else C backward passes, and for a linear
        layer 2·B·k·(d_in·d_out + C·d_out) flops.

        Args:
            inputs: each (example, …).
            cotangents: R (example, output, k).

        Raises:
            UsageError: if R is not of the outputs' shape.
        """
        plan = self._plan(inputs)
        total = self._total(inputs)
        if cotangents.dim() != 3 or cotangents.shape[1] != plan.outputs or len(cotangents) != total:
            raise UsageError(
                f"the cotangents have the shape {tuple(cotangents.shape)}, "
                f"expected ({total}, {plan.outputs}, columns)"
            )
        R = cotangents.detach().to(self._dtype)
        k = R.shape[2]
        found = {n: R.new_zeros(k, *self._point[n].shape) for n in self.names}
        by_layers = k >= plan.outputs
        whole = plan.rest if by_layers else self.names
        start = 0
        for part in self._parts(inputs, plan, self._columns):
            piece = R[start : start + part.count] if part.count >= 0 else R
            start += part.count
            for use in self._uses(part, plan) if by_layers else []:
                found[use.operand.parameter] += use.factor.pull(piece, self._formed)
            if whole:
                columns = pull_columns(self._program, whole, self._point, self._buffers, part, piece)
                for name, value in columns.items():
                    found[name] += value
        return found

    def each(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return J itself (example·output, *parameter) for every parameter.

        C backward passes, and for a linear layer 2·N·C·(d_in·d_out) flops at each position.
        """
        plan = self._plan(inputs)
        strips: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for part in self._parts(inputs, plan, self._rows):
            factors = by_parameter(*self._factors(part, plan))
            height = (part.count if part.count >= 0 else self._total(inputs)) * plan.outputs
            for name, found in strips.items():
                own = [factor.each().to(self._dtype) for factor in factors.get(name, ())]
                found.append(reduce(add, own) if own else self._zeros(height, name))
        # Without a copy where all examples were taken at once: these are large.
        return {name: found[0] if len(found) == 1 else torch.cat(found) for name, found in strips.items()}

    def sketch(self, inputs: Sequence[Tensor], signs: Signs) -> Tensor:
        """Return φ (example, output, column), whose products φ(x)·φ(x')ᵀ are K on average over the signs.

        C backward passes, and for a linear layer 2·N·columns·(d_in + C·d_out) flops.

        Args:
            inputs: each (example, …).
            signs: of the columns.

        Raises:
            AnalysisError: if examples influence each other.
        """
        plan = self._plan(inputs)
        if not plan.sites and not plan.rest:
            shape = (self._total(inputs), plan.outputs, signs.columns)
            return torch.zeros(shape, dtype=self._dtype, device=self._device)
        return torch.cat(
            [
                signs.sketch(by_parameter(*self._factors(part, plan)), self._formed)
                for part in self._parts(inputs, plan, self._rows)
            ]
        )

    def _plan(self, inputs: Sequence[Tensor]) -> Plan:
        names = frozenset(self.names)
        return plan_for(self._program, self._functional, names, self._point, self._buffers, inputs)

    def _parts(self, inputs: Sequence[Tensor], plan: Plan, memory: int) -> Iterator[Chunk]:
        """Yield the examples, as many at a time as the memory holds."""
        each = plan.elements * self._dtype.itemsize
        return chunks(self._program, self._functional, inputs, max(1, int(memory / each)))

    def _uses(self, part: Chunk, plan: Plan) -> list[Use]:
        return capture(self._program, plan.sites, self._point, self._buffers, part, self._dtype)

    def _factors(self, part: Chunk, plan: Plan) -> tuple[list[Use], dict[str, Tensor]]:
        uses = self._uses(part, plan)
        rest: dict[str, Tensor] = {}
        if plan.rest:
            rest = self._per_example(plan.rest, part, plan)
        return uses, {name: value.to(self._dtype) for name, value in rest.items()}

    def _per_example(self, names: Sequence[str], part: Chunk, plan: Plan) -> dict[str, Tensor]:
        point, buffers = self._point, self._buffers
        batched = plan.batched(self._program, point, buffers, part)
        return per_example(self._program, names, point, buffers, part, batched=batched)

    def _push_whole(self, inputs: Sequence[Tensor], V: Tensors, plan: Plan) -> Tensor:
        """Return J V by differentiation of the whole program, a forward-mode pass for each column."""
        rows = max(1, int(self._columns / (plan.elements * self._dtype.itemsize)))
        columns = []
        for column in range(len(next(iter(V.values())))):
            tangents = {name: value[column] for name, value in V.items()}
            try:
                _, product = jvp(
                    self._program, self._functional, self._point, tangents, self._buffers, inputs, rows
                )
            except AnalysisError:  # some operator has neither a forward nor a second derivative
                return self._push_explicit(inputs, V, plan)
            columns.append(product.to(self._dtype))
        return torch.stack(columns, 2)

    def _push_explicit(self, inputs: Sequence[Tensor], V: Tensors, plan: Plan) -> Tensor:
        """Return J V by the Jacobian itself, from reverse mode alone."""
        strips = []
        for part in self._parts(inputs, plan, self._rows):
            found = self._per_example(tuple(V), part, plan)
            products = (
                Explicit(value.to(self._dtype)).push(V[name], self._formed) for name, value in found.items()
            )
            strips.append(reduce(add, products))
        return torch.cat(strips)

    def _zeros(self, height: int, name: str) -> Tensor:
        return torch.zeros((height, *self._point[name].shape), dtype=self._dtype, device=self._device)

    def _total(self, inputs: Sequence[Tensor]) -> int:
        """Return how many rows the output has on these inputs."""
        for entry in self._program.arguments:
            if entry.batch:
                return len(inputs[entry.index])
        return len(evaluate(self._program, self._functional, self._point, self._buffers, inputs))
