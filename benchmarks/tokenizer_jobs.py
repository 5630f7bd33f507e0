"""What benchmarks/tokenizer.py runs as processes of their own: python tokenizer_jobs.py JOB '{"argument": …}'.

A job's result is the last line of its output, as JSON.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import psutil

import tokenizer_peers as peers
from linnet.tokenizer import Tokenizer
from linnet.tokenizer.patterns import piece_finder
from linnet.tokenizer.training import train_on_counts
from tokenizer_corpora import END

ADVERSARIAL = Path(__file__).parents[1] / "tests" / "adversarial_text.py"
SEED = 20
CHUNK = 1 << 13
SETTLED = 16_000_000  # after this much of a stream its tables are full
TRACED = 8_000_000, 16_000_000  # the same, and the end, where tracemalloc slows the stream down several times


def train(contender: str, corpus: str, vocab_size: int, out: str = "") -> dict[str, Any]:
    """One training as a whole call, reading included; `out`.json and the folder `out` receive what was learned."""
    began = time.perf_counter()
    learned = peers.TRAINERS[contender](Path(corpus), vocab_size)
    seconds = time.perf_counter() - began
    merges = learned()
    if out:
        listed = [(left.hex(), right.hex()) for left, right in merges]
        Path(out).with_suffix(".json").write_text(json.dumps(listed))
        if contender == "linnet":
            vocab = dict(enumerate([END.encode(), *(bytes([byte]) for byte in range(256))]))
            vocab |= {257 + rank: left + right for rank, (left, right) in enumerate(merges)}
            _save(Tokenizer(vocab, merges, [END]), Path(out))
    return {"seconds": seconds, "merges": len(merges)}


def oracle(corpus: str, vocab_size: int, merges: str) -> dict[str, Any]:
    """Whether the merges in a file are those of the readable trainer on counts by the readable pre-tokenizer."""
    find_all = piece_finder("gpt2")
    counts = Counter(chain.from_iterable(map(find_all, peers.read_documents(Path(corpus)))))
    _, expected = train_on_counts(counts, vocab_size, [END])
    found = [(bytes.fromhex(left), bytes.fromhex(right)) for left, right in json.loads(Path(merges).read_text())]
    return {"distinct_pre_tokens": len(counts), "merges": len(expected), "identical": found == expected}


def encode(contender: str, corpus: str, vocab: str, merges: str) -> dict[str, Any]:
    """One encoding of a whole corpus as a whole call, and a hash of its ids."""
    tokenizer = Tokenizer.from_files(vocab, merges, [END])
    documents = peers.read_documents(Path(corpus))
    size = sum(len(document.encode()) for document in documents)
    if contender == "linnet, one string":
        documents = [END.join(documents)]
    call = peers.ENCODERS[contender](tokenizer)
    gc.collect()
    began = time.perf_counter()
    encoded = call(documents)
    seconds = time.perf_counter() - began
    ids = encoded()
    result = {
        "seconds": seconds,
        "bytes": size,
        "tokens": ids.size,
        "sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
    }
    if contender.startswith("linnet"):
        began = time.perf_counter()
        call(documents)
        result["second_call_seconds"] = time.perf_counter() - began
    return result


def encode_whole(corpus: str, vocab: str, merges: str) -> dict[str, Any]:
    """One text as one string, whatever it is made of."""
    tokenizer = Tokenizer.from_files(vocab, merges, [END])
    text = Path(corpus).read_bytes().decode()
    began = time.perf_counter()
    ids = tokenizer.encode_array(text)
    return {"seconds": time.perf_counter() - began, "tokens": ids.size}


def stream(corpus: str, vocab: str, merges: str) -> dict[str, Any]:
    """How much memory `encode_iterable` gains over a text, by the system's measure, and by Python's over its beginning.

    The text is read as it is encoded, and no id is kept.
    """
    tokenizer = Tokenizer.from_files(vocab, merges, [END])
    process = psutil.Process()
    before = process.memory_info().rss
    done = settled = greatest = 0
    began = time.perf_counter()

    def watched() -> Iterator[str]:
        nonlocal done, settled, greatest
        for chunk in _chunks(Path(corpus)):
            yield chunk
            done += len(chunk.encode())
            held = process.memory_info().rss
            greatest = max(greatest, held)
            if done <= SETTLED:
                settled = max(settled, held)

    tokens = sum(1 for _ in tokenizer.encode_iterable(watched()))
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "bytes": done,
        "tokens": tokens,
        "growth_bytes": greatest - before,
        "growth_after_tables_bytes": greatest - settled,
        "tables_settled_after_bytes": SETTLED,
        **_traced_stream(Path(corpus), Tokenizer.from_files(vocab, merges, [END])),
    }


def _traced_stream(corpus: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What Python itself and NumPy allocate while the beginning of a text is streamed: in all, and after the tables."""
    settled, end = TRACED
    tables = before = 0

    def watched() -> Iterator[str]:
        nonlocal tables, before
        done = 0
        for chunk in _chunks(corpus):
            yield chunk
            if done < settled <= done + len(chunk):
                tables, before = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
            done += len(chunk)
            if done >= end:
                return

    gc.collect()
    tracemalloc.start()
    for _ in tokenizer.encode_iterable(watched()):
        pass
    _, after = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"traced_peak_bytes": max(before, after), "traced_growth_after_tables_bytes": max(0, after - tables)}


