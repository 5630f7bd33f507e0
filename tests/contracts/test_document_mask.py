"""Promise: with `data.document_mask` training and validation read each document in a window as if it stood alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from linnet.config import DataConfig, ModelConfig, RunConfig, TokenizerConfig, build_config
from linnet.data import Batch
from linnet.errors import UserError
from linnet.model import TransformerLM, document_mask, documents_of, summed_cross_entropy
from linnet.train import evaluate, run_training
from linnet.train.assemble import choose_objective

END, CPU = 0, torch.device("cpu")
MODEL = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.3,
)
Tiny = Callable[..., dict[str, Any]]


def _model(attention: str) -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(MODEL.replace(attention=attention))


def _two_documents() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    first, second = torch.randint(1, 61, (1, 11)), torch.randint(1, 61, (1, 17))
    first[0, -1] = END
    return first, second


@pytest.mark.parametrize("attention", ["auto", "sdpa", "reference"])
def test_two_documents_in_a_window_are_the_two_alone(attention: str) -> None:
    """RoPE is relative, so where in the window a document stands makes no difference."""
    model = _model(attention)
    first, second = _two_documents()
    window = torch.cat([first, second], dim=1)
    with torch.no_grad():
        together = model(window, mask=document_mask(documents_of(window, END)))
        alone = torch.cat([model(first), model(second)], dim=1)
        unmasked = model(window)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(unmasked[:, :11], alone[:, :11], atol=2e-5, rtol=2e-5)
    assert (unmasked[:, 11:] - alone[:, 11:]).abs().max() > 0.1, "the documents never mattered to each other"


@pytest.mark.parametrize("attention", ["auto", "sdpa", "reference"])
def test_training_on_a_window_is_training_on_its_documents(attention: str) -> None:
    first, second = _two_documents()
    window = torch.cat([first, second], dim=1)
    after = torch.cat([window[:, 1:], window[:, :1]], dim=1)
    config = RunConfig(
        model=MODEL.replace(attention=attention), tokenizer=TokenizerConfig(source="any"), data=DataConfig(seq_len=28)
    )
    gradients = []
    for parts in ([window], [first, second]):
        model = _model(attention)
        objective = choose_objective(model, config, CPU, compiled=False, end_of_text=END)
        begins = 0
        for part in parts:
            targets = after[:, begins : begins + part.shape[1]]
            objective(Batch(part, targets, part.numel()))[0].backward()
            begins += part.shape[1]
        gradients.append([parameter.grad for parameter in model.parameters()])
    for together, apart in zip(*gradients, strict=True):
        torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_validation_masks_what_training_masks() -> None:
    model = _model("auto")
    first, second = _two_documents()
    window = torch.cat([first, second], dim=1)
    batch = Batch(window[:, :-1], window[:, 1:], 27)
    alone = summed_cross_entropy(model(first), window[:, 1:12]) + summed_cross_entropy(
        model(second[:, :-1]), second[:, 1:]
    )
    sizes = torch.ones(61, dtype=torch.int64)
    assert evaluate(model, [batch], sizes, None, END).nats == pytest.approx(alone.item(), rel=1e-5)
    assert evaluate(model, [batch], sizes).nats != pytest.approx(alone.item(), rel=1e-3)


def test_a_run_trains_and_validates_under_the_mask(tiny: Tiny, linnet: Callable[..., Any], tmp_path: Path) -> None:
    text = tmp_path / "short.jsonl"
    text.write_text("".join(json.dumps({"text": f"{number} follows {number - 1}."}) + "\n" for number in range(2000)))
    validation: dict[bool, list[float]] = {}
    for masked in (False, True):
        run = tmp_path / str(masked)
        settings = tiny(
            model={"initializer_range": 0.2},
            data={"document_mask": masked, "source": str(text), "seq_len": 64},
            train={"eval_windows": None, "max_steps": 3, "eval_every": 3},
        )
        run_training(build_config(settings), run)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        validation[masked] = [record["val_loss"] for record in records if "val_loss" in record]
        told = json.loads(linnet("eval", run, "--json").out)
        assert told["loss"] == pytest.approx(validation[masked][-1], rel=1e-5), "linnet eval reads it in another way"
    assert validation[True][-1] != pytest.approx(validation[False][-1], rel=1e-3)


def test_flex_attention_says_where_it_cannot_train(tiny: Tiny, tmp_path: Path) -> None:
    model = {**tiny()["model"], "attention": "flex"}
    with pytest.raises(UserError, match=r"model\.attention flex: .* cpu: use auto"):
        run_training(build_config(tiny(data={"document_mask": True}) | {"model": model}), tmp_path / "masked")
    run_training(build_config(tiny(train={"max_steps": 1}) | {"model": model}), tmp_path / "unmasked")
