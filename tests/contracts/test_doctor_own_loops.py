"""Promise: of somebody's own loop the doctor tells the cause, takes no habit for a mistake, and says what was its."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from linnet.doctor.findings import Diagnosis
from linnet.doctor.training import check_training
from linnet.doctor.training.dropout import switch_off_dropout
from linnet.errors import UserError
from nano_training import IGNORED, Batch, NanoLoop


def examined(loop: NanoLoop, **changes: Any) -> Diagnosis:
    return check_training(loop.model, **{**loop.pieces(), **changes})


# Dropout.


class CallsTrain(NanoLoop):
    """As most loops do."""

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        model.train()
        return super().train_step(model, optimizer, micro_batches)


def test_a_step_that_calls_train_on_a_model_with_dropout_is_healthy() -> None:
    diagnosis = examined(CallsTrain(dropout=0.4))
    assert {finding.outcome.status for finding in diagnosis.findings} == {"passed"}, str(diagnosis)


class OutOfReach(nn.Module):
    """Dropout by a number that stands in the code."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training)


def test_dropout_that_cannot_be_switched_off_is_told_and_no_mistake() -> None:
    loop = CallsTrain()
    loop.model.transformer["drop"] = OutOfReach()  # type: ignore[index,operator,union-attr]
    outcome = examined(loop, only=["accumulation"])["accumulation equals the large batch"]
    assert outcome.status == "skipped"
    assert "dropout is on in your step" in outcome.sentence
    determinism = examined(loop, only=["determinism"])["determinism of a step"]
    assert determinism.status == "passed", determinism


def test_every_rate_of_dropout_is_found() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = type("Config", (), {})()
            self.config.attn_pdrop, self.config.layers = 0.1, 2
            self.attention_dropout, self.scale = 0.1, 0.5
            self.drop, self.rnn = nn.Dropout(0.1), nn.LSTM(4, 4, 2, dropout=0.2)

    holder = Holder()
    switch_off_dropout(holder)
    assert (holder.config.attn_pdrop, holder.attention_dropout, holder.drop.p, holder.rnn.dropout) == (0, 0, 0, 0)
    assert (holder.config.layers, holder.scale) == (2, 0.5)


class EvaluatesInTraining(NanoLoop):
    """model.eval() is forgotten, and the generators are put back."""

    @torch.no_grad()
    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        state = torch.get_rng_state()
        losses = [model(x, y)[1] for x, y in batches]
        torch.set_rng_state(state)
        return float(torch.stack(losses).mean())


def test_an_evaluation_in_training_mode_is_named() -> None:
    name = "evaluation leaves training untouched"
    outcome = examined(EvaluatesInTraining(), only=[name])[name]
    assert outcome.sentence == "evaluation ran in training mode, with dropout"
    assert "model.eval()" in outcome.remedy
    without = examined(EvaluatesInTraining(dropout=0.0), only=[name])[name]
    assert without.status == "passed", without


# Gradients.