def strings(pattern: str, vocab: str, merges: str, count: int) -> dict[str, Any]:
    """Generated strings: ids against the peer's, by the readable path and by the batch call, and round trips."""
    given = Tokenizer.from_files(vocab, merges)
    tokenizer = Tokenizer(given.vocab, given.merges, pattern=pattern)
    texts = adversarial_texts(count)
    expected = _peer_ids(tokenizer, pattern, texts)
    one_by_one = [tokenizer.encode(text) for text in texts]
    together, offsets = tokenizer.encode_ragged(texts, workers=peers.THREADS)
    cuts = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    batch = [together[start:end].tolist() for start, end in cuts]
    wrong = [text for text, ours, theirs in zip(texts, one_by_one, expected, strict=True) if ours != theirs]
    wrong_batch = [text for text, ours, theirs in zip(texts, batch, expected, strict=True) if ours != theirs]
    lost = [text for text, ids in zip(texts, batch, strict=True) if tokenizer.decode(ids) != text]
    return {
        "peer": "tokenizers" if pattern == "smollm" else "tiktoken",
        "strings": len(texts),
        "distinct": len(set(texts)),
        "bytes": sum(len(text.encode()) for text in texts),
        "differ_one_by_one": len(wrong),
        "differ_together": len(wrong_batch),
        "round_trip_lost": len(lost),
        "invalid_utf8_differ": _invalid_decodings(tokenizer, count),
        "examples": [ascii(text) for text in (wrong + wrong_batch + lost)[:5]],
    }


def adversarial_texts(count: int) -> Sequence[str]:
    """Strings made to go wrong, by the tests' own generator."""
    spec = importlib.util.spec_from_file_location("adversarial_text", ADVERSARIAL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.adversarial_texts(count, seed=SEED))


def _peer_ids(tokenizer: Tokenizer, pattern: str, texts: Sequence[str]) -> list[list[int]]:
    if pattern != "smollm":
        encoding = peers.tiktoken_encoding(tokenizer, pattern)
        listed: list[list[int]] = encoding.encode_ordinary_batch(list(texts), num_threads=peers.THREADS)
        return listed
    peer = peers.hugging_face(tokenizer, pattern)
    return [encoding.ids for encoding in peer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _invalid_decodings(tokenizer: Tokenizer, count: int) -> int:
    """How many random runs of ids do not decode as Python decodes their bytes."""
    draw = random.Random(0)
    ids = list(tokenizer.vocab)
    single = [id for id in ids if len(tokenizer.token_bytes(id)) == 1]
    runs = ([draw.choice(draw.choice((ids, single))) for _ in range(draw.randint(1, 12))] for _ in repeat(None, count))
    return sum(
        tokenizer.decode(run) != b"".join(map(tokenizer.token_bytes, run)).decode(errors="replace") for run in runs
    )


def _save(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    tokenizer.save(folder)
    tokenizer.save_files(folder / "vocab.json", folder / "merges.txt")


def _chunks(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        while chunk := file.read(CHUNK):
            yield chunk


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    job.__name__: job for job in (train, oracle, encode, encode_whole, stream, strings)
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](**json.loads(sys.argv[2]))))
