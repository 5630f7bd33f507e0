"""Checks of tokenizer, data, disk, memory and clocks: each passes what is sound, and names what was planted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from linnet.checkpoint import list_checkpoints, retain, write_checkpoint
from linnet.config import RunConfig, TrainConfig, build_config
from linnet.data import PreparedData, load_prepared, prepare
from linnet.data.encoding import Encoded
from linnet.doctor.findings import Diagnosis, Outcome, run_checks
from linnet.doctor.setup import SETUP_CHECKS, Setup, machine
from linnet.doctor.setup.room import most_checkpoints
from linnet.generate import text as generation
from linnet.tokenizer import Tokenizer
from linnet.train.assemble import with_vocabulary

Tiny = Callable[..., dict[str, Any]]
TEXT = "Once upon a time a fox met a hen, and both had much to say about the weather and the wood.\n"


def found(setup: Setup) -> Diagnosis:
    return Diagnosis("setup", run_checks(SETUP_CHECKS, setup))


def outcome(setup: Setup, name: str) -> Outcome:
    return found(setup)[name]


def setup_of(settings: dict[str, Any], workspace: Path, data: PreparedData | None = None) -> Setup:
    config = build_config(settings)
    prepared = data if data is not None else prepare(config.data, config.tokenizer)
    config = with_vocabulary(config, prepared)
    return Setup(config.model, prepared.tokenizer, workspace, config, prepared, place=workspace / "run")


@pytest.fixture
def setup(tiny: Tiny, tmp_path: Path) -> Setup:
    return setup_of(tiny(), tmp_path)


def changed(setup: Setup, **changes: Any) -> Setup:
    return Setup(**{**vars(setup), **changes})


def test_a_sound_setup_passes(setup: Setup) -> None:
    diagnosis = found(setup)
    assert diagnosis.healthy, str(diagnosis)
    skipped = {finding.name for finding in diagnosis.findings if finding.outcome.status == "skipped"}
    assert skipped == {"device synchronization", "end of text in an export", "text of the run"}


def test_a_model_alone_has_no_data(setup: Setup) -> None:
    diagnosis = found(Setup(setup.model, setup.tokenizer, setup.workspace))
    assert diagnosis.healthy
    assert diagnosis["data hashes"].sentence == "a model alone has no data"


class Deaf(Tokenizer):
    """Loses what is no letter of English."""

    def decode(self, ids: Any) -> str:
        return super().decode(ids).encode("ascii", "ignore").decode()


def test_a_tokenizer_that_loses_letters_is_named(setup: Setup) -> None:
    tokenizer = Deaf(setup.tokenizer.vocab, setup.tokenizer.merges, setup.tokenizer.special_tokens)
    seen = outcome(changed(setup, tokenizer=tokenizer), "tokenizer round trip")
    assert seen.status == "failed"
    assert "came back as" in seen.sentence


def test_a_byte_without_a_token_is_named(setup: Setup) -> None:
    letters = {id: bytes([id]) for id in range(256) if id not in (ord("\n"), 0xFF)}
    alone = Setup(setup.model, Tokenizer(letters, [], ["<|endoftext|>"]), setup.workspace)
    seen = outcome(alone, "bytes without a token")
    assert seen.status == "failed"
    assert "no token for 0x0A" in seen.sentence
    assert "0xFF" not in seen.sentence, "no text in UTF-8 needs that one"
    assert outcome(alone, "tokenizer round trip").status == "passed"


def test_text_lost_in_preparing_is_counted(tiny: Tiny, tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text(TEXT * 200)
    Tokenizer({id: bytes([id]) for id in range(256) if id != ord("w")}, [], ["<|endoftext|>"]).save(tmp_path / "deaf")
    settings = tiny(data={"source": str(source), "split": "position"}, tokenizer={"source": str(tmp_path / "deaf")})
    settings["tokenizer"].pop("vocab_size")
    seen = outcome(setup_of(settings, tmp_path), "bytes without a token")
    assert seen.status == "failed"
    assert seen.figure == pytest.approx(200 * TEXT.count("w"), abs=20)
    assert "0x77" in seen.sentence


def test_ids_beyond_the_model_are_named(setup: Setup) -> None:
    small = setup.model.replace(vocab_size=setup.tokenizer.vocab_size - 1)
    diagnosis = found(changed(setup, model=small))
    assert diagnosis["ids and vocabulary"].status == "failed"
    assert diagnosis["ids in the data"].status == "failed"
    late = Tokenizer(setup.tokenizer.vocab, setup.tokenizer.merges, ["<|endoftext|>", "<|late|>"])
    seen = outcome(
        changed(setup, tokenizer=late, model=setup.model.replace(vocab_size=late.vocab_size - 1)), "special ids"
    )
    assert seen.status == "failed"
    assert f"'<|late|>' has id {late.vocab_size - 1}" in seen.sentence


def test_a_generator_that_takes_id_0_for_none_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    assert setup.tokenizer.eos_id == 0

    class Blind:
        """The tokenizer as somebody reads it who writes `if tokenizer.eos_id and ...`."""

        def __init__(self, tokenizer: Tokenizer) -> None:
            self._tokenizer = tokenizer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tokenizer, name)

        @property
        def eos_id(self) -> int | None:
            return self._tokenizer.eos_id or None

    written = generation.TextStream._text
    monkeypatch.setattr(
        generation.TextStream,
        "_text",
        lambda self, tokens, tokenizer, stops: written(self, tokens, Blind(tokenizer), stops),
    )
    seen = outcome(setup, "end of text in generation")
    assert seen.status == "failed"
    assert "was asked for more" in seen.sentence
    assert "`bos_token_id or 1`" in seen.remedy


def test_a_prompt_that_begins_with_the_wrong_id_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    written = generation.generate_stream
    monkeypatch.setattr(
        generation,
        "generate_stream",
        lambda model, ids, *rest, **more: written(model, [i or 1 for i in ids], *rest, **more),
    )
    seen = outcome(setup, "end of text in generation")
    assert seen.status == "failed"
    assert "did not begin with the end-of-text id 0" in seen.sentence


def test_documents_that_end_with_the_wrong_id_are_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def or_one(tokenizer: Tokenizer, segments: Any) -> Encoded:
        ids, offsets = tokenizer.encode_ragged(segments.texts, workers=1)
        ended = np.concatenate([[0], np.cumsum(segments.ends)])
        end = tokenizer.eos_id or 1
        return Encoded(segments, np.insert(ids, offsets[1:][segments.ends], end), offsets + ended)

    monkeypatch.setattr("linnet.data.encoding.encode_batch", or_one)
    seen = outcome(setup_of(tiny(data={"directory": str(tmp_path)}), tmp_path), "end of text in data")
    assert seen.status == "failed"
    assert "end with id 1 instead of 0 (an id of 0 is taken for none" in seen.sentence


def test_an_export_that_lost_id_0_is_named(setup: Setup, tmp_path: Path) -> None:
    for given, status in ((0, "passed"), ([5, 0], "passed"), (1, "failed"), (None, "failed")):
        (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": given}))
        seen = outcome(changed(setup, exported=tmp_path), "end of text in an export")
        assert seen.status == status, seen
    assert "`bos_token_id or 1`" in seen.sentence


def test_changed_data_is_named(tiny: Tiny, tmp_path: Path) -> None:
    config = build_config(tiny())
    directory = shutil.copytree(prepare(config.data, config.tokenizer).directory, tmp_path / "copy")
    setup = setup_of(tiny(), tmp_path, load_prepared(directory))
    assert outcome(setup, "data hashes").status == "passed"
    shard = next(directory.glob("train-*.tokens"))
    raw = bytearray(shard.read_bytes())
    raw[5000] ^= 1
    shard.write_bytes(raw)
    seen = outcome(setup_of(tiny(), tmp_path, load_prepared(directory)), "data hashes")
    assert seen.status == "failed"
    assert str(shard) in seen.sentence


def test_too_little_data_is_named(tiny: Tiny, tmp_path: Path) -> None:
    setup = setup_of(tiny(train={"batch_size": 10_000}), tmp_path)
    assert outcome(setup, "amount of data").status == "failed"
    without = setup_of(tiny(data={"val_fraction": 0.0}), tmp_path)
    seen = outcome(without, "amount of data")
    assert "no validation split" in seen.sentence
    assert outcome(without, "splits apart").status == "skipped"


def test_validation_text_seen_in_training_is_named(tiny: Tiny, tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    texts = [f"{number} {TEXT * 3}" for number in range(100)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    setup = setup_of(tiny(data={"source": str(source), "val_source": str(source)}), tmp_path)
    seen = outcome(setup, "splits apart")
    assert seen.status == "failed"
    assert seen.figure == 1.0


def test_a_disk_too_small_is_named(tiny: Tiny, tmp_path: Path) -> None:
    train = {"max_steps": 1_000_000, "save_every": 1, "keep_every": 1}
    seen = outcome(setup_of(tiny(train=train), tmp_path), "disk space")
    assert seen.status == "failed"
    assert "1000000 checkpoints" in seen.sentence
    assert seen.figure is not None
    assert seen.bound is not None
    assert seen.figure > seen.bound


def test_what_would_make_room_is_what_the_settings_leave(tiny: Tiny, tmp_path: Path) -> None:
    train = {"max_steps": 1_000_000, "save_every": 1, "keep_last": 1_000_000}
    setup = setup_of(tiny(train=train), tmp_path)
    elsewhere = "free some space, give a --run_dir on another disk"
    assert outcome(setup, "disk space").remedy == f"{elsewhere} or lower train.keep_last"
    aside = tmp_path / "run" / "checkpoints" / "damaged_step_00000007"
    aside.mkdir(parents=True)
    (aside / "model.safetensors").write_bytes(b"x" * 2_000_000)
    assert setup.config is not None
    config = setup.config.replace(train=setup.config.train.replace(keep_last=1, keep_every=1))
    seen = outcome(changed(setup, config=config), "disk space")
    assert "remove once looked at: damaged_step_00000007, 2.0 MB" in seen.sentence
    ways = f"remove damaged_step_00000007, {elsewhere} or set train.keep_every to 0 or higher than it is"
    assert seen.remedy == ways


@pytest.mark.parametrize(
    ("save_every", "keep_last", "keep_every"), [(1, 2, 0), (2, 3, 4), (5, 1, 10), (0, 3, 0), (7, 9, 3)]
)
def test_checkpoints_are_counted_as_retention_keeps_them(
    tmp_path: Path, save_every: int, keep_last: int, keep_every: int
) -> None:
    train = TrainConfig(max_steps=23, save_every=save_every, keep_last=keep_last, keep_every=keep_every)
    most = 0
    for step in range(1, 24):
        if step == 23 or (save_every and step % save_every == 0):
            write_checkpoint(
                tmp_path / "checkpoints", step, {"w": torch.zeros(1)}, {"state": {}, "param_groups": []}, {}
            )
            most = max(most, len(list_checkpoints(tmp_path / "checkpoints")))
            retain(tmp_path / "checkpoints", keep_last, keep_every)
    assert most_checkpoints(train) == most


def test_memory_too_small_is_named(setup: Setup, tiny: Tiny, tmp_path: Path) -> None:
    large = setup_of(tiny(train={"batch_size": 4_000_000}), tmp_path, setup.data)
    seen = outcome(large, "memory")
    assert seen.status == "failed"
    assert seen.sentence.startswith("a training step takes about")
    assert "train.grad_accum" in seen.remedy


def test_a_clock_that_runs_slow_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    began, clock = time.time(), time.time
    monkeypatch.setattr(machine.time, "time", lambda: began + (clock() - began) / 2)
    seen = machine.clocks(setup)
    assert seen.status == "failed"
    assert "clock of the day" in seen.sentence


def test_more_threads_than_cores_are_named(setup: Setup) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(machine._cores() + 1)
        seen = outcome(setup, "device")
    finally:
        torch.set_num_threads(before)
    assert seen.status == "failed"
    assert "OMP_NUM_THREADS" in seen.remedy


def test_a_precision_that_the_processor_lacks_is_told(setup: Setup, tiny: Tiny, tmp_path: Path) -> None:
    assert setup.config is not None
    config: RunConfig = setup.config.replace(train=setup.config.train.replace(precision="fp16", device="cpu"))
    seen = outcome(changed(setup, config=config), "device")
    assert seen.status == "failed"
    assert "cpu does not compute in float16" in seen.sentence
