"""How many micro-batches an optimizer step has while the batch warms up: pure functions of the step."""

from __future__ import annotations


def micro_batch_count(step: int, grad_accum: int, warmup_steps: int) -> int:
    """Micro-batches of `step`, counted from 0: one at first, in a line up to `grad_accum` at step `warmup_steps`."""
    if step >= warmup_steps:
        return grad_accum
    return 1 + (grad_accum - 1) * step // warmup_steps


def micro_batches_before(step: int, grad_accum: int, warmup_steps: int) -> int:
    """Micro-batches of all steps before `step`."""
    warm = min(step, warmup_steps)
    # A step has its k-th further micro-batch from step k * warmup_steps / (grad_accum - 1) on, rounded up.
    further = (max(0, warm - -(-k * warmup_steps // (grad_accum - 1))) for k in range(1, grad_accum))
    return warm + sum(further) + (step - warm) * grad_accum
