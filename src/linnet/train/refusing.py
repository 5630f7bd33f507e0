"""What came of the steps that were taken, and what the config says is to be done about those that were refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from linnet.train.incidents import MOST_IN_A_ROW, Action, Incident, Reason, Rollback
from linnet.train.state import TrainState
from linnet.train.step import StepResult

# On a device that works ahead of the program, asking what came of a step waits for it; log lines wait for it anyhow,
# every 50 steps unless the config says otherwise.
MOST_UNSEEN = 64

_NAMES: dict[str, Literal["nan", "inf", "-inf"]] = {"nan": "nan", "inf": "inf", "-inf": "-inf"}


@dataclass
class Refusals:
    """Steps not looked at yet, and the judgement on those that were.

    Nothing is saved or told of a step before it is looked at, so when that happens changes no result.

    Attributes:
        action: what to do about a refused step.
        samples: which samples a step reads.
        at_once: whether looking costs no waiting.
        rollback: from where to go back, once that is to be done.
        halted: whether the run is to end for a person to look.
        diverged: whether that is because step after step was refused.
    """

    action: Action
    samples: Callable[[int], range]
    at_once: bool
    rollback: Rollback | None = None
    halted: bool = False
    diverged: bool = False
    _unseen: list[tuple[int, StepResult]] = field(default_factory=list)

    def expect(self, data_step: int, result: StepResult) -> None:
        """Another step was taken, on the samples of step `data_step`."""
        self._unseen.append((data_step, result))

    @property
    def due(self) -> bool:
        """Whether to look now."""
        return self.at_once or len(self._unseen) >= MOST_UNSEEN

    def look(self, state: TrainState) -> list[Incident]:
        """The refused ones among the steps not looked at yet; waits for the device.

        After one that is to be rolled back the others are nobody's business.
        """
        unseen, self._unseen = self._unseen, []
        found: list[Incident] = []
        if not unseen:
            return found
        applied = torch.stack([result.applied for _, result in unseen]).tolist()
        first = state.step - len(unseen) + 1
        for step, (data_step, result), was_applied in zip(range(first, state.step + 1), unseen, applied, strict=True):
            state.refused_in_a_row = 0 if was_applied else state.refused_in_a_row + 1
            if was_applied:
                continue
            found.append(self._incident(step, data_step, result))
            if self.action == "rollback":
                self.rollback = Rollback(step, data_step + 1)
                break
            self.diverged = state.refused_in_a_row >= MOST_IN_A_ROW
            self.halted = self.halted or self.diverged or self.action == "stop"
        return found

    def _incident(self, step: int, data_step: int, result: StepResult) -> Incident:
        loss, grad_norm, bound = (tensor.item() for tensor in (result.loss, result.grad_norm, result.bound))
        reason: Reason = "spike"
        not_finite = None
        if not math.isfinite(loss):
            reason, not_finite = "loss", loss
        elif not math.isfinite(grad_norm):
            reason, not_finite = "gradient", grad_norm
        samples = self.samples(data_step)
        return Incident(
            step=step,
            first_sample=samples[0],
            last_sample=samples[-1],
            reason=reason,
            loss=loss if math.isfinite(loss) else None,
            grad_norm=grad_norm if math.isfinite(grad_norm) else None,
            not_finite=_NAMES[str(not_finite)] if not_finite is not None else None,
            bound=bound if math.isfinite(bound) else None,
            learning_rate=result.learning_rate,
            action=self.action,
        )
