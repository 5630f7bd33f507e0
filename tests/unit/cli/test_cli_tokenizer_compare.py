"""linnet tokenizer compare: the same numbers as tables, as JSON and in files, and mistakes told before any work."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from linnet.tokenizer import Tokenizer, train_bpe_from_texts
from linnet.tokenizer.comparison import compare_tokenizers

PLAIN = "the newest of the newest days, said the friendly squirrel. "
OTHER = "Où est 1234 ? "


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two tokenizers, `a` and `runs/b`, and two texts of two documents each."""
    monkeypatch.chdir(tmp_path)
    specials = ["<|endoftext|>"]
    Tokenizer(*train_bpe_from_texts([PLAIN * 3], 300, specials), specials).save("a")
    words = train_bpe_from_texts([OTHER * 3], 280, specials, pattern="o200k")
    Tokenizer(*words, specials, pattern="o200k").save("runs/b/tokenizer")
    Path("runs/b/config.yaml").write_text("train: {}")
    Path("plain.txt").write_text(PLAIN * 5 + "<|endoftext|>" + PLAIN, encoding="utf-8")
    Path("other.jsonl").write_text("".join(json.dumps({"body": OTHER * 5}) + "\n" for _ in range(2)))
    return tmp_path


def refused(result: Any, *parts: str) -> None:
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
    assert all(part in result.err for part in parts), result.err


COMMON = ("tokenizer", "compare", "a", "runs/b", "--on", "plain.txt", "--on", "other.jsonl", "--text_field", "body")


def cells(out: str, heading: str) -> list[list[str]]:
    """The rows under the heading that begins so, down to an empty line."""
    lines = out.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(heading))
    rows = []
    for line in lines[begin + 1 :]:
        if not line.strip():
            break
        rows.append(line.split())
    return rows


def test_json_holds_what_the_library_computes(place: Path, linnet: Callable[..., Any]) -> None:
    result = linnet(*COMMON, "--json", "--passes", 1, "--longest", 4)
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    record = json.loads(result.out)
    loaded = {"a": Tokenizer.from_pretrained("a"), "runs/b": Tokenizer.from_pretrained("runs/b/tokenizer")}
    texts = {"plain.txt": [PLAIN * 5, PLAIN], "other.jsonl": [OTHER * 5] * 2}
    expected = json.loads(json.dumps(compare_tokenizers(loaded, texts, longest=4, passes=0).as_record()))
    for measured in record["measurements"]:
        assert measured["megabytes_per_second"] > 0
        measured["megabytes_per_second"] = None
    assert record == expected


def test_tables_show_it(place: Path, linnet: Callable[..., Any]) -> None:
    result = linnet(*COMMON, "--longest", 2)
    assert (result.code, result.err) == (0, "")
    record = json.loads(linnet(*COMMON, "--longest", 2, "--passes", 0, "--json").out)
    a, b = record["tokenizers"]
    assert cells(result.out, "tokenizer ") == [
        ["a", str(a["vocab_size"]), str(a["merges"]), "gpt2", "<|endoftext|>", "uint16", a["fingerprint"][:12]],
        ["runs/b", str(b["vocab_size"]), str(b["merges"]), "o200k", "<|endoftext|>", "uint16", b["fingerprint"][:12]],
    ]
    sizes = [len((PLAIN * 6).encode()), len((OTHER * 10).encode())]
    assert cells(result.out, "text  ")[:2] == [
        ["plain.txt", "2", f"{sizes[0]}", f"{len((PLAIN * 6).split())}"],
        ["other.jsonl", "2", f"{sizes[1]}", f"{len((OTHER * 10).split())}"],
    ]
    matrix = record["bytes_per_token"]
    assert cells(result.out, "bytes per token") == [
        [name, *(f"{matrix[name][text]:.3f}" for text in ("plain.txt", "other.jsonl"))] for name in ("a", "runs/b")
    ]
    measured = cells(result.out, "text         tokenizer")
    for row, facts in zip(measured, record["measurements"], strict=True):
        assert [*row[:6], row[7]] == [
            facts["corpus"],
            facts["tokenizer"],
            str(facts["tokens"]),
            f"{facts['bytes_per_token']:.3f}",
            f"{facts['tokens_per_word']:.3f}",
            f"{facts['share_used']:.1%}",
            "exact",
        ]
        assert float(row[6]) > 0
    note = "MB/s: measured on this machine just now, {}, tables warm; it differs from run to run\n"
    assert result.out.endswith("\n\n" + note.format("one thread"))
    assert linnet(*COMMON, "--workers", 2).out.endswith("\n\n" + note.format("2 threads"))
    lengths = cells(result.out, "bytes in a token")
    assert [row[:2] for row in lengths[:2]] == [["1", "256"], ["2", str(a["lengths"]["2"])]]
    assert sum(int(row[-2 if row[-1].startswith("#") else -1].replace(",", "")) for row in lengths) == b["tokens"] - 1
    classes = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 8), (9, 16), (17, 32)]
    present = {int(length) for facts in (a, b) for length in facts["lengths"]}
    shown = [(low, high) for low, high in classes if present & set(range(low, high + 1))]
    assert [row[0] for row in lengths] == [str(low) if low == high else f"{low}-{high}" for low, high in shown]
    longest = a["longest"]
    assert longest[0]["bytes"] > longest[1]["bytes"] or longest[0]["id"] < longest[1]["id"]
    for token in longest:
        assert f"{token['id']:>3}  {token['bytes']:>5}  {token['printable']}" in result.out


