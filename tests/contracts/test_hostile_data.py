"""Promise: text of any origin is read in bounded memory and time, or refused in one sentence, and leaves nothing."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from linnet.config import DataConfig, TokenizerConfig
from linnet.data import open_source, prepare
from linnet.data.documents import read_documents
from linnet.data.prepared import load_prepared
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer

Linnet = Callable[..., Any]
SENTENCE = b"the cat sat on a mat. "
TINY_TOKENIZER = TokenizerConfig(vocab_size=300)
BOUND = 1 << 22


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(data)


def _characters(path: Path) -> int:
    return sum(len(text) for texts, _ in read_documents(path, "text", "<|endoftext|>") for text in texts)


def _refused(source: str, sentence: str, **settings: Any) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        prepare(DataConfig(source=(source,), seq_len=16, **settings), TINY_TOKENIZER)
    assert "\n" not in str(caught.value)
    assert not list(Path("prepared").glob("*/*.tokens")), "a shard was left"


# Bombs


@pytest.mark.parametrize(("ending", "pack"), [(".txt.gz", gzip.compress), (".txt.zst", _zstd), (".jsonl.zst", _zstd)])
def test_a_bomb_in_packed_text(ending: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linnet.data.bytestreams.UNPACKED_WITHOUT_QUESTION", BOUND)
    record = SENTENCE if "txt" in ending else json.dumps({"text": "a cat"}).encode() + b"\n"
    path = Path(f"bomb{ending}")
    path.write_bytes(pack(record * (2 * BOUND // len(record))))
    _refused(str(path), "which is a bomb and no text")
    bounded = prepare(DataConfig(source=(str(path),), seq_len=16, max_bytes=100_000), TINY_TOKENIZER)
    assert bounded.train.text_bytes + (bounded.validation.text_bytes if bounded.validation else 0) <= 100_000


def test_a_bomb_is_read_in_little_memory() -> None:
    """1.1 GB of text out of 97 kB, under a limit of 200 MB beyond what was in use when it began."""
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    with Path("bomb.txt.zst").open("wb") as file:
        for _ in range(1100):
            file.write(compressor.compress(SENTENCE * (2**20 // len(SENTENCE))))
        file.write(compressor.flush())
    script = """
import resource, pathlib
from linnet.data.documents import read_documents
from linnet.errors import UserError
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, resource.RLIM_INFINITY))
try:
    documents = read_documents(pathlib.Path('bomb.txt.zst'), 'text', '<|e|>')
    print(sum(len(text) for texts, _ in documents for text in texts))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert "which is a bomb" in done.stdout, done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY, "the limit is the child's alone"


def test_a_table_of_a_few_bytes_that_stands_for_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["the cat " * 1_000_000]))
    parquet.write_table(
        pa.table({"text": texts}),
        "bomb.parquet",
        compression="zstd",
        store_schema=False,
        dictionary_pagesize_limit=2**30,
    )
    assert Path("bomb.parquet").stat().st_size < 10_000
    monkeypatch.setattr("linnet.data.bytestreams.UNPACKED_WITHOUT_QUESTION", 1 << 27)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="which is a bomb"):
        _characters(Path("bomb.parquet"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # kB; 256 rows at once took 9 GB
    monkeypatch.setattr("linnet.data.documents.LONGEST_LINE", 1 << 20)
    with pytest.raises(UserError, match="between rows 1 and 16 is one of 8,000,000 bytes"):
        _characters(Path("bomb.parquet"))


@pytest.mark.parametrize("seed", range(4))
def test_a_table_whose_bytes_lie(seed: int) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"text": [f"story {number}" for number in range(200)]}), "true.parquet")
    whole = Path("true.parquet").read_bytes()
    generator = np.random.default_rng(seed)
    for _ in range(40):
        changed = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            changed[place] = int(generator.integers(0, 256))
        Path("lies.parquet").write_bytes(changed)
        try:
            _characters(Path("lies.parquet"))
        except UserError as error:
            assert "lies.parquet" in str(error)  # noqa: PT017 - what is changed may also be read as other text


