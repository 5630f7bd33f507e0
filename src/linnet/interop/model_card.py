"""The README.md of a published model: what it is, how it was trained, what was proven, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from linnet import __version__
from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop.facts import TrainingFacts
from linnet.interop.markdown import fenced, folded, plain, table
from linnet.tokenizer import Tokenizer

if TYPE_CHECKING:
    from linnet.interop.parity import ParityReport

LONGEST_SAMPLE = 1000  # characters
LONGEST_CARD = 2**20  # bytes
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class CardForm:
    """How a model is written, and how such a one is used.

    Attributes:
        library: the Hub's `library_name`.
        tags: beside "linnet".
        use: Markdown.
    """

    library: str
    tags: tuple[str, ...]
    use: str


@dataclass(frozen=True)
class CardSubject:
    """The model that a card is about.

    Attributes:
        name: the heading.
        parameters: how many, a tied head counted once.
        dtype: in which its weights are written.
        license: an identifier of the Hub's.
    """

    name: str
    config: ModelConfig
    parameters: int
    tokenizer: Tokenizer
    dtype: str
    license: str
    form: CardForm


def check_license(name: str) -> None:
    """Raise UserError unless `name` can be one of the Hub's license identifiers, in lower case."""
    if not _LICENSE.fullmatch(name):
        raise UserError(f"license {name!r} is no identifier of the Hub's: give one such as apache-2.0, mit or other")


def license_in(directory: Path) -> str | None:
    """The license that the card of a model in `directory` names, if there is a card and it names one."""
    card = directory / "README.md"
    if not card.is_file() or card.stat().st_size > LONGEST_CARD:
        return None
    match = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        found = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None  # somebody else's card, of which only this one word was wanted
    name = found.get("license") if isinstance(found, dict) else None
    return name if isinstance(name, str) and _LICENSE.fullmatch(name) else None


