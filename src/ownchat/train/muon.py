"""Muon: the momentum of a matrix made orthogonal, for the hidden matrices of a model.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the size of the update matched to AdamW's as in
Liu et al. 2025 (arXiv:2502.16982), so that one learning rate and one weight decay serve both. The same numbers as
``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``; matrices of one shape go through one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95  # of long trainings
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic: singular values end between 0.7 and 1.2
ITERATIONS = 5
RMS = 0.2  # of an update's elements, as AdamW's usually are
EPSILON = 1e-7
STACK_BYTES = 64 << 20  # of matrices in one batched product

Whole = Callable[[Sequence[str], Sequence[Tensor]], list[Tensor]]  # this process's rows, by name -> all rows


def hidden_matrices(model: Any) -> set[str]:
    """Names of the weights that are matrices between hidden states: of two dimensions, or one more for experts.

    Not embeddings (of positions, too) nor the output matrix, whose rows are tokens; not vectors; not the kernels of
    convolutions over each channel.
    """
    of_tokens = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    if (head := model.get_output_embeddings()) is not None:
        of_tokens.add(id(head.weight))
    return {
        name
        for name, weight in model.named_parameters()
        if weight.ndim in (2, 3) and min(weight.shape[-2:]) > 1 and id(weight) not in of_tokens
    }


class Muon:
    """The update of some float32 masters, in place.

    ``masters``: by name; all rows of a matrix, or this process's. ``dtype``: of the products. ``whole``: gives all rows
    of what is spread over processes; ``rows``: by name which of these are this process's. ``momentum``: share of it
    that a step keeps.
    """

    def __init__(
        self,
        masters: Mapping[str, nn.Parameter],
        *,
        dtype: torch.dtype,
        whole: Whole | None = None,
        rows: Mapping[str, tuple[int, int]] | None = None,
        momentum: float = MOMENTUM,
    ) -> None:
        self._masters, self._dtype, self._rows, self._kept = dict(masters), dtype, rows or {}, momentum
        self._whole: Whole = (lambda _, updates: list(updates)) if whole is None else whole
        self.momentum = {name: torch.zeros_like(master) for name, master in self._masters.items()}

    @torch.no_grad()
    def step(self, learning_rate: float, weight_decay: float) -> None:
        """Move every master that has a gradient."""
        moved = [(name, master) for name, master in self._masters.items() if master.grad is not None]
        updates = []
        for name, master in moved:
            assert master.grad is not None
            momentum = self.momentum[name].lerp_(master.grad, 1 - self._kept)
            updates.append(master.grad.lerp(momentum, self._kept))  # Nesterov's
        for number, update in orthogonal(self._whole([name for name, _ in moved], updates), self._dtype):
            name, master = moved[number]
            scale = RMS * math.sqrt(max(update.shape[-2:]))
            if name in self._rows:
                first, last = self._rows[name]
                update = update[first:last]
            master.mul_(1 - learning_rate * weight_decay).add_(update, alpha=-learning_rate * scale)


def orthogonal(matrices: Sequence[Tensor], dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """(number, nearly the nearest orthogonal matrix) of each, in groups of one shape; of more dimensions all of its
    matrices."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for number, matrix in enumerate(matrices):
        rows, columns = sorted(matrix.shape[-2:])
        by_shape.setdefault((rows, columns), []).append(number)
    for (rows, columns), numbers in by_shape.items():
        most = max(1, STACK_BYTES // (rows * columns * dtype.itemsize))
        for group in _filled(numbers, [math.prod(matrices[number].shape[:-2]) for number in numbers], most):
            flat = [matrices[number].reshape(-1, *matrices[number].shape[-2:]) for number in group]
            wide = [matrix.mT if matrix.shape[-2] > matrix.shape[-1] else matrix for matrix in flat]
            made = newton_schulz(torch.cat([matrix.to(dtype) for matrix in wide]))
            for number, part in zip(group, made.split([len(matrix) for matrix in flat]), strict=True):
                shape = matrices[number].shape
                yield number, (part.mT if shape[-2] > shape[-1] else part).reshape(shape)


def newton_schulz(x: Tensor) -> Tensor:
    """Matrices [n, rows, columns], rows <= columns, with their singular values brought near 1."""
    a, b, c = COEFFICIENTS
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return x


def _filled(numbers: Sequence[int], sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers in groups of at most ``most`` matrices, or of one that has more."""
    held: list[int] = []
    total = 0
    for number, size in zip(numbers, sizes, strict=True):
        if held and total + size > most:
            yield held
            held, total = [], 0
        held.append(number)
        total += size
    yield held