def test_a_single_tokenizer_without_a_rate(place: Path, linnet: Callable[..., Any]) -> None:
    result = linnet("tokenizer", "compare", "runs/b", "--on", "builtin:stories", "--max_bytes", 5000, "--passes", 0)
    assert (result.code, result.err) == (0, "")
    assert "measured on this machine" not in result.out
    ((name, documents, size, _),) = cells(result.out, "text  ")
    assert (name, int(documents) > 3) == ("builtin:stories", True)
    assert 4000 < int(size.replace(",", "")) <= 5000


def test_workers_are_the_threads_that_encode(
    place: Path, linnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    encode_ragged = Tokenizer.encode_ragged

    def watched(self: Tokenizer, texts: Sequence[str], *, workers: int | None = None) -> Any:
        threads.append(workers)
        return encode_ragged(self, texts, workers=workers)

    monkeypatch.setattr(Tokenizer, "encode_ragged", watched)
    for words in ((), ("--workers", 2)):
        linnet("tokenizer", "compare", "a", "--on", "plain.txt", "--passes", 1, *words)
    assert threads == [1, 1, 2, 2]


def test_max_bytes_is_for_each_corpus(place: Path, linnet: Callable[..., Any]) -> None:
    record = json.loads(linnet(*COMMON, "--json", "--passes", 0, "--max_bytes", 80).out)
    assert [corpus["bytes"] for corpus in record["corpora"]] == [80, 80]


def test_the_same_tokenizer_in_several_formats(place: Path, linnet: Callable[..., Any]) -> None:
    for form in ("vocab", "tiktoken"):
        assert linnet("tokenizer", "convert", "runs/b", "--to", form, "--out", form).code == 0
    names = ("runs/b", "vocab", "tiktoken/tokenizer.tiktoken", "a")
    options = ("--pattern", "o200k", "--special", "<|endoftext|>=0", "--on", "plain.txt", "--passes", 0)
    result = linnet("tokenizer", "compare", *names, *options)
    assert result.code == 0, result.err
    assert "the same tokenizer: runs/b, vocab, tiktoken/tokenizer.tiktoken\n" in result.out
    assert "the same tokenizer" not in linnet(*COMMON, "--passes", 0).out


def test_a_vocabulary_that_loses_text_says_so(place: Path, linnet: Callable[..., Any]) -> None:
    Tokenizer({index: bytes([index + 32]) for index in range(90)}, []).save("few")
    Path("accents.txt").write_text("déjà vu")
    result = linnet("tokenizer", "compare", "few", "--on", "accents.txt", "--passes", 0)
    assert "few: 166 single bytes have no token; text loses them\n" in result.out
    assert "1 documents altered" in result.out


def test_many_special_tokens_are_counted(place: Path, linnet: Callable[..., Any]) -> None:
    Tokenizer({index: bytes([index]) for index in range(256)}, [], [f"<|{n}|>" for n in range(5)]).save("many")
    result = linnet("tokenizer", "compare", "many", "--on", "plain.txt", "--passes", 0)
    assert "<|0|> <|1|> <|2|> and 2 more" in result.out


def test_written_into_files(place: Path, linnet: Callable[..., Any]) -> None:
    printed = json.loads(linnet(*COMMON, "--json", "--passes", 0, "--out", "all.json").out)
    assert json.loads(Path("all.json").read_text()) == printed
    assert linnet(*COMMON, "--passes", 0, "--out", "rows.csv").code == 0
    with Path("rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in printed["measurements"]
    ]
    assert rows == shown


def test_mistakes_are_told_before_any_work(place: Path, linnet: Callable[..., Any]) -> None:
    Path("binary").write_bytes(bytes(range(256)))
    Path("empty.txt").write_text("")
    before = sorted(path.name for path in place.iterdir())
    compare = ("tokenizer", "compare")
    refused(linnet(*compare, "a"), "--on")
    refused(linnet(*compare, "--on", "plain.txt"), "TOKENIZER")
    refused(linnet(*compare, "a", "--on", "nowhere.txt"), "nowhere.txt")
    refused(linnet(*compare, "a", "--on", "*.md"), "*.md: the pattern matches no file")
    refused(linnet(*compare, "a", "--on", "builtin:tales"), "builtin:tales")
    refused(linnet(*compare, "a", "--on", "empty.txt"), "empty.txt: holds no text")
    refused(linnet(*compare, "a", "--on", "binary"), "binary: is not UTF-8")
    refused(linnet(*compare, "a", "--on", "other.jsonl"), "other.jsonl:1", "'text'")
    refused(linnet(*compare, "a", "--on", "plain.txt", "--on", "plain.txt"), "plain.txt: is given twice")
    refused(linnet(*compare, "a", "a", "--on", "plain.txt"), "a: is given twice")
    refused(linnet(*compare, "a", "plain.txt", "--on", "plain.txt"), "plain.txt: is no tokenizer: give a run")
    refused(linnet(*compare, "binary", "--on", "plain.txt"), "binary: is no tokenizer")
    refused(linnet(*compare, "a", "nowhere.json", "--on", "plain.txt"), "nowhere.json is missing")
    refused(linnet(*compare, "a", "x.tiktoken", "--on", "plain.txt"), "x.tiktoken: does not say how text is cut")
    refused(linnet(*compare, "a", "--pattern", "gpt4", "--on", "plain.txt"), "--pattern")
    refused(linnet(*compare, "a", "--special", "x", "--on", "plain.txt"), "--special")
    for out, words in (("x.txt", ".json or a .csv"), ("no/x.json", "no directory no")):
        refused(linnet(*compare, "a", "--on", "plain.txt", "--out", out), out, words)
    refused(linnet(*compare, "a", "--on", "empty.txt", "--out", "x.json"), "empty.txt")
    assert sorted(path.name for path in place.iterdir()) == before
