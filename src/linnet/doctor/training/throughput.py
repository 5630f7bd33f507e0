"""Whether tokens per second are measured with the device at rest: an emulated device that answers before it is done."""

from __future__ import annotations

import math
import time

from linnet.doctor.findings import Outcome, failed, passed, skipped
from linnet.doctor.training.forms import number
from linnet.doctor.training.pieces import Pieces

STEPS, TOKENS_PER_STEP = 10, 1000
STEP_SECONDS = 0.01
# What a measurement may seem faster than the device is: the clock's grain.
ROUNDING = 0.02


class QueuedDevice:
    """Takes work at once and does it later, as CUDA does; only `synchronize` waits for it.

    Args:
        seconds: what one piece of work takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._done_at = 0.0
        self.waits = 0

    def submit(self) -> None:
        """One more piece of work, after what is queued."""
        self._done_at = max(self._done_at, time.perf_counter()) + self._seconds

    def synchronize(self) -> None:
        """Return when all that was submitted is done."""
        self.waits += 1
        while (left := self._done_at - time.perf_counter()) > 0:
            time.sleep(left)


def check_throughput(pieces: Pieces) -> Outcome:
    """Measure steps of known length on the emulated device."""
    if pieces.rate is None:
        return skipped("give rate=, your measurement of tokens per second over given steps")
    device = QueuedDevice(STEP_SECONDS)
    told = number(pieces.rate(device.submit, STEPS, TOKENS_PER_STEP, device.synchronize), "rate=")
    device.synchronize()
    return judge_rate(told, TOKENS_PER_STEP / STEP_SECONDS)


def judge_rate(told: float, possible: float) -> Outcome:
    """Hold a rate in tokens per second against what the device can do."""
    if not math.isfinite(told) or told <= 0:
        return failed(f"the rate told is {told:g} tokens/s", "divide tokens by seconds", figure=told, bound=possible)
    if told > possible * (1 + ROUNDING):
        return failed(
            f"an emulated device allows at most {possible:,.0f} tokens/s and the trainer told {told:,.0f}, "
            f"{told / possible:.3g} times as many: the clock was read without synchronizing the device",
            "wait for the device (torch.cuda.synchronize) before the clock is read, at both ends",
            figure=told,
            bound=possible,
        )
    return passed(
        f"an emulated device allows at most {possible:,.0f} tokens/s and the trainer told {told:,.0f}: it waited for "
        "the device",
        figure=told,
        bound=possible,
    )
