"""Every kind of source, really written by the libraries that write such files, and every way it can be wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.config import DataConfig
from linnet.data import open_source
from linnet.data.documents import Documents, cut_documents, gathered
from linnet.data.sources import Files, Source
from linnet.errors import UserError

EOT = "<|endoftext|>"


def documents(*specs: str | Path, **data: object) -> list[str]:
    return list(open_source([str(spec) for spec in specs], DataConfig.model_validate(data)).documents())


def write_jsonl(path: Path, texts: list[str], field: str = "text") -> Path:
    path.write_text("".join(json.dumps({"id": 1, field: text}) + "\n" for text in texts))
    return path


def joined(batches: Iterable[Documents]) -> list[str]:
    """Every document that ends, and what follows the last of them."""
    held = [""]
    for texts, ends in batches:
        assert texts
        for place, text in enumerate(texts, 1):
            held[-1] += text
            if ends or place < len(texts):
                held.append("")
    return held


def test_text_is_kept_byte_for_byte(tmp_path: Path) -> None:
    text = "\ufeffone\r\ntwo\rthree\n\x00\u2028naïve 日本 🙂\n\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert documents(tmp_path / "a.txt") == [text]


def test_end_of_text_separates_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"one{EOT}two\n{EOT}{EOT} three{EOT}")
    assert documents(tmp_path / "a.txt") == ["one", "two\n", " three"]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(texts=st.lists(st.text("ab<|en>", max_size=12), max_size=6), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_cutting_does_not_depend_on_how_text_arrives(texts: list[str], cuts: list[int]) -> None:
    whole = "<|e|>".join(texts)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(edges)]
    assert joined(cut_documents(chunks, "<|e|>")) == [*whole.split("<|e|>"), ""]


def test_json_lines(tmp_path: Path) -> None:
    texts = ["one", "two\r\nlines", 'naïve "日本"', f"a{EOT}b"]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    path.write_text("\ufeff" + path.read_text() + "\n   \n" + '{"text": "no line end"}')
    assert documents(path) == [*texts, "no line end"]
    assert documents(write_jsonl(tmp_path / "b.jsonl", texts, "story"), text_field="story") == texts


def test_long_json_line_spans_many_reads(tmp_path: Path) -> None:
    texts = ["x" * 2_500_000, "short", "y" * 1_100_000]
    assert documents(write_jsonl(tmp_path / "a.jsonl", texts)) == texts


def test_gzip_and_zstandard(tmp_path: Path, make_text: Callable[..., str]) -> None:
    text = make_text(300_000)
    raw = text.encode()
    half = len(raw) // 2
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(raw[:half]) + gzip.compress(raw[half:]))
    frames = [zstandard.ZstdCompressor(write_checksum=True).compress(part) for part in (raw[:half], raw[half:])]
    (tmp_path / "a.txt.zst").write_bytes(b"".join(frames))
    stream = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(stream, closefd=False) as writer:
        writer.write(json.dumps({"text": text}).encode())
    (tmp_path / "b.jsonl.zst").write_bytes(stream.getvalue())
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": text}).encode()))
    for name in ("a.txt.gz", "a.txt.zst", "b.jsonl.zst", "b.jsonl.gz"):
        assert documents(tmp_path / name) == [text], name


def test_zstandard_of_a_run_comes_in_bounded_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"a " * 40_000_000))
    batches = open_source([str(tmp_path / "a.txt.zst")], DataConfig()).batches()
    sizes = [len(text) for texts, _ in batches for text in texts]
    assert sum(sizes) == 80_000_000
    assert max(sizes) < 40_000_000


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [f"row {number} naïve\r\n" for number in range(3000)]
    table = pyarrow.table({"text": texts, "n": list(range(3000))})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    assert documents(tmp_path / "a.parquet") == texts
    with pytest.raises(UserError, match=r"a\.parquet: has no field 'story' \(there are: n, text\)"):
        documents(tmp_path / "a.parquet", text_field="story")
    with pytest.raises(UserError, match=r"a\.parquet row 1: field 'n' holds int, not text"):
        documents(tmp_path / "a.parquet", text_field="n")
    raw = (tmp_path / "a.parquet").read_bytes()
    for name, content in (("cut", raw[:-100]), ("short", b"PAR1"), ("text", b"hello" * 100)):
        (tmp_path / f"{name}.parquet").write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}\.parquet: is not whole Parquet data"):
            documents(tmp_path / f"{name}.parquet")
    (tmp_path / "page.parquet").write_bytes(raw[:30] + b"\xff" * 60 + raw[90:])
    with pytest.raises(UserError, match=r"page\.parquet: is not whole Parquet data"):
        documents(tmp_path / "page.parquet")


def test_directories_and_globs_are_sorted_and_mixed(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    (tmp_path / "b.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    write_jsonl(tmp_path / "sub" / "c.jsonl", ["third", "fourth"])
    (tmp_path / "sub" / ".hidden" / "x.txt").write_text("never")
    (tmp_path / ".git").write_text("never")
    (tmp_path / "empty.txt").write_text("")
    assert documents(tmp_path) == ["first", "second", "third", "fourth"]
    assert documents(tmp_path / "*.??*") == ["first", "second"]
    assert documents(tmp_path / "**" / "*.jsonl") == ["third", "fourth"]
    assert documents(tmp_path / "sub", tmp_path / "a.txt") == ["third", "fourth", "first"]
    (tmp_path / "odd[1].txt").write_text("a name like a pattern")
    assert documents(tmp_path / "odd[1].txt") == ["a name like a pattern"]


@pytest.fixture
def saved_dataset(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": [f"row {number}" for number in range(20)], "label": list(range(20))})
    rows.to_parquet(str(tmp_path / "files" / "train.parquet"))
    rows.select(range(3)).to_parquet(str(tmp_path / "files" / "test.parquet"))
    rows.save_to_disk(str(tmp_path / "single"))
    datasets.DatasetDict(train=rows, test=rows.select(range(3))).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def test_datasets_from_local_directories(saved_dataset: Path) -> None:
    rows = [f"row {number}" for number in range(20)]
    for name in ("files", "saved"):
        spec = f"hf:{saved_dataset / name}"
        assert documents(spec) == rows
        assert documents(f"{spec}@test") == rows[:3]
        with pytest.raises(UserError, match=r"has no field 'story' \(there are: label, text\)"):
            documents(spec, text_field="story")
        with pytest.raises(UserError, match="could not be opened"):
            documents(f"{spec}@nothing")
    assert documents(f"hf:{saved_dataset / 'single'}") == rows
    with pytest.raises(UserError, match="could not be opened \\(there is no split 'test', only train\\)"):
        documents(f"hf:{saved_dataset / 'single'}@test")
    assert open_source([f"hf:{saved_dataset / 'files'}"], DataConfig()).fingerprint()["parts"][0]["files"]


def test_hub_without_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^hf:nobody/nothing@train: could not be opened \([^\n]*$"):
        documents("hf:nobody/nothing")
    for spec in ("hf:", "hf:a/b@", "hf:a/b:"):
        with pytest.raises(UserError, match="should be hf:owner/name"):
            documents(spec)


def test_stories_fill_the_bytes_allowed_and_depend_on_the_seed() -> None:
    source = open_source(["builtin:stories"], DataConfig(max_bytes=20_000))
    texts = list(source.documents())
    size = sum(len(text.encode()) for text in texts)
    assert 18_000 < size <= 20_000
    assert texts == list(source.documents())
    assert texts[3:] == list(source.documents(start=3))
    assert texts != documents("builtin:stories", max_bytes=20_000, seed=1)
    assert source.entropy_nats_per_byte is not None
    assert 0.1 < source.entropy_nats_per_byte < 1
    with pytest.raises(UserError, match=r"no story fits into 5 bytes: raise data\.max_bytes"):
        documents("builtin:stories", max_bytes=5)


def test_standard_library_is_python_source() -> None:
    source = open_source(["builtin:stdlib"], DataConfig())
    texts = list(islice(source.documents(), 30))
    assert all("import" in text or "def " in text or "#" in text or '"""' in text for text in texts)
    assert source.entropy_nats_per_byte is None
    files = source.fingerprint()["parts"][0]["files"]
    assert len(files) > 100
    assert not any("site-packages" in path for path, _, _ in files)