class ForgetsToZero(NanoLoop):
    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        for x, y in micro_batches:
            (model(x, y)[1] / len(micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return 0.0


class ZeroesFirst(ForgetsToZero):
    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        optimizer.zero_grad()
        return super().train_step(model, optimizer, micro_batches)


def test_gradients_that_are_never_zeroed_are_named_and_the_checkpoint_is_not_blamed() -> None:
    diagnosis = examined(ForgetsToZero())
    outcome = diagnosis["gradients zeroed between steps"]
    assert outcome.status == "failed"
    assert "gradients are not zeroed between steps" in outcome.sentence
    assert "zero_grad" in outcome.remedy
    assert diagnosis["checkpoint round trip"].status == "passed", str(diagnosis)
    assert examined(ZeroesFirst()).healthy


# What validation did.


class Told(NanoLoop):
    """Validation by a function of (logits, targets) -> (sum, count)."""

    def __init__(self, measure: Callable[[Tensor, Tensor], tuple[Tensor, int]]) -> None:
        super().__init__()
        self.measured = measure

    @torch.no_grad()
    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        model.eval()
        parts = [self.measured(model(x, torch.zeros_like(y))[0], y) for x, y in batches]
        model.train()
        return float(sum(float(nats) for nats, _ in parts)) / sum(count for _, count in parts)


def summed(logits: Tensor, targets: Tensor, ignored: int = IGNORED) -> tuple[Tensor, int]:
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="sum")
    return losses, int((targets != ignored).sum())


PRECISION, PADDING = "validation loss in float32", "padding is no target"
MEASURES: list[tuple[str, str, Callable[[Tensor, Tensor], tuple[Tensor, int]]]] = [
    (PRECISION, "computed on bf16 logits", lambda x, y: summed(x.bfloat16().float(), y)),
    (PRECISION, "computed on fp16 logits", lambda x, y: summed(x.half().float(), y)),
    (PRECISION, "targets are shifted twice", lambda x, y: summed(x[:, :-1], y[:, 1:])),
    (PRECISION, "cause unknown", lambda x, y: (1.01 * summed(x, y)[0], summed(x, y)[1])),
    (PRECISION, "cause unknown", lambda x, y: (0.99 * summed(x, y)[0], summed(x, y)[1])),
    (PADDING, "ignored targets, padding, are counted", lambda x, y: summed(x, y.clamp(min=0), -100)),
    (PADDING, "ignored targets, padding, are counted", lambda x, y: summed(x, y % x.shape[-1], -100)),
    (PADDING, "the sum over the others is divided by them too", lambda x, y: (summed(x, y)[0], y.numel())),
]


@pytest.mark.parametrize(("check", "words", "measure"), MEASURES)
def test_a_validation_loss_is_told_by_the_mistake_that_gives_it(
    check: str, words: str, measure: Callable[[Tensor, Tensor], tuple[Tensor, int]]
) -> None:
    assert examined(Told(summed), only=[check]).healthy
    outcome = examined(Told(measure), only=[check])[check]
    assert outcome.status == "failed"
    assert words in outcome.sentence, outcome.sentence


# Data.


def test_data_that_differs_the_second_time_is_told_as_that() -> None:
    loop = NanoLoop()
    generator = torch.Generator().manual_seed(0)
    rows = [(row[:, :-1], row[:, 1:]) for row in loop.data[: 33 * 64].view(64, 1, 33)]

    def shuffled(step: int) -> list[Batch]:
        return [tuple(map(torch.clone, rows[i])) for i in torch.randperm(64, generator=generator)[:3].tolist()]  # type: ignore[misc]

    step = examined(loop, batches=shuffled, only=["determinism"])["determinism of a step"]
    assert step.status == "passed", step
    assert "a shuffling DataLoader" in step.sentence
    resumed = examined(loop, batches=shuffled, only=["random state"])["random state and data position"]
    assert "a shuffling DataLoader" in resumed.sentence


def test_what_was_the_doctors_own_is_said() -> None:
    loop = NanoLoop()
    bare = check_training(loop.model)
    assert bare["a training step"].sentence.startswith("with the doctor's own data, step and optimizer: ")
    assert bare["one-token shift"].sentence.startswith("with the doctor's own data and step: ")
    assert bare["targets shifted once"].status == "skipped"
    given = examined(loop)
    assert not [finding for finding in given.findings if "doctor's own" in finding.outcome.sentence]


# Forms.


class Raises(NanoLoop):
    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        return F.cross_entropy(torch.zeros(2, 3), torch.zeros(5, dtype=torch.int64)).item()


def test_an_error_in_a_piece_is_told_with_its_line() -> None:
    sentence = examined(Raises(), only=["a training step"])["a training step"].sentence
    line = inspect.getsourcelines(Raises.train_step)[1] + 1
    assert f"({Path(__file__)}:{line})" in sentence


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"schedule": [1e-3, 1e-4]}, r"schedule= is a list of 2: .*, from 1, .* lambda step: rates\[step - 1\]"),
        ({"batches": []}, r"batches= is a list of 0: give a function of the number of a step"),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)}, r"optimizer= is an? SGD: .*of a model"),
        ({"only": ["determinsm"]}, r"no check is called 'determinsm'.*nearest first: determinism of a step, "),
    ],
)
def test_a_piece_of_another_form_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        examined(NanoLoop(), **wrong)


