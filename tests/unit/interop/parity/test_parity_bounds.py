"""How far two computations may lie apart, and what no bound may let through."""

from __future__ import annotations

import pytest
import torch

from linnet.config import ModelConfig
from linnet.interop.parity import LinnetSide, compare
from linnet.interop.parity.bounds import Bound
from linnet.interop.parity.side import short_name
from linnet.model import TransformerLM


def test_small_logits_must_agree_in_proportion() -> None:
    assert Bound(1e-4).limit(3.0) == 1e-4
    assert Bound(1e-4).limit(1e-6) == pytest.approx(1e-10)
    assert Bound(0.5, relative=True).limit(1e-6) == 0.5


def test_the_coarsest_type_names_a_model() -> None:
    assert short_name({"a": "float16", "b": "float16", "c": "q8_0", "d": "float32"}) == "q8_0"
    assert short_name({"a": "float32"}) == "float32"


class _Uncausal(LinnetSide):
    """The same weights and settings, another function: every token sees what follows it."""

    def logits(self, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        return super().logits(ids.flip(1), positions).flip(1) if positions is None else super().logits(ids, positions)


def test_a_tiny_scale_hides_nothing() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = TransformerLM(ModelConfig(vocab_size=60, max_position_embeddings=128, **shape)).eval()
    with torch.no_grad():
        model.model.norm.weight.mul_(1e-6)
    assert compare(LinnetSide(model, None, "a"), LinnetSide(model, None, "b")).proven
    report = compare(LinnetSide(model, None, "a"), _Uncausal(model, None, "b"))
    assert not report.proven
    with torch.no_grad():
        model.model.norm.weight.zero_()
    report = compare(LinnetSide(model, None, "a"), LinnetSide(model, None, "b"))
    assert "all logits are alike" in report.refusal()
