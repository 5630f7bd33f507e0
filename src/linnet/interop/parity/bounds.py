"""How far two computations of one function may lie apart, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Two implementations in float32 that compute one function; CAPABILITIES I1.
LOGIT_BOUND = 1e-4

# Root mean square of what storing does to a weight, over that of the weights. Floats: the spacing at a weight m 2^e,
# 1 <= m < 2, is 2^(e - bits); an error uniform in it has spacing / sqrt(12), and 1 / m^2 averages to about a half.
# q8_0: a step is the greatest of 32 weights / 127; for normal ones that greatest is about 2.1 standard deviations.
RELATIVE_ERROR = {"float32": 0.0, "float16": 2.0e-4, "bfloat16": 1.6e-3, "q8_0": 4.8e-3}
_MARGIN = 4.0


@dataclass(frozen=True)
class Bound:
    """The greatest distance of two tensors of logits that passes.

    Attributes:
        value: of the largest absolute difference; or, `relative`, of the root mean square of the differences over the
            standard deviation of the logits.
        relative: which of the two.
    """

    value: float
    relative: bool = False

    def figure(self, one: Tensor, other: Tensor) -> float:
        """The distance of two tensors of logits of one shape; infinite where one of them is not finite."""
        difference = one - other
        if not torch.isfinite(difference).all():
            return math.inf
        if not self.relative:
            return difference.abs_().max().item()
        return difference.square_().mean().sqrt().item() / max(one.std().item(), 1e-30)

    def limit(self, deviation: float) -> float:
        """The bound for logits of this standard deviation: small logits must agree in proportion."""
        return self.value if self.relative else self.value * min(1.0, deviation)

    def of_one_logit(self, deviation: float) -> float:
        """By how much a single logit may differ, where the logits have the standard deviation `deviation`."""
        return 5 * self.value * deviation if self.relative else self.limit(deviation)


def rounding_bound(kind: str, layers: int) -> Bound:
    """How much storing the weights as `kind` may change the logits.

    A product of a matrix whose weights have independent relative errors of root mean square e has the relative error e,
    whatever the width. A path from the ids to the logits meets seven matrices a layer, the embedding and the head; if
    their errors add up like independent ones, neither damped nor amplified on the way, the logits change by
    e sqrt(7 layers + 2) of their standard deviation. Residual paths damp that (trained models and SmolLM2-135M at its
    initialization show 0.4 to 0.8 of it), sharp attention amplifies it (up to 3 with weights of standard deviation
    0.2); the bound is four times the estimate. Of the root mean square over all logits, not of the greatest change,
    which would depend on how many were looked at.
    """
    return Bound(_MARGIN * RELATIVE_ERROR[kind] * math.sqrt(7 * layers + 2), relative=True)
