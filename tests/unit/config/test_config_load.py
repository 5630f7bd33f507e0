"""YAML, overrides, and the sentences that mistakes are told in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.config import PRESETS, RunConfig, build_config, dump_config, load_config
from linnet.errors import UserError


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_overrides_reach_into_a_preset(tmp_path: Path) -> None:
    path = _file(tmp_path, "model: smollm2-135m\ntrain: {max_steps: 10}\n")
    config = load_config(path, [("model.num_hidden_layers", "2"), ("optim.max_lr", "1e-3"), ("train.max_steps", "20")])
    assert config.model.num_hidden_layers == 2
    assert config.model.hidden_size == 576
    assert config.optim.max_lr == 1e-3
    assert config.train.max_steps == 20


def test_a_preset_can_be_chosen_on_the_command_line() -> None:
    for key in ("model", "model.preset"):
        config = load_config(None, [(key, "smollm2-360m"), ("model.num_hidden_layers", "2")])
        assert (config.model.hidden_size, config.model.num_hidden_layers) == (960, 2)


def test_a_mapping_may_stand_upon_a_preset() -> None:
    model = build_config({"model": {"preset": "smollm2-135m", "position_embedding": "none"}}).model
    assert (model.position_embedding, model.num_key_value_heads) == ("none", 3)


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    assert load_config(_file(tmp_path, "optim: {max_lr: 3e-4, min_lr: 1e-05}\n")).optim.max_lr == 3e-4


def test_a_model_without_vocabulary_leaves_it_to_the_tokenizer() -> None:
    config = build_config({"model": {"hidden_size": 64, "num_attention_heads": 4}})
    assert not config.model_vocabulary_given
    assert not build_config(yaml.safe_load(dump_config(config))).model_vocabulary_given
    assert build_config({"model": "smollm2-135m"}).model_vocabulary_given


def test_the_schedule_is_as_long_as_the_run_unless_told() -> None:
    derived = build_config({"train": {"max_steps": 700}})
    assert (derived.optim.total_steps, derived.optim.warmup_steps) == (700, 70)
    assert derived.derived_schedule_fields == ("total_steps", "warmup_steps")
    told = build_config({"train": {"max_steps": 700}, "optim": {"total_steps": 900, "warmup_steps": 5}})
    assert (told.optim.total_steps, told.optim.warmup_steps) == (900, 5)
    assert told.derived_schedule_fields == ()
    assert build_config({}).optim.warmup_steps == 200
    assert build_config({"train": {"stages": [500, 50]}}).train.max_steps == 550


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trian: {max_steps: 3}", "trian: there is no such setting, did you mean 'train'"),
        ("train: {max_step: 3}", "train.max_step: there is no such setting, did you mean 'max_steps'"),
        ("model: {hiden_size: 3}", "model.hiden_size: there is no such setting, did you mean 'hidden_size'"),
        ("train: {max_steps: many}", "train.max_steps: should be a valid integer"),
        ("train: {batch_size: 1.5}", "train.batch_size: should be a valid integer"),
        ("train: {batch_size: true}", "train.batch_size: should be a number"),
        ("optim: {max_lr: -1}", "optim.max_lr: should be greater than 0, not -1"),
        ("optim: {betas: [0.9]}", "optim.betas: has too few values"),
        ("optim: {betas: [0.9, 1.5]}", "optim.betas"),
        ("optim: {min_lr: 1}", "min_lr 1.0 is greater than max_lr"),
        ("optim: {warmup_steps: 9000}", "exceeds optim.total_steps 5000, taken from train.max_steps: "),
        ("optim: {warmup_steps: 9000, total_steps: 50}", "optim.warmup_steps 9000 exceeds optim.total_steps 50: "),
        ("{optim: {warmup_steps: 9}, train: {stages: [5, 1]}}", "optim.total_steps 6, the sum of train.stages: "),
        ("data: {seq_len: 9000}", "data.seq_len 9000 is longer than model.max_position_embeddings 8192"),
        ("data: {source: []}", "data.source: names no text"),
        ("tokenizer: {vocab_size: 60000}", "tokenizer.vocab_size 60000 is greater than model.vocab_size 49152"),
        ("model: smollm2-135mm", "did you mean 'smollm2-135m'"),
        ("train: [1, 2]", "train"),
        ("train: {stages: [5, 0]}", "train.stages.1: should be greater than 0"),
        ("train: {precision: fp8}", "train.precision"),
        ("train: {max_steps: 3}\ntrain: {max_steps: 4}", "'train' is given twice"),
        ("train: {max_steps: [", "not valid YAML"),
        ("- 1\n- 2", "should be a mapping"),
        ("train: {stages: [true, 5]}", "train.stages.0"),
        ("train: {seed: 18446744073709551616}", "train.seed"),
        ("model: {preset: 3}", "no preset is called '3'"),
        ("model: {model_type: llama, rope_parameters: default}", "rope_parameters should be a mapping"),
        ("model: {model_type: llama, hidden_size: wide}", "hidden_size"),
        ("model: " + "a" * 5000, "neither a preset nor a config.json"),
        ('data: {val_source: [""]}', "data.val_source: holds an empty name"),
        ("? [a]\n: 1", "a key is no plain value"),
        ("", "is empty"),
    ],
)
def test_each_mistake_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (("trian.max_steps", "3"), "did you mean 'train'"),
        (("train.max_step", "3"), "did you mean 'max_steps'"),
        (("train.max_steps", "soon"), "train.max_steps"),
    ],
)
def test_mistakes_in_overrides(override: tuple[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_config(None, [override])


def test_missing_binary_and_directory_configs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such config file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="is a directory"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_config(tmp_path / "binary.yaml")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    model=st.sampled_from(sorted(PRESETS)),
    seq_len=st.integers(1, 256),
    lr=st.floats(1e-6, 1.0),
    share=st.floats(0, 1),
    steps=st.integers(300, 10**6),
    compile_=st.sampled_from(["auto", True, False]),
    prompt=st.text(max_size=20),
)
def test_a_dumped_config_reads_back_equal(
    model: str, seq_len: int, lr: float, share: float, steps: int, compile_: str | bool, prompt: str
) -> None:
    config = build_config(
        {
            "model": model,
            "data": {"seq_len": seq_len},
            "optim": {"max_lr": lr, "min_lr": lr * share},
            "train": {"max_steps": steps, "compile": compile_, "sample_prompt": prompt},
        }
    )
    assert isinstance(config, RunConfig)
    assert build_config(yaml.safe_load(dump_config(config))) == config


def test_lengths_in_any_spelling_of_a_number_give_the_same_schedule() -> None:
    for text in ("1000", "1e3", "1000.0", '"1000"'):
        optim = load_config(None, [("train.max_steps", text)]).optim
        assert (optim.total_steps, optim.warmup_steps) == (1000, 100), text


def test_text_on_the_command_line_is_taken_as_it_stands() -> None:
    for text in ("", "1984", "No", "Once: upon", "null"):
        assert load_config(None, [("train.sample_prompt", text)]).train.sample_prompt == text
    assert load_config(None, [("tokenizer.source", "null")]).tokenizer.source is None
    assert load_config(None, [("data.source", "on: the road.txt")]).data.source == ("on: the road.txt",)
    assert load_config(None, [("data.source", "[a.txt, b.txt]")]).data.source == ("a.txt", "b.txt")


def test_yaml_merges_are_understood(tmp_path: Path) -> None:
    text = "model: smollm2-135m\noptim: &base {max_lr: 1e-3}\ntrain: {max_steps: 300}\n"
    merged = text.replace("{max_lr: 1e-3}", "{max_lr: 1e-3, min_lr: 1e-4}")
    assert load_config(_file(tmp_path, merged)).optim.max_lr == 1e-3
    assert load_config(_file(tmp_path, "optim: {<<: {max_lr: 0.5}, min_lr: 0.1}\n")).optim.max_lr == 0.5