def test_packed_text_that_is_damaged() -> None:
    for name, pack in (("a.txt.gz", gzip.compress), ("a.txt.zst", _zstd)):
        whole = pack(SENTENCE * 100)
        Path(name).write_bytes(whole + whole)
        assert _characters(Path(name)) == 2 * 100 * len(SENTENCE), "members that follow one another are one text"
        for damaged in (whole[:-5], whole[: len(whole) // 2], whole[:10] + b"\0\0" + whole[12:], whole + b"more"):
            Path(name).write_bytes(damaged)
            with pytest.raises(UserError, match=r"is not whole (gzip|zst) data"):
                _characters(Path(name))
    Path("twice.txt.gz.gz").write_bytes(gzip.compress(gzip.compress(SENTENCE)))
    with pytest.raises(UserError, match="not UTF-8"):
        _characters(Path("twice.txt.gz.gz"))


# Text without end


def test_a_file_of_nothing_but_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a download leaves it that reserved its room and never came; on disk it takes none."""
    monkeypatch.setattr("linnet.tokenizer.boundaries.LONGEST_UNCUT", 1 << 22)
    with Path("zeros.txt").open("wb") as file:
        file.truncate(1 << 24)
    _refused("zeros.txt", r"no place to cut it, from '\\x00")
    tokenizer = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [])
    with pytest.raises(UserError, match="no place to cut it"):
        sum(1 for _ in tokenizer.encode_iterable("a" * (1 << 16) for _ in range(300)))


def test_one_line_of_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("line.jsonl").open("wb") as file:
        file.write(b'{"text": "fine"}\n{"text": "')
        file.truncate(1 << 28)
    began = time.monotonic()
    _refused("line.jsonl", r"line\.jsonl:2: is longer than 67,108,864 bytes")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"text": ' + "[" * 100_000, "nested too deeply"),
        ('{"text": "a", "n": ' + "9" * 9000 + "}", "thousands of digits"),
        ('{"text": "\\ud800"}', "half a surrogate pair"),
        ('{"text": ["a"]}', "holds list, not text"),
        ('["text"]', "is not a JSON object"),
    ],
)
def test_json_that_is_no_record(line: str, sentence: str) -> None:
    Path("bad.jsonl").write_text(line + "\n")
    _refused("bad.jsonl", sentence)


# Names and places


def test_links_that_lead_around_in_a_circle() -> None:
    Path("corpus").mkdir()
    for name in ("a", "b", "c"):
        Path("corpus", name).symlink_to(".")
    Path("corpus/story.txt").write_bytes(SENTENCE * 100)
    Path("corpus/.hidden.txt").write_bytes(SENTENCE)
    began = time.monotonic()
    for source in ("corpus", "corpus/**/*.txt", f"{Path.cwd()}/corpus/**/*.txt", "corpus/*.txt"):
        (part,) = open_source([source], DataConfig()).parts
        assert [path.resolve() for path in part.paths] == [Path("corpus/story.txt").resolve()]  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5


def test_what_is_no_file_is_not_read() -> None:
    os.mkfifo("pipe.txt")
    Path("zero.txt").symlink_to("/dev/zero")
    Path("self.txt").symlink_to("self.txt")
    for name in ("pipe.txt", "zero.txt"):
        _refused(name, "is not a file that can be read again and again")
    _refused("self.txt", "no such file")
    _refused("*.txt", "matches no file")


def test_a_text_that_changes_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("story.txt")
    path.write_bytes(SENTENCE * 5000)
    data = DataConfig(source=("story.txt",), seq_len=16, val_fraction=0.0)
    prepared = prepare(data, TINY_TOKENIZER, shard_tokens=2000)
    (directory,) = Path("prepared").iterdir()
    (directory / "dataset.json").unlink()
    stamp = path.stat()
    path.write_bytes(b"THE CAT" + (SENTENCE * 5000)[7:])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as if nothing had happened
    with pytest.raises(UserError, match="the text changed while it was being prepared"):
        prepare(data, TINY_TOKENIZER, shard_tokens=2000)
    assert prepared.train.text_bytes == 5000 * len(SENTENCE)


# Prepared data that somebody sent


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    (tmp_path / "story.txt").write_bytes(SENTENCE * 500)
    return prepare(DataConfig(source=("story.txt",), seq_len=16), TINY_TOKENIZER).directory.resolve()


def _manifest(sent: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((sent / "dataset.json").read_text())
    change(content)
    (sent / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["../other.tokens", "/etc/passwd", "..", "a/b.tokens"])
def test_a_shard_outside_its_directory(sent: Path, name: str) -> None:
    _manifest(sent, lambda content: content["splits"]["train"].update(shards=[name]))
    with pytest.raises(UserError, match="no file in its directory"):
        load_prepared(sent)


def test_a_shard_that_is_a_link(sent: Path) -> None:
    shard = next(sent.glob("train-*.tokens"))
    shard.rename(sent.parent / "elsewhere.tokens")
    shard.symlink_to(sent.parent / "elsewhere.tokens")
    with pytest.raises(UserError, match="no file in its directory"):
        load_prepared(sent)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"format": 1}', '{"format": ' + "9" * 9000 + "}", "\x00"])
def test_a_manifest_that_is_none(sent: Path, text: str) -> None:
    (sent / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=r"dataset\.json: is (damaged|not of format)"):
        load_prepared(sent)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": -1},
        {"documents": 2**62},
        {"dtype": "object"},
        {"dtype": "float64"},
        {"tokens": "many"},
        {"max_id": 10**9},
        {"more": 1},
    ],
    ids=str,
)
def test_a_shard_header_sealed_by_somebody_else(sent: Path, changes: dict[str, Any]) -> None:
    import hashlib

    from linnet.data.shards import _PREFIX, HEADER_BYTES, MAGIC

    shard = next(sent.glob("train-*.tokens"))
    data = shard.read_bytes()
    length = _PREFIX.unpack_from(data)[2]
    content = json.loads(data[_PREFIX.size : _PREFIX.size + length]) | changes
    encoded = json.dumps(content).encode()
    header = _PREFIX.pack(MAGIC, 1, len(encoded), hashlib.sha256(encoded).digest()) + encoded
    shard.write_bytes(header.ljust(HEADER_BYTES, b"\0") + data[HEADER_BYTES:])
    with pytest.raises(UserError, match=r"train-00000\.tokens: .*: delete .* and prepare the data again"):
        load_prepared(sent)


def test_a_lock_that_is_a_link(sent: Path) -> None:
    (sent / "dataset.json").unlink()
    (sent / ".lock").unlink()
    (sent / ".lock").symlink_to(sent.parent / "made-elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        prepare(DataConfig(source=("story.txt",), seq_len=16), TINY_TOKENIZER)
    assert not (sent.parent / "made-elsewhere").exists()


@pytest.mark.parametrize("name", ["np.load of an object", "a shape below zero"])
def test_an_array_of_ids_is_never_unpickled(name: str, tmp_path: Path, linnet: Linnet) -> None:
    Tokenizer({byte: bytes([byte]) for byte in range(256)}, []).save("tok")
    path = tmp_path / "ids.npy"
    if name.startswith("np"):
        np.save(path, np.array([_Payload(tmp_path / "ran")], dtype=object), allow_pickle=True)
    else:
        np.save(path, np.arange(3, dtype=np.uint16))
        path.write_bytes(path.read_bytes().replace(b"(3,)", b"(-3,)"))
    result = linnet("tokenizer", "decode", "tok", path)
    assert result.code == 2, result.err
    assert not (tmp_path / "ran").exists()


class _Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)
