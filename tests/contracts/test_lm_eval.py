"""Promise: lm-evaluation-harness runs on an export, and its figures are linnet's own on the same text."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from linnet.config import ModelConfig
from linnet.interop import export_hf
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

pytest.importorskip("lm_eval")
pytest.importorskip("transformers")

CONTEXT = 64
CHOICES = [
    {"question": "The linnet sang", "answers": ["in the tree", "12 times", "the the the"], "label": 0},
    {"question": "One and one make", "answers": ["two", "three, or on some days four", "in"], "label": 1},
    {"question": "Zwölf", "answers": ["ist", "zwölf, naïve", "2"], "label": 2},
]
TEXTS = [
    "The linnet sang in the tree, and then it sang again.",
    "One. Two\n\nthree  four — the end 😀",
    "A longer text, which does not fit into the model's window at once. " * 4,
]
CHOOSE = """
task: choose
output_type: multiple_choice
doc_to_text: question
doc_to_choice: answers
doc_to_target: label
metric_list:
  - metric: acc
  - metric: acc_norm
"""
READ = """
task: read
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
HARNESS = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

model, tasks = sys.argv[1:]
found = simple_evaluate(
    model="hf",
    model_args={"pretrained": model, "dtype": "float32"},
    tasks=["choose", "read"],
    task_manager=TaskManager(include_path=tasks, include_defaults=False),
    batch_size=2,
    device="cpu",
    bootstrap_iters=0,
)
samples = {name: [sample["filtered_resps"] for sample in listed] for name, listed in found["samples"].items()}
print("\\n" + json.dumps({"results": found["results"], "samples": samples}, default=str))
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocab = {0: b"<|endoftext|>", **{1 + byte: bytes([byte]) for byte in range(256)}}
    merges = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b" ", b"t"), (b"i", b"n"), (b"o", b"n"), (b" t", b"w")]
    vocab |= {257 + rank: left + right for rank, (left, right) in enumerate(merges)}
    return Tokenizer(vocab, merges, ["<|endoftext|>"])


@pytest.fixture(scope="module")
def model() -> TransformerLM:
    config = ModelConfig(
        vocab_size=270,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        rope_interleaved=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return TransformerLM(config).eval()


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory, model: TransformerLM, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the harness says, in a process of its own that cannot ask the network."""
    home = tmp_path_factory.mktemp("harness")
    export_hf(model, tokenizer, home / "model", "float32")
    (home / "tasks").mkdir()
    for name, task, documents in (("choose", CHOOSE, CHOICES), ("read", READ, [{"text": text} for text in TEXTS])):
        file = home / f"{name}.jsonl"
        file.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
        source = json.dumps({"data_files": {"test": str(file)}})
        data = f"dataset_path: json\ndataset_kwargs: {source}\ntest_split: test\n"
        (home / "tasks" / f"{name}.yaml").write_text(task + data, encoding="utf-8")
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, home / "model", home / "tasks"],
        env={**os.environ, **offline, "HF_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def log_probability(model: TransformerLM, before: list[int], after: list[int]) -> float:
    """Of `after`, following `before`; together one more than the window at most."""
    ids = torch.tensor([before + after])
    with torch.no_grad():
        logs = model(ids[:, :-1]).double().log_softmax(-1)[0, len(before) - 1 :]
    return float(logs.gather(1, torch.tensor(after)[:, None]).sum())


def of_a_text(model: TransformerLM, tokenizer: Tokenizer, text: str) -> float:
    """Each token is predicted once, from as many before it as there is room for; the first from the end of text."""
    assert tokenizer.eos_id is not None
    ids = [tokenizer.eos_id, *tokenizer.encode(text)]
    total = log_probability(model, ids[:1], ids[1 : CONTEXT + 1])
    done = CONTEXT + 1
    while done < len(ids):
        end = min(done + CONTEXT, len(ids))
        total += log_probability(model, ids[end - CONTEXT - 1 : done], ids[done:end])
        done = end
    return total


def test_log_probabilities_of_answers_are_ours(
    harness: dict[str, Any], model: TransformerLM, tokenizer: Tokenizer
) -> None:
    right = 0
    for document, told in zip(CHOICES, harness["samples"]["choose"], strict=True):
        question = str(document["question"])
        before = tokenizer.encode(question)
        ours = [
            log_probability(model, before, tokenizer.encode(f"{question} {answer}")[len(before) :])
            for answer in document["answers"]
        ]
        assert [value for value, _ in told] == pytest.approx(ours, rel=1e-5)
        assert max(ours) - min(ours) > 1, "the comparison would be empty"
        right += ours.index(max(ours)) == document["label"]
    assert harness["results"]["choose"]["acc,none"] == pytest.approx(right / len(CHOICES))


def test_perplexities_are_ours(harness: dict[str, Any], model: TransformerLM, tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(TEXTS[2])) > 2 * CONTEXT
    ours = [of_a_text(model, tokenizer, text) for text in TEXTS]
    for told, value in zip(harness["samples"]["read"], ours, strict=True):
        assert told[0] == pytest.approx(value, rel=1e-5)
    words = sum(len(re.split(r"\s+", text)) for text in TEXTS)
    size = sum(len(text.encode()) for text in TEXTS)
    results = harness["results"]["read"]
    assert results["word_perplexity,none"] == pytest.approx(math.exp(-sum(ours) / words), rel=1e-4)
    assert results["byte_perplexity,none"] == pytest.approx(math.exp(-sum(ours) / size), rel=1e-5)
    assert results["bits_per_byte,none"] == pytest.approx(-sum(ours) / size / math.log(2), rel=1e-5)
