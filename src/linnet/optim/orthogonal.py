"""Orthogonal matrices near given ones, by Newton-Schulz iteration: products only, for one matrix or many at once."""

from __future__ import annotations

import torch
from torch import Tensor

# A quintic whose slope at zero is as steep as it can be while singular values stay near 1 (Jordan, 2024).
_CONSTANT, _LINEAR, _SQUARE = 3.4445, -4.7750, 2.0315
# From this ratio of the sides on, iterating the Gram matrix costs fewer operations than iterating the matrix.
_LEAST_RATIO_FOR_GRAM = 1.5


@torch.no_grad()
def orthogonalize(
    matrix: Tensor, steps: int = 5, eps: float = 1e-7, dtype: torch.dtype | None = torch.bfloat16
) -> Tensor:
    """The singular vectors of `matrix` with singular values near 1, by Newton-Schulz iteration (Jordan et al., 2024).

    Args:
        matrix: (rows, columns), or (matrices, rows, columns); floating-point.
        steps: iterations.
        eps: least norm by which a matrix is divided first.
        dtype: what is computed in, and the type of the result. None: bfloat16 on CUDA, float32 elsewhere.

    Returns:
        the shape of `matrix`.
    """
    if dtype is None:
        dtype = torch.bfloat16 if matrix.device.type == "cuda" else torch.float32
    stack = matrix if matrix.ndim == 3 else matrix.unsqueeze(0)
    tall = stack.shape[1] > stack.shape[2]
    wide = (stack.mT if tall else stack).to(dtype)  # (matrices, short, long): the smaller Gram matrix
    x = wide / torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True).clamp(min=eps)
    # In bfloat16 the products of Gram matrices would lose the small singular values.
    by_gram = dtype.itemsize >= 4 and x.shape[2] >= _LEAST_RATIO_FOR_GRAM * x.shape[1]
    x = _iterate_gram(x, steps) if by_gram and steps else _iterate(x, steps)
    return (x.mT if tall else x).view_as(matrix)


def _iterate(x: Tensor, steps: int) -> Tensor:
    """x = p(x x^T) x, `steps` times; x: (matrices, short, long), overwritten."""
    gram = x.new_empty(x.shape[0], x.shape[1], x.shape[1])
    factor, spare = torch.empty_like(gram), torch.empty_like(x)
    for _ in range(steps):
        torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=_LINEAR, alpha=_SQUARE, out=factor)
        torch.baddbmm(x, factor, x, beta=_CONSTANT, out=spare)
        x, spare = spare, x
    return x


def _iterate_gram(x: Tensor, steps: int) -> Tensor:
    """The same up to rounding: all factors are polynomials of the first Gram matrix, so they commute."""
    gram = torch.bmm(x, x.mT)
    factor, product, spare = torch.empty_like(gram), torch.empty_like(gram), torch.empty_like(gram)
    for step in range(steps):
        torch.baddbmm(gram, gram, gram, beta=_LINEAR, alpha=_SQUARE, out=factor)
        factor.diagonal(dim1=1, dim2=2).add_(_CONSTANT)
        if step == 0:
            product.copy_(factor)
        else:
            torch.bmm(factor, product, out=spare)
            product, spare = spare, product
        if step < steps - 1:
            torch.bmm(factor, gram, out=spare)
            torch.bmm(factor, spare, out=gram)
    return torch.bmm(product, x)
