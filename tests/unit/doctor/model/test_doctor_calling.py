"""How any module is asked for logits, and left as it was found."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.doctor.findings import Check, passed
from linnet.doctor.model import MODEL_CHECKS, check_model, learn_calling
from linnet.errors import UserError
from nano_gpt import NanoConfig, NanoGPT

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


class Answers(nn.Module):
    """A table of logits that answers in a shape of its own."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.table, self.shape = nn.Embedding(11, 11), shape

    def forward(self, ids: Tensor) -> Any:
        return self.shape(self.table(ids))


class WithLogits:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    "shape",
    [
        lambda logits: logits,
        lambda logits: (logits, None),
        lambda logits: [torch.zeros(()), logits],
        lambda logits: {"loss": torch.zeros(()), "logits": logits},
        WithLogits,
        lambda logits: logits.flatten(0, 1),
    ],
)
def test_logits_are_found_in_whatever_comes_back(shape: Callable[[Tensor], Any]) -> None:
    model = Answers(shape)
    assert torch.equal(learn_calling(model, IDS)(model, IDS), model.table(IDS))


def test_a_module_that_wants_targets_is_given_them() -> None:
    class Strict(Answers):
        def forward(self, ids: Tensor, targets: Tensor) -> Any:  # type: ignore[override]
            logits = self.table(ids).flatten(0, 1)
            return logits, F.cross_entropy(logits, targets.flatten())

    for model in (NanoGPT(), Strict(lambda logits: logits)):
        assert learn_calling(model, IDS)(model, IDS).shape[:2] == IDS.shape


def test_a_module_that_returns_something_else_is_told_how_to_be_asked() -> None:
    model = Answers(lambda logits: logits.transpose(0, 1))
    with pytest.raises(UserError, match=r"shape \(5, 2, 11\) instead of logits .*give forward="):
        learn_calling(model, IDS)
    asked = learn_calling(model, IDS, lambda module, ids: module(ids).transpose(0, 1))
    assert torch.equal(asked(model, IDS), model.table(IDS))


def test_a_module_that_cannot_be_run_has_one_finding() -> None:
    class Broken(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            raise RuntimeError("no kernel\nfor this")

    diagnosis = check_model(Broken())
    assert [finding.name for finding in diagnosis.failed] == ["forward pass"]
    assert "RuntimeError: no kernel for this" in diagnosis["forward pass"].sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"positions": "sinus"}, "auto, rope, absolute or none"),
        ({"norm_position": "middle"}, "pre or post"),
        ({"sequence_length": 65}, "more than the model's 64"),
        ({"sequence_length": 2}, "at least 4"),
    ],
)
def test_arguments_that_fit_no_model_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_model(NanoGPT(), **arguments)
    with pytest.raises(UserError, match=r"torch\.nn\.Module"):
        check_model(lambda ids: ids)  # type: ignore[arg-type]


def test_progress_and_checks_of_ones_own() -> None:
    seen: list[tuple[str, int, int]] = []
    own = Check("own question", lambda subject: passed(f"{subject.vocab_size} tokens"))
    diagnosis = check_model(
        NanoGPT(), checks=(*MODEL_CHECKS, own), progress=lambda name, done, total: seen.append((name, done, total))
    )
    assert diagnosis["own question"].sentence == "65 tokens"
    assert [entry[1] for entry in seen] == list(range(len(MODEL_CHECKS) + 2))
    assert seen[-1] == ("done", len(seen) - 1, len(seen) - 1)


class Restless(NanoGPT):
    """Changes buffers as it runs, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("table", torch.zeros(0))

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        self.calls += 1
        self.table = torch.rand(3)
        random.random()
        np.random.rand()
        return super().forward(idx, targets)


def _everything(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": copy.deepcopy(model.state_dict()),
        "versions": [parameter._version for parameter in model.parameters()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "wants": [parameter.requires_grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "held": [(name, id(tensor)) for name, tensor in (*model.named_parameters(), *model.named_buffers())],
        "randomness": (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
    }


def test_the_module_is_left_exactly_as_it_was() -> None:
    torch.manual_seed(3)
    model = Restless()
    model.transformer["h"][1].eval()
    model.transformer["wpe"].weight.requires_grad_(False)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    model.register_forward_hook(lambda module, taken, given: given)
    before = _everything(model)
    check_model(model, norm_position="pre")
    after = _everything(model)
    weights = before.pop("weights"), after.pop("weights")
    assert before == after
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_it_works_where_gradients_are_switched_off() -> None:
    model = NanoGPT()
    with torch.no_grad():
        assert check_model(model).healthy
    model.requires_grad_(False)
    diagnosis = check_model(model)
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis["gradient reach"].status == "skipped"


def test_a_vocabulary_of_bytes_or_less_will_do() -> None:
    for size in (2, 3, 11):
        diagnosis = check_model(NanoGPT(NanoConfig(vocab_size=size, block_size=8)))
        assert diagnosis.healthy, str(diagnosis)


def test_types_named_in_the_code_are_no_mistake() -> None:
    class Stubborn(NanoGPT):
        def embed(self, idx: Tensor) -> Tensor:
            return super().embed(idx).to(torch.float32)

    outcome = check_model(Stubborn())["fast path"]
    assert outcome.status == "passed", outcome.sentence
    assert "in torch.float32" in outcome.sentence


def test_a_padded_head_and_vocabulary_are_no_mistake() -> None:
    class Padded(NanoGPT):
        def __init__(self) -> None:
            super().__init__()
            self.lm_head = nn.Linear(32, 128, bias=False)
            nn.init.normal_(self.lm_head.weight, std=0.02)

    assert check_model(Padded()).healthy
