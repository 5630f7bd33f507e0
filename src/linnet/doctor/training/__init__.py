"""Checks of training: any loop's pieces, comparisons, a run's losses, and what is said about it."""

from linnet.doctor.training.checks import TRAINING_CHECKS, check_training
from linnet.doctor.training.claims import check_claims
from linnet.doctor.training.comparison import check_comparison
from linnet.doctor.training.losses import check_losses

__all__ = ["TRAINING_CHECKS", "check_claims", "check_comparison", "check_losses", "check_training"]
