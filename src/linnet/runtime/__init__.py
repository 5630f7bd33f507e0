"""Device, precision, seeds and generator states."""

from linnet.runtime.allocation import keep_freed_memory
from linnet.runtime.device import (
    choose_device,
    configure_arithmetic,
    describe_device,
    process_started,
    processor_name,
    synchronize,
)
from linnet.runtime.free_memory import free_memory
from linnet.runtime.peak import device_peak, measured_flops, memory_bandwidth
from linnet.runtime.precision import Precision, choose_precision, computes_in_bf16, why_float32
from linnet.runtime.randomness import random_state, restore_random_state, seed_everything, untouched_randomness

__all__ = [
    "Precision",
    "choose_device",
    "choose_precision",
    "computes_in_bf16",
    "configure_arithmetic",
    "describe_device",
    "device_peak",
    "free_memory",
    "keep_freed_memory",
    "measured_flops",
    "memory_bandwidth",
    "process_started",
    "processor_name",
    "random_state",
    "restore_random_state",
    "seed_everything",
    "synchronize",
    "untouched_randomness",
    "why_float32",
]
