"""Prepared data: whole, within the vocabulary, its splits apart, and the text that the run began with."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from linnet.data.step_sizes import micro_batches_before
from linnet.data.stream import TokenStream
from linnet.doctor.findings import Outcome, counted, failed, passed, skipped
from linnet.doctor.setup.subject import Setup
from linnet.train.provenance import describe_data

# Shorter texts are alike by chance; of more documents than these, the first are looked at.
SHORTEST_DOCUMENT = 32
MOST_DOCUMENTS = 200_000
MOST_SHARED = 0.01
FEW_EPOCHS = 4.0  # beyond about four, repeated data teaches little more (Muennighoff et al., 2023)


def whole(setup: Setup) -> Outcome:
    """Every token is read and held against the checksums in its file."""
    if setup.data is None:
        return skipped(setup.no_data)
    setup.data.verify()
    files = sum(len(stream.shards) for stream in setup.data.splits.values())
    tokens = sum(stream.tokens for stream in setup.data.splits.values())
    return passed(f"{tokens:,} tokens in {counted(files, 'file')}, each with the SHA-256 it was written with")


def ids_below_vocabulary(setup: Setup) -> Outcome:
    """An id beyond the embedding is an error in the middle of a run."""
    if setup.data is None:
        return skipped(setup.no_data)
    greatest = max(shard.header.max_id for stream in setup.data.splits.values() for shard in stream.shards)
    rows = setup.model.vocab_size
    if greatest >= rows:
        return failed(
            f"the data holds id {greatest}, and the model has rows up to {rows - 1}",
            f"set model.vocab_size to at least {greatest + 1}",
            figure=float(greatest),
            bound=float(rows - 1),
        )
    return passed(
        f"the greatest id is {greatest:,}, the last row {rows - 1:,}", figure=float(greatest), bound=float(rows - 1)
    )


def enough(setup: Setup) -> Outcome:
    """Windows to train on, and to validate on."""
    if setup.data is None or setup.config is None:
        return skipped(setup.no_data)
    config = setup.config
    length, share = config.data.seq_len, config.train.windows_per_step
    windows = setup.data.train.window_count(length)
    validation = setup.data.validation
    held_out = validation.window_count(length) if validation is not None else 0
    if windows < share:
        return failed(
            f"{windows} training windows are fewer than the {share} of one step, which would see some of them twice",
            "give more text, or lower data.seq_len, train.batch_size or train.grad_accum",
            figure=float(windows),
            bound=float(share),
        )
    if config.train.eval_every and not held_out:
        return failed(
            "there is no validation split, so nothing would tell learning from memorizing",
            "set data.val_fraction above 0, or name data.val_source",
            figure=0.0,
            bound=1.0,
        )
    settings = config.train
    parts = micro_batches_before(settings.max_steps, settings.grad_accum, settings.batch_warmup_steps)
    epochs = parts * (settings.windows_per_step // settings.grad_accum) / windows
    often = "; beyond about four, more text teaches more than more steps" if epochs > FEW_EPOCHS else ""
    return passed(
        f"{counted(windows, 'window')} to train on, read {epochs:.2g} times; {held_out:,} to validate on{often}"
    )


def splits_apart(setup: Setup) -> Outcome:
    """A document in both splits makes validation a test of memory."""
    if setup.data is None:
        return skipped(setup.no_data)
    if setup.data.validation is None:
        return skipped("there is no validation split")
    held_out = set(_document_hashes(setup.data.validation))
    if not held_out:
        return skipped(f"no document of {SHORTEST_DOCUMENT} tokens or more lies whole in the validation split")
    shared = held_out & set(_document_hashes(setup.data.train))
    share = len(shared) / len(held_out)
    sentence = f"{len(shared):,} of {len(held_out):,} validation documents stand word for word in the training split"
    if share > MOST_SHARED:
        return failed(
            sentence,
            "remove repeated documents from the text, or name a data.val_source of its own",
            figure=share,
            bound=MOST_SHARED,
        )
    return passed(sentence, figure=share, bound=MOST_SHARED)


def same_text(setup: Setup) -> Outcome:
    """The text and tokenizer must be those that the run's provenance names."""
    if setup.run is None:
        return skipped("there is no run yet")
    if setup.data is None:
        return skipped(setup.no_data)
    before, now = setup.run.provenance().get("data"), describe_data(setup.data)
    if not before:
        return skipped("the run's provenance names no data")
    for key, name in (("tokenizer", "tokenizer"), ("text_sha256", "text")):
        if before.get(key) != now[key]:
            return failed(
                f"the {name} is not the one that this run began with",
                f"bring that {name} back, or begin another run",
            )
    return passed("text and tokenizer have the hashes that this run began with")


def _document_hashes(stream: TokenStream) -> Iterator[bytes]:
    seen = 0
    for shard in stream.shards:
        edges = np.append(shard.document_starts.astype(np.int64), shard.header.tokens)
        for start, end in pairwise(edges.tolist()):
            if end - start >= SHORTEST_DOCUMENT:
                yield blake2b(shard.tokens[start:end].tobytes(), digest_size=16).digest()
            seen += 1
            if seen == MOST_DOCUMENTS:
                return
