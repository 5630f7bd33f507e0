"""Promise: `check_model` asks what was asked for, at a length the model takes, and gives one cause and not six."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.doctor.model import MODEL_CHECKS, check_model
from linnet.errors import UserError
from nano_gpt import NanoGPT
from patients import caught, lm


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class ShortPositions(nn.Module):
    """Sixteen learned positions, and nobody says so."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places, self.head = nn.Embedding(40, 24), nn.Embedding(16, 24), nn.Linear(24, 40)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids) + self.places(torch.arange(ids.shape[1])))


def test_a_length_that_nobody_says_is_found_and_told() -> None:
    diagnosis = check_model(ShortPositions(), only=["forward pass"])
    assert diagnosis.healthy, str(diagnosis)
    assert "2 rows of 16 tokens" in diagnosis["forward pass"].sentence
    assert diagnosis.subject.endswith("rows of 16 tokens (it takes no 32)")


@pytest.mark.parametrize("only", [["causality"], "causal", ["CAUSAL"]])
def test_only_takes_a_name_or_a_word_in_it(only: list[str] | str) -> None:
    assert [finding.name for finding in check_model(NanoGPT(), only=only).findings] == ["causality"]


def test_a_name_that_no_check_has_is_refused_with_the_nearest_first() -> None:
    with pytest.raises(UserError, match=r"no check is called 'casuality'.*nearest first: causality, "):
        check_model(NanoGPT(), only=["casuality"])


@pytest.mark.parametrize("rate", [10.0, 1000.0])
@pytest.mark.parametrize("kind", ["nano", "linnet"])
def test_of_a_diverged_model_the_divergence_alone_is_told(kind: str, rate: float) -> None:
    model = NanoGPT() if kind == "nano" else lm()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(40):
        ids = torch.randint(65, (4, 32))
        logits = model(ids, ids)[0] if kind == "nano" else model(ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        if not loss.isfinite():
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    diagnosis = check_model(model, trained=True)
    names = {finding.name for finding in diagnosis.failed}
    assert "sizes by layer" in names
    assert names <= {"forward pass", "finite numbers", "sizes by layer"}, str(diagnosis)
    assert "have diverged" in diagnosis["tied head"].sentence
    assert diagnosis["positions"].status == "skipped"


def test_of_a_model_that_draws_while_it_evaluates_that_alone_is_told() -> None:
    model = NanoGPT()
    model.transformer["drop"].forward = lambda x: F.dropout(x, 0.1, training=True)
    diagnosis = check_model(model)
    assert [finding.name for finding in diagnosis.failed] == ["determinism"], str(diagnosis)
    assert "other logits each time" in diagnosis["causality"].sentence


def test_a_bidirectional_layer_is_told_its_own_remedy() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.rnn = nn.Embedding(40, 16), nn.LSTM(16, 8, batch_first=True, bidirectional=True)
            self.head = nn.Linear(16, 40)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.rnn(self.table(ids))[0])

    diagnosis = check_model(Both(), only=["causality"])
    caught(diagnosis, "causality", "the model sees the future")
    assert diagnosis["causality"].remedy == "rnn reads its row from both ends: give it bidirectional=False"


def test_an_error_is_told_with_the_line_of_the_users_own_code() -> None:
    class Broken(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return F.embedding(ids.float(), torch.zeros(3, 3))

    sentence = check_model(Broken())["forward pass"].sentence
    line = inspect.getsourcelines(Broken.forward)[1] + 1
    assert f"({Path(__file__)}:{line})" in sentence


def test_a_diagnosis_reads_as_on_the_command_line_and_the_signature_on_one_screen() -> None:
    lines = str(check_model(ShortPositions(), sequence_length=16, positions="absolute", norm_position="pre")).split(
        "\n"
    )
    at = next(number for number, line in enumerate(lines) if line.startswith("failed  order of tokens: "))
    assert lines[at + 1].startswith("        remedy: add positions")
    assert lines[-2] == ""
    assert "ShortPositions" in lines[-1]
    assert lines[-1].split(": ")[-1].endswith(" skipped")
    assert "function" not in str(inspect.signature(check_model))


def test_one_parameter_is_counted_as_one() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(40, 40)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids)

    diagnosis = check_model(One(), only=["parameter names", "gradient reach"])
    assert diagnosis["parameter names"].sentence.startswith("1 name, ")
    assert diagnosis["gradient reach"].sentence == "the one parameter gets a gradient"


def test_every_check_has_a_name_of_its_own() -> None:
    assert len({check.name for check in MODEL_CHECKS}) == len(MODEL_CHECKS)
