"""Those who watch a run: log file, console, JSON lines, TensorBoard, Weights & Biases.

TensorBoard and W&B are imported by whoever attaches them, from their own modules: both are slow to import.
"""

from linnet.train.observers.console import Console
from linnet.train.observers.lines import LogFile, line_for
from linnet.train.observers.metrics import JsonLines, read_records
from linnet.train.observers.steady import Steady

__all__ = ["Console", "JsonLines", "LogFile", "Steady", "line_for", "read_records"]