def test_max_bytes_cuts_at_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab日本cd")
    assert [documents(tmp_path / "a.txt", max_bytes=size) for size in range(2, 10)] == [
        ["ab"], ["ab"], ["ab"], ["ab日"], ["ab日"], ["ab日"], ["ab日本"], ["ab日本c"],
    ]  # fmt: skip
    write_jsonl(tmp_path / "b.jsonl", ["one", "two", "three"])
    assert documents(tmp_path / "b.jsonl", max_bytes=8) == ["one", "two", "th"]
    assert documents(tmp_path / "b.jsonl", max_bytes=6) == ["one", "two"]


def test_a_large_document_is_never_whole_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("w") as file:
        for _ in range(200):
            file.write("many words without any end " * 1000)
    batches = list(open_source([str(tmp_path / "a.txt")], DataConfig()).batches())
    assert all(len(texts) == 1 for texts, _ in batches)
    assert max(len(texts[0]) for texts, _ in batches) <= 1 << 20
    assert [ends for _, ends in batches] == [False] * (len(batches) - 1) + [True]


def test_many_documents_come_at_once_and_never_too_many() -> None:
    assert list(gathered([])) == []
    assert [len(texts) for texts, _ in gathered([""] * 10_000)] == [4096, 4096, 10_000 - 2 * 4096]
    assert [len(texts) for texts, _ in gathered(["x" * 400_000] * 7)] == [3, 3, 1]
    assert all(ends for _, ends in gathered(["x"] * 5000))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    texts=st.lists(st.text("ab\u65e5", max_size=4), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    limit=st.one_of(st.none(), st.integers(1, 40)),
)
def test_documents_without_text_are_passed_over_and_bytes_limited(
    texts: list[str], cuts: list[int], limit: int | None
) -> None:
    @dataclass(frozen=True)
    class Cut(Files):
        def batches(self) -> Iterator[Documents]:
            whole = "|".join(texts)
            edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
            yield from cut_documents([whole[start:end] for start, end in pairwise(edges)], "|")

    left = sum(len(text.encode()) for text in texts) if limit is None else limit
    expected = []
    for text in texts:
        expected.append(text.encode()[:left].decode(errors="ignore"))
        left -= len(text.encode())
        if left < 0:
            break
    source = Source("test", (Cut((), "text", "|"),), limit)
    if any(expected):
        assert joined(source.batches()) == [*filter(None, expected), ""]
        assert list(source.documents()) == list(filter(None, expected))
        assert list(source.documents(start=1)) == list(filter(None, expected))[1:]
    else:
        with pytest.raises(UserError, match="holds no text"):
            list(source.batches())


