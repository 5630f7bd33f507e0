"""Device, precision, seeds and generator states."""

from linnet.runtime.device import (
    choose_device,
    configure_arithmetic,
    describe_device,
    process_started,
    processor_name,
    synchronize,
)
from linnet.runtime.precision import Precision, choose_precision
from linnet.runtime.randomness import random_state, restore_random_state, seed_everything, untouched_randomness

__all__ = [
    "Precision",
    "choose_device",
    "choose_precision",
    "configure_arithmetic",
    "describe_device",
    "process_started",
    "processor_name",
    "random_state",
    "restore_random_state",
    "seed_everything",
    "synchronize",
    "untouched_randomness",
]
