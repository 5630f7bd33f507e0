"""linnet tokenizer train, encode, decode, convert: what comes out, and that a mistake leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linnet.cli.tokenizer_train import Reading
from linnet.config.patterns import ALIASES, PATTERNS
from linnet.tokenizer import Tokenizer, train_bpe_from_texts

SPECIALS = ["<|endoftext|>", "<|two words|>"]
TEXT = "it's the newest day, don't you see 1234 things?\r\n\r\n  Été 2024  \t x<|endoftext|>"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the tokenizer `t`, of pattern gpt4, and `text.txt`."""
    monkeypatch.chdir(tmp_path)
    vocab, merges = train_bpe_from_texts([TEXT] * 3, 320, SPECIALS, pattern="gpt4")
    Tokenizer(vocab, merges, SPECIALS, pattern="gpt4").save("t")
    Path("text.txt").write_text(TEXT * 3, newline="", encoding="utf-8")
    return tmp_path


def refused(result: Any, *parts: str) -> None:
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
    assert all(part in result.err for part in parts), result.err


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


def test_train_says_what_it_read_and_how_well_it_fits(place: Path, linnet: Callable[..., Any]) -> None:
    words = ("--source", "builtin:stories", "--source", "text.txt", "--max_bytes", 900_000, "--vocab_size", 400)
    result = linnet("tokenizer", "train", *words, "--pattern", "llama3", "--out", "made")
    assert result.code == 0, result.err
    found = re.fullmatch(
        r"made: 400 tokens, 143 merges, (\d\.\d{3}) bytes/token on the first 89\d\.\d kB, [\d.]+ s, "
        r"(\d\.\d) MB read at [\d.]+ MB/s\n",
        result.out,
    )
    assert found is not None, result.out
    assert 0.6 <= float(found[2]) <= 0.9
    tokenizer = Tokenizer.from_pretrained("made")
    assert tokenizer.pattern == "gpt4"
    from linnet.config import DataConfig
    from linnet.data import open_source

    source = ["builtin:stories", "text.txt"]
    documents = list(open_source(source, DataConfig(source=tuple(source), max_bytes=900_000)).documents())
    tokens = sum(map(len, map(tokenizer.encode, documents)))
    assert float(found[1]) == pytest.approx(sum(len(text.encode()) for text in documents) / tokens, abs=5e-4)
    assert sorted(path.name for path in place.iterdir()) == ["made", "t", "text.txt"]


def test_train_on_a_sample(place: Path, linnet: Callable[..., Any]) -> None:
    lines = [
        json.dumps({"text": f"{hashlib.sha256(bytes([number % 256])).hexdigest()} " * 20}) for number in range(400)
    ]
    Path("a.jsonl").write_text("\n".join(lines))
    common = ("tokenizer", "train", "--source", "a.jsonl", "--vocab_size", 300)
    assert linnet(*common, "--out", "all").code == 0
    assert linnet(*common, "--sample", "1", "--out", "one").code == 0
    assert linnet(*common, "--sample", "0.01", "--out", "few").code == 0
    every, one, few = (Tokenizer.from_pretrained(name) for name in ("all", "one", "few"))
    assert every.fingerprint == one.fingerprint != few.fingerprint
    for share in ("0", "1.1", "x"):
        refused(linnet(*common, "--sample", share, "--out", "none"), "--sample")
    assert not Path("none").exists()


def test_train_with_special_tokens_of_its_own(place: Path, linnet: Callable[..., Any]) -> None:
    documents = ["one two three " * 9, "four five " * 9, "x" * 50]
    Path("text.txt").write_text("<|a|>".join(documents))
    special = ("--special", "<|a|>", "--special", "<|b|>")
    result = linnet("tokenizer", "train", "--source", "text.txt", "--vocab_size", 300, *special, "--out", "made")
    assert result.code == 0, result.err
    tokenizer = Tokenizer.from_pretrained("made")
    assert tokenizer.special_tokens == ["<|a|>", "<|b|>"]
    compression = sum(map(len, documents)) / sum(len(tokenizer.encode(text)) for text in documents)
    assert f" {compression:.3f} bytes/token " in result.out


def test_only_bytes_count_as_read() -> None:
    told: list[tuple[Any, ...]] = []
    reading = Reading(lambda *words: told.append(words))
    reading.report("reading", 3, 10)
    reading.report("merging", 700, 900, "merges")
    reading.report("reading again", 2)
    assert reading.bytes == 3
    assert told == [("reading", 3, 10, "B"), ("merging", 700, 900, "merges"), ("reading again", 2, None, "B")]


