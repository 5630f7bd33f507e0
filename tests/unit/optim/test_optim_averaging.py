"""The average of weights: its formula, its beginning, and that training never sees it."""

from __future__ import annotations

import torch
from torch import nn

from linnet.optim import WeightAverage


def test_it_is_the_exponential_average_of_what_it_saw() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().double().clone()
    for step in range(1, 30):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(average.model.weight.double(), expected, rtol=0, atol=1e-5)


def test_the_beginning_is_soon_forgotten() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = WeightAverage(model, 0.9999)
    nn.init.constant_(model.weight, 1.0)
    for step in range(1, 101):
        average.update(model, step)
    assert 1.0 < average.model.weight.item() < 1.1


def test_the_model_itself_is_only_read() -> None:
    model = nn.Linear(3, 2).to(torch.bfloat16)
    before = model.weight.clone()
    average = WeightAverage(model, 0.9)
    average.update(model, 1)
    assert torch.equal(model.weight, before)
    assert model.weight.requires_grad
    assert model.training
    assert average.model.weight.dtype == torch.float32
    assert average.model.weight.data_ptr() != model.weight.data_ptr()
    assert not average.model.training
    assert not average.model.weight.requires_grad


def test_tied_weights_stay_tied_and_are_averaged_once() -> None:
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
    model[1].weight = model[0].weight
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model[0].weight.zero_()
    start = average.model[0].weight.clone()
    average.update(model, 100)
    assert average.model[0].weight is average.model[1].weight
    torch.testing.assert_close(average.model[0].weight, start / 2)
