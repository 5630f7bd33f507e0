"""Training: state, step, loop, observers, and the assembly of a run."""

from linnet.train.evaluate import Evaluation, bytes_of_ids, end_of_text, evaluate, evaluation_batch_size
from linnet.train.facts import training_facts
from linnet.train.incidents import read_incidents
from linnet.train.launch import Outcome, run_training
from linnet.train.observers import read_records
from linnet.train.run_directory import RunDirectory, in_use
from linnet.train.state import TrainState
from linnet.train.step import StepResult, train_step
from linnet.train.stored_model import StoredModel, read_stored_model

__all__ = [
    "Evaluation",
    "Outcome",
    "RunDirectory",
    "StepResult",
    "StoredModel",
    "TrainState",
    "bytes_of_ids",
    "end_of_text",
    "evaluate",
    "evaluation_batch_size",
    "in_use",
    "read_incidents",
    "read_records",
    "read_stored_model",
    "run_training",
    "train_step",
    "training_facts",
]
