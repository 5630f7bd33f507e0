"""Real training steps, timed without the profiler and then recorded by it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from linnet.config import RunConfig
from linnet.data import PreparedData
from linnet.errors import UserError
from linnet.runtime import choose_device, untouched_randomness
from linnet.study.profile.kernels import forced, is_forced, with_attention
from linnet.study.profile.marking import MarkedBatches, is_compiled, marked
from linnet.study.profile.memory import begin_peak, peak_bytes
from linnet.study.profile.spans import STEP, Span, spans_of
from linnet.train import assemble, launch
from linnet.train.limits import StopRequest
from linnet.train.run_directory import locked
from linnet.train.training import Training

WARM_UP_STEPS = 2
MOST_RECORDED = 3  # a trace of more only grows
# Of the settings of a run, those that watch it or end it.
_UNWATCHED: dict[str, Any] = {
    "stages": (),
    "max_seconds": None,
    "tensorboard": False,
    "wandb": "off",
    "log_every": 0,
    "eval_every": 0,
    "save_every": 0,
    "sample_every": 0,
    "batch_warmup_steps": 0,  # the first steps of a run are no measure of the others
}

Progress = Callable[..., None]


@dataclass(frozen=True)
class Recording:
    """What was seen of some steps.

    Attributes:
        outermost: spans of the recorded steps.
        recorded: how many these are.
        seconds: of each timed step.
        micro_batch_tokens: of one micro-batch; `tokens` of a whole step.
    """

    training: Training
    outermost: list[Span]
    recorded: int
    seconds: tuple[float, ...]
    first_step_seconds: float
    compiled: bool
    tokens: int
    micro_batch_tokens: int
    peak_memory_bytes: int


def record(
    config: RunConfig, data: PreparedData, attention: str, steps: int, trace: Path, progress: Progress
) -> Recording:
    """Take `steps` training steps of `config` and time them, then some more under the profiler.

    Weights begin as a run's would, and nothing is written but the trace. Randomness drawn here is given back.

    Args:
        config: with its vocabulary settled.
        attention: one of `ATTENTIONS`.
        trace: a file for the recorded steps in the format of Chrome's tracing, ending in .json.gz.

    Raises:
        UserError: the device has no such attention, or it cannot compute this model.
    """
    step = _Stepper(f"profiling attention {attention}", WARM_UP_STEPS + steps + 1 + min(steps, MOST_RECORDED), progress)
    with ExitStack() as stack:
        stack.enter_context(untouched_randomness())
        stack.enter_context(forced(attention))
        training = stack.enter_context(opened(config, data, attention))
        warm_up = [_first(step, training, attention) for _ in range(WARM_UP_STEPS)]
        begin_peak(training.device)
        tokens = training.state.tokens
        seconds = tuple(step(training) for _ in range(steps))
        tokens = (training.state.tokens - tokens) // steps
        most = peak_bytes(training.device)
        with _profiler(training.device) as trial:  # which also loads what the profiler needs
            step(training)
        on_card = training.device.type == "cuda"
        compiled = is_compiled(spans_of(trial.events(), on_card=on_card))
        batches = MarkedBatches(training.batches)
        training.batches = cast(Any, batches)
        if not compiled:
            stack.enter_context(marked(training.model))
        with _profiler(training.device) as found:
            for _ in range(min(steps, MOST_RECORDED)):
                with record_function(STEP):
                    step(training)
        found.export_chrome_trace(str(trace))
        return Recording(
            training=training,
            outermost=spans_of(found.events(), on_card=on_card),
            recorded=min(steps, MOST_RECORDED),
            seconds=seconds,
            first_step_seconds=warm_up[0],
            compiled=compiled,
            tokens=tokens,
            micro_batch_tokens=batches.tokens,
            peak_memory_bytes=most,
        )


class _Stepper:
    """Takes steps, tells of each, and returns its seconds, the device's work included."""

    def __init__(self, what: str, total: int, progress: Progress) -> None:
        self._what, self._done, self._total, self._progress = what, 0, total, progress
        progress(what, 0, total, "steps")

    def __call__(self, training: Training) -> float:
        began = time.perf_counter()
        training.take_step()
        training.synchronize(training.device)
        seconds = time.perf_counter() - began
        self._done += 1
        self._progress(self._what, self._done, self._total, "steps")
        return seconds


@contextmanager
def opened(config: RunConfig, data: PreparedData, attention: str) -> Iterator[Training]:
    """The training of `config` as `linnet train` makes it, watched by nobody, in a directory that is soon gone."""
    model = with_attention(config.model, attention)
    settings = config.replace(model=model, train=config.train.replace(**_UNWATCHED))
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="linnet-profile-"))
        run = stack.enter_context(locked(Path(directory) / "run"))
        launch.open_run(run, settings, data)
        if assemble.is_compiled(settings, run, choose_device(settings.train.device)):
            stack.enter_context(_compiling(fresh=is_forced(attention)))
        training = assemble.assemble(settings, run, data, StopRequest(), settings.train.max_steps)
        training.close()
        training.observers = []
        yield training


def _first(step: _Stepper, training: Training, attention: str) -> float:
    """A step in which it turns out whether the device can do this at all."""
    try:
        return step(training)
    except RuntimeError as error:
        if "No available kernel" not in str(error):
            raise
        raise UserError(
            f"--attention {attention}: PyTorch has no such kernel for this model on {training.device} in "
            f"{training.precision.name}: use sdpa, and it chooses one that there is"
        ) from error


@contextmanager
def _compiling(*, fresh: bool) -> Iterator[None]:
    """What the compiler makes here for a processor tells the profiler its kernels' names.

    Args:
        fresh: take nothing from the compiler's cache, which does not ask what kernel of attention is forced.
    """
    import torch._inductor.config as inductor  # slow to import, and needed only where something is compiled

    torch.compiler.reset()
    with inductor.patch({"cpp.enable_kernel_profile": True, "force_disable_caches": fresh}):
        yield
    torch.compiler.reset()


def _profiler(device: torch.device) -> profile:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    return profile(activities=activities, record_shapes=True, acc_events=True)
