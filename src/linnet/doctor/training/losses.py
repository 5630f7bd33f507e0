"""Whether the losses of a run say that it learns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from linnet.doctor.findings import Check, Diagnosis, Outcome, failed, passed, run_checks, skipped

Record = Mapping[str, Any]
# A training loss so near to ln(V), or above it, has learned nothing: guessing each id alike gives ln(V).
LEARNED_NATS = 0.05
# A loss of so many times ln(V) is no beginner's: a sound one begins near ln(V), and a lost run has thousands.
FAR = 3
# A smaller share of all losses than this at the end of the run is looked at; at least some of them.
LAST_SHARE, LEAST_LOSSES = 0.2, 3
# By how much a validation loss may end above its lowest before it is told.
RISEN_NATS = 0.5
# Steps without a warm-up given that a loss may stay where it began.
PATIENCE = 100


def check_losses(records: Iterable[Record], *, vocab_size: int, warmup_steps: int = 0) -> Diagnosis:
    """What the losses of a run say: numbers, below that of guessing, and none of them silently stuck.

    Args:
        records: with `step` and `loss` or `val_loss` each, as in metrics.jsonl; null stands for NaN.
        vocab_size: ids of the model, for ln(V), the loss of one that guesses.
        warmup_steps: until then a loss may be anywhere.
    """
    rows = list(records)
    training = _without_refused([(int(r["step"]), _number(r["loss"])) for r in rows if "loss" in r], rows)
    validation = [(int(r["step"]), _number(r["val_loss"])) for r in rows if "val_loss" in r]
    guessing = math.log(vocab_size)
    after = max(warmup_steps, 1)
    checks: list[Check[None]] = [
        Check("losses are numbers", lambda _: _check_numbers(training, validation)),
        Check("loss falls below ln(V)", lambda _: _check_stuck(training, guessing, after)),
        Check("validation loss", lambda _: _check_validation(validation, guessing, after)),
    ]
    return Diagnosis("losses of the run", run_checks(checks, None))


def _without_refused(losses: list[tuple[int, float]], rows: Sequence[Record]) -> list[tuple[int, float]]:
    """The losses but those of windows in which steps were refused and none left: a later one tells how it went on."""
    refused = {int(row["step"]) for row in rows if "incident" in row}
    kept, before = [], 0
    for number, (step, loss) in enumerate(losses, start=1):
        if math.isfinite(loss) or number == len(losses) or refused.isdisjoint(range(before + 1, step + 1)):
            kept.append((step, loss))
        before = step
    return kept


def _number(value: Any) -> float:
    """The loss in a record that anybody may have written; NaN for what is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _check_numbers(training: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]) -> Outcome:
    if not training and not validation:
        return skipped("no loss was logged yet")
    for what, losses in (("training", training), ("validation", validation)):
        for step, loss in losses:
            if not math.isfinite(loss):
                return failed(
                    f"the {what} loss is NaN or infinite at step {step}: the run diverged there",
                    "begin anew, or from a checkpoint before it, with a lower optim.max_lr or gradients clipped",
                    figure=step,
                )
    return passed(f"numbers all: {len(training)} of training, {len(validation)} of validation")


def _check_stuck(training: Sequence[tuple[int, float]], guessing: float, after: int) -> Outcome:
    finite = [(step, loss) for step, loss in training if math.isfinite(loss)]
    if finite and finite[-1][1] > FAR * guessing:
        return _diverged("training", *finite[-1], guessing)
    late = [(step, loss) for step, loss in finite if step > max(after, PATIENCE)]
    if len(late) < LEAST_LOSSES:
        return skipped(f"fewer than {LEAST_LOSSES} losses were logged after step {max(after, PATIENCE)}")
    last = late[-max(LEAST_LOSSES, round(LAST_SHARE * len(late))) :]
    mean = sum(loss for _, loss in last) / len(last)
    bound = guessing - LEARNED_NATS
    if mean > bound:
        return failed(
            f"the training loss is stuck at {mean:.2f} from step {last[0][0]} to {last[-1][0]}, not below the "
            f"ln(V) = {guessing:.2f} of a model that guesses: nothing was learned",
            "examine model and trainer (linnet doctor CONFIG), and see that a resume brought back weights and data",
            figure=mean,
            bound=bound,
        )
    return passed(f"the training loss came down to {mean:.3f}, ln(V) is {guessing:.2f}", figure=mean, bound=bound)


def _check_validation(validation: Sequence[tuple[int, float]], guessing: float, after: int) -> Outcome:
    told = [(step, loss) for step, loss in validation if math.isfinite(loss)]
    if told and told[-1][1] > FAR * guessing:
        return _diverged("validation", *told[-1], guessing)
    finite = [(step, loss) for step, loss in told if step > after]
    if not finite:
        return skipped("no validation loss was logged after the warm-up")
    (best_step, best), (last_step, last) = min(finite, key=lambda row: row[1]), finite[-1]
    if last_step > PATIENCE and best > guessing:
        return failed(
            f"the validation loss never came below {best:.2f}, and guessing gives ln(V) = {guessing:.2f}",
            "examine model and trainer (linnet doctor CONFIG)",
            figure=best,
            bound=guessing,
        )
    if last > best + RISEN_NATS:
        return passed(
            f"the validation loss rose again, from {best:.3f} at step {best_step} to {last:.3f} at step {last_step}: "
            "the model memorizes its training text",
            figure=last,
        )
    return passed(f"the validation loss is {last:.3f} at step {last_step}, its lowest {best:.3f}", figure=last)


def _diverged(what: str, step: int, loss: float, guessing: float) -> Outcome:
    return failed(
        f"the run has diverged: the {what} loss is {loss:,.6g} at step {step}, and an even guess has {guessing:.1f}",
        "begin anew with a lower optim.max_lr; where the first losses were as high, with smaller initial weights",
        figure=loss,
        bound=FAR * guessing,
    )
