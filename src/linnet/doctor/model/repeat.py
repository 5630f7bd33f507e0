"""Determinism: the same input gives the same bits, forward and backward."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from linnet.doctor.findings import Check, Outcome, counted, failed, passed
from linnet.doctor.model.rounding import distance
from linnet.doctor.model.subject import ModelSubject

LENGTH = 16


def examine_determinism(subject: ModelSubject) -> Outcome:
    """Evaluating twice, and differentiating twice, gives the same bits."""
    length = min(subject.sequence_length, LENGTH)
    ids, targets = subject.ids(1, length, 50), subject.ids(1, length, 51)
    first, second = subject.logits(ids), subject.logits(ids)
    if _digest(first) != _digest(second):
        apart = distance(first, second)
        return failed(
            f"the same tokens gave other logits the second time, by {apart:.2g} of their size, though the model "
            "evaluates",
            "let dropout heed self.training (F.dropout(x, p, self.training)), and use deterministic kernels",
            figure=apart,
            bound=0,
        )
    before, after = _prints(subject, ids, targets), _prints(subject, ids, targets)
    moved = [name for name in before if before[name] != after[name]]
    if moved:
        return failed(
            f"the same batch gave another gradient the second time: {moved[0]}"
            + (f" and {len(moved) - 1} more" if len(moved) > 1 else ""),
            "torch.use_deterministic_algorithms(True) names the operation",
            figure=len(moved),
            bound=0,
        )
    return passed(f"two passes gave the same bits: logits and {counted(len(before), 'gradient')}")


def _prints(subject: ModelSubject, ids: Tensor, targets: Tensor) -> dict[str, str]:
    """A digest of each gradient, so that two sets never lie in memory at once."""
    return {
        name: "" if gradient is None else _digest(gradient)
        for name, gradient in subject.gradients(ids, targets).items()
    }


def _digest(tensor: Tensor) -> str:
    dense = tensor.to_dense() if tensor.is_sparse else tensor
    return hashlib.sha256(dense.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


CHECKS = (Check("determinism", examine_determinism),)