def test_train_takes_any_pattern_and_its_help_names_those_that_have_names(
    place: Path, linnet: Callable[..., Any]
) -> None:
    help_text = linnet("tokenizer", "train", "--help").out
    assert all(re.search(rf"\b{name}\b", help_text) for name in [*PATTERNS, *ALIASES])
    common = ("tokenizer", "train", "--source", "text.txt", "--vocab_size", 262, "--out", "made", "--pattern")
    for wrong in ("gpt5", "(unclosed"):
        refused(linnet(*common, wrong), wrong, "o200k")
    assert not Path("made").exists()
    assert linnet(*common, r"\w+|\W").code == 0
    assert Tokenizer.from_pretrained("made").pattern == r"\w+|\W"


def test_train_refuses_what_it_would_overwrite_or_cannot_read(place: Path, linnet: Callable[..., Any]) -> None:
    common = ("tokenizer", "train", "--vocab_size", 300, "--out")
    refused(linnet(*common, "t", "--source", "nowhere.txt"), "t: exists and is not empty")  # told before it reads
    refused(linnet(*common, "text.txt", "--source", "text.txt"), "text.txt: exists")
    refused(linnet(*common, "made", "--source", "nowhere.txt"), "nowhere.txt")
    refused(linnet(*common, "made"), "--source")
    Path("binary").write_bytes(bytes(range(256)))
    refused(linnet(*common, "made", "--source", "binary"), "binary: is not UTF-8")
    assert sorted(path.name for path in place.iterdir()) == ["binary", "t", "text.txt"]


def test_encode_into_files_and_back(place: Path, linnet: Callable[..., Any]) -> None:
    expected = Tokenizer.from_pretrained("t").encode(TEXT * 3)
    result = linnet("tokenizer", "encode", "t", "text.txt", "--out", "raw", "--npy", "array.npy")
    assert (result.code, result.err) == (0, "")
    count = len(expected)
    assert result.out == (
        f"raw: {count:,} ids as little-endian uint16\narray.npy: {count:,} ids as an array of uint16\n"
    )
    assert np.fromfile("raw", "<u2").tolist() == expected
    array = np.load("array.npy")
    assert (array.dtype, array.tolist()) == (np.dtype("<u2"), expected)
    assert np.load("array.npy", mmap_mode="r").shape == (count,)
    assert linnet("tokenizer", "decode", "t", "array.npy").out == TEXT * 3
    assert linnet("tokenizer", "decode", "t", "raw", "--raw").out == TEXT * 3
    Path("text.txt.gz").write_bytes(gzip.compress((TEXT * 3).encode()))
    assert linnet("tokenizer", "encode", "t", "text.txt.gz").out.split() == list(map(str, expected))
    Path("empty").write_bytes(b"")
    assert linnet("tokenizer", "encode", "t", "empty", "--npy", "none.npy").code == 0
    assert np.load("none.npy").shape == (0,)
    assert linnet("tokenizer", "decode", "t", "none.npy").out == ""
    assert linnet("tokenizer", "encode", "t", "empty").out == "\n"


