"""The questions of `check_training`, asked of linnet's trainer on a given config and its data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from linnet.config import RunConfig
from linnet.data import PreparedData
from linnet.doctor.findings import Check, Finding, Outcome, failed, passed, run_checks, skipped
from linnet.doctor.rehearsal.recording import FIRST_END, LOG_EVERY, Recording, recorded_run
from linnet.doctor.rehearsal.settings import made_longer, miniature, shortened
from linnet.doctor.rehearsal.stage import Stage
from linnet.doctor.training.checks import FIRST_CHECK, TRAINING_CHECKS
from linnet.doctor.training.logged_means import judge_means
from linnet.doctor.training.logits import known_logits
from linnet.doctor.training.micro_batches import judge_micro_batches
from linnet.doctor.training.pieces import Pieces
from linnet.doctor.training.schedules import (
    check_schedule,
    check_schedule_across_resume,
    judge_resumed_schedule,
)
from linnet.doctor.training.throughput import check_throughput
from linnet.doctor.training.validation import check_validation_precision, judge_stream, logit_table
from linnet.doctor.training.watching import check_evaluation
from linnet.optim import schedules
from linnet.runtime import device as machine
from linnet.runtime import untouched_randomness
from linnet.train import launch

CHECK_NAMES: tuple[str, ...] = tuple(check.name for check in TRAINING_CHECKS)
# These are asked of the model itself, all others of one with the same vocabulary that is quick.
OF_THE_MODEL = frozenset({"a training step", "one-token shift", "one batch can be overfitted"})


class Rehearsal:
    """linnet's trainer on one config and its data, put together when it is first asked.

    Args:
        config: with its vocabulary settled.
        workspace: an empty directory.
    """

    def __init__(self, config: RunConfig, data: PreparedData, workspace: Path) -> None:
        self.config, self.data, self.workspace = config, data, workspace

    @cached_property
    def model(self) -> Stage:
        """The config's own model on short windows."""
        return Stage(shortened(self.config), self.data, self.workspace / "model")

    @cached_property
    def small(self) -> Stage:
        """A miniature of it."""
        return Stage(miniature(self.config), self.data, self.workspace / "small")

    @cached_property
    def recording(self) -> Recording:
        """A whole run of the miniature, resumed once."""
        return recorded_run(miniature(self.config), self.data, self.workspace / "recorded")

    def dismiss_model(self) -> None:
        """Let go of the config's own model, which may fill half the memory."""
        self.__dict__.pop("model", None)


