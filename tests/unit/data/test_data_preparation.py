"""What `prepare` writes, reuses and refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from linnet.config import DataConfig, TokenizerConfig
from linnet.data import PreparedData, find_prepared, load_prepared, preparation, prepare, train_tokenizer
from linnet.data.locking import locked
from linnet.data.sources import open_source
from linnet.data.splits import SplitDocuments, divide, sampled
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer

Settings = Callable[..., DataConfig]


def times(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != ".lock"}


def all_tokens(prepared: PreparedData, split: str = "train") -> list[int]:
    stream = prepared.splits[split]
    return stream.window(0, stream.tokens).tolist()


@pytest.fixture
def text_file(tmp_path: Path, make_text: Callable[..., str]) -> Path:
    path = tmp_path / "book.txt"
    path.write_bytes(make_text(60_000).encode())
    return path


def test_tokens_are_the_text(data_settings: Settings, text_file: Path, small_tokenizer: TokenizerConfig) -> None:
    prepared = prepare(data_settings(source=str(text_file)), small_tokenizer)
    assert prepared.validation is not None
    text = text_file.read_bytes().decode()
    train, validation = (prepared.tokenizer.decode(all_tokens(prepared, name)) for name in ("train", "validation"))
    assert train + validation == text + "<|endoftext|>"
    assert abs(len(validation.encode()) / len(text.encode()) - 0.1) < 0.01
    assert prepared.train.text_bytes == len(train.encode())
    facts = prepared.manifest["splits"]["train"]
    assert facts["text_sha256"] == hashlib.sha256(train.encode()).hexdigest()
    assert (facts["tokens"], facts["documents"]) == (prepared.train.tokens, 1)
    assert "sample" not in prepared.manifest["settings"]["tokenizer"]  # so that keys are those of earlier releases
    assert prepared.manifest["split"] == "position"
    assert prepared.entropy_nats_per_byte is None
    prepared.verify()


def test_each_document_ends_with_end_of_text(
    data_settings: Settings, tmp_path: Path, small_tokenizer: TokenizerConfig
) -> None:
    texts = [f"document number {number}\r\n" for number in range(100)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepared = prepare(data_settings(source=str(tmp_path / "a.jsonl")), small_tokenizer)
    tokenizer, stream = prepared.tokenizer, prepared.train
    held = tokenizer.decode(all_tokens(prepared)).split("<|endoftext|>")
    assert held.pop() == ""
    assert set(held) < set(texts)
    assert stream.documents == len(held)
    starts = stream.shards[0].document_starts.astype(int).tolist()
    tokens = np.array(all_tokens(prepared))
    assert starts == [0, *(np.flatnonzero(tokens == tokenizer.eos_id)[:-1] + 1).tolist()]


def test_tokenizer_is_trained_on_the_training_split_alone(data_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("aab aab aab " * 500)
    (tmp_path / "v.txt").write_text("zyzyzy zyzyzy " * 500)
    tokenizer = TokenizerConfig(vocab_size=300)
    prepared = prepare(data_settings(source=str(tmp_path / "a.txt"), val_source=str(tmp_path / "v.txt")), tokenizer)
    assert b"aab" in prepared.tokenizer.vocab.values()
    assert b"zy" not in prepared.tokenizer.vocab.values()
    assert prepared.validation is not None
    assert prepared.validation.text_bytes == 7000


def test_tokenizer_max_bytes_limits_what_it_learns_from(data_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("é" * 100 + " " + "zyzyzy " * 500)
    prepared = prepare(data_settings(source=str(tmp_path / "a.txt")), TokenizerConfig(vocab_size=300, max_bytes=151))
    assert "éé".encode() in prepared.tokenizer.vocab.values()
    assert b"zy" not in prepared.tokenizer.vocab.values()


def test_tokenizer_sample_draws_documents_apart_from_the_split(data_settings: Settings, tmp_path: Path) -> None:
    texts = [f"<{number}>" for number in range(1000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = data_settings(source=str(tmp_path / "a.jsonl"))
    seen = {share: set(learned_from(data, share)) for share in (0.2, 0.5, 1.0)}
    assert seen[0.2] < seen[0.5] < seen[1.0] < set(texts)
    assert abs(len(seen[1.0]) - 900) < 40
    assert abs(len(seen[0.2]) - 180) < 50
    assert abs(len(seen[0.5]) - 450) < 60
    undivided = set(learned_from(data.replace(val_fraction=0), 0.2))
    assert abs(len(undivided) - 200) < 50
    assert len(undivided - set(learned_from(data.replace(val_fraction=0.2), 1))) < 80  # of 200 that are held out
    other = set(learned_from(data.replace(seed=1), 0.2))
    assert len(other & seen[0.2]) < 70
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:500]))
    assert learned_from(data, 0.2) == sorted(seen[0.2] & set(texts[:500]), key=texts.index)


def learned_from(data: DataConfig, share: float) -> list[str]:
    source = open_source(data.source, data)
    train = (batch for batch in divide(source, None, data).batches() if batch.split == "train")
    chosen = train if share == 1 else sampled(train, data.seed, share)
    return [text for _, texts, _ in chosen for text in texts]


def test_tokenizer_sample_trains_on_what_it_draws(data_settings: Settings, tmp_path: Path) -> None:
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": word * 40}) + "\n" for word in words))
    data = data_settings(source=str(tmp_path / "a.jsonl"), val_fraction=0)
    chosen = [text[: len(text) // 40] for text in learned_from(data, 0.5)]
    assert 0 < len(chosen) < len(words)
    tokenizer = train_tokenizer(data, TokenizerConfig(vocab_size=400, sample=0.5))
    known = {token.decode(errors="replace") for token in tokenizer.vocab.values()}
    assert [word for word in words if word in known] == chosen
    with pytest.raises(UserError, match=r"tokenizer\.sample: 1e-06 draws none of the 5 documents"):
        train_tokenizer(data, TokenizerConfig(vocab_size=400, sample=1e-6))


def test_a_document_in_pieces_is_drawn_whole_or_not_at_all() -> None:
    batches = [
        SplitDocuments("train", ["a", "b", "c1"], ends=False),
        SplitDocuments("train", ["c2"], ends=False),
        SplitDocuments("train", ["c3", "d", "e"], ends=True),
        SplitDocuments("train", ["f"], ends=True),
    ]
    drawn = {}
    for seed in range(60):
        held = [""]
        try:
            for _, texts, ends in sampled(batches, seed, 0.5):
                for place, text in enumerate(texts, 1):
                    held[-1] += text
                    if ends or place < len(texts):
                        held.append("")
        except UserError:
            continue
        assert held.pop() == ""
        drawn[seed] = held
        assert set(held) <= {"a", "b", "c1c2c3", "d", "e", "f"}
    assert {text for held in drawn.values() for text in held} == {"a", "b", "c1c2c3", "d", "e", "f"}


GOLDEN = {
    5_000: "bd039799f8ec9943cf2540ac6927f631abca0ca9f56b4a8851563b95064befa4",
    10**6: "4feece70466be312671ba5f2e6b808fc25a124e65189eeae2510e5287bc7ac57",
}


@pytest.mark.parametrize("shard_tokens", GOLDEN)
def test_shards_never_change(
    data_settings: Settings, tmp_path: Path, make_text: Callable[..., str], shard_tokens: int
) -> None:
    """The hashes are those of linnet's first release that prepared data."""
    merges = [(b" ", b"t"), (b"t", b"h"), (b"o", b"u"), (b"th", b"e"), (b" t", b"h"), (b"\n", b"\n")]
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    Tokenizer(dict(enumerate(tokens)), merges, ["<|endoftext|>"]).save(tmp_path / "t")
    texts = [make_text(number * 37 % 901, number) + "<|endoftext|>" * (number % 7 == 3) for number in range(300)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "b.txt").write_bytes("<|endoftext|>".join([make_text(400_000, 1), *texts[:40]]).encode())
    data = data_settings(source=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt")], max_bytes=500_000)
    prepared = prepare(data, TokenizerConfig(source=str(tmp_path / "t")), shard_tokens=shard_tokens)
    digest = hashlib.sha256()
    for path in sorted(prepared.directory.glob("*.tokens")):
        digest.update(path.name.encode() + path.read_bytes())
    assert digest.hexdigest() == GOLDEN[shard_tokens]


def test_given_tokenizer_is_used_and_kept(data_settings: Settings, text_file: Path, tmp_path: Path) -> None:
    given = Tokenizer({**{byte: bytes([byte]) for byte in range(256)}, 70_000: b"the"}, [], ["<|endoftext|>", "<x>"])
    given.save(tmp_path / "given")
    data = data_settings(source=str(text_file), val_fraction=0)
    prepared = prepare(data, TokenizerConfig(source=str(tmp_path / "given")))
    assert prepared.validation is None
    assert prepared.tokenizer.fingerprint == given.fingerprint
    assert prepared.train.shards[0].header.dtype == "uint32"
    assert all_tokens(prepared) == [*given.encode(text_file.read_bytes().decode()), given.eos_id]
    shutil.rmtree(tmp_path / "given")
    assert load_prepared(prepared.directory).tokenizer.fingerprint == given.fingerprint


def test_second_call_changes_nothing_on_disk(
    data_settings: Settings, text_file: Path, small_tokenizer: TokenizerConfig
) -> None:
    data = data_settings(source=str(text_file))
    assert find_prepared(data, small_tokenizer) is None
    first = prepare(data, small_tokenizer)
    before = times(first.directory)
    again = prepare(data.replace(seq_len=16, order="sequential"), small_tokenizer)
    assert (again.directory, again.key) == (first.directory, first.key)
    found = find_prepared(data, small_tokenizer)
    assert found is not None
    assert found.key == first.key
    assert times(first.directory) == before


def test_what_determines_the_tokens_changes_the_key(
    data_settings: Settings, text_file: Path, small_tokenizer: TokenizerConfig
) -> None:
    data = data_settings(source=str(text_file))
    keys = [prepare(data, small_tokenizer).key]
    for changes in ({"val_fraction": 0.2}, {"max_bytes": 30_000}, {"seed": 1}, {"val_source": str(text_file)}):
        keys.append(prepare(data.replace(**changes), small_tokenizer).key)
    for changes in ({"vocab_size": 301}, {"pattern": "smollm"}, {"max_bytes": 10**6}, {"sample": 0.999}):
        tokenizer = TokenizerConfig.model_validate({"vocab_size": 300, "special_tokens": ("<|endoftext|>",)} | changes)
        keys.append(prepare(data, tokenizer).key)
    status = text_file.stat()
    os.utime(text_file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    keys.append(prepare(data, small_tokenizer).key)
    assert len(set(keys)) == len(keys)


def test_workers_do_not_change_a_byte(
    tmp_path: Path, make_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "BATCH_CHARACTERS", 10_000)  # so that little text makes more batches than wait
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(make_text(4_000, seed) for seed in range(80)))
    made = []
    for workers in (1, 2):
        data = DataConfig(source=(str(tmp_path / "a.txt"),), directory=str(tmp_path / f"{workers}"))
        prepared = prepare(data, TokenizerConfig(vocab_size=300), workers=workers, shard_tokens=40_000)
        files = (path for path in prepared.directory.iterdir() if path.is_file() and path.name != ".lock")
        made.append({path.name: path.read_bytes() for path in files})
    assert len(made[0]) >= 4
    assert made[0] == made[1]


def test_stories_have_their_entropy_and_another_seed_for_validation(
    data_settings: Settings, small_tokenizer: TokenizerConfig
) -> None:
    prepared = prepare(data_settings(source="builtin:stories", max_bytes=60_000), small_tokenizer)
    assert prepared.entropy_nats_per_byte == prepared.manifest["entropy_nats_per_byte"]
    assert prepared.entropy_nats_per_byte is not None
    both = prepare(
        data_settings(source="builtin:stories", val_source="builtin:stories", max_bytes=60_000), small_tokenizer
    )
    assert both.directory.name.startswith("stories-")
    texts = [both.tokenizer.decode(all_tokens(both, name)) for name in ("train", "validation")]
    held = [set(text.split("<|endoftext|>")) - {""} for text in texts]
    assert held[0]
    assert not held[0] & held[1]


def test_progress_tells_every_phase(
    data_settings: Settings, small_tokenizer: TokenizerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "BATCH_CHARACTERS", 100_000)
    told: list[tuple[str, int, int | None, str]] = []

    def report(description: str, done: int, total: int | None, unit: str = "B") -> None:
        told.append((description, done, total, unit))

    prepare(data_settings(source="builtin:stories", max_bytes=1_000_000), small_tokenizer, progress=report)
    encoding = [done for description, done, _, _ in told if description == "encoding text"]
    assert encoding == sorted(encoding)
    assert len(encoding) >= 3
    assert {description for description, _, _, _ in told} == {
        "reading text for the tokenizer",
        "merging pairs of tokens",
        "encoding text",
    }
    assert {total for description, _, total, _ in told if description == "encoding text"} <= {1_000_000, encoding[-1]}


def test_second_process_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with locked(tmp_path, waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path, lambda: order.append("waited for nobody")):
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_too_little_text_for_one_window(data_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words " * 30)
    tokenizer = TokenizerConfig(vocab_size=257)
    with pytest.raises(
        UserError, match=r"the train split holds 297 tokens, one window needs 501: .* lower data.seq_len"
    ):
        prepare(data_settings(source=str(tmp_path / "a.txt"), seq_len=500), tokenizer)
    with pytest.raises(UserError, match=r"the validation split holds 34 tokens, one window needs 35: .*val_fraction"):
        prepare(data_settings(source=str(tmp_path / "a.txt"), seq_len=34), tokenizer)
    assert prepare(data_settings(source=str(tmp_path / "a.txt"), seq_len=33), tokenizer).train.tokens == 297


def test_what_was_prepared_is_no_part_of_the_text(
    text_file: Path, small_tokenizer: TokenizerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(text_file.parent)
    data = DataConfig(source=(".",), seq_len=8)
    assert prepare(data, small_tokenizer).key == prepare(data, small_tokenizer).key


def test_a_place_that_cannot_be_written_is_told(
    data_settings: Settings, text_file: Path, small_tokenizer: TokenizerConfig
) -> None:
    with pytest.raises(UserError, match=r"cannot be made \(Not a directory\): set data\.directory"):
        prepare(data_settings(source=str(text_file), directory=str(text_file)), small_tokenizer)


def test_text_that_changes_under_an_interrupted_preparation_is_noticed(
    data_settings: Settings, text_file: Path, small_tokenizer: TokenizerConfig
) -> None:
    data = data_settings(source=str(text_file))
    directory = prepare(data, small_tokenizer, shard_tokens=2000).directory
    (directory / "dataset.json").unlink()
    status, text = text_file.stat(), text_file.read_bytes()
    for changed in (text.replace(b"house", b"mouse"), b"\n" * (len(text) - 3) + b"end"):
        text_file.write_bytes(changed)
        os.utime(text_file, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(UserError, match="the text changed while it was being prepared"):
            prepare(data, small_tokenizer, shard_tokens=2000)


def test_tokenizers_that_cannot_end_a_document(data_settings: Settings, text_file: Path, tmp_path: Path) -> None:
    data = data_settings(source=str(text_file))
    with pytest.raises(UserError, match=r"tokenizer\.special_tokens is empty"):
        prepare(data, TokenizerConfig(vocab_size=300, special_tokens=()))
    Tokenizer({byte: bytes([byte]) for byte in range(256)}, []).save(tmp_path / "bare")
    with pytest.raises(UserError, match="bare: this tokenizer has no special token to end documents with"):
        prepare(data, TokenizerConfig(source=str(tmp_path / "bare")))


def test_damage_to_prepared_data_is_named(
    data_settings: Settings, text_file: Path, small_tokenizer: TokenizerConfig
) -> None:
    data = data_settings(source=str(text_file))
    directory = prepare(data, small_tokenizer).directory
    shard, manifest = directory / "train-00000.tokens", directory / "dataset.json"
    kept = {path: path.read_bytes() for path in (shard, manifest, directory / "tokenizer" / "tokenizer.json")}
    other = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], ["<|endoftext|>"])
    facts = json.loads(kept[manifest])
    facts["splits"]["train"]["tokens"] += 1
    for path, content, sentence in (
        (shard, kept[shard][:-8], r"train-00000\.tokens: has \d+ bytes, its header says \d+"),
        (shard, None, r"train-00000\.tokens: this token shard is missing"),
        (manifest, b"{", r"dataset\.json: is damaged"),
        (manifest, b"{}", r"dataset\.json: is not of format 1"),
        (manifest, b'{"format": 1}', r"dataset\.json: is damaged"),
        (manifest, json.dumps(facts).encode(), r"its shards hold \d+ tokens, not \d+"),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            prepare(data, small_tokenizer)
        path.write_bytes(kept[path])
    other.save(directory / "tokenizer")
    with pytest.raises(UserError, match="is not the tokenizer that made the tokens"):
        load_prepared(directory)
    with pytest.raises(UserError, match="holds no prepared data"):
        load_prepared(directory.parent)


def test_a_failed_preparation_leaves_no_half_written_shard(
    data_settings: Settings, tmp_path: Path, small_tokenizer: TokenizerConfig
) -> None:
    lines = json.dumps({"text": "words and words " * 60}) + "\n"
    (tmp_path / "a.jsonl").write_text(lines * 1500 + "{broken\n")
    (tmp_path / "t.txt").write_text("words and words " * 50)
    prepare(data_settings(source=str(tmp_path / "t.txt")), small_tokenizer).tokenizer.save(tmp_path / "t")
    data = data_settings(source=str(tmp_path / "a.jsonl"))
    with pytest.raises(UserError, match=r"a\.jsonl:1501: is not JSON"):
        prepare(data, TokenizerConfig(source=str(tmp_path / "t")))
    (left,) = (tmp_path / "prepared").glob("a-*")
    assert sorted(path.name for path in left.iterdir()) == [".lock", "tokenizer"]
