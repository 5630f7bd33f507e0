"""Files of refused steps, and the steps that were not looked at yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from linnet.train import TrainState, incidents, read_incidents
from linnet.train.incidents import Incident, list_incidents, write_incident
from linnet.train.refusing import MOST_UNSEEN, Refusals
from linnet.train.step import StepResult

CPU = torch.device("cpu")


class Letters:
    """Stands where batches and tokenizer are asked: one window a step, of the letter that numbers it."""

    def samples(self, data_step: int) -> range:
        return range(data_step, data_step + 1)

    def rows(self, samples: range) -> np.ndarray:
        return np.array([[sample, 0] for sample in samples])

    def decode(self, ids: list[int]) -> str:
        return "abcdefgh"[ids[0]]


def _incident(step: int) -> Incident:
    return Incident(step, step, step, "spike", 1.0, 9.0, None, 2.0, 1e-3, "skip")


def test_only_so_many_texts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "MOST_FILES", 2)
    letters: Any = Letters()
    directory = tmp_path / "incidents"
    paths = [write_incident(directory, _incident(step), letters, letters) for step in (1, 2, 3)]
    assert paths[2] is None
    assert [path for path in paths if path] == list_incidents(directory)
    assert write_incident(directory, _incident(2), letters, letters) == paths[1], "a repeated step is kept again"
    assert [found["windows"][0]["text"] for found in read_incidents(directory)] == ["b", "c"]


def test_what_is_no_incident_is_left_out(tmp_path: Path) -> None:
    for number, content in enumerate(["[1]", "{", '{"a": 1}', "\udcff", "3"]):
        (tmp_path / f"step_{number}.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_incidents(tmp_path) == []
    assert read_incidents(tmp_path / "absent") == []


def test_a_device_that_works_ahead_is_asked_now_and_then() -> None:
    refusals, state = Refusals("skip", Letters().samples, at_once=False), TrainState.fresh(CPU)
    sound = StepResult(*(torch.tensor(value) for value in (1.0, 1.0, 2.0, True)), learning_rate=0.1)
    for step in range(MOST_UNSEEN):
        assert not refusals.due
        refusals.expect(step, sound)
    assert refusals.due
    assert refusals.look(state) == []
    assert not refusals.due


def test_a_state_from_before_spikes_were_known() -> None:
    state = TrainState.restored({"step": 7, "tokens": 70, "loss_sum": 2.5, "loss_steps": 2}, CPU)
    assert (state.step, state.data_step, state.refused_in_a_row) == (7, 7, 0)
    assert state.norms.bound(8.0).item() == float("inf")
    assert state.take_mean_loss() == 1.25
