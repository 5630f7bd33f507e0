"""The questions asked of a trainer, in order, and the function that asks them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from linnet.doctor.findings import Check, Diagnosis, Finding, Outcome, chosen_names, run_checks, skipped
from linnet.doctor.model.battery import default_length
from linnet.doctor.model.calling import Forward, learn_calling, unwrapped, wrapper_of
from linnet.doctor.model.subject import device_of, left_as_it_was
from linnet.doctor.training.forms import Batch, refuse_other_forms
from linnet.doctor.training.logged_means import check_logged_means
from linnet.doctor.training.micro_batches import check_accumulation, check_micro_batches
from linnet.doctor.training.one_batch import check_determinism, check_overfitting, check_step
from linnet.doctor.training.pieces import Loss, Pieces, Rate, Schedule, Step
from linnet.doctor.training.round_trip import check_names, check_random_state, check_round_trip
from linnet.doctor.training.schedules import check_schedule, check_schedule_across_resume
from linnet.doctor.training.shift import check_continuation, check_targets
from linnet.doctor.training.throughput import check_throughput
from linnet.doctor.training.validation import check_validation_padding, check_validation_precision
from linnet.doctor.training.watching import check_evaluation, check_sampling
from linnet.doctor.training.zeroing import check_zeroed
from linnet.errors import UserError
from linnet.runtime import untouched_randomness

# What the doctor has of its own -> the arguments that take its place.
OWN = {"data": ("batches",), "text": ("batches", "windows"), "step": ("step",), "optimizer": ("optimizer",)}
WORDS = {"text": "data"}


def _telling(check: Check[Pieces], *parts: str) -> Check[Pieces]:
    """`check`, whose sentence says which of `parts` were the doctor's own, since none were given."""

    def examine(pieces: Pieces) -> Outcome:
        outcome = check.examine(pieces)
        own = [WORDS.get(part, part) for part in parts if all(getattr(pieces, name) is None for name in OWN[part])]
        if outcome.status == "skipped" or not own:
            return outcome
        listed = " and ".join([", ".join(own[:-1]), own[-1]]) if len(own) > 1 else own[0]
        return replace(outcome, sentence=f"with the doctor's own {listed}: {outcome.sentence}")

    return Check(check.name, examine)


FIRST_CHECK: Check[Pieces] = _telling(Check("a training step", check_step), "data", "step", "optimizer")
TRAINING_CHECKS: tuple[Check[Pieces], ...] = (
    FIRST_CHECK,
    _telling(Check("targets shifted once", check_targets), "text"),
    _telling(Check("one-token shift", check_continuation), "text", "step"),
    _telling(Check("micro-batches distinct", check_micro_batches), "step"),
    Check("accumulation equals the large batch", check_accumulation),
    _telling(Check("gradients zeroed between steps", check_zeroed), "data"),
    _telling(Check("one batch can be overfitted", check_overfitting), "data", "step"),
    _telling(Check("determinism of a step", check_determinism), "data", "step", "optimizer"),
    Check("learning-rate schedule", check_schedule),
    Check("schedule across a resume", check_schedule_across_resume),
    Check("logged mean loss", check_logged_means),
    Check("validation loss in float32", check_validation_precision),
    Check("padding is no target", check_validation_padding),
    _telling(Check("evaluation leaves training untouched", check_evaluation), "data"),
    Check("sampling leaves training untouched", check_sampling),
    _telling(Check("checkpoint round trip", check_round_trip), "data", "step", "optimizer"),
    _telling(Check("random state and data position", check_random_state), "data", "step"),
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

    Every piece is optional: for the model's data, step and optimizer the doctor has its own, and says so where they
    stood in; a check that is about another piece which is missing is skipped and says which to give. The module, its
    gradients and mode, and the global random generators are left as they were; all training happens on copies.

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
        sequence_length: tokens in a window; None takes what the model's config says, at most 64. Without a config 64 is
            halved until the model takes it, and the diagnosis says so.
        uneven_batches: whether micro-batches hold different numbers of counted targets; None looks.
        ignore_index: targets that do not count.
        pad_id: a target id that does not count either in `evaluate`.
        seed: of whatever the doctor draws.
        only: names of the checks to run, or words in them; empty runs all.
        progress: called as (name of the check, done, total).

    Raises:
        UserError: the module has nothing to train, or gives no logits that can be found; a piece is no function; a
            name in `only` that no check has.
    """
    given: dict[str, Any] = {
        "loss": loss,
        "optimizer": optimizer,
        "step": step,
        "batches": batches,
        "windows": windows,
        "schedule": schedule,
        "resumed_schedule": resumed_schedule,
        "evaluate": evaluate,
        "sample": sample,
        "save": save,
        "load": load,
        "logged": logged,
        "rate": rate,
    }
    refuse_other_forms(given)
    names = chosen_names(only, [check.name for check in TRAINING_CHECKS])
    wrapper = wrapper_of(model)
    model = unwrapped(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"check_training: {type(model).__name__} has no parameter to train: give a module that has")
    with untouched_randomness():
        ids = torch.zeros(1, 2, dtype=torch.int64, device=device_of(model))
        with left_as_it_was(model):
            calling = learn_calling(model, ids, forward)
            with torch.no_grad():
                width = calling(model, ids).shape[-1]
            length, note = (sequence_length, "") if sequence_length else default_length(model, forward)
        pieces = Pieces(
            model,
            calling,
            vocab_size if vocab_size is not None else width,
            length,
            warmup_steps=warmup_steps,
            max_steps=max_steps,
            resumed_max_steps=resumed_max_steps,
            uneven_batches=uneven_batches,
            ignore_index=ignore_index,
            pad_id=pad_id,
            seed=seed,
            wrapper=wrapper,
            **given,
        )
        return Diagnosis(f"training of {type(model).__name__}{note}", asked_of(pieces, names, progress))


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
