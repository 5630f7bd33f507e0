"""Promise: the classic mistakes of training, planted in somebody's own loop, are named; the healthy loop passes."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from linnet.doctor.findings import Diagnosis
from linnet.doctor.training import check_training
from linnet.errors import UserError
from linnet.runtime import random_state
from nano_training import IGNORED, Batch, NanoLoop


def examined(loop: NanoLoop, **changes: Any) -> Diagnosis:
    return check_training(loop.model, **{**loop.pieces(), **changes})


def test_the_healthy_loop_passes_every_check() -> None:
    diagnosis = examined(NanoLoop())
    assert {finding.outcome.status for finding in diagnosis.findings} == {"passed"}, str(diagnosis)


def test_the_module_and_the_random_generators_are_left_as_they_were() -> None:
    loop = NanoLoop()
    loop.model.lm_head.weight.grad = torch.ones_like(loop.model.lm_head.weight)  # type: ignore[union-attr]
    loop.model.transformer.eval()  # type: ignore[union-attr,operator]
    weights = copy.deepcopy(loop.model.state_dict())
    modes = [module.training for module in loop.model.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loop.model.modules()]
    state = random_state()
    examined(loop)
    assert random_state() == state
    assert [module.training for module in loop.model.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in loop.model.modules()] == hooks
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loop.model.state_dict().items())
    grads = {name: parameter.grad for name, parameter in loop.model.named_parameters()}
    assert torch.equal(grads.pop("transformer.wte.weight"), torch.ones_like(loop.model.lm_head.weight))  # type: ignore[union-attr,arg-type]
    assert set(grads.values()) == {None}


def test_without_any_piece_sound_ones_stand_in_and_the_rest_says_what_to_give() -> None:
    diagnosis = check_training(NanoLoop().model)
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis["one-token shift"].status == "passed"
    assert "save=" in diagnosis["checkpoint round trip"].sentence
    assert "rate=" in diagnosis["throughput waits for the device"].sentence


class ShiftedByTheStepToo(NanoLoop):
    """1: the data shifts, and the loss shifts again, as transformers' models do with labels."""

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        for x, y in micro_batches:
            logits, _ = model(x, y)
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), y[:, 1:].flatten()) / len(micro_batches)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return 0.0


class ShiftedTwiceByTheData(NanoLoop):
    """1: the window is cut at the wrong place."""

    def windows(self, ids: Tensor) -> Batch:
        x, y = super().windows(ids)
        return x[:, :-1], y[:, 1:]


class NotShifted(NanoLoop):
    """1, the other way round."""

    def windows(self, ids: Tensor) -> Batch:
        x, _ = super().windows(ids)
        return x, x


class OneBatchForAll(NanoLoop):
    """2: drawn outside the accumulation loop."""

    def micro_batches(self, step: int) -> list[Batch]:
        return [self.get_batch()] * self.gradient_accumulation_steps


class FirstBatchAgain(NanoLoop):
    """2: the loop forwards the same variable."""

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        return super().train_step(model, optimizer, [micro_batches[0] for _ in micro_batches])


class SameDataEveryStep(NanoLoop):
    """2: the position never moves."""

    def micro_batches(self, step: int) -> list[Batch]:
        torch.manual_seed(1)
        return super().micro_batches(0)


