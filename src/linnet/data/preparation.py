"""Text to token shards on disk: once, resumable, found again by a key."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import linnet
from linnet.config import DataConfig, TokenizerConfig
from linnet.config.run import END_OF_TEXT
from linnet.data.encoding import encode_segments
from linnet.data.locking import locked
from linnet.data.prepared import FORMAT, MANIFEST, TOKENIZER, PreparedData, load_prepared
from linnet.data.segments import Segments, cut_segments
from linnet.data.sources import Source, open_source
from linnet.data.split_writer import SplitWriter
from linnet.data.splits import TRAIN, VALIDATION, Division, divide, sampled
from linnet.data.texts import ByteCounter, Progress, bounded_texts, total_size
from linnet.durable import DISK_FULL, cannot_write, sync_directory, write_durably
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, train_bpe_from_texts

SHARD_TOKENS = 64 << 20
BATCH_CHARACTERS = 1 << 20  # what a thread encodes at a time


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    shard_tokens: int = SHARD_TOKENS,
) -> PreparedData:
    """The data that the settings describe, made ready unless that was done before.

    May be interrupted at any moment; the next call goes on after the last whole shard and comes to the same bytes.
    Two processes may ask for the same data: one makes it, the other waits.

    Args:
        data: what text, and how it is split.
        tokenizer: which tokenizer, or how one is trained on the training split.
        workers: threads to encode with; null means one per core. The result does not depend on it.
        progress: told (description, done, in all or None, unit="B") now and then.
        shard_tokens: tokens after which a shard is closed.

    Raises:
        UserError: if the text cannot be read or split, or holds less than one window.
    """
    request = _Request.resolve(data, tokenizer, shard_tokens)
    prepared = request.find()
    if prepared is None:
        report = progress or _silent
        waiting = f"waiting for another process that prepares {request.directory}"
        _make_directory(request.directory)
        with _no_space_told(request.directory), locked(request.directory, lambda: report(waiting, 0, None)):
            prepared = request.find()
            if prepared is None:
                _make(request, workers, report)
                prepared = load_prepared(request.directory)
    _check_windows(prepared, data.seq_len)
    return prepared


def find_prepared(
    data: DataConfig, tokenizer: TokenizerConfig, *, shard_tokens: int = SHARD_TOKENS
) -> PreparedData | None:
    """The data that the settings describe if it was prepared before and the text has not changed since.

    Raises:
        UserError: if the text or tokenizer named is not there, or what was prepared is damaged.
    """
    return _Request.resolve(data, tokenizer, shard_tokens).find()


def train_tokenizer(
    data: DataConfig, tokenizer: TokenizerConfig, *, workers: int | None = None, progress: Progress | None = None
) -> Tokenizer:
    """The tokenizer that `prepare` would train, on the training split alone; nothing is written.

    Raises:
        UserError: if the text cannot be read or split, or the vocabulary is too small.
    """
    request = _Request.resolve(data, tokenizer, SHARD_TOKENS)
    division = divide(request.source, request.validation, data)
    return _trained(request, division, workers, progress or _silent)


@dataclass(frozen=True)
class _Request:
    """Settings with everything that they name opened, and the key that follows from it."""

    data: DataConfig
    settings: TokenizerConfig
    given: Tokenizer | None
    source: Source
    validation: Source | None
    shard_tokens: int
    facts: dict[str, Any]

    @classmethod
    def resolve(cls, data: DataConfig, settings: TokenizerConfig, shard_tokens: int) -> _Request:
        given = Tokenizer.from_pretrained(settings.source) if settings.source is not None else None
        end_of_text = _end_of_text(settings, given)
        source = open_source(data.source, data, end_of_text=end_of_text)
        validation = None
        if data.val_source:
            other_stories = data.replace(seed=data.seed + 1)  # else both splits would hold the same stories
            validation = open_source(data.val_source, other_stories, end_of_text=end_of_text)
        # A setting at the value that it had before it was one is left out: what was prepared then keeps its key.
        unsaid = {"source", "sample"} if settings.sample == 1 else {"source"}
        chosen = {"fingerprint": given.fingerprint} if given else settings.model_dump(mode="json", exclude=unsaid)
        facts = {
            "format": FORMAT,
            "source": source.fingerprint(),
            "val_source": validation.fingerprint() if validation else None,
            "val_fraction": data.val_fraction,
            "split": data.split,
            "seed": data.seed,
            "tokenizer": chosen,
            "shard_tokens": shard_tokens,
        }
        return cls(data, settings, given, source, validation, shard_tokens, facts)

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def directory(self) -> Path:
        return Path(self.data.directory).expanduser() / f"{_slug(self.data.source[0])}-{self.key}"

    def find(self) -> PreparedData | None:
        return load_prepared(self.directory) if (self.directory / MANIFEST).exists() else None


def _end_of_text(settings: TokenizerConfig, given: Tokenizer | None) -> str:
    """The token that ends documents: as `Tokenizer.eos_id` has it, `<|endoftext|>` if it is special, else the first."""
    if given is None:
        if not settings.special_tokens:
            raise UserError("tokenizer.special_tokens is empty, but the first one has to end every document: name one")
        return END_OF_TEXT if END_OF_TEXT in settings.special_tokens else settings.special_tokens[0]
    for token, number in given.special_ids.items():
        if number == given.eos_id:
            return token
    raise UserError(f"{settings.source}: this tokenizer has no special token to end documents with: add one to it")


def _slug(spec: str) -> str:
    name = spec.partition(":")[2] if spec.startswith(("builtin:", "hf:")) else Path(spec).name.split(".")[0]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "text"


def _make(request: _Request, workers: int | None, report: Progress) -> None:
    division = divide(request.source, request.validation, request.data)
    tokenizer = _tokenizer(request, division, workers, report)
    names = [TRAIN] if division.kind == "none" else [TRAIN, VALIDATION]
    writers = {name: SplitWriter(request.directory, name, tokenizer, request.shard_tokens) for name in names}
    try:
        _encode(request, division, tokenizer, writers, workers, report)
        splits = {name: writer.finish() for name, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    judged = request.validation or request.source
    manifest = {
        "format": FORMAT,
        "linnet": linnet.__version__,
        "key": request.key,
        "source": list(request.data.source),
        "val_source": list(request.data.val_source),
        "split": division.kind,
        "settings": request.facts,
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.eos_id,
        },
        "entropy_nats_per_byte": judged.entropy_nats_per_byte,
        "splits": splits,
    }
    write_durably(request.directory / MANIFEST, json.dumps(manifest, indent=1).encode())


def _encode(
    request: _Request,
    division: Division,
    tokenizer: Tokenizer,
    writers: dict[str, SplitWriter],
    workers: int | None,
    report: Progress,
) -> None:
    total = total_size(request.source, request.validation)
    counter = ByteCounter("encoding text", total, report)
    tokenizer.expect(total or 0)

    def told() -> None:
        counter.reach(sum(writer.text_bytes for writer in writers.values()))

    def remaining() -> Iterator[Segments]:
        specials = tokenizer.special_tokens
        for segments in cut_segments(division.batches(), tokenizer.pattern, specials, together=BATCH_CHARACTERS):
            new = writers[segments.split].skip(segments)
            told()
            if new.texts:
                yield new

    with closing(encode_segments(remaining(), tokenizer, workers)) as batches:
        for encoded in batches:
            writers[encoded.segments.split].add(encoded)
            told()
    counter.finish()


def _tokenizer(request: _Request, division: Division, workers: int | None, report: Progress) -> Tokenizer:
    """The tokenizer given, or one trained on the training split; kept beside the tokens either way."""
    home = request.directory / TOKENIZER
    if home.exists():
        return Tokenizer.from_pretrained(home)
    tokenizer = request.given or _trained(request, division, workers, report)
    aside = home.with_name(f".{TOKENIZER}.writing")
    if aside.exists():
        shutil.rmtree(aside)
    tokenizer.save(aside)
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(aside)
    aside.replace(home)
    sync_directory(request.directory)
    return tokenizer


def _trained(request: _Request, division: Division, workers: int | None, report: Progress) -> Tokenizer:
    settings = request.settings
    specials = list(settings.special_tokens)
    limit = settings.max_bytes
    total = total_size(request.source)
    if limit is not None:
        total = min(total or limit, limit)
    counter = ByteCounter("reading text for the tokenizer", total, report)
    batches = (batch for batch in division.batches() if batch.split == TRAIN)
    chosen = batches if settings.sample == 1 else sampled(batches, request.data.seed, settings.sample)
    texts = bounded_texts(chosen, settings.pattern, specials, limit, counter)

    def merged(phase: str, done: int, wanted: int | None) -> None:
        if phase == "merge":  # the other phase is reading, which the counter reports in bytes
            report("merging pairs of tokens", done, wanted, "merges")

    vocab, merges = train_bpe_from_texts(
        texts, settings.vocab_size, specials, pattern=settings.pattern, workers=workers, progress=merged
    )
    return Tokenizer(vocab, merges, specials, pattern=settings.pattern)


def _check_windows(prepared: PreparedData, seq_len: int) -> None:
    for name, stream in prepared.splits.items():
        if stream.tokens < seq_len + 1:
            more = "raise data.val_fraction, " if name == VALIDATION else ""
            raise UserError(
                f"{prepared.directory}: the {name} split holds {stream.tokens} tokens, one window needs {seq_len + 1}: "
                f"give more text, {more}or lower data.seq_len"
            )


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be made ({error.strerror}): set data.directory to a place that can be written"
        ) from error


@contextmanager
def _no_space_told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise cannot_write("finished shards are", directory, error) from error


def _silent(description: str, done: int, total: int | None, unit: str = "B") -> None:
    """Report to nobody."""
