"""Optimizers, parameter groups, learning-rate schedules and clipping."""

from linnet.optim.adamw import AdamW
from linnet.optim.averaging import WeightAverage
from linnet.optim.clipping import clip_gradients
from linnet.optim.groups import build_optimizer, parameter_groups
from linnet.optim.muon import Muon
from linnet.optim.muon_adamw import MuonWithAdamW
from linnet.optim.orthogonal import orthogonalize
from linnet.optim.schedules import (
    constant_schedule,
    cosine_schedule,
    learning_rate,
    linear_schedule,
    wsd_schedule,
)

__all__ = [
    "AdamW",
    "Muon",
    "MuonWithAdamW",
    "WeightAverage",
    "build_optimizer",
    "clip_gradients",
    "constant_schedule",
    "cosine_schedule",
    "learning_rate",
    "linear_schedule",
    "orthogonalize",
    "parameter_groups",
    "wsd_schedule",
]
