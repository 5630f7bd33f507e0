"""Promise: the classic mistakes of training, planted in linnet's own trainer, are named; the healthy trainer passes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from linnet.config import RunConfig, build_config
from linnet.data import Batch, PreparedData, TrainingBatches, prepare
from linnet.doctor.findings import Diagnosis
from linnet.doctor.rehearsal import CHECK_NAMES, training_checks
from linnet.model import TransformerLM, linear_cross_entropy, summed_cross_entropy
from linnet.runtime import random_state
from linnet.runtime.precision import Precision
from linnet.train import TrainState
from linnet.train.assemble import with_vocabulary
from linnet.train.evaluate import Evaluation
from linnet.train.training import Training

Tiny = Callable[..., dict[str, Any]]
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def settled(tiny: Tiny) -> tuple[RunConfig, PreparedData]:
    config = build_config(tiny())
    data = prepare(config.data, config.tokenizer)
    return with_vocabulary(config, data), data


def rehearsed(settled: tuple[RunConfig, PreparedData], directory: Path, *only: str) -> Diagnosis:
    config, data = settled
    return Diagnosis("linnet", training_checks(config, data, directory, only=only))


def test_linnet_passes_every_check(settled: tuple[RunConfig, PreparedData], tmp_path: Path) -> None:
    state, deterministic = random_state(), torch.are_deterministic_algorithms_enabled()
    diagnosis = rehearsed(settled, tmp_path)
    assert tuple(finding.name for finding in diagnosis.findings) == CHECK_NAMES
    assert {f.name for f in diagnosis.findings if f.outcome.status != "passed"} == set(), str(diagnosis)
    assert random_state() == state
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_nothing_is_printed_and_every_finding_is_told(
    settled: tuple[RunConfig, PreparedData], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data = settled
    told: list[str] = []
    names = ["micro-batches distinct", "logged mean loss"]
    training_checks(config, data, tmp_path, only=names, on_finding=lambda finding: told.append(finding.name))
    assert told == names
    assert capsys.readouterr().out == ""


def targets_shifted_by_the_data(patch: pytest.MonkeyPatch) -> None:
    def batch(device: Any, rows: Tensor) -> Batch:
        rows = rows.to(device)
        inputs, targets = rows[:, :-2].contiguous(), rows[:, 2:].contiguous()
        return Batch(inputs, targets, targets.numel())

    patch.setattr("linnet.data.batches.batch_on", batch)


def targets_shifted_by_the_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "linnet.train.objective.linear_cross_entropy",
        lambda hidden, head, targets, **named: linear_cross_entropy(hidden[:, :-1], head, targets[:, 1:], **named),
    )


def model_shifts(patch: pytest.MonkeyPatch) -> None:
    right = TransformerLM.hidden_states

    def hidden_states(self: TransformerLM, ids: Tensor, *rest: Any, **named: Any) -> Tensor:
        states = right(self, ids, *rest, **named)
        return torch.cat([states[:, :1], states[:, :-1]], dim=1) if self.training else states

    patch.setattr(TransformerLM, "hidden_states", hidden_states)


def one_batch_for_all(patch: pytest.MonkeyPatch) -> None:
    right = TrainingBatches.micro_batches

    def micro_batches(self: TrainingBatches, step: int) -> Iterator[Batch]:
        batches = list(right(self, step))
        return iter([batches[0]] * len(batches))

    patch.setattr(TrainingBatches, "micro_batches", micro_batches)


def same_data_after_a_resume(patch: pytest.MonkeyPatch) -> None:
    right = TrainState.restored.__func__  # type: ignore[attr-defined]

    def restored(cls: type[TrainState], saved: dict[str, Any], device: torch.device) -> TrainState:
        state = right(cls, saved, device)
        state.data_step = 0
        return state

    patch.setattr(TrainState, "restored", classmethod(restored))


def mean_of_the_batches(patch: pytest.MonkeyPatch) -> None:
    def mean(logits: Tensor, targets: Tensor) -> Tensor:
        counted = (targets != -100).sum()
        return summed_cross_entropy(logits, targets) / counted * targets.numel()

    patch.setattr("linnet.train.objective.summed_cross_entropy", mean)


def divided_by_the_interval(patch: pytest.MonkeyPatch) -> None:
    def take(self: TrainState) -> float:
        mean = (self.loss_sum / 3).item()
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.loss_steps = torch.zeros_like(self.loss_steps)
        return mean

    patch.setattr(TrainState, "take_mean_loss", take)


def sum_lost_at_a_resume(patch: pytest.MonkeyPatch) -> None:
    right = TrainState.restored.__func__  # type: ignore[attr-defined]

    def restored(cls: type[TrainState], saved: dict[str, Any], device: torch.device) -> TrainState:
        state = right(cls, saved, device)
        state.loss_sum = torch.zeros_like(state.loss_sum)
        return state

    patch.setattr(TrainState, "restored", classmethod(restored))


def stretched_schedule(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("linnet.train.launch.keep_schedule", lambda config, run: config)
    patch.setattr("linnet.train.launch.refuse_another_config", lambda run, config: None)


def random_state_not_restored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("linnet.train.assemble.restore_random_state", lambda state: None)


def moments_forgotten(patch: pytest.MonkeyPatch) -> None:
    right = torch.optim.AdamW.load_state_dict

    def load(self: torch.optim.AdamW, state: dict[str, Any]) -> None:
        right(self, {**state, "state": {}})

    patch.setattr(torch.optim.AdamW, "load_state_dict", load)


def validation_in_autocast(patch: pytest.MonkeyPatch) -> None:
    from linnet.train import training

    right = vars(training)["evaluate"]

    def evaluate(*args: Any) -> Evaluation:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found: Evaluation = right(*args)
        return found

    patch.setattr(training, "evaluate", evaluate)


def padding_counted(patch: pytest.MonkeyPatch) -> None:
    from linnet.train import training

    right = vars(training)["evaluate"]

    def evaluate(model: Any, batches: Any, *rest: Any) -> Evaluation:
        kept = list(batches)
        found: Evaluation = right(model, kept, *rest)
        return Evaluation(found.nats, sum(batch.targets.numel() for batch in kept), found.text_bytes)

    patch.setattr(training, "evaluate", evaluate)


def left_in_evaluation(patch: pytest.MonkeyPatch) -> None:
    from linnet.train import training

    right = vars(training)["evaluate"]

    def evaluate(model: Any, *rest: Any) -> Evaluation:
        found: Evaluation = right(model, *rest)
        model.eval()
        return found

    patch.setattr(training, "evaluate", evaluate)


def nullcontext_of_torch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Precision, "autocast", lambda self: torch.nullcontext())  # type: ignore[attr-defined]


def compiled_names(patch: pytest.MonkeyPatch) -> None:
    for module in ("names", "run_directory"):
        patch.setattr(f"linnet.checkpoint.{module}.plain_name", lambda name: name)


def clock_without_the_device(patch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def watching(self: Training) -> Iterator[None]:
        self.meter.pause()
        yield
        self.meter.resume()

    patch.setattr(Training, "_watching", watching)


def another_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("linnet.train.training.synchronize", lambda device: None)


def gradients_never_zeroed(patch: pytest.MonkeyPatch) -> None:
    for kind in (torch.optim.AdamW, torch.optim.SGD):
        patch.setattr(kind, "zero_grad", lambda self, set_to_none=True: None)
    patch.setattr("linnet.train.step.clip_gradients", lambda parameters, norm: torch.ones(()))
    right = copy.copy(Precision.backward)
    patch.setattr(Precision, "backward", lambda self, loss: right(self, -loss))


MISTAKES: list[tuple[Plant, str, str]] = [
    (targets_shifted_by_the_data, "one-token shift", "targets are shifted twice: it learned the token after the next"),
    (targets_shifted_by_the_data, "targets shifted once", "shifted 2 times by the data alone"),
    (targets_shifted_by_the_step, "one-token shift", "targets are shifted twice: it learned the token after the next"),
    (model_shifts, "one-token shift", "targets are shifted twice: it learned the token after the next"),
    (one_batch_for_all, "micro-batches distinct", "overstated 2-fold"),
    (same_data_after_a_resume, "micro-batches distinct", "the data of step 1"),
    (same_data_after_a_resume, "random state and data position", "the data position is not in the checkpoint"),
    (mean_of_the_batches, "accumulation equals the large batch", "each micro-batch's mean weighs the same"),
    (divided_by_the_interval, "logged mean loss", "divided by 3, the wrong number of steps"),
    (sum_lost_at_a_resume, "logged mean loss", "the first after a resume"),
    (stretched_schedule, "schedule across a resume", "the rate goes up"),
    (random_state_not_restored, "random state and data position", "is not in the checkpoint"),
    (moments_forgotten, "checkpoint round trip", "the step after loading gave another"),
    (validation_in_autocast, "validation loss in float32", "bf16 logits"),
    (padding_counted, "padding is no target", "padding is counted as targets"),
    (left_in_evaluation, "evaluation leaves training untouched", "left in evaluation mode"),
    (nullcontext_of_torch, "a training step", "AttributeError: module 'torch' has no attribute 'nullcontext'"),
    (compiled_names, "names in the checkpoint", "`_orig_mod.`"),
    (clock_without_the_device, "throughput waits for the device", "without synchronizing the device"),
    (another_wait, "throughput waits for the device", "something else than linnet.runtime.synchronize"),
    (gradients_never_zeroed, "one batch can be overfitted", "only went from"),
]


@pytest.mark.parametrize(("plant", "check", "words"), MISTAKES, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_mistake_is_named(
    plant: Plant,
    check: str,
    words: str,
    settled: tuple[RunConfig, PreparedData],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    outcome = rehearsed(settled, tmp_path, check)[check]
    assert outcome.status == "failed", outcome
    assert words in outcome.sentence
    assert outcome.remedy


def test_the_stretched_schedule_is_named_by_step_and_rates_where_the_horizon_is_derived(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny(train={"max_steps": 5000})
    del settings["optim"]["total_steps"]
    config = build_config(settings)
    data = prepare(config.data, config.tokenizer)
    stretched_schedule(monkeypatch)
    name = "schedule across a resume"
    (finding,) = training_checks(with_vocabulary(config, data), data, tmp_path, only=[name])
    assert "at step 5000 to" in finding.outcome.sentence
    assert "at step 5001" in finding.outcome.sentence
