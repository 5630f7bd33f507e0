"""One optimizer step, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from linnet.data import Batch
from linnet.optim import clip_gradients
from linnet.runtime import Precision
from linnet.train.objective import Objective
from linnet.train.state import TrainState


@dataclass(frozen=True)
class StepResult:
    """What one step did; the tensors lie on the device until somebody reads them.

    Attributes:
        loss: mean over the step's target tokens.
        grad_norm: before clipping.
        bound: the greatest `grad_norm` that was no spike.
        applied: whether the weights were updated.
        learning_rate: of this step.
    """

    loss: Tensor
    grad_norm: Tensor
    bound: Tensor
    applied: Tensor
    learning_rate: float


def train_step(
    objective: Objective,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    state: TrainState,
    precision: Precision,
    *,
    learning_rate: float,
    max_grad_norm: float,
    spike_threshold: float = 0.0,
) -> StepResult:
    """Learn from one global batch: the loss is the mean over all its target tokens, however it is cut.

    A step whose loss or gradient is not finite, or whose gradient is a spike, leaves weights and optimizer alone.

    Args:
        objective: a micro-batch to what is minimized and the cross-entropy that is reported, summed over its targets.
        micro_batches: the global batch in parts, forwarded one after another.
        learning_rate: of this step.
        max_grad_norm: bound of the gradient's global norm; 0 leaves it alone.
        spike_threshold: robust deviations beyond which a gradient's norm is a spike; 0 knows none.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)
    target_tokens = sum(batch.target_tokens for batch in micro_batches)
    loss = torch.zeros_like(state.loss_sum)
    for batch in micro_batches:
        with precision.autocast():
            minimized, nats = objective(batch)
        precision.backward(minimized / target_tokens)
        loss += nats / target_tokens
    precision.unscale(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    grad_norm = clip_gradients(parameters, max_grad_norm or float("inf"))
    bound = state.norms.bound(spike_threshold)
    applied = torch.isfinite(loss) & precision.sound(grad_norm, bound)
    precision.step(optimizer, applied)
    optimizer.zero_grad(set_to_none=True)
    state.norms.append(grad_norm)
    state.advance(loss, target_tokens, applied)
    return StepResult(loss, grad_norm, bound, applied, learning_rate)
