"""The questions asked of a trainer, in order, and the function that asks them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from linnet.doctor.findings import Check, Diagnosis, Finding, Outcome, run_checks, skipped
from linnet.doctor.model.calling import Forward, learn_calling, unwrapped
from linnet.doctor.model.subject import device_of, left_as_it_was, longest_sequence
from linnet.doctor.training.logged_means import check_logged_means
from linnet.doctor.training.micro_batches import check_accumulation, check_micro_batches
from linnet.doctor.training.one_batch import check_determinism, check_overfitting, check_step
from linnet.doctor.training.pieces import Batch, Loss, Pieces, Rate, Schedule, Step
from linnet.doctor.training.round_trip import check_names, check_random_state, check_round_trip
from linnet.doctor.training.schedules import check_schedule, check_schedule_across_resume
from linnet.doctor.training.shift import check_continuation, check_targets
from linnet.doctor.training.throughput import check_throughput
from linnet.doctor.training.validation import check_validation_padding, check_validation_precision
from linnet.doctor.training.watching import check_evaluation, check_sampling
from linnet.errors import UserError
from linnet.runtime import untouched_randomness

LONGEST_WINDOW = 64
FIRST_CHECK: Check[Pieces] = Check("a training step", check_step)
TRAINING_CHECKS: tuple[Check[Pieces], ...] = (
    FIRST_CHECK,
    Check("targets shifted once", check_targets),
    Check("one-token shift", check_continuation),
    Check("micro-batches distinct", check_micro_batches),
    Check("accumulation equals the large batch", check_accumulation),
    Check("one batch can be overfitted", check_overfitting),
    Check("determinism of a step", check_determinism),
    Check("learning-rate schedule", check_schedule),
    Check("schedule across a resume", check_schedule_across_resume),
    Check("logged mean loss", check_logged_means),
    Check("validation loss in float32", check_validation_precision),
    Check("padding is no target", check_validation_padding),
    Check("evaluation leaves training untouched", check_evaluation),
    Check("sampling leaves training untouched", check_sampling),
    Check("checkpoint round trip", check_round_trip),
    Check("random state and data position", check_random_state),
    Check("names in the checkpoint", check_names),
    Check("throughput waits for the device", check_throughput),
)


def check_training(
    model: nn.Module,
    *,
    loss: Loss | None = None,
    forward: Forward | None = None,
    optimizer: Callable[[nn.Module], Optimizer] | None = None,
    step: Step | None = None,
    batches: Callable[[int], Sequence[Batch]] | None = None,
    windows: Callable[[Tensor], Batch] | None = None,
    schedule: Schedule | None = None,
    resumed_schedule: Schedule | None = None,
    warmup_steps: int | None = None,
    max_steps: int | None = None,
    resumed_max_steps: int | None = None,
    evaluate: Callable[[nn.Module, Sequence[Batch]], Any] | None = None,
    sample: Callable[[nn.Module], Any] | None = None,
    save: Callable[[Path, nn.Module, Optimizer, int], Any] | None = None,
    load: Callable[[Path, nn.Module, Optimizer], Any] | None = None,
    logged: Callable[[Sequence[float], int], Sequence[tuple[int, float]]] | None = None,
    rate: Rate | None = None,
    vocab_size: int | None = None,
    sequence_length: int | None = None,
    uneven_batches: bool | None = None,
    ignore_index: int = -100,
    pad_id: int | None = None,
    seed: int = 0,
    only: Collection[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Diagnosis:
    """Examine the training of any module that maps ids (batch, sequence) to logits (batch, sequence, vocabulary).

    Every piece is optional: a check whose piece is missing is skipped and says which to give. The module, its gradients
    and mode, and the global random generators are left as they were; all training happens on copies.

        def step(model, optimizer, micro_batches):            # one optimizer step of a nanoGPT-like loop
            for inputs, targets in micro_batches:
                logits, loss = model(inputs, targets)
                (loss / len(micro_batches)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        print(check_training(
            model,
            step=step,
            optimizer=lambda model: model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cpu"),
            batches=lambda number: [get_batch("train") for _ in range(gradient_accumulation_steps)],
            schedule=lambda number: get_lr(number - 1), warmup_steps=warmup_iters, max_steps=max_iters,
        ))

    Args:
        model: returns logits, a tuple with them, or an object or mapping with `logits`.
        loss: (logits, targets) -> their mean loss.
        forward: (model, ids) -> logits (batch, sequence, vocabulary), where the doctor cannot find them by itself.
        optimizer: model -> a new optimizer for it.
        step: (model, optimizer, micro_batches) -> one whole optimizer step; a micro-batch is (inputs, targets).
        batches: number of a step, from 0 -> its micro-batches.
        windows: ids (tokens,) -> (inputs, targets) of (rows, sequence) each: how a text is cut.
        schedule: number of a step, from 1 -> its rate.
        resumed_schedule: the same in a run that is resumed after `max_steps` to go on until `resumed_max_steps`, by
            default a tenth longer.
        warmup_steps: the step at which the rate is greatest; None looks for it.
        max_steps: steps of the run.
        evaluate: (model, batches) -> the mean validation loss over the counted targets of those batches.
        sample: model -> anything; lets it write.
        save: (path, model, optimizer, steps done) -> writes a checkpoint at `path`, a file or a directory.
        load: (path, model, optimizer) -> the steps done; puts that checkpoint into both and restores the generators.
        logged: (losses, first) -> (step, mean) of each line your loop logs in a process that begins or resumes at step
            `first` and whose steps have these losses.
        rate: (submit_step, steps, tokens_per_step, synchronize) -> tokens per second: your measurement around that many
            calls of `submit_step()`, which returns before the emulated device is done; `synchronize()` waits for it.
        vocab_size: ids; None takes the width of the logits.
        sequence_length: tokens in a window; None takes what the model's config says, at most 64.
        uneven_batches: whether micro-batches hold different numbers of counted targets; None looks.
        ignore_index: targets that do not count.
        pad_id: a target id that does not count either in `evaluate`.
        seed: of whatever the doctor draws.
        only: names of the checks to run; empty runs all.
        progress: called as (name of the check, done, total).

    Raises:
        UserError: the module has nothing to train, or gives no logits that can be found.
    """
    model = unwrapped(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"check_training: {type(model).__name__} has no parameter to train: give a module that has")
    with untouched_randomness():
        ids = torch.zeros(1, 2, dtype=torch.int64, device=device_of(model))
        with left_as_it_was(model):
            calling = learn_calling(model, ids, forward)
            with torch.no_grad():
                width = calling(model, ids).shape[-1]
        pieces = Pieces(
            model,
            calling,
            vocab_size if vocab_size is not None else width,
            sequence_length or min(LONGEST_WINDOW, longest_sequence(model) or LONGEST_WINDOW),
            loss=loss,
            optimizer=optimizer,
            step=step,
            batches=batches,
            windows=windows,
            schedule=schedule,
            resumed_schedule=resumed_schedule,
            warmup_steps=warmup_steps,
            max_steps=max_steps,
            resumed_max_steps=resumed_max_steps,
            evaluate=evaluate,
            sample=sample,
            save=save,
            load=load,
            logged=logged,
            rate=rate,
            uneven_batches=uneven_batches,
            ignore_index=ignore_index,
            pad_id=pad_id,
            seed=seed,
        )
        return Diagnosis(f"training of {type(model).__name__}", asked_of(pieces, only, progress))


def asked_of(
    pieces: Pieces, only: Collection[str] = (), progress: Callable[[str, int, int], None] | None = None
) -> tuple[Finding, ...]:
    """The checks called `only`, or all, asked of `pieces`; where no step can be taken the rest is not asked."""
    wanted = [check for check in TRAINING_CHECKS if not only or check.name in only]
    stuck = False

    def unless_stuck(check: Check[Pieces]) -> Check[Pieces]:
        def examine(subject: Pieces) -> Outcome:
            return skipped("no training step goes through, see the first check") if stuck else check.examine(subject)

        return Check(check.name, examine)

    findings: list[Finding] = []
    for number, check in enumerate(wanted):
        if progress is not None:
            progress(check.name, number, len(wanted))
        findings += run_checks([unless_stuck(check)], pieces)
        stuck = stuck or (check is FIRST_CHECK and findings[-1].outcome.status == "failed")
    if progress is not None:
        progress("done", len(wanted), len(wanted))
    return tuple(findings)
