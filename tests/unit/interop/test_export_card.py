"""A model card tells what is known, leaves out what is not, and shows hostile text as text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop.facts import TrainingFacts
from linnet.interop.markdown import fenced, folded, plain, table
from linnet.interop.model_card import CardForm, CardSubject, check_license, model_card
from linnet.tokenizer import Tokenizer

HOSTILE = [
    "<script>alert(1)</script>",
    "![x](https://evil.example/x.png) [click](javascript:alert(1))",
    "a | b || c\n| --- |\n# heading\n---\nlicense: mit\n---",
    "`code` ``` fence\n```\n</details><img src=x onerror=alert(1)>",
    "www.evil.example https://evil.example me@evil.example @someone #12",
    "&lt;b&gt; \\| \\\\| $$x$$ ~~no~~ *a* _b_ __c__ **d** <!-- -->",
    "right \u202eto left\u202c, a bell\x07, half a letter \udc80, a\tb\r\nc",
    "'''; import os #",
]
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


def text_of(html: str) -> str:
    import html as entities

    return entities.unescape(re.sub(r"<[^>]*>", "", html))


@given(TEXT)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_plain_text_renders_as_itself_alone(text: str) -> None:
    html = rendered(f"before {plain(text)} after")
    assert re.findall(r"<(\w+)", html) == ["p"], html
    assert text_of(html).startswith("before ")
    if text.isprintable():
        assert text_of(html).split() == f"before {text} after".split()


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_a_table_has_the_cells_it_was_given(rows: list[tuple[str, str]]) -> None:
    html = rendered(table(("a", "b"), rows))
    assert html.count("<tr>") == len(rows) + 1
    assert html.count("<td>") == 2 * len(rows)
    assert set(re.findall(r"<(\w+)", html)) == {"table", "thead", "tbody", "tr", "th", "td"}


@given(TEXT)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_a_block_holds_all_of_its_text(text: str) -> None:
    html = rendered(folded("title", fenced(text)) + "\n\nafter\n")
    assert html.count("<pre>") == 1
    assert html.endswith("<p>after</p>\n")
    assert not re.findall(r"<(script|img|a|h1|td)", html)
    assert text_of(html).count("\u202e") == 0


def test_hostile_links_and_mentions_are_broken_up() -> None:
    shown = plain(HOSTILE[4])
    for live in ("www.", "https://", "@", "#1"):
        assert live not in shown.replace("&#", ""), live


TOKENIZER = Tokenizer({0: b"<|endoftext|>", **{1 + byte: bytes([byte]) for byte in range(256)}}, [], ["<|endoftext|>"])
CONFIG = ModelConfig(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
SUBJECT = CardSubject(
    name="tales",
    config=CONFIG,
    parameters=28_192,
    tokenizer=TOKENIZER,
    dtype="bfloat16",
    license="apache-2.0",
    form=CardForm("transformers", ("llama",), "Use it."),
)
FACTS = TrainingFacts(
    name="tales",
    sources=("builtin:stories", "hf:roneneldan/TinyStories@train"),
    validation_sources=("held.txt",),
    datasets=("roneneldan/TinyStories",),
    training_tokens=1_234_567,
    training_bytes=4_567_890,
    validation_tokens=23_456,
    validation_bytes=87_654,
    steps=4_321,
    tokens_seen=9_876_543,
    windows_per_step=24,
    sequence_length=128,
    optimizer="AdamW, betas 0.9 and 0.95",
    schedule="0.003 after 20 steps",
    precision="bf16",
    training_loss=1.23456,
    validation_loss=1.34567,
    validation_nats_per_byte=0.45678,
    validation_bits_per_byte=0.65901,
    validation_step=4_000,
    lowest_nats_per_byte=0.27313,
    hardware="cuda:0 (NVIDIA H200, 139.8 GiB)",
    seconds=3_600.4,
    versions={"linnet": "0.1.0", "PyTorch": "2.13.0"},
    commit="0123abcd",
    commit_changed=True,
    seed=1337,
    began="2026-11-21T00:45:19+00:00",
    config_yaml="model:\n  hidden_size: 32\n",
    sample=("Once", " upon a time"),
)


def front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    values = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(values, dict)
    return values


def test_every_fact_is_told() -> None:
    told = text_of(rendered(model_card(SUBJECT, FACTS, None)))
    for figure in (
        *("builtin:stories, hf:roneneldan/TinyStories@train", "held.txt", "1,234,567 tokens, 4,567,890 bytes"),
        *("23,456 tokens, 87,654 bytes", "4,321", "9,876,543", "24 windows of 128 tokens = 3,072 tokens"),
        *("AdamW, betas 0.9 and 0.95", "0.003 after 20 steps", "bf16", "1.2346 nats per token"),
        *("1.3457 nats per token, 0.4568 nats per byte, 0.6590 bits per byte (at step 4,000)", "0.2731 nats per byte"),
        *("cuda:0 (NVIDIA H200, 139.8 GiB)", "3,600 s", "linnet 0.1.0, PyTorch 2.13.0", "0123abcd with changes"),
        *("1337", "2026-11-21T00:45:19+00:00", "hidden_size: 32", "Once upon a time", "28,192 parameters"),
        *("trained on windows of 128 tokens", "RMSNorm before", "4 of width 8", "<|endoftext|> = 0"),
    ):
        assert figure in told, figure


@pytest.mark.parametrize("field", [name for name in TrainingFacts.__dataclass_fields__ if name != "commit_changed"])
def test_what_is_not_known_is_left_out(field: str) -> None:
    """A card without one fact is a card with all of them less a line, and nowhere says None."""
    empty = TrainingFacts()
    card = model_card(SUBJECT, replace(FACTS, **{field: getattr(empty, field)}), None)
    assert "None" not in card
    assert "()" not in card


def test_nothing_known_is_a_card_too() -> None:
    card = model_card(SUBJECT, None, None)
    assert "## Training" not in card
    assert "## Proof" not in card
    assert "None" not in card
    assert "## Architecture" in card


def test_a_diverged_run_has_no_figures() -> None:
    card = model_card(SUBJECT, replace(FACTS, training_loss=None, validation_loss=None), None)
    assert "Last training loss" not in card
    assert "0.4568 nats per byte" in card


def test_front_matter_is_the_hubs() -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = model_card(SUBJECT, FACTS, None)
    card = hub.ModelCard(text)
    data = card.data.to_dict()
    assert data == front_matter(text)
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["tags"] == ["linnet", "llama"]
    assert data["datasets"] == ["roneneldan/TinyStories"]
    assert "language" not in data, "nobody told it"
    assert card.text.strip().startswith("# tales")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_texts_and_samples_are_shown_as_text(text: str) -> None:
    facts = replace(
        FACTS,
        sources=(text,),
        hardware=text,
        versions={text: text},
        config_yaml=text,
        sample=(text, text),
        began_from=text,
        commit=text,
    )
    subject = replace(SUBJECT, name=text)
    card = model_card(subject, facts, None, unproven=[text], note=text)
    card.encode()  # halves of characters would not be written
    before = front_matter(model_card(SUBJECT, FACTS, None))
    assert front_matter(card) == before
    body = rendered(card.split("---\n", 2)[2])
    allowed = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "details"}
    assert set(re.findall(r"<(\w+)", body)) <= {*allowed, "summary", "strong", "blockquote"}
    assert body.count("<h1>") == 1
    assert body.count("<h2>") == rendered(model_card(SUBJECT, FACTS, None, note="x").split("---\n", 2)[2]).count("<h2>")
    assert body.count("<details>") == body.count("</details>") == 1


def test_a_forced_export_is_marked_before_anything_else() -> None:
    card = model_card(SUBJECT, FACTS, None, unproven=["gate and up are swapped", "theta is 10 instead of 100"])
    top = card.split("# tales")[1].strip()
    assert top.startswith("> **UNPROVEN.**")
    assert rendered(top).startswith("<blockquote>")
    assert rendered(top).split("</blockquote>")[0].count("<li>") == 2


def test_licenses() -> None:
    for name in ("apache-2.0", "mit", "cc-by-sa-4.0", "unknown", "other", "llama3.1"):
        check_license(name)
    for name in ("", "Apache-2.0", "apache 2.0", "mit\nx: 1", "-x"):
        with pytest.raises(UserError, match="is no identifier of the Hub's"):
            check_license(name)
