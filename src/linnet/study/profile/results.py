"""What a profile found, for people, for programs and for tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from linnet.accounting import Peak
from linnet.study.profile.kernels import AttentionKernel

CSV_COLUMNS = (
    "attention", "kernel", "compiled", "device", "precision", "steps", "tokens_per_step", "seconds_per_step",
    "tokens_per_second", "flops_per_second", "peak_flops_per_second", "mfu", "peak_memory_bytes", "operation", "part",
    "calls_per_step", "operation_seconds_per_step", "operation_share", "operation_flops_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of the step: seconds a step, and share of the step.

    Attributes:
        backward_seconds: of `seconds`, those of its backward pass.
    """

    name: str
    seconds: float
    backward_seconds: float
    share: float


@dataclass(frozen=True)
class Operation:
    """One kind of operation in one part of the step.

    Attributes:
        name: PyTorch's, for matrix products with their sizes m x k x n.
        calls: a step.
        seconds: a step, without those of operations inside it.
        share: of the step.
        flops_per_second: of a matrix product, else None.
    """

    name: str
    part: str
    calls: float
    seconds: float
    share: float
    flops_per_second: float | None


@dataclass(frozen=True)
class Profile:
    """Where the time of a training step goes, and what the machine could do.

    Attributes:
        attention: as asked for; `kernel` is what ran.
        seconds: of each step that was timed, the profiler being off.
        first_step_seconds: of the first step, in which what is to be compiled is.
        profiled_seconds: of a step, the profiler being on: what `parts` and `operations` divide.
        flops_per_token: model FLOPs.
        bandwidth: bytes a second that memory was measured to move; None where it could not be.
        optimizer_bytes: what the optimizer reads and writes in a step.
        peak_memory_bytes: in the timed steps: of the process, or on a card what was allocated there.
        trace: name of the trace file beside this.
    """

    attention: str
    kernel: AttentionKernel
    compiled: bool
    device: str
    precision: str
    parameters: int
    tokens_per_step: int
    seconds: tuple[float, ...]
    first_step_seconds: float
    profiled_seconds: float
    flops_per_token: float
    peak: Peak | None
    bandwidth: float | None
    optimizer_bytes: int
    peak_memory_bytes: int | None
    parts: tuple[Part, ...]
    operations: tuple[Operation, ...]
    trace: str

    @property
    def seconds_per_step(self) -> float:
        """The median of the timed steps."""
        return median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Of the median step."""
        return self.tokens_per_step / self.seconds_per_step

    @property
    def flops_per_second(self) -> float:
        """Model FLOPs a second."""
        return self.tokens_per_second * self.flops_per_token

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization; None without a peak."""
        return None if self.peak is None else self.flops_per_second / self.peak.flops_per_second

    @property
    def most_tokens_per_second(self) -> float | None:
        """If the step were nothing but the model's products at the peak; None without one."""
        return None if self.peak is None else self.peak.flops_per_second / self.flops_per_token

    @property
    def optimizer_bytes_per_second(self) -> float | None:
        """What the optimizer moves a second; None if it was not seen."""
        seconds = next((part.seconds for part in self.parts if part.name == "optimizer"), 0.0)
        return self.optimizer_bytes / seconds if seconds else None

    def as_json(self, operations: int | None = None) -> dict[str, Any]:
        """Everything as plain values, with the first `operations` or all."""
        shown = self.operations if operations is None else self.operations[:operations]
        return {
            **asdict(replace(self, operations=shown)),
            "seconds_per_step": self.seconds_per_step,
            "tokens_per_second": self.tokens_per_second,
            "flops_per_second": self.flops_per_second,
            "mfu": self.mfu,
            "most_tokens_per_second": self.most_tokens_per_second,
            "optimizer_bytes_per_second": self.optimizer_bytes_per_second,
        }


def as_csv(profiles: Sequence[Profile], operations: int) -> str:
    """A row for each of the first `operations` of each profile, with the profile's own figures before them."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    for profile in profiles:
        of_profile = (
            profile.attention, profile.kernel.name, profile.compiled, profile.device, profile.precision,
            len(profile.seconds), profile.tokens_per_step, profile.seconds_per_step, profile.tokens_per_second,
            profile.flops_per_second, profile.peak.flops_per_second if profile.peak else None, profile.mfu,
            profile.peak_memory_bytes,
        )  # fmt: skip
        for found in profile.operations[:operations]:
            of_operation = (found.name, found.part, found.calls, found.seconds, found.share, found.flops_per_second)
            table.writerow([_cell(value) for value in (*of_profile, *of_operation)])
    return text.getvalue()


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
