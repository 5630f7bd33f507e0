"""The small modules every block is made of: linear map, embedding, RMS norm, and two elementwise functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.model import lean


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), elementwise (Hendrycks and Gimpel, 2016; also called swish)."""
    return x * torch.sigmoid(x)


def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) normalized to sum 1 along `dim`; the greatest entry is subtracted first, so nothing overflows."""
    exponentials = torch.exp(x - x.amax(dim=dim, keepdim=True))
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


class Linear(nn.Module):
    """y = x W^T, plus b where there is a bias.

    Args:
        in_features, out_features: sizes of the last dimension of input and output; `weight` is (out, in).
        bias: add a vector b of `out_features`, zero at first.
        std: standard deviation of a normal initialization. None: a normal of variance 2 / (in + out)
            (Glorot and Bengio, 2010), truncated at three standard deviations.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False, std: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        if std is None:
            std = math.sqrt(2 / (in_features + out_features))
            nn.init.trunc_normal_(self.weight, std=std, a=-3 * std, b=3 * std)
        else:
            nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        y = x @ self.weight.to(x.dtype).T
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}" + (", bias=True" if self.bias is not None else "")


class Embedding(nn.Module):
    """A row of `weight`, (num_embeddings, embedding_dim), for each id.

    Args:
        std: standard deviation of a normal initialization. None: a unit normal truncated to [-3, 3].
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, std: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        if std is None:
            nn.init.trunc_normal_(self.weight, std=1.0, a=-3.0, b=3.0)
        else:
            nn.init.normal_(self.weight, std=std)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (...) of integers -> (..., embedding_dim)."""
        # The same rows as weight[ids]; its gradient is summed row by row instead of by a general scatter.
        return F.embedding(ids, self.weight)

    def extra_repr(self) -> str:
        num_embeddings, embedding_dim = self.weight.shape
        return f"{num_embeddings}, {embedding_dim}"


class RMSNorm(nn.Module):
    """weight * x / sqrt(mean(x^2) + eps), computed in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., hidden_size), any float type -> the same shape and type."""
        if not torch.compiler.is_compiling():  # a compiler sees for itself what is cheaply made again
            return lean.rms_norm(x, self.weight, self.eps)
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (self.weight * normed.to(x.dtype)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"
