"""What a model and its training take, from settings alone: parameters, operations, memory; and what cards can do."""

from linnet.accounting.flops import Flops, forward_flops, training_flops
from linnet.accounting.memory import TrainingMemory, evaluation_memory, gigabytes, training_memory
from linnet.accounting.parameters import ParameterCount, count_parameters
from linnet.accounting.peaks import Arithmetic, Peak, looked_up_peak

__all__ = [
    "Arithmetic",
    "Flops",
    "ParameterCount",
    "Peak",
    "TrainingMemory",
    "count_parameters",
    "evaluation_memory",
    "forward_flops",
    "gigabytes",
    "looked_up_peak",
    "training_flops",
    "training_memory",
]
