"""How much of what the device could do a run makes use of."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from linnet.accounting import Peak, training_flops
from linnet.config import RunConfig
from linnet.runtime import Precision, device_peak


@dataclass(frozen=True)
class Utilization:
    """What a token of a run costs, and what its device does at most.

    Attributes:
        flops_per_token: of forward and backward pass, in matrix products.
        peak: None where it is neither known nor to be measured.
    """

    flops_per_token: float
    peak: Peak | None

    @property
    def most_tokens_per_second(self) -> float | None:
        """The rate at which the device would do nothing but the model's products, each at its peak."""
        return None if self.peak is None else self.peak.flops_per_second / self.flops_per_token

    def of(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilization (Chowdhery et al., 2022): the share of the peak that the model's products took.

        What is computed again, as with activation checkpointing, does not count.
        """
        most = self.most_tokens_per_second
        return None if most is None else tokens_per_second / most


def utilization_of(config: RunConfig, device: torch.device, precision: Precision) -> Utilization:
    """The costs of `config` and the peak of `device`, measured here and now where no table has it."""
    flops = training_flops(config.model, config.data.seq_len).total / config.data.seq_len
    return Utilization(flops, device_peak(device, precision.products, tf32=config.train.tf32))
