"""What a model and its training take, from settings alone: parameters and memory."""

from linnet.accounting.memory import TrainingMemory, evaluation_memory, training_memory
from linnet.accounting.parameters import ParameterCount, count_parameters

__all__ = ["ParameterCount", "TrainingMemory", "count_parameters", "evaluation_memory", "training_memory"]