def test_a_scheduler_of_pytorch_is_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(UserError, match=r"schedule= is a LambdaLR: .*lr_lambda\(step - 1\)"):
        examined(NanoLoop(), schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (
            [{"input_ids": torch.zeros(2, 8), "labels": torch.zeros(2, 8)}],
            "a dict with input_ids, labels: give (inputs",
        ),
        ([[torch.zeros(2, 8)]], "batches(0)[0] is a list of 1"),
        ((torch.zeros(2, 8), torch.zeros(2, 8)), "batches(0) is a tuple of 2: give a list of micro-batches"),
    ],
)
def test_batches_of_another_form_are_told(batch: Any, words: str) -> None:
    outcome = examined(NanoLoop(), batches=lambda step: batch, only=["a training step"])["a training step"]
    assert outcome.status == "failed"
    assert words in outcome.sentence, outcome.sentence


def test_a_schedule_that_returns_no_number_is_told() -> None:
    outcome = examined(NanoLoop(), schedule=lambda step: [1e-3, 1e-3], only=["learning-rate"])["learning-rate schedule"]
    assert "schedule(1) returned a list of 2" in outcome.sentence


# Wrappers.


class SavesTheInner(NanoLoop):
    """Written for a model that is compiled."""

    def save(self, path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        super().save(path, model._orig_mod, optimizer, step)  # type: ignore[arg-type]


class SavesTheWrapper(NanoLoop):
    def save(self, path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iter_num": step}
        torch.save({**state, "rng": torch.get_rng_state()}, path)


class SavesTheModule(SavesTheWrapper):
    """Written for a parallel model."""

    def save(self, path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        super().save(path, model.module, optimizer, step)  # type: ignore[arg-type]

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> Any:
        return super().load(path, model.module, optimizer)  # type: ignore[arg-type]


SAVING = ["checkpoint round trip", "random state", "names in the checkpoint"]


@pytest.mark.parametrize(
    ("loop", "wrap"), [(SavesTheInner, torch.compile), (NanoLoop, torch.compile), (SavesTheModule, nn.DataParallel)]
)
def test_a_model_in_a_wrapper_whose_inside_is_saved_is_healthy(loop: type[NanoLoop], wrap: Any) -> None:
    made = loop()
    diagnosis = check_training(wrap(made.model), **made.pieces(), only=SAVING)
    assert {finding.outcome.status for finding in diagnosis.findings} == {"passed"}, str(diagnosis)


@pytest.mark.parametrize(("wrap", "prefix"), [(torch.compile, "`_orig_mod.`"), (nn.DataParallel, "`module.`")])
def test_a_model_in_a_wrapper_that_is_saved_with_it_is_named(wrap: Any, prefix: str) -> None:
    made = SavesTheWrapper()
    diagnosis = check_training(wrap(made.model), **made.pieces(), only=SAVING)
    assert [finding.name for finding in diagnosis.failed] == ["names in the checkpoint"], str(diagnosis)
    assert prefix in diagnosis["names in the checkpoint"].sentence


def test_rows_that_a_model_takes_are_found_and_told() -> None:
    class ShortPositions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.places, self.head = nn.Embedding(40, 24), nn.Embedding(16, 24), nn.Linear(24, 40)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.table(ids) + self.places(torch.arange(ids.shape[1])))

    diagnosis = check_training(ShortPositions())
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis.subject == "training of ShortPositions, rows of 16 tokens (it takes no 32)"


def test_a_measurement_that_waited_is_told_plainly() -> None:
    sentence = examined(NanoLoop(), only=["throughput"])["throughput waits for the device"].sentence
    assert sentence.startswith("an emulated device allows at most 100,000 tokens/s and the trainer told ")
    assert sentence.endswith(": it waited for the device")