def test_documents_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good" + EOT.encode() + b"x" * 5_000_000 + b"\xff")
    stream: Iterator[str] = open_source([str(path)], DataConfig()).documents()
    assert next(stream) == "good"
    with pytest.raises(UserError, match=r"a\.txt: is not UTF-8 text \(byte 5000017\)"):
        next(stream)


@pytest.mark.parametrize(
    ("content", "offset"),
    [(b"ab\xffcd", 2), (b"\xe6\x97", 0), (b"x" * ((1 << 20) - 1) + b"\xe6\x97z", (1 << 20) - 1), (b"ab\x80", 2)],
)
def test_byte_offset_of_what_is_not_utf8(tmp_path: Path, content: bytes, offset: int) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.txt: is not UTF-8 text \(byte {offset}\)"):
        documents(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"text": "a"', r"a\.jsonl:2: is not JSON \(Expecting ',' delimiter\)"),
        ("[1]", r"a\.jsonl:2: is not a JSON object"),
        ('{"story": "a", "id": 3}', r"a\.jsonl:2: has no field 'text' \(there are: id, story\): set data\.text_field"),
        ('{"text": null}', r"a\.jsonl:2: field 'text' holds NoneType, not text"),
        ('{"text": "\\ud800"}', r"a\.jsonl:2: field 'text' holds half a surrogate pair"),
        ("[" * 100_000, r"a\.jsonl:2: is not JSON \(nested too deeply\)"),
    ],
)
def test_bad_json_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(UserError, match=sentence):
        documents(tmp_path / "a.jsonl")


def test_json_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n{"text": "\xff"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: is not UTF-8 \(byte 10 of the line\)"):
        documents(tmp_path / "a.jsonl")


@pytest.mark.parametrize(("ending", "name"), [("gz", "gzip"), ("zst", "zst")])
def test_damaged_compression_is_named(tmp_path: Path, ending: str, name: str, make_text: Callable[..., str]) -> None:
    raw = make_text(200_000).encode()
    compressed = gzip.compress(raw) if ending == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(raw)
    middle = len(compressed) // 2
    damaged = compressed[:middle] + bytes([compressed[middle] ^ 0xFF]) + compressed[middle + 1 :]
    for content in (compressed[:-5], compressed[:middle], damaged, b"no such thing", compressed + b"trailing"):
        (tmp_path / f"a.txt.{ending}").write_bytes(content)
        with pytest.raises(UserError, match=rf"a\.txt\.{ending}: is not (whole {name} data|UTF-8 text)"):
            documents(tmp_path / f"a.txt.{ending}")


def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "separators.txt").write_text(EOT * 3)
    (tmp_path / "nothing").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for spec, sentence in {
        "missing.txt": r"^missing\.txt: there is no such file or directory",
        "*.parquet": r"^\*\.parquet: the pattern matches no file",
        "nothing": "^nothing: is a directory without files",
        "empty.txt": r"^empty\.txt: holds no text",
        "separators.txt": r"^separators\.txt: holds no text",
        "pipe": "^pipe: is not a file that can be read again and again",
        "builtin:novels": "^builtin:novels: there is no such built-in corpus: use builtin:stories or builtin:stdlib",
    }.items():
        with pytest.raises(UserError, match=sentence):
            documents(spec)
    with pytest.raises(UserError, match="names no text"):
        open_source([], DataConfig())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("secret")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(UserError, match=r"a\.txt: may not be read"):
        documents(tmp_path / "a.txt")


def test_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    source = open_source([str(path)], DataConfig())
    before = source.fingerprint()
    assert before == open_source([str(path)], DataConfig()).fingerprint()
    path.write_text("two!")
    assert before != source.fingerprint()
    assert before != open_source([str(path)], DataConfig(max_bytes=2)).fingerprint()
    stories = [open_source(["builtin:stories"], DataConfig(seed=seed)).fingerprint() for seed in (0, 1)]
    assert stories[0] != stories[1]
