"""Whether a step begins with gradients of its own."""

from __future__ import annotations

import torch

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.micro_batches import CHANCE, gathered, rounding
from linnet.doctor.training.pieces import Pieces

# What the step before left is recognized by, of its norm: rounding, and a clip in place.
ALIKE = 0.05


def check_zeroed(pieces: Pieces) -> Outcome:
    """A step after another one gathers the gradient that it gathers alone, from the same weights."""
    if pieces.step is None:
        return skipped("give step=, which takes one optimizer step")
    first, second = pieces.own_batches(0), pieces.own_batches(1)
    alone = gathered(pieces, pieces.copied(training=False, dropout=False), second)
    model = pieces.copied(training=False, dropout=False)
    gathered(pieces, model, first)
    left = {name: p.grad.detach().float().flatten() for name, p in model.named_parameters() if p.grad is not None}
    rest = _together([gradient for name, gradient in left.items() if name in alone])
    if not rest.any():
        return passed("after a step every gradient is zero or None")
    left = {name: gradient.clone() for name, gradient in left.items()}
    model.load_state_dict(pieces.model.state_dict())
    after = gathered(pieces, model, second)
    added = _together([after[name] - alone[name] for name in alone if name in after])
    held = _together([left.get(name, torch.zeros_like(alone[name])) for name in alone if name in after])
    own = float(_together(list(alone.values())).norm())
    share = float(added.norm()) / (own or 1.0)
    bound = rounding(pieces)
    if share <= bound:
        return passed("each step zeroes the gradients before it adds its own", figure=share, bound=bound)
    if float((added - held).norm()) > ALIKE * float(held.norm()):
        return skipped(CHANCE)
    return failed(
        "gradients are not zeroed between steps: the second step's gradient still holds the first step's, which "
        f"changes it by {share:.2g} of its norm",
        "call optimizer.zero_grad(set_to_none=True) after each optimizer.step(), or before the step's first backward",
        figure=share,
        bound=bound,
    )


def _together(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts) if parts else torch.zeros(1)
