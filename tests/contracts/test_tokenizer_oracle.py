"""The promise: the same ids as tiktoken and Hugging Face's tokenizers, on real and on adversarial text."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
import regex
import tiktoken
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from linnet.tokenizer import Tokenizer, train_bpe_from_texts
from linnet.tokenizer.pretokenize import PATTERNS

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|><|im_end|>"]

PARTS = [
    *[" ", "  ", "   \t", "\n", "\n\n", " \n ", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x85", "\x1c", "\v\f"],
    *["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'", "''s", "'l", "'v", "'r", "’s", "don't", "we'll"],
    *[
        "e\u0301",
        "n\u0303o",
        "\u0301",
        "क्षि",
        "ส้ม",
        "שָׁלוֹם",
        "مرحبا",
        "한국어",
        "日本語",
        "你好,世界",
        "ｶﾞ",
        "Straße",
        "ǅ",
    ],
    *["😀", "👩‍👩‍👧", "🇨🇭", "👍🏽", "\ufe0f", "\u200b", "\u200d", "\ufeff", "\x00", "\x07", "\x7f", "\u0080", "\ufffd"],
    *["0", "7", "42", "1999", "3.14", "１２", "²", "½", "Ⅳ", "٣", "१२", "x2y", "10,000", "0x1F"],
    *[
        "the",
        " the",
        "The",
        "ing",
        "word",
        " Lear",
        "AAAA",
        "aaaaaaaa",
        "======",
        "...",
        "?!",
        "(",
        ")]",
        "_",
        "<|",
        "|>",
    ],
    *[*SPECIALS, "<|endoftext|", "endoftext|>", "<<|im_end|>>", "<|im_end|><|im_start|>"],
]


# Of Unicode 3.2, which all libraries know: a later character is a letter to one and nothing yet to another.
CHARACTERS = [
    chr(point)
    for point in [*range(0x3000), *range(0x3000, 0x110000, 7)]
    if unicodedata.ucd_3_2_0.category(chr(point)) not in ("Cn", "Cs")
]


def generated(count: int, seed: int) -> list[str]:
    """Strings from the parts above glued together, and from code points of the whole of Unicode."""
    chance = random.Random(seed)
    texts = []
    for number in range(count):
        if number % 5 == 4:
            texts.append("".join(chance.choice(CHARACTERS) for _ in range(chance.randrange(24))))
        else:
            texts.append("".join(chance.choices(PARTS, k=chance.randrange(16))))
    return texts


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


def huggingface_trained(pattern: str, vocab_size: int, texts: list[str]) -> tokenizers.Tokenizer:
    """A tokenizer trained by the library itself."""
    made = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = byte_level if pattern == "gpt2" else pre_tokenizers.Sequence([digits, byte_level])
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
    texts = generated(10_000, seed=1)
    ids = [gpt2.encode(text) for text in texts]
    assert ids == [tiktoken_gpt2.encode(text, allowed_special="all") for text in texts]
    assert ids == huggingface_ids(huggingface_gpt2, texts)
    assert [gpt2.decode(some) for some in ids] == texts


def test_without_special_tokens_no_text_is_special(gpt2: Tokenizer, tiktoken_gpt2: tiktoken.Encoding) -> None:
    plain = Tokenizer(gpt2.vocab, gpt2.merges)
    for text in generated(1000, seed=2):
        assert plain.encode(text) == tiktoken_gpt2.encode(text, disallowed_special=())


@pytest.mark.parametrize("pattern", ["gpt2", "smollm"])
def test_saved_tokenizer_gives_the_same_ids_in_tokenizers_and_transformers(pattern: str, tmp_path: Path) -> None:
    texts = generated(10_000, seed=3)
    corpus = [read("shakespeare.txt")[:300_000], *texts[:2000]]
    vocab, merges = train_bpe_from_texts(corpus, 3000, SPECIALS, pattern=pattern, workers=1)
    tokenizer = Tokenizer(vocab, merges, SPECIALS, pattern=pattern)
    tokenizer.save(tmp_path)
    ids = [tokenizer.encode(text) for text in texts]
    assert ids == huggingface_ids(tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), texts)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert ids[:2000] == auto(texts[:2000], add_special_tokens=False)["input_ids"]
    assert [auto.decode(some) for some in ids[:2000]] == texts[:2000]
    assert auto.eos_token_id == tokenizer.eos_id
    assert set(auto("a b")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("pattern", ["gpt2", "smollm"])
def test_tokenizer_trained_by_tokenizers_is_read_to_the_same_ids(pattern: str, tmp_path: Path) -> None:
    texts = generated(10_000, seed=4)
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


@pytest.mark.parametrize("pattern", ["gpt2", "smollm"])
def test_characters_of_unicode_3_fall_into_the_pre_tokens_that_tokenizers_makes(pattern: str) -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    other = byte_level if pattern == "gpt2" else pre_tokenizers.Sequence([digits, byte_level])
    find_all = regex.compile(PATTERNS[pattern]).findall
    for char in CHARACTERS:
        text = f"a {char} {char}b{char}1{char}{char}  {char}''s  "
        assert find_all(text) == [text[start:end] for _, (start, end) in other.pre_tokenize_str(text)], hex(ord(char))
