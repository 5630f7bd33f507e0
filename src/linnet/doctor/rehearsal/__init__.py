"""linnet's own trainer rehearsed in a temporary directory: `check_training`'s questions, asked of the real pieces."""

from linnet.doctor.rehearsal.checks import CHECK_NAMES, training_checks

__all__ = ["CHECK_NAMES", "training_checks"]
