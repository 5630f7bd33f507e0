"""`linnet profile` on a card: kernels, shares and utilization."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from linnet.config import build_config
from linnet.data import prepare
from linnet.study.profile import profile_training
from linnet.train.assemble import with_vocabulary

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize(
    ("attention", "kernels"), [("sdpa", {"flash", "memory-efficient", "cuDNN"}), ("math", {"math"})]
)
def test_a_step_on_a_card(
    attention: str, kernels: set[str], tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = build_config(tiny(train={"device": "cuda", "compile": False}))
    data = prepare(config.data, config.tokenizer)
    profile = profile_training(with_vocabulary(config, data), data, tmp_path, steps=2, attention=attention)
    assert profile.kernel.name in kernels
    assert sum(part.share for part in profile.parts) == pytest.approx(1)
    by_name = {part.name: part for part in profile.parts}
    for name in ("attention projections", "attention", "feed-forward", "head and loss"):
        assert by_name[name].seconds > by_name[name].backward_seconds >= 0
    assert by_name["feed-forward"].backward_seconds > 0
    assert by_name["optimizer"].seconds > 0
    assert profile.mfu is not None
    assert 0 < profile.mfu < 1
    assert profile.peak_memory_bytes