def model_card(
    subject: CardSubject,
    facts: TrainingFacts | None,
    report: ParityReport | None,
    *,
    unproven: Sequence[str] = (),
    note: str = "",
) -> str:
    """The card, Markdown with YAML front matter as https://huggingface.co/docs/hub/model-cards has it.

    Args:
        facts: what is known of the training; what is not is left out.
        report: the comparison with an independent implementation, if there was one.
        unproven: why nobody should rely on this export; said at the top.
        note: what was checked beside the report, in words.
    """
    facts = facts or TrainingFacts()
    sections = [
        _front_matter(subject, facts),
        f"# {plain(subject.name)}",
        _warning(unproven),
        _opening(subject, facts),
        f"## Use\n\n{subject.form.use}",
        f"## Architecture\n\n{table(('', ''), _architecture(subject))}",
        f"## Tokenizer\n\n{table(('', ''), _tokenizer(subject.tokenizer))}",
        _training(facts),
        _proof(report, note),
        _limits(subject, facts),
        _sample(facts),
        folded("The run's config.yaml", fenced(facts.config_yaml, "yaml")) if facts.config_yaml else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(subject: CardSubject, facts: TrainingFacts) -> str:
    values: dict[str, Any] = {
        "license": subject.license,
        "library_name": subject.form.library,
        "pipeline_tag": "text-generation",
        "tags": ["linnet", *subject.form.tags],
    }
    if facts.datasets:
        values["datasets"] = list(facts.datasets)
    return f"---\n{yaml.safe_dump(values, sort_keys=False, width=1000)}---"


def _warning(unproven: Sequence[str]) -> str:
    if not unproven:
        return ""
    return "\n".join(
        [
            "> **UNPROVEN.** This export was forced: it has not been shown to compute what the trained model computes.",
            ">",
            *(f"> - {plain(finding)}" for finding in unproven),
        ]
    )


def _opening(subject: CardSubject, facts: TrainingFacts) -> str:
    if facts.began_from is not None:
        origin = f", trained further from the weights of {plain(facts.began_from)}"
    elif facts.steps is not None:
        origin = ", trained from nothing"
    elif facts.read_from is not None:
        origin = f", read from {plain(facts.read_from)}, which does not say how it was trained"
    else:
        origin = ""
    return (
        f"A decoder-only language model of the Llama family with {subject.parameters:,} parameters{origin}. "
        f"Made with linnet; its weights are stored as {subject.dtype}."
    )


def _architecture(subject: CardSubject) -> Rows:
    config = subject.config
    embedding = config.vocab_size * config.hidden_size
    rows = [
        ("Parameters", f"{subject.parameters:,}, of which {embedding:,} in the embedding"),
        ("Layers", f"{config.num_hidden_layers}"),
        ("Hidden size", f"{config.hidden_size:,}"),
        ("Feed-forward", f"{_FEED_FORWARDS[config.feed_forward]}, {config.intermediate_size:,} wide"),
        ("Attention heads", f"{config.num_attention_heads} of width {config.head_dim}"),
        ("Key and value heads", f"{config.num_key_value_heads}"),
        ("Positions", _positions(config)),
        ("Norm", _norm(config)),
        ("Biases", _biases(config)),
        ("Output head", "the embedding" if config.tie_word_embeddings else "of its own"),
        ("Vocabulary", f"{config.vocab_size:,}"),
        ("Longest context", f"{config.max_position_embeddings:,} tokens"),
    ]
    return rows


_FEED_FORWARDS = {"swiglu": "SwiGLU", "silu": "SiLU"}


def _positions(config: ModelConfig) -> str:
    if config.position_embedding == "none":
        return "none (NoPE)"
    scaling = config.rope_scaling
    stretched = f", stretched by {scaling.rope_type} {scaling.factor:g}" if scaling is not None else ""
    return f"RoPE, base {config.rope_theta:,.0f}{stretched}"


def _norm(config: ModelConfig) -> str:
    if config.norm == "none":
        return "none"
    heads = ", and on query and key heads" if config.qk_norm else ""
    place = "before" if config.norm_position == "pre" else "after"
    return f"RMSNorm {place} attention and feed-forward{heads}, eps {config.rms_norm_eps:g}"


def _biases(config: ModelConfig) -> str:
    places = [name for name, has in (("attention", config.attention_bias), ("feed-forward", config.mlp_bias)) if has]
    return " and ".join(places) or "none"


def _tokenizer(tokenizer: Tokenizer) -> Rows:
    specials = tokenizer.special_ids
    end = next((text for text, id in specials.items() if id == tokenizer.eos_id), None)
    return [
        ("Kind", "byte-level BPE"),
        ("Tokens", f"{len(tokenizer.vocab):,}, from {len(tokenizer.merges):,} merges"),
        ("Pre-tokenizer", tokenizer.pattern),
        ("Special tokens", ", ".join(f"{text} = {id}" for text, id in specials.items()) or "none"),
        ("Ends a text", end or "nothing"),
    ]


def _training(facts: TrainingFacts) -> str:
    rows = [*_data(facts), *_course(facts), *_result(facts), *_setting(facts)]
    return f"## Training\n\n{table(('', ''), rows)}" if rows else ""


def _data(facts: TrainingFacts) -> Rows:
    rows = []
    if facts.sources:
        rows.append(("Text", ", ".join(facts.sources)))
    if facts.validation_sources:
        rows.append(("Text to validate on", ", ".join(facts.validation_sources)))
    splits = (
        ("Training split", facts.training_tokens, facts.training_bytes),
        ("Validation split", facts.validation_tokens, facts.validation_bytes),
    )
    for name, tokens, size in splits:
        parts = [f"{tokens:,} tokens"] if tokens is not None else []
        parts += [f"{size:,} bytes"] if size is not None else []
        if parts:
            rows.append((name, ", ".join(parts)))
    return rows


def _course(facts: TrainingFacts) -> Rows:
    rows = []
    if facts.steps is not None:
        rows.append(("Optimizer steps", f"{facts.steps:,}"))
    if facts.tokens_seen is not None:
        rows.append(("Tokens trained on", f"{facts.tokens_seen:,}"))
    if facts.windows_per_step is not None and facts.sequence_length is not None:
        tokens = facts.windows_per_step * facts.sequence_length
        rows.append(
            ("Batch", f"{facts.windows_per_step:,} windows of {facts.sequence_length:,} tokens = {tokens:,} tokens")
        )
    named = (("Optimizer", facts.optimizer), ("Learning rate", facts.schedule), ("Precision", facts.precision))
    return [*rows, *((name, value) for name, value in named if value is not None)]


def _result(facts: TrainingFacts) -> Rows:
    rows = []
    if facts.training_loss is not None:
        rows.append(("Last training loss", f"{facts.training_loss:.4f} nats per token"))
    figures = (
        (facts.validation_loss, "nats per token"),
        (facts.validation_nats_per_byte, "nats per byte"),
        (facts.validation_bits_per_byte, "bits per byte"),
    )
    measured = [f"{figure:.4f} {unit}" for figure, unit in figures if figure is not None]
    if measured:
        step = "" if facts.validation_step in (None, facts.steps) else f" (at step {facts.validation_step:,})"
        rows.append(("Last validation loss", f"{', '.join(measured)}{step}"))
    if facts.lowest_nats_per_byte is not None:
        rows.append(("Lowest possible loss", f"{facts.lowest_nats_per_byte:.4f} nats per byte"))
    return rows


def _setting(facts: TrainingFacts) -> Rows:
    changed = " with changes" if facts.commit_changed else ""
    named = (
        ("Hardware", facts.hardware),
        ("Time", None if facts.seconds is None else f"{facts.seconds:,.0f} s"),
        ("Begun", facts.began),
        ("Seed", None if facts.seed is None else str(facts.seed)),
        ("Software", ", ".join(f"{name} {version}" for name, version in facts.versions.items()) or None),
        ("Commit of linnet", None if facts.commit is None else f"{facts.commit}{changed}"),
    )
    return [(name, value) for name, value in named if value is not None]


def _proof(report: ParityReport | None, note: str) -> str:
    parts = []
    if report is not None:
        by = " and ".join(f"{name} {version}" for name, version in report.versions[1].items())
        parts.append(
            f"Before it got its name, this export was held against the model it was made from: linnet {__version__} "
            f"computed the one, {plain(by)} the other."
        )
        rows = [
            (
                check.name,
                _figure(check.figure),
                _figure(check.bound),
                "passed" if check.passed else "FAILED",
                check.detail,
            )
            for check in report.checks
        ]
        parts.append(table(("Check", "Measured", "At most", "", "What is measured"), rows))
        parts += [f"- {plain(remark)}" for remark in report.notes]
    if note:
        parts.append(plain(note))
    return "\n\n".join(["## Proof", *parts]) if parts else ""


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _limits(subject: CardSubject, facts: TrainingFacts) -> str:
    lines = [
        "- It continues text. It was not taught to follow instructions or to hold a conversation.",
        "- What it writes need not be true, and it repeats whatever its training text says, with its faults.",
    ]
    if facts.sources == ("builtin:stories",):
        lines.append("- Its only text were short stories in English by linnet's grammar; it knows nothing else.")
    if facts.sequence_length is not None and facts.sequence_length < subject.config.max_position_embeddings:
        lines.append(
            f"- It was trained on windows of {facts.sequence_length:,} tokens; "
            f"how it does beyond them, up to {subject.config.max_position_embeddings:,}, was not measured."
        )
    if facts.validation_loss is not None:
        lines.append("- The validation loss is that of the run's own held-out text, not of any public benchmark.")
    if subject.license == "unknown":
        lines.append("- Nobody has named a license for it, or settled what its training text permits.")
    return "## Limits\n\n" + "\n".join(lines)


def _sample(facts: TrainingFacts) -> str:
    if facts.sample is None:
        return ""
    prompt, text = facts.sample
    whole = prompt + text
    shown = whole if len(whole) <= LONGEST_SAMPLE else f"{whole[:LONGEST_SAMPLE]}…"
    after = f"After the prompt {plain(repr(prompt))}, " if prompt.strip() else "From the beginning of a text, "
    when = "" if facts.sample_step in (None, facts.steps) else f" at step {facts.sample_step:,}"
    return f"## A sample\n\n{after}written by the model itself{when}:\n\n{fenced(shown)}"
