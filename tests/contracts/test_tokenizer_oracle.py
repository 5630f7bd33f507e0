"""The promise: the same ids as tiktoken and Hugging Face's tokenizers, on real and on adversarial text."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiktoken
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from adversarial_text import CHARACTERS, SPECIALS, STRINGS_PER_PATTERN, adversarial_texts
from linnet.tokenizer import Tokenizer, counting, encoding, train_bpe_from_texts
from linnet.tokenizer.patterns import PATTERNS, piece_finder

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def read(name: str) -> str:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in shared/data")
    return path.read_bytes().decode()


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    read("gpt2_vocab.json")
    return Tokenizer.from_files(DATA / "gpt2_vocab.json", DATA / "gpt2_merges.txt", ["<|endoftext|>"])


@pytest.fixture(scope="module")
def tiktoken_gpt2(gpt2: Tokenizer) -> tiktoken.Encoding:
    ranks = {token: id for id, token in gpt2.vocab.items() if id != gpt2.eos_id}
    return tiktoken.Encoding(
        "gpt2-from-files", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens=gpt2.special_ids
    )


@pytest.fixture(scope="module")
def huggingface_gpt2(gpt2: Tokenizer) -> tokenizers.Tokenizer:
    # Built from the files by the library alone, without anything that linnet writes.
    model = models.BPE.from_file(str(DATA / "gpt2_vocab.json"), str(DATA / "gpt2_merges.txt"))
    built = tokenizers.Tokenizer(model)
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["<|endoftext|>"])
    return built


def generated(count: int, seed: int) -> list[str]:
    return list(adversarial_texts(count, seed))


def library_pre_tokenizer(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Each pattern put together from the library's own parts."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern == "gpt2":
        return byte_level
    if pattern == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    split = pre_tokenizers.Split(tokenizers.Regex(PATTERNS[pattern]), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def huggingface_trained(pattern: str, vocab_size: int, texts: list[str]) -> tokenizers.Tokenizer:
    """A tokenizer trained by the library itself."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = library_pre_tokenizer(pattern)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def huggingface_ids(other: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in other.encode_batch(texts, add_special_tokens=False)]


def test_shakespeare_has_the_ids_of_tiktoken_and_tokenizers(
    gpt2: Tokenizer, tiktoken_gpt2: tiktoken.Encoding, huggingface_gpt2: tokenizers.Tokenizer
) -> None:
    text = read("shakespeare.txt")
    ids = gpt2.encode(text)
    assert ids == tiktoken_gpt2.encode(text)
    assert ids == huggingface_gpt2.encode(text).ids
    assert ids == list(gpt2.encode_iterable(text[at : at + 777] for at in range(0, len(text), 777)))
    assert gpt2.decode(ids) == text


def test_adversarial_text_has_the_ids_of_tiktoken_and_tokenizers(
    gpt2: Tokenizer, tiktoken_gpt2: tiktoken.Encoding, huggingface_gpt2: tokenizers.Tokenizer
) -> None:
    texts = generated(STRINGS_PER_PATTERN, seed=1)
    ids = [gpt2.encode(text) for text in texts]
    assert ids == [tiktoken_gpt2.encode(text, allowed_special="all") for text in texts]
    assert ids == huggingface_ids(huggingface_gpt2, texts)
    assert [gpt2.decode(some) for some in ids] == texts


