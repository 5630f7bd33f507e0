"""Questions that can be asked of any module that maps token ids to logits."""

from linnet.doctor.model.battery import MODEL_CHECKS, check_model, default_length, describe
from linnet.doctor.model.calling import Calling, learn_calling, logits_in
from linnet.doctor.model.subject import ModelSubject, left_as_it_was

__all__ = [
    "MODEL_CHECKS",
    "Calling",
    "ModelSubject",
    "check_model",
    "default_length",
    "describe",
    "learn_calling",
    "left_as_it_was",
    "logits_in",
]