def test_encode_from_standard_input_and_a_wide_vocabulary(
    place: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Tokenizer({**{id: bytes([id]) for id in range(256)}, 70_000: b"th"}, [(b"t", b"h")]).save("wide")
    feed(monkeypatch, b"the path")
    assert linnet("tokenizer", "encode", "wide").out == "70000 101 32 112 97 70000\n"
    feed(monkeypatch, b"the")
    assert linnet("tokenizer", "encode", "wide", "-", "--npy", "wide.npy").code == 0
    assert (np.load("wide.npy").dtype, np.load("wide.npy").tolist()) == (np.dtype("<u4"), [70_000, 101])
    feed(monkeypatch, b"the\xff")
    refused(linnet("tokenizer", "encode", "wide", "--out", "ids"), "standard input: is not UTF-8 near byte 3")
    feed(monkeypatch, b"70000\n101")
    assert linnet("tokenizer", "decode", "wide").out == "the"


def test_encode_across_the_pieces_that_it_reads(
    place: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters, special tokens and white space lie across every place where reading or encoding is cut."""
    from linnet.cli import tokenizer_ids
    from linnet.data import bytestreams
    from linnet.tokenizer import blocks

    text = "Été<|two words|> \n\n  <|endoftext|>it's 12345 日本語   x\r\n" * 40
    Path("text.txt").write_text(text, newline="", encoding="utf-8")
    expected = list(Tokenizer.from_pretrained("t").encode_iterable([text]))
    defaults = blocks.encode_blocks.__defaults__
    for size in (7, 64, 101):
        monkeypatch.setattr(bytestreams, "CHUNK_BYTES", size)
        monkeypatch.setattr(tokenizer_ids, "READ_BYTES", size)
        monkeypatch.setattr(tokenizer_ids, "IDS_AT_ONCE", size)
        monkeypatch.setattr(blocks.encode_blocks, "__defaults__", (size,))
        encoded = linnet("tokenizer", "encode", "t", "text.txt")
        assert [int(word) for word in encoded.out.split()] == expected
        feed(monkeypatch, text.encode())
        assert linnet("tokenizer", "encode", "t").out == encoded.out
        assert linnet("tokenizer", "encode", "t", "text.txt", "--npy", "a.npy").code == 0
        assert np.load("a.npy").tolist() == expected
        assert linnet("tokenizer", "decode", "t", "a.npy").out == text
        feed(monkeypatch, encoded.out.replace(" ", "\n\t").encode())
        assert linnet("tokenizer", "decode", "t").out == text
    assert defaults == (blocks.BLOCK_CHARACTERS,)


def test_encode_refuses_and_leaves_what_was_there(place: Path, linnet: Callable[..., Any]) -> None:
    Path("bad").write_bytes(b"a" * 3_000_000 + b"\xc3(")
    Path("cut").write_bytes("é".encode()[:1])
    Path("kept").write_bytes(b"as it was")
    for option in ("--out", "--npy"):
        refused(linnet("tokenizer", "encode", "t", "bad", option, "kept"), "bad: is not UTF-8 near byte 3000000")
        refused(linnet("tokenizer", "encode", "t", "cut", option, "kept"), "cut: is not UTF-8 near byte 0")
        refused(linnet("tokenizer", "encode", "t", "nowhere.txt", option, "kept"), "nowhere.txt")
        refused(linnet("tokenizer", "encode", "t", "text.txt", option, "no/such/place"), "no/such")
        refused(linnet("tokenizer", "encode", "t", "t", option, "kept"), "'t' is a directory")
    refused(linnet("tokenizer", "encode", "t", "text.txt", "--out", "x", "--npy", "./x"), "x: is named by --out and")
    assert Path("kept").read_bytes() == b"as it was"
    assert sorted(path.name for path in place.iterdir()) == ["bad", "cut", "kept", "t", "text.txt"]


def test_decode_says_where_the_ids_are_wrong(
    place: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from linnet.cli import tokenizer_ids

    Path("words").write_text("1 2\n3 14 x4 4\n5")
    for size in (1, 5, 1 << 20):
        monkeypatch.setattr(tokenizer_ids, "READ_BYTES", size)
        result = linnet("tokenizer", "decode", "t", "words")
        assert (result.code, result.err) == (2, "linnet: words, line 2: 'x4' is no id: ids are decimal numbers\n")
    for wrong in ("-1", "1.5", "9" * 5000, "٣"):
        Path("words").write_text(wrong, encoding="utf-8")
        refused(linnet("tokenizer", "decode", "t", "words"), "words, line 1", "is no id")
    Path("words").write_text("320")
    refused(linnet("tokenizer", "decode", "t", "words"), "the id 320 is not in the vocabulary")
    Path("odd").write_bytes(b"\1\2\3")
    refused(linnet("tokenizer", "decode", "t", "odd", "--raw"), "odd: ends in the middle of an id")
    refused(linnet("tokenizer", "decode", "t", "nowhere"), "nowhere")


def test_decode_shows_what_is_no_utf8(place: Path, linnet: Callable[..., Any]) -> None:
    ids = {data: id for id, data in Tokenizer.from_pretrained("t").vocab.items()}
    letter, half = ids[b"a"], ids[b"\xc3"]
    Path("words").write_text(f"{letter} {half} {letter} {half}")
    assert linnet("tokenizer", "decode", "t", "words").out == "a\ufffda\ufffd"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2), np.uint16), "one dimension"),
        (np.zeros(3), "float64"),
        (np.array([-1]), "the id -1"),
        (np.array([None]), "object"),
    ],
)
def test_arrays_that_hold_no_ids(
    place: Path, linnet: Callable[..., Any], array: np.ndarray[Any, Any], words: str
) -> None:
    np.save("a.npy", array)
    refused(linnet("tokenizer", "decode", "t", "a.npy"), words)


def test_arrays_that_are_damaged(place: Path, linnet: Callable[..., Any]) -> None:
    linnet("tokenizer", "encode", "t", "text.txt", "--npy", "a.npy")
    whole = Path("a.npy").read_bytes()
    for size, words in ((7, "damaged"), (30, "damaged"), (len(whole) - 1, "cut short"), (len(whole) - 2, "cut short")):
        Path("b.npy").write_bytes(whole[:size])
        result = linnet("tokenizer", "decode", "t", "b.npy")
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert "b.npy" in result.err
        assert words in result.err
    Path("b.npy").write_bytes(whole[:6] + b"\x09\0" + whole[8:])
    refused(linnet("tokenizer", "decode", "t", "b.npy"), "damaged")


def test_a_run_and_prepared_data_stand_for_their_tokenizers(place: Path, linnet: Callable[..., Any]) -> None:
    run = Path("run")
    run.mkdir()
    (run / "config.yaml").write_text("train: {}")
    refused(linnet("tokenizer", "encode", "run", "text.txt"), "run: is a run that has no tokenizer yet")
    Path("t").rename(run / "tokenizer")
    expected = Tokenizer.from_pretrained(run / "tokenizer").encode(TEXT * 3)
    encoded = linnet("tokenizer", "encode", "run", "text.txt")
    assert [int(word) for word in encoded.out.split()] == expected
    Path("ids").write_text(encoded.out)
    assert linnet("tokenizer", "decode", "run", "ids").out == TEXT * 3
    (run / "config.yaml").rename(run / "dataset.json")
    assert linnet("tokenizer", "encode", "run", "text.txt").out == encoded.out


def test_what_is_no_tokenizer(place: Path, linnet: Callable[..., Any]) -> None:
    Path("binary").write_bytes(bytes(range(256)))
    Path("empty").mkdir()
    Path("other.json").write_text('{"a": 1}')
    for name, words in (
        ("text.txt", "text.txt: is no tokenizer: give a run"),
        ("binary", "binary: is no tokenizer"),
        ("empty", "empty holds neither tokenizer.json nor"),
        ("other.json", "other.json"),
        ("nowhere.json", "nowhere.json is missing"),
        ("text.tiktoken", "text.tiktoken: does not say how text is cut"),
    ):
        for command in ("encode", "decode"):
            refused(linnet("tokenizer", command, name, "text.txt"), words)
    refused(linnet("tokenizer", "encode", "nowhere.tiktoken", "text.txt", "--pattern", "gpt4"), "nowhere.tiktoken")
    refused(linnet("tokenizer", "encode", "t", "text.txt", "--pattern", "gpt4"), "t: the files say", "--pattern")
    refused(linnet("tokenizer", "encode", "t", "text.txt", "--special", "<|x|>"), "t: the files say", "--special")


def test_converted_there_and_back(place: Path, linnet: Callable[..., Any]) -> None:
    original = Tokenizer.from_pretrained("t")
    options = {
        "hf": (),
        "vocab": ("--pattern", "gpt4"),
        "tiktoken": ("--pattern", "gpt4", "--special", "<|endoftext|>=0", "--special", "<|two words|>=1"),
    }
    files = {
        "hf": ["tokenizer.json", "tokenizer_config.json"],
        "vocab": ["merges.txt", "vocab.json"],
        "tiktoken": ["tokenizer.tiktoken"],
    }
    encoded = linnet("tokenizer", "encode", "t", "text.txt").out
    for form, words in options.items():
        result = linnet("tokenizer", "convert", "t", "--to", form, "--out", f"as/{form}")
        assert result.code == 0, result.err
        assert result.out == f"as/{form}: {', '.join(files[form])}\n"
        assert sorted(path.name for path in Path("as", form).iterdir()) == files[form]
        told = result.err.replace("'", "")
        assert told == (f"the files do not say all: load them with {' '.join(words)}\n" if words else "")
        name = f"as/{form}/tokenizer.tiktoken" if form == "tiktoken" else f"as/{form}"
        assert linnet("tokenizer", "encode", name, "text.txt", *words).out == encoded
        result = linnet("tokenizer", "convert", name, *words, "--to", "hf", "--out", f"back/{form}")
        assert result.code == 0, result.err
        assert Tokenizer.from_pretrained(f"back/{form}").fingerprint == original.fingerprint
    assert sorted(path.name for path in Path("as").iterdir()) == ["hf", "tiktoken", "vocab"]


def test_special_tokens_of_ranks(place: Path, linnet: Callable[..., Any]) -> None:
    linnet("tokenizer", "convert", "t", "--to", "tiktoken", "--out", "as")
    Path("one").write_text("<|new|>")
    common = ("tokenizer", "encode", "as/tokenizer.tiktoken", "one", "--pattern", "gpt4")
    assert len(linnet(*common).out.split()) > 1
    free = Tokenizer.from_pretrained("t").vocab_size
    assert linnet(*common, "--special", "<|new|>").out == f"{free}\n"
    assert linnet(*common, "--special", "<|new|>=500").out == "500\n"
    refused(linnet(*common, "--special", "<|new|>=500", "--special", "<|other|>"), "--special", "give each one")
    refused(linnet(*common, "--special", "<|new|>=70"), "70")


def test_convert_refuses_what_would_change_ids_or_be_lost(place: Path, linnet: Callable[..., Any]) -> None:
    whole = Tokenizer({**{id: bytes([id]) for id in range(256)}, 256: b"abc"}, [], ignore_merges=True)
    whole.save("whole")
    refused(linnet("tokenizer", "convert", "whole", "--to", "vocab", "--out", "made"), "ignore_merges", "hf")
    Tokenizer({0: b"a", 1: b"b"}, []).save("few")
    refused(linnet("tokenizer", "convert", "few", "--to", "tiktoken", "--out", "made"), "made/tokenizer.tiktoken")
    refused(linnet("tokenizer", "convert", "t", "--to", "hf", "--out", "few"), "few: exists and is not empty")
    refused(linnet("tokenizer", "convert", "t", "--to", "gguf", "--out", "made"), "--to")
    refused(linnet("tokenizer", "convert", "text.txt", "--to", "hf", "--out", "made"), "text.txt: is no tokenizer")
    assert sorted(path.name for path in place.iterdir()) == ["few", "t", "text.txt", "whole"]


def test_ids_go_where_they_should_while_somebody_watches(place: Path) -> None:
    """A terminal on standard error shows a bar, which must not take what is written to standard output."""
    watched, terminal = pty.openpty()
    with Path("ids").open("wb") as out:
        command = [sys.executable, "-m", "linnet", "tokenizer", "encode", "t", "text.txt"]
        code = subprocess.run(command, stdout=out, stderr=terminal, timeout=120, check=False).returncode
    os.close(terminal)
    os.close(watched)
    expected = Tokenizer.from_pretrained("t").encode(TEXT * 3)
    assert (code, Path("ids").read_text().split()) == (0, list(map(str, expected)))


@pytest.mark.parametrize("option", ["--out", "--npy"])
def test_encode_writes_over_nothing_that_it_reads(place: Path, linnet: Callable[..., Any], option: str) -> None:
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    Path("link.txt").symlink_to("text.txt")
    for name in ("text.txt", "link.txt", "t/../text.txt", "t/tokenizer.json"):
        refused(linnet("tokenizer", "encode", "t", "text.txt", option, name), name, "another name")
    refused(linnet("tokenizer", "compare", "t", "--on", "text.txt", "--passes", "0", "--out", "t/tokenizer.json"), "t/")
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("option", ["--out", "--npy"])
def test_encode_writes_to_ordinary_files_only(place: Path, linnet: Callable[..., Any], option: str) -> None:
    os.mkfifo("pipe")
    Path("folder").mkdir()
    refused(linnet("tokenizer", "encode", "t", "text.txt", option, "pipe"), "pipe: is no ordinary file")
    refused(linnet("tokenizer", "encode", "t", "text.txt", option, "folder"), "folder: is a directory")
    refused(linnet("tokenizer", "encode", "t", "text.txt", option, "none/x"), "there is no directory none")
    assert Path("pipe").is_fifo()
    assert sorted(path.name for path in place.iterdir()) == ["folder", "pipe", "t", "text.txt"]


def test_train_refuses_a_pattern_that_is_no_unicode(place: Path, linnet: Callable[..., Any]) -> None:
    words = ("--source", "text.txt", "--vocab_size", 300, "--pattern", "\udcff+", "--out", "made")
    refused(linnet("tokenizer", "train", *words), "no valid Unicode")
    assert not Path("made").exists()
