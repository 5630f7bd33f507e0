"""The end of a text, where its id may be 0: `bos_token_id or 1` takes a 0 for nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from linnet.config import ModelConfig
from linnet.data.stream import TokenStream
from linnet.doctor.findings import Outcome, counted, failed, passed, skipped
from linnet.doctor.setup.subject import Setup
from linnet.generate import SamplingSettings, TextGenerator
from linnet.model import TransformerLM
from linnet.runtime import untouched_randomness

GREEDY = SamplingSettings(temperature=0.0)
OR_ONE = "an id of 0 is taken for none, as `bos_token_id or 1` does"


def ends_generation(setup: Setup) -> Outcome:
    """A generator must begin an empty prompt with the end-of-text id, and stop at it."""
    tokenizer, end = setup.tokenizer, setup.tokenizer.eos_id
    if end is None:
        return skipped("the tokenizer has no token that ends a text")
    if end >= setup.model.vocab_size:
        return failed(f"its id {end} is no row of the model", "see the special ids")
    other = next((id for id in tokenizer.vocab if id != end and id not in tokenizer.special_ids.values()), None)
    if other is None:
        return skipped("the tokenizer has no other token")
    always = TextGenerator(_answering(setup.model.vocab_size, end, {}, end), tokenizer)
    stopped = always.complete(tokenizer.decode([other]), max_new_tokens=3, settings=GREEDY, seed=0)
    remedy = f"compare ids with `is None`: {OR_ONE}" if end == 0 else "stop at the tokenizer's eos_id"
    if stopped.reason != "eos" or stopped.ids:
        return failed(f"a model that wrote the end-of-text id {end} was asked for more", remedy, figure=float(end))
    # Writes the end only after the end, so that it tells what an empty prompt began with.
    begun = TextGenerator(_answering(setup.model.vocab_size, other, {end: end}, end), tokenizer)
    if begun.complete("", max_new_tokens=3, settings=GREEDY, seed=0).reason != "eos":
        return failed(f"an empty prompt did not begin with the end-of-text id {end}", remedy, figure=float(end))
    return passed(f"generation stops at id {end}, and begins an empty prompt with it", figure=float(end))


def ends_documents(setup: Setup) -> Outcome:
    """Every document in the prepared data must end with that id."""
    if setup.data is None:
        return skipped(setup.no_data)
    end = setup.tokenizer.eos_id
    if end is None:
        return failed("the tokenizer has no token to end documents with", "add a special token to it")
    looked = 0
    for name, stream in setup.data.splits.items():
        for before in _before_documents(stream):
            looked += before.size
            wrong = before[before != end]
            if wrong.size:
                found = int(np.bincount(wrong.astype(np.int64)).argmax())
                blame = f" ({OR_ONE})" if end == 0 and found == 1 else ""
                return failed(
                    f"in the {name} split {wrong.size:,} of {before.size:,} documents end with id {found} instead of "
                    f"{end}{blame}",
                    f"delete {setup.data.directory} and prepare the data again",
                    figure=float(found),
                    bound=float(end),
                )
    if not looked:
        return skipped("the text is a single document")
    return passed(f"{counted(looked, 'document')}, each ended with id {end}", figure=float(end))


def kept_by_export(setup: Setup) -> Outcome:
    """config.json and generation_config.json of an export must name the tokenizer's own id."""
    if setup.exported is None:
        return skipped("this is no export")
    end = setup.tokenizer.eos_id
    if end is None:
        return skipped("the tokenizer has no token that ends a text")
    said = []
    for name in ("config.json", "generation_config.json"):
        file = setup.exported / name
        if not file.is_file():
            continue
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        given = values.get("eos_token_id")
        known = given if isinstance(given, list) else [given]
        if "eos_token_id" in values and end not in known:
            blame = f": {OR_ONE}" if end == 0 else ""
            return failed(
                f"{name} says eos_token_id {given!r}, and the tokenizer ends a text with {end}{blame}",
                f"set eos_token_id to {end} in {name}, or export again",
                figure=float(end),
            )
        if "eos_token_id" in values:
            said.append(name)
    if not said:
        return skipped("neither config.json nor generation_config.json names an eos_token_id")
    return passed(f"{' and '.join(said)} name the tokenizer's id {end}", figure=float(end))


def _answering(vocab_size: int, default: int, after: dict[int, int], end: int) -> TransformerLM:
    """A model that writes `default`, or after an id of `after` what that says; `end` is one of the answers."""
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=2,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=2,
        max_position_embeddings=16,
        position_embedding="none",
        norm="none",
        tie_word_embeddings=False,
    )
    with untouched_randomness():
        model = TransformerLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # With every block silent the head reads the embedding: its first component asks for `default`.
        table, head = model.model.embed_tokens.weight, model.lm_head
        assert head is not None
        table[:, 0] = 1.0
        for id, answer in after.items():
            table[id] = torch.tensor([0.0, 1.0])
            head.weight[answer, 1] = 1.0
        head.weight[default, 0] = 1.0
    return model.eval()


def _before_documents(stream: TokenStream) -> list[np.ndarray[Any, Any]]:
    """The token before each document but the first, shard by shard."""
    found, last = [], None
    for shard in stream.shards:
        starts = shard.document_starts.astype(np.int64)
        inside = starts[starts > 0]
        before = shard.tokens[inside - 1]
        if last is not None and starts.size and starts[0] == 0:
            before = np.concatenate([np.array([last], before.dtype), before])
        found.append(before)
        last = shard.tokens[-1] if shard.tokens.size else last
    return found
