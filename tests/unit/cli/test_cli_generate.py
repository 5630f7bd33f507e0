from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import LlamaConfig, LlamaForCausalLM

from linnet.cli.generate import command, read_prompts, write_all
from linnet.cli.models import load_run_or_model
from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.generate import SamplingSettings, TextGenerator
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer


@pytest.fixture
def generator() -> TextGenerator:
    eos = "<|endoftext|>"
    tokenizer = Tokenizer({0: eos.encode(), **{1 + byte: bytes([byte]) for byte in range(256)}}, [], [eos])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TransformerLM(
            ModelConfig(
                vocab_size=257,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=32,
            )
        )
    return TextGenerator(model, tokenizer)


def written(
    generator: TextGenerator,
    capsys: pytest.CaptureFixture[str],
    prompts: list[str],
    as_json: bool,
    seed: int | None = 3,
) -> str:
    write_all(generator, prompts, SamplingSettings(0.9), max_new_tokens=20, stop=("\n",), seed=seed, as_json=as_json)
    output = capsys.readouterr()
    assert output.err == "", "nobody is watching, so nothing is said beside the text"
    return output.out


def test_texts_follow_their_prompts_and_are_parted_by_dashes(
    generator: TextGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        prompt + generator.complete(
            prompt, max_new_tokens=20, settings=SamplingSettings(0.9), stop="\n", seed=3 + index
        ).text
        for index, prompt in enumerate(["Once", "Twice"])
    )  # fmt: skip
    assert written(generator, capsys, ["Once", "Twice"], as_json=False) == f"{first}\n{'-' * 20}\n{second}\n"


def test_json_is_one_object_a_line_and_its_seed_repeats_it(
    generator: TextGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = written(generator, capsys, ["é", "é"], as_json=True, seed=None).splitlines()
    first, second = (json.loads(line) for line in lines)
    assert second["seed"] == first["seed"] + 1
    assert {"prompt", "text", "reason", "prompt_tokens", "tokens", "seconds", "seed"} == first.keys()
    assert (first["prompt"], first["prompt_tokens"]) == ("é", 2)
    again = json.loads(written(generator, capsys, ["é"], as_json=True, seed=second["seed"]))
    assert again["text"] == second["text"]


def test_prompts_come_from_lines_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("Once \r\n\n  Zwölf\u2028x\n".encode())
    assert read_prompts(str(file)) == ["Once ", "  Zwölf\u2028x"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from here\n")))
    assert read_prompts("-") == ["from here"]


def test_prompts_come_from_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "two\\nlines", "id": 1}\n\n{"prompt": ""}\n')
    assert read_prompts(str(file)) == ["two\nlines", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n \n", "empty.txt: holds no prompt"),
        ("latin.txt", b"caf\xe9", "latin.txt: is not UTF-8 text at byte 3"),
        ("bad.jsonl", b'{"prompt": "x"}\n{"prompt": \n', r"bad.jsonl:2: is not JSON"),
        ("other.jsonl", b'{"text": "x"}', r'other.jsonl:1: has no text "prompt"'),
        ("number.jsonl", b'{"prompt": 3}', r'number.jsonl:1: has no text "prompt"'),
    ],
)
def test_a_file_without_prompts_is_told_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_prompts(str(tmp_path / name))


def test_a_missing_prompts_file_is_told() -> None:
    with pytest.raises(UserError, match=r"nowhere.txt: cannot be read \(No such file"):
        read_prompts("nowhere.txt")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["nowhere", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--greedy", "--temperature", "0.5"), "--greedy and --temperature are both given"),
        (("--prompt", "a", "--prompts", "b"), "--prompt and --prompts are both given"),
        (("--num_samples", "0"), "--num-samples is 0"),
        (("--top_p=1.5",), "top_p is 1.5"),
        (("--repetition-penalty", "0"), "repetition_penalty is 0.0"),
        (("--prompts", "nowhere.txt"), "nowhere.txt: cannot be read"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_help_shows_examples() -> None:
    assert "linnet generate runs/demo --prompt" in call("--help").output


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama as transformers saves it, with a byte-level tokenizer."""
    directory = tmp_path_factory.mktemp("llama")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        llama = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=264,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                initializer_range=0.3,
            )
        )
    llama.save_pretrained(directory)
    bytes_only = {0: b"<|endoftext|>", **{1 + byte: bytes([byte]) for byte in range(256)}}
    Tokenizer(bytes_only, [], ["<|endoftext|>"]).save(directory)
    return directory


def output_of(*arguments: str | Path) -> str:
    result = CliRunner().invoke(command, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_writes_what_the_library_does(model_directory: Path) -> None:
    arguments = ("--prompt", "To be", "--seed", "5", "--device", "cpu", "--top-k", "40", "--min-p", "0.01")
    loaded = load_run_or_model(model_directory, "cpu")
    expected = TextGenerator(loaded.model, loaded.tokenizer).complete(
        "To be", max_new_tokens=90, settings=SamplingSettings(top_k=40, min_p=0.01), seed=5
    )
    assert output_of(model_directory, *arguments, "--max_new_tokens", "90") == f"To be{expected.text}\n"
    record = json.loads(output_of(model_directory, *arguments, "--max-new-tokens=90", "--json"))
    assert (record["text"], record["reason"], record["tokens"]) == (expected.text, expected.reason, expected.tokens)


def test_every_prompt_gets_its_samples(model_directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\ntwo\n")
    lines = output_of(
        model_directory, "--prompts", file, "--num-samples", "3", "--seed", "9", "--max-new-tokens", "4", "--json"
    ).splitlines()
    records = [json.loads(line) for line in lines]
    assert [(record["prompt"], record["seed"]) for record in records] == [
        ("one", 9), ("one", 10), ("one", 11), ("two", 12), ("two", 13), ("two", 14),
    ]  # fmt: skip


def test_greedy_and_context_reach_the_model(model_directory: Path) -> None:
    def write(*arguments: str) -> str:
        return output_of(model_directory, "--prompt", "To be or not to be", "--max-new-tokens", "60", *arguments)

    assert write("--greedy") == write("--temperature", "0") == write("--greedy", "--seed", "4")
    assert write("--greedy") != write("--greedy", "--context", "2")
    with pytest.raises(UserError, match="context is 65: give 1 to 64"):
        write("--context", "65")
