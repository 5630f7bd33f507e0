"""linnet and its peers, each trained and asked to encode in the fastest way that its own interface offers.

Only the process that measures one of them imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linnet.tokenizer import Tokenizer
from linnet.tokenizer.alphabet import from_printable, to_printable
from tokenizer_corpora import END

THREADS = 2
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# tiktoken's expressions, GPT-2's written so as to run fast in its engine. GPT-4's is the published one, which Llama 3
# uses too: the spelling in tiktoken 0.14 joins whitespace after a line break at the very end of a text to it.
TIKTOKEN = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "gpt4": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": "|".join(
        [
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
}

Merges = list[tuple[bytes, bytes]]
Ids = NDArray[np.uint32]


def read_documents(path: Path) -> list[str]:
    """The documents of a text, line ends as they are, without those that are empty."""
    return [document for document in path.read_bytes().decode().split(END) if document]


def train_linnet(path: Path, vocab_size: int) -> Callable[[], Merges]:
    """linnet.tokenizer.train_bpe on the file."""
    from linnet.tokenizer import train_bpe

    _, merges = train_bpe(path, vocab_size, [END], workers=THREADS)
    return lambda: merges


def train_rustbpe(path: Path, vocab_size: int) -> Callable[[], Merges]:
    """rustbpe on the file's documents. It has no special tokens, so one merge more makes the same number of them."""
    import rustbpe

    trained = rustbpe.Tokenizer()
    trained.train_from_iterator(iter(read_documents(path)), vocab_size - 1, pattern=GPT2)

    def merges() -> Merges:
        # It tells no merge's two halves, only what each made; that stands in the first place here.
        tokens = [bytes(token) for token, _ in sorted(trained.get_mergeable_ranks(), key=lambda entry: entry[1])]
        return [(token, b"") for token in tokens[256:]]

    return merges


def train_tokenizers(path: Path, vocab_size: int) -> Callable[[], Merges]:
    """Hugging Face's tokenizers on the file's documents."""
    return _train_tokenizers(
        vocab_size, lambda model, trainer: model.train_from_iterator(read_documents(path), trainer)
    )


def train_tokenizers_file(path: Path, vocab_size: int) -> Callable[[], Merges]:
    """Hugging Face's tokenizers on the file, which it reads by lines; the end of a text is text to it."""
    return _train_tokenizers(vocab_size, lambda model, trainer: model.train([str(path)], trainer))


def _train_tokenizers(vocab_size: int, train: Callable[[Any, Any], None]) -> Callable[[], Merges]:
    import json

    from tokenizers import Tokenizer as Peer
    from tokenizers import models, pre_tokenizers, trainers

    model = Peer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    train(model, trainer)

    def merges() -> Merges:
        pairs = json.loads(model.to_str())["model"]["merges"]
        return [(from_printable(left) or b"", from_printable(right) or b"") for left, right in pairs]

    return merges


TRAINERS = {
    "linnet": train_linnet,
    "rustbpe": train_rustbpe,
    "tokenizers": train_tokenizers,
    "tokenizers, by lines": train_tokenizers_file,
}

# Encoding: from a tokenizer to a function that is the whole call to be timed, and gives what turns its answer into ids.
Encoded = Callable[[], Ids]


def linnet_encoder(tokenizer: Tokenizer, threads: int) -> Callable[[Sequence[str]], Encoded]:
    """linnet's documents as one array."""

    def encode(documents: Sequence[str]) -> Encoded:
        ids, _ = tokenizer.encode_ragged(documents, workers=threads)
        return lambda: ids.astype(np.uint32)

    return encode


def linnet_whole_encoder(tokenizer: Tokenizer) -> Callable[[Sequence[str]], Encoded]:
    """linnet's one array of one string, the documents' ends inside it as special tokens."""

    def encode(documents: Sequence[str]) -> Encoded:
        ids = tokenizer.encode_array(documents[0])
        return lambda: ids[ids != tokenizer.special_ids[END]].astype(np.uint32)

    return encode


def tiktoken_encoder(tokenizer: Tokenizer, threads: int) -> Callable[[Sequence[str]], Encoded]:
    """tiktoken's batch call."""
    encoding = tiktoken_encoding(tokenizer, "gpt2")

    def encode(documents: Sequence[str]) -> Encoded:
        lists = encoding.encode_ordinary_batch(list(documents), num_threads=threads)
        return lambda: _array(lists)

    return encode


def tiktoken_halves_encoder(tokenizer: Tokenizer) -> Callable[[Sequence[str]], Encoded]:
    """tiktoken document by document, half of them in each of two threads: less to hand over than in its batch call."""
    encoding = tiktoken_encoding(tokenizer, "gpt2")

    def encode(documents: Sequence[str]) -> Encoded:
        halves = documents[: len(documents) // 2], documents[len(documents) // 2 :]
        with ThreadPoolExecutor(THREADS) as pool:
            lists = list(pool.map(lambda half: list(map(encoding.encode_ordinary, half)), halves))
        return lambda: _array(chain.from_iterable(lists))

    return encode


def tiktoken_encoding(tokenizer: Tokenizer, pattern: str) -> Any:
    """tiktoken with linnet's vocabulary, its ids as ranks."""
    import tiktoken

    ranks = {token: id for id, token in tokenizer.vocab.items() if id not in tokenizer.special_ids.values()}
    return tiktoken.Encoding("benchmark", pat_str=TIKTOKEN[pattern], mergeable_ranks=ranks, special_tokens={})


def tokenizers_encoder(tokenizer: Tokenizer) -> Callable[[Sequence[str]], Encoded]:
    """Hugging Face's batch call without offsets, the faster of its two."""
    peer = hugging_face(tokenizer, "gpt2")

    def encode(documents: Sequence[str]) -> Encoded:
        encodings = peer.encode_batch_fast(list(documents), add_special_tokens=False)
        return lambda: _array(encoding.ids for encoding in encodings)

    return encode


def hugging_face(tokenizer: Tokenizer, pattern: str) -> Any:
    """Hugging Face's tokenizer with linnet's vocabulary and merges."""
    from tokenizers import Tokenizer as Peer
    from tokenizers import models, pre_tokenizers

    vocab = {to_printable(token): id for id, token in tokenizer.vocab.items()}
    merges = [(to_printable(left), to_printable(right)) for left, right in tokenizer.merges]
    peer = Peer(models.BPE(vocab=vocab, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    peer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level]) if pattern == "smollm" else byte_level
    return peer


ENCODERS: dict[str, Callable[[Tokenizer], Callable[[Sequence[str]], Encoded]]] = {
    "linnet, 1 thread": lambda tokenizer: linnet_encoder(tokenizer, 1),
    "linnet, 2 threads": lambda tokenizer: linnet_encoder(tokenizer, THREADS),
    "linnet, one string": linnet_whole_encoder,
    "tiktoken, 1 thread": lambda tokenizer: tiktoken_encoder(tokenizer, 1),
    "tiktoken, 2 threads": lambda tokenizer: tiktoken_encoder(tokenizer, THREADS),
    "tiktoken, 2 halves": tiktoken_halves_encoder,
    "tokenizers, 2 threads": tokenizers_encoder,
}


def _array(lists: Iterable[Iterable[int]]) -> Ids:
    return np.fromiter(chain.from_iterable(lists), dtype=np.uint32)