class LossesAdded(NanoLoop):
    """Accumulation without the division."""

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        for x, y in micro_batches:
            model(x, y)[1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return 0.0


class DividedByTheInterval(NanoLoop):
    """6: by log_interval, also in the stretch after a resume."""

    def log_lines(self, losses: Sequence[float], first: int) -> list[tuple[int, float]]:
        lines, running = [], 0.0
        for step, loss in enumerate(losses, start=first):
            running += loss
            if step % self.log_interval == 0:
                lines.append((step, running / self.log_interval))
                running = 0.0
        return lines


class DividedByTheStep(NanoLoop):
    """6: the sum since the last line over all steps so far."""

    def log_lines(self, losses: Sequence[float], first: int) -> list[tuple[int, float]]:
        return [(step, mean * 10 / step) for step, mean in super().log_lines(losses, first)]


class StretchedCosine(NanoLoop):
    """7: the horizon is the new max_iters."""

    def get_lr_resumed(self, it: int) -> float:
        longer = copy.copy(self)
        longer.lr_decay_iters = self.max_iters + 50
        return longer.get_lr(it)


class NoRandomState(NanoLoop):
    """8: weights and optimizer alone."""

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> Any:
        torch.manual_seed(1)
        state = torch.get_rng_state()
        step = super().load(path, model, optimizer)
        torch.set_rng_state(state)
        return step


class NoDataPosition(NanoLoop):
    """8: where the data goes on is not told."""

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> Any:
        super().load(path, model, optimizer)


class NoOptimizerState(NanoLoop):
    """8: the moments are forgotten."""

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> Any:
        kept = copy.deepcopy(optimizer.state_dict())
        step = super().load(path, model, optimizer)
        optimizer.load_state_dict(kept)
        return step


class CoarseValidation(NanoLoop):
    """9b: the loss of bf16 logits."""

    @torch.no_grad()
    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        class Coarse(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Any:
                logits, loss = model(x, y)
                return logits.bfloat16(), loss

        return super().estimate_loss(Coarse(), batches)


class AutocastValidation(NanoLoop):
    """9b: validated in training's autocast."""

    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().estimate_loss(model, batches)


class PaddingCounted(NanoLoop):
    """9c: the sum is divided by all targets."""

    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        counted = sum(int((y != IGNORED).sum()) for _, y in batches)
        return super().estimate_loss(model, batches) * counted / sum(y.numel() for _, y in batches)


class MeanOfMeans(NanoLoop):
    """9c's sister: a small last batch weighs as much as the others."""

    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        return float(np.mean([super(MeanOfMeans, self).estimate_loss(model, [batch]) for batch in batches]))


class NullContextOfTorch(NanoLoop):
    """10b: an attribute that does not exist."""

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        with torch.nullcontext():  # type: ignore[attr-defined]
            return super().train_step(model, optimizer, micro_batches)


class CompiledNames(NanoLoop):
    """10c: what torch.compile returns is saved as it is."""

    def save(self, path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iter_num": step}
        torch.save({**state, "rng": torch.get_rng_state()}, path)


class CompiledNamesLoosely(CompiledNames):
    """10c, and strict=False hides it."""

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> Any:
        checkpoint = torch.load(path, weights_only=True)
        model.load_state_dict(checkpoint["model"], strict=False)
        optimizer.load_state_dict(checkpoint["optimizer"])
        torch.set_rng_state(checkpoint["rng"])
        return checkpoint["iter_num"]


class NotSynchronized(NanoLoop):
    """11: the clock is read while the device works."""

    def measure(
        self, submit: Callable[[], Any], steps: int, tokens_per_step: int, synchronize: Callable[[], None]
    ) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            submit()
        return steps * tokens_per_step / (time.perf_counter() - began)


class LeftInEvaluation(NanoLoop):
    """Validation forgets to go back."""

    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        loss = super().estimate_loss(model, batches)
        model.eval()
        return loss


class SamplingDraws(NanoLoop):
    """The sample moves training's generators on."""

    def sample(self, model: nn.Module) -> list[int]:
        torch.rand(1)
        random.random()
        return super().sample(model)


class NeverZeroed(NanoLoop):
    """Gradients of all steps are added up, in every direction."""

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        for x, y in micro_batches:
            (-model(x, y)[1]).backward()
        optimizer.step()
        return 0.0


class Unseeded(NanoLoop):
    """A step draws from a generator of its own."""

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        loss = super().train_step(model, optimizer, micro_batches)
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            self_weight = next(model.parameters())
            self_weight.add_(1e-6 * torch.rand(self_weight.shape, generator=generator))
        return loss


MISTAKES: list[tuple[type[NanoLoop], str, str]] = [
    (ShiftedByTheStepToo, "one-token shift", "targets are shifted twice: it learned the token after the next"),
    (ShiftedTwiceByTheData, "one-token shift", "targets are shifted twice: it learned the token after the next"),
    (ShiftedTwiceByTheData, "targets shifted once", "shifted 2 times by the data alone"),
    (NotShifted, "one-token shift", "it copies its input"),
    (OneBatchForAll, "micro-batches distinct", "overstated 3-fold"),
    (FirstBatchAgain, "micro-batches distinct", "the step used one batch again"),
    (SameDataEveryStep, "micro-batches distinct", "exactly the data of step 1"),
    (LossesAdded, "accumulation equals the large batch", "4 times as large, as if the means were added"),
    (DividedByTheInterval, "logged mean loss", "divided by 10, the wrong number of steps"),
    (DividedByTheStep, "logged mean loss", "the wrong number of steps"),
    (StretchedCosine, "schedule across a resume", "the rate goes up"),
    (NoRandomState, "random state and data position", "random state of torch is not in the checkpoint"),
    (NoDataPosition, "random state and data position", "the data position is not in the checkpoint"),
    (NoOptimizerState, "checkpoint round trip", "the step after loading gave another"),
    (CoarseValidation, "validation loss in float32", "computed on bf16 logits"),
    (AutocastValidation, "validation loss in float32", "computed on bf16 logits"),
    (PaddingCounted, "padding is no target", "padding is counted as targets"),
    (MeanOfMeans, "padding is no target", "averages the means of batches of unequal size"),
    (NullContextOfTorch, "a training step", "AttributeError: module 'torch' has no attribute 'nullcontext'"),
    (CompiledNames, "names in the checkpoint", "`_orig_mod.`"),
    (CompiledNamesLoosely, "names in the checkpoint", "`_orig_mod.`"),
    (NotSynchronized, "throughput waits for the device", "without synchronizing the device"),
    (LeftInEvaluation, "evaluation leaves training untouched", "left in evaluation mode"),
    (SamplingDraws, "sampling leaves training untouched", "the random generator of python and of torch moved on"),
    (NeverZeroed, "one batch can be overfitted", "only went from"),
    (Unseeded, "determinism of a step", "the same step from the same weights and seeds gave another"),
]


@pytest.mark.parametrize(("loop", "check", "words"), MISTAKES, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_mistake_is_named(loop: type[NanoLoop], check: str, words: str) -> None:
    outcome = examined(loop(), only=[check])[check]
    assert outcome.status == "failed", outcome
    assert words in outcome.sentence
    assert outcome.remedy


def test_where_no_step_goes_through_the_rest_is_not_asked() -> None:
    diagnosis = examined(NullContextOfTorch())
    assert len(diagnosis.failed) == 1
    assert {finding.outcome.status for finding in diagnosis.findings[1:]} == {"skipped"}


def test_a_tied_model_that_repeats_its_input_at_first_is_healthy() -> None:
    """Without a norm a tied head finds the very embedding that went in."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(50, 64)
            nn.init.normal_(self.embedding.weight, std=4.0)
            self.inner = nn.Linear(64, 64)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embedding(ids)
            return (x + self.inner(x)) @ self.embedding.weight.T

    torch.manual_seed(0)
    model = Bare()
    ids = torch.arange(50).unsqueeze(0)
    assert (model(ids).argmax(-1) == ids).float().mean() > 0.9
    outcome = check_training(model, only=["one-token shift"])["one-token shift"]
    assert outcome.status == "passed", outcome


def test_a_compiled_module_is_examined_as_the_module_it_wraps_and_a_frozen_one_refused() -> None:
    model = NanoLoop().model
    compiled = torch.compile(model)
    assert check_training(compiled, only=["a training step"]).subject == "training of NanoGPT"  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no parameter to train"):
        check_training(model.requires_grad_(False))


def _transformers_pieces(labels: Callable[[Tensor], Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    text = torch.randint(97, (2000,), generator=torch.Generator().manual_seed(0))

    def step(model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> None:
        for ids, targets in micro_batches:
            (model(input_ids=ids, labels=targets).loss / len(micro_batches)).backward()
        optimizer.step()
        optimizer.zero_grad()

    def batches(number: int) -> list[Batch]:
        starts = range(number * 80, number * 80 + 80, 20)
        return [(text[None, i : i + 20], labels(text[None, i : i + 21])) for i in starts]

    @torch.no_grad()
    def evaluate(model: nn.Module, given: Sequence[Batch]) -> float:
        logits = [model(input_ids=ids).logits.float() for ids, _ in given]
        nats = [
            F.cross_entropy(some.flatten(0, 1), targets.flatten(), reduction="sum")
            for some, (_, targets) in zip(logits, given, strict=True)
        ]
        return float(sum(nats)) / sum(int((targets != -100).sum()) for _, targets in given)

    model = transformers.LlamaForCausalLM(config)
    return model, {"step": step, "batches": batches, "evaluate": evaluate}


def test_a_transformers_model_that_shifts_its_labels_itself_passes() -> None:
    model, pieces = _transformers_pieces(lambda row: row[:, :-1])
    diagnosis = check_training(model, **pieces)
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis["one-token shift"].status == "passed"
    assert diagnosis["validation loss in float32"].status == "passed"


def test_a_transformers_model_given_labels_already_shifted_is_named() -> None:
    model, pieces = _transformers_pieces(lambda row: row[:, 1:])
    outcome = check_training(model, **pieces, only=["one-token shift"])["one-token shift"]
    assert "targets are shifted twice: it learned the token after the next" in outcome.sentence