def test_without_special_tokens_no_text_is_special(gpt2: Tokenizer, tiktoken_gpt2: tiktoken.Encoding) -> None:
    plain = Tokenizer(gpt2.vocab, gpt2.merges)
    for text in generated(1000, seed=2):
        assert plain.encode(text) == tiktoken_gpt2.encode(text, disallowed_special=())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_trained_tokenizer_gives_the_same_ids_in_tiktoken_tokenizers_and_transformers(
    pattern: str, tmp_path: Path
) -> None:
    texts = generated(STRINGS_PER_PATTERN, seed=3)
    corpus = [read("shakespeare.txt")[:300_000], *texts[:2000]]
    vocab, merges = train_bpe_from_texts(corpus, 3000, SPECIALS, pattern=pattern, workers=1)
    tokenizer = Tokenizer(vocab, merges, SPECIALS, pattern=pattern)
    tokenizer.save(tmp_path)
    ids = [tokenizer.encode(text) for text in texts]
    assert [tokenizer.decode(some) for some in ids] == texts
    ranks = {token: id for id, token in vocab.items() if id >= len(SPECIALS)}
    ranked = tiktoken.Encoding(
        "ours", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens=tokenizer.special_ids
    )
    assert ids == [ranked.encode(text, allowed_special="all") for text in texts]
    assert ids == huggingface_ids(tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), texts)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert ids[:2000] == auto(texts[:2000], add_special_tokens=False)["input_ids"]
    assert [auto.decode(some) for some in ids[:2000]] == texts[:2000]
    assert auto.eos_token_id == tokenizer.eos_id
    assert set(auto("a b")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_kernels_give_the_merges_and_ids_of_the_readable_code_tiktoken_and_tokenizers(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = generated(STRINGS_PER_PATTERN, seed=9)
    corpus = [read("shakespeare.txt")[:300_000], *texts[:2000]]
    vocab, merges = train_bpe_from_texts(corpus, 3000, SPECIALS, pattern=pattern)
    monkeypatch.setattr(counting, "WORTH_BYTES", 0)
    monkeypatch.setattr(encoding, "WORTH_BYTES", 0)
    assert train_bpe_from_texts(corpus, 3000, SPECIALS, pattern=pattern) == (vocab, merges)
    tokenizer = Tokenizer(vocab, merges, SPECIALS, pattern=pattern)
    tokenizer.save(tmp_path)
    texts += ["".join(texts[:500]), "\n".join(texts), read("shakespeare.txt")[-300_000:]]
    ids = [array.tolist() for array in tokenizer.encode_batch(texts)]
    assert tokenizer._encoder._kernels is not None
    ranks = {token: id for id, token in vocab.items() if id >= len(SPECIALS)}
    ranked = tiktoken.Encoding(
        "ours", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens=tokenizer.special_ids
    )
    assert ids == [ranked.encode(text, allowed_special="all") for text in texts]
    assert ids == huggingface_ids(tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), texts)
    assert [tokenizer.decode(some) for some in ids] == texts


def test_kernels_give_gpt2s_ids(
    gpt2: Tokenizer, tiktoken_gpt2: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "WORTH_BYTES", 0)
    fast = Tokenizer(gpt2.vocab, gpt2.merges, ["<|endoftext|>"])
    texts = [read("shakespeare.txt"), *generated(STRINGS_PER_PATTERN, seed=10)]
    ids = [array.tolist() for array in fast.encode_batch(texts)]
    assert fast._encoder._kernels is not None
    assert ids == [tiktoken_gpt2.encode(text, allowed_special="all") for text in texts]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_tokenizer_trained_by_tokenizers_is_read_to_the_same_ids(pattern: str, tmp_path: Path) -> None:
    texts = generated(STRINGS_PER_PATTERN, seed=4)
    other = huggingface_trained(pattern, 3000, [read("shakespeare.txt")[:300_000], *texts[:2000]])
    other.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.pattern == pattern
    assert tokenizer.special_tokens == SPECIALS
    assert [tokenizer.encode(text) for text in texts] == huggingface_ids(other, texts)


def test_vocabulary_that_lacks_bytes_loses_the_same_text(tmp_path: Path) -> None:
    # SmolLM2's own vocabulary is such a one (huggingface/smollm, issue 81).
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = read("shakespeare.txt")[:100_000]
    made.train_from_iterator([text], trainers.BpeTrainer(vocab_size=500, show_progress=False))
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.missing_bytes == bytes(set(range(256)) - set(text.encode()))
    texts = [*generated(2000, seed=5), "th\U0001f600e", "\x00", "th\x00e the"]
    assert [tokenizer.encode(text) for text in texts] == huggingface_ids(made, texts)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_characters_fall_into_the_pre_tokens_that_tokenizers_makes(pattern: str) -> None:
    other = library_pre_tokenizer(pattern)
    find_all = piece_finder(pattern)
    for char in CHARACTERS:
        text = f"a {char} {char}b{char}1{char}{char}  {char}''s  "
        assert find_all(text) == [text[start:end] for _, (start, end) in other.pre_tokenize_str(text)], hex(ord(char))


@pytest.mark.parametrize("expression", [r"\p{L}+|\p{N}{2}|\s+(?!\S)", r"(?<=[.!?])\s+|[^\s.!?]+", r" ?\d|(?i:'s)"])
def test_custom_expressions_make_the_ids_that_tokenizers_makes(expression: str, tmp_path: Path) -> None:
    texts = generated(STRINGS_PER_PATTERN // 2, seed=6)
    vocab, merges = train_bpe_from_texts(texts, 1500, SPECIALS, pattern=expression, workers=1)
    tokenizer = Tokenizer(vocab, merges, SPECIALS, pattern=expression)
    tokenizer.save(tmp_path)
    ids = [tokenizer.encode(text) for text in texts]
    assert ids == huggingface_ids(tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), texts)
    assert [tokenizer.decode(some) for some in ids] == texts
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == tokenizer.fingerprint


def test_ignore_merges_means_what_it_means_in_tokenizers(tmp_path: Path) -> None:
    texts = generated(STRINGS_PER_PATTERN // 2, seed=7)
    vocab, merges = train_bpe_from_texts(texts, 1500, SPECIALS, pattern="llama3", workers=1)
    # Without its last merges, much of the vocabulary is only ever whole pre-tokens, and some of it never.
    tokenizer = Tokenizer(vocab, merges[:600], SPECIALS, pattern="llama3", ignore_merges=True)
    tokenizer.save(tmp_path)
    ids = [tokenizer.encode(text) for text in texts]
    assert ids == huggingface_ids(tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), texts)
    assert ids != [Tokenizer(vocab, merges[:600], SPECIALS, pattern="llama3").encode(text) for text in texts]
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bytes_that_are_not_utf8_decode_as_python_replaces_them(pattern: str) -> None:
    texts = generated(300, seed=8)
    vocab, merges = train_bpe_from_texts(texts, 1500, [], pattern=pattern, workers=1)
    tokenizer = Tokenizer(vocab, merges, pattern=pattern)
    ids = tokenizer.encode("".join(texts))
    for at in range(0, len(ids) - 9, 3):
        # Half of the ids taken away, so that tokens meet that hold halves of characters.
        some = ids[at : at + 9 : 2]
        assert tokenizer.decode(some) == b"".join(vocab[id] for id in some).decode(errors="replace")
