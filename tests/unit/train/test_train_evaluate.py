"""Validation against sums written out, and bytes per id."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from linnet.config import ModelConfig
from linnet.data import Batch
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer
from linnet.train import Evaluation, bytes_of_ids, evaluate, evaluation_batch_size

END = "<|endoftext|>"


def _tokenizer() -> Tokenizer:
    return Tokenizer({0: END.encode(), **{1 + b: bytes([b]) for b in range(256)}, 257: b"the"}, [], [END])


def test_special_tokens_stand_for_no_bytes_and_unknown_ids_neither() -> None:
    sizes = bytes_of_ids(_tokenizer(), 300)
    assert sizes.shape == (300,)
    assert (sizes[0], sizes[1], sizes[257], sizes[258]) == (0, 1, 3, 0)


def test_loss_perplexity_and_bits_per_byte_by_hand() -> None:
    torch.manual_seed(0)
    model = TransformerLM(
        ModelConfig(vocab_size=258, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, initializer_range=0.3)
    )
    ids = torch.randint(0, 258, (3, 9))
    ids[:, 2], ids[:, 4] = 0, 257  # an end of text, which stands for no byte, and a token of three
    targets = ids[:, 1:].clone()
    targets[0, 6:] = -100
    batches = [
        Batch(ids[:2, :-1], targets[:2], int((targets[:2] != -100).sum())),
        Batch(ids[2:, :-1], targets[2:], int((targets[2:] != -100).sum())),
    ]
    sizes = bytes_of_ids(_tokenizer(), 258)
    result = evaluate(model, batches, sizes)

    with torch.no_grad():
        logits = model(ids[:, :-1]).double().numpy()
    nats, tokens, text_bytes = 0.0, 0, 0
    for row in range(3):
        for position in range(8):
            target = int(targets[row, position])
            if target == -100:
                continue
            scores = logits[row, position]
            nats += math.log(np.exp(scores).sum()) - scores[target]
            tokens += 1
            text_bytes += int(sizes[target])
    assert (result.tokens, result.text_bytes) == (tokens, text_bytes)
    assert result.loss == pytest.approx(nats / tokens, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(nats / text_bytes / math.log(2), rel=1e-5)
    assert result.nats_per_byte == pytest.approx(nats / text_bytes, rel=1e-5)


def test_what_is_not_there_has_no_loss() -> None:
    specials = Evaluation(nats=3.0, tokens=2, text_bytes=0)
    assert (specials.loss, specials.perplexity) == (1.5, math.exp(1.5))
    nothing = Evaluation(nats=0.0, tokens=0, text_bytes=0)
    for number in (
        specials.nats_per_byte, specials.bits_per_byte, nothing.loss, nothing.perplexity, nothing.bits_per_byte
    ):  # fmt: skip
        assert math.isnan(number)
    assert Evaluation(nats=1e9, tokens=1, text_bytes=1).perplexity == math.inf


def test_evaluation_leaves_mode_and_gradients_alone() -> None:
    model = TransformerLM(ModelConfig(vocab_size=258, hidden_size=16, num_attention_heads=2, num_hidden_layers=1))
    ids = torch.randint(0, 258, (1, 5))
    for training in (True, False):
        model.train(training)
        evaluate(model, [Batch(ids[:, :-1], ids[:, 1:], 4)], bytes_of_ids(_tokenizer(), 258))
        assert model.training is training
        assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluation_batches_fit_their_logits() -> None:
    assert evaluation_batch_size(49152, 256) == 5
    assert evaluation_batch_size(10**6, 10**4) == 1
    assert evaluation_batch_size(300, 32) == 512, "a small vocabulary does not unbound the activations"