def training_checks(
    config: RunConfig,
    data: PreparedData,
    workspace: Path,
    *,
    only: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> tuple[Finding, ...]:
    """Rehearse the training of `config` with linnet's own pieces, and ask of it what `check_training` asks of any.

    The run itself, the generators and PyTorch's switches are left as they are.

    Args:
        config: with its vocabulary settled.
        data: prepared for it.
        workspace: an empty directory; the caller removes it.
        only: of `CHECK_NAMES`; empty asks all.
        progress: told the name of each check before it is asked.
        on_finding: told of each finding.
    """
    rehearsal = Rehearsal(config, data, workspace)
    findings: list[Finding] = []
    stuck = False
    with untouched_randomness(), _same_switches():
        for name in CHECK_NAMES:
            if only and name not in only:
                continue
            if progress is not None:
                progress(name)
            if stuck:
                finding = Finding(name, skipped("no training step goes through, see the first check"))
            else:
                (finding,) = run_checks([Check(name, _QUESTIONS[name])], rehearsal)
            stuck = stuck or (name == FIRST_CHECK.name and finding.outcome.status == "failed")
            findings.append(finding)
            if on_finding is not None:
                on_finding(finding)
            if not OF_THE_MODEL.intersection(CHECK_NAMES[CHECK_NAMES.index(name) + 1 :]):
                rehearsal.dismiss_model()
    return tuple(findings)


def _micro_batches(rehearsal: Rehearsal) -> Outcome:
    seen = [step.through for step in rehearsal.recording.steps]
    expected = rehearsal.recording.expected
    count = sum(map(len, seen))
    if seen == expected:
        return passed(
            f"{count} micro-batches of {len(seen)} steps went through the model, each the one that the order of "
            "samples gives it, also after a resume",
            figure=count,
        )
    outcome = judge_micro_batches(expected[: len(seen)], seen[: len(expected)])
    if outcome.status == "failed":
        return outcome
    step = next((n for n, pair in enumerate(zip(seen, expected, strict=False)) if pair[0] != pair[1]), len(seen))
    resumed = f" (the run was resumed after step {FIRST_END})" if step >= FIRST_END else ""
    return failed(
        f"step {step + 1} read other windows than the order of samples gives it{resumed}: data is replayed or skipped",
        "let the samples of a step be a function of the step, and save the step",
    )


def _schedule(rehearsal: Rehearsal) -> Outcome:
    return check_schedule(_scheduled(rehearsal))


def _schedule_across_resume(rehearsal: Rehearsal) -> Outcome:
    outcome = check_schedule_across_resume(_scheduled(rehearsal))
    if outcome.status == "failed":
        return outcome
    rates = [step.rate for step in rehearsal.recording.steps]
    seen = judge_resumed_schedule(list(range(FIRST_END, len(rates) + 1)), rates[FIRST_END - 1 :])
    return seen if seen.status == "failed" else outcome


def _scheduled(rehearsal: Rehearsal) -> Pieces:
    """The config's own course of rates, and that of the same run resumed for a tenth longer."""
    config, stage = rehearsal.config, rehearsal.small
    end = config.train.max_steps
    longer = end + max(1, end // 10)
    run = stage.training.run
    before = run.config()
    run.write_config(config)
    try:
        resumed = launch.keep_schedule(made_longer(config, longer), run)
    finally:
        run.write_config(before)
    return replace(
        stage.pieces(),
        schedule=lambda step: schedules.learning_rate(config.optim, step),
        resumed_schedule=lambda step: schedules.learning_rate(resumed.optim, step),
        warmup_steps=min(config.optim.warmup_steps, end),
        max_steps=end,
        resumed_max_steps=longer,
    )


def _logged_means(rehearsal: Rehearsal) -> Outcome:
    recording = rehearsal.recording
    losses = {number: step.loss for number, step in enumerate(recording.steps, start=1)}
    first = judge_means(losses, recording.first_lines, 1)
    if first.status == "failed":
        return first
    # What the first process had not logged when it saved is in the checkpoint, and belongs to the next line.
    second = judge_means(losses, recording.second_lines, FIRST_END // LOG_EVERY * LOG_EVERY + 1)
    if second.status == "failed":
        return second
    lines = len(recording.first_lines) + len(recording.second_lines)
    return passed(
        f"{lines} log lines hold the mean of their steps' losses, the first and those after a resume among them",
        figure=lines,
    )


def _validation_precision(rehearsal: Rehearsal) -> Outcome:
    stage = rehearsal.small
    pieces = stage.pieces()
    outcome = check_validation_precision(pieces)
    stream = rehearsal.data.validation
    if outcome.status != "passed" or stream is None or stream.window_count(pieces.sequence_length) == 0:
        return outcome
    model = pieces.copied()
    table = logit_table(pieces.vocab_size, pieces.seed)
    with known_logits(model, pieces.calling, table):
        evaluation = stage.around(model).measure(stream)
    return judge_stream(evaluation.loss, evaluation.tokens, stage.validation_rows(stream), table)


def _evaluation_watched(rehearsal: Rehearsal) -> Outcome:
    stage = rehearsal.small
    if rehearsal.data.validation is None:
        return check_evaluation(stage.pieces())
    return check_evaluation(replace(stage.pieces(), evaluate=lambda model, batches: stage.around(model).evaluate()))


def _throughput(rehearsal: Rehearsal) -> Outcome:
    if rehearsal.small.training.synchronize is not machine.synchronize:
        return failed(
            "the trainer waits for its device by something else than linnet.runtime.synchronize",
            "let Training.synchronize be linnet.runtime.synchronize",
        )
    return check_throughput(rehearsal.small.pieces())


def _asked_of_pieces(check: Check[Pieces]) -> Callable[[Rehearsal], Outcome]:
    def ask(rehearsal: Rehearsal) -> Outcome:
        stage = rehearsal.model if check.name in OF_THE_MODEL else rehearsal.small
        return check.examine(stage.pieces())

    return ask


_QUESTIONS: dict[str, Callable[[Rehearsal], Outcome]] = {
    **{check.name: _asked_of_pieces(check) for check in TRAINING_CHECKS},
    "micro-batches distinct": _micro_batches,
    "learning-rate schedule": _schedule,
    "schedule across a resume": _schedule_across_resume,
    "logged mean loss": _logged_means,
    "validation loss in float32": _validation_precision,
    "evaluation leaves training untouched": _evaluation_watched,
    "throughput waits for the device": _throughput,
}


@contextmanager
def _same_switches() -> Iterator[None]:
    """PyTorch's process-wide switches, which a run sets, as they were."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
