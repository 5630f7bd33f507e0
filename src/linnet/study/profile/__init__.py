"""Where the time of a training step goes, which attention ran, and how near that is to what the machine can do."""

from linnet.study.profile.kernels import ATTENTIONS, AttentionKernel, possible_on, refuse_impossible
from linnet.study.profile.profiling import Comparison, profile_all, profile_training
from linnet.study.profile.results import Operation, Part, Profile, as_csv

__all__ = [
    "ATTENTIONS",
    "AttentionKernel",
    "Comparison",
    "Operation",
    "Part",
    "Profile",
    "as_csv",
    "possible_on",
    "profile_all",
    "profile_training",
    "refuse_impossible",
]
