"""Promise: the benchmark for CUDA says what it takes, and without a card one sentence."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from linnet.config import ModelConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODEL = ModelConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("training_cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("words", [["steps"], ["reference", "--text", "absent.txt"], ["one", "linnet", "1", "8", "1"]])
def test_without_a_card_it_is_one_sentence(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training_cuda.py", *words])
    with pytest.raises(SystemExit, match=r"^training_cuda.py: PyTorch sees no CUDA device here; [^\n]*$"):
        benchmark.main()


def test_its_arguments_are_checked(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    options = benchmark.parser().parse_args(["steps", "--batch", "4"])
    assert (options.batch, options.sequence, options.peers) == (4, 2048, list(benchmark.PEERS))
    for words in (["steps", "--peers", "nobody"], ["reference"], [], ["steps", "--batch", "some"]):
        with pytest.raises(SystemExit) as ended:
            benchmark.parser().parse_args(words)
        assert ended.value.code == 2
    assert "nobody" in capsys.readouterr().err


def test_its_steps_train(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same functions, on a processor and a model of one layer."""
    monkeypatch.setattr(benchmark, "preset", lambda name: MODEL)
    ids = torch.randint(0, 64, (2, 17))
    for precision in ("float32", "bf16_weights"):
        step = benchmark.linnet_step(ids, precision=precision, compiled=False)
        losses = [step().item() for _ in range(5)]
        assert losses[-1] < losses[0]
