"""The kernels give the ids that the readable merger gives: of pieces, documents, parts, and in threads."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adversarial_text import SPECIALS, adversarial_texts
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, encoding, train_bpe_from_texts
from linnet.tokenizer.engine import in_order
from linnet.tokenizer.kernels import encoder as kernel_encoder
from linnet.tokenizer.kernels.encoder import Encoder
from linnet.tokenizer.kernels.encoding import LONGEST_KEPT
from linnet.tokenizer.merging import LONGEST_SCAN, Merger
from linnet.tokenizer.patterns import PATTERNS
from linnet.tokenizer.pretokenize import PreTokenizer
from linnet.tokenizer.training import train_on_counts

Pairs = list[tuple[bytes, bytes]]

BYTES = [bytes([byte]) for byte in range(256)]
TEXTS = list(adversarial_texts(1200, seed=21))
VOCAB, MERGES = train_bpe_from_texts(TEXTS, 2500, SPECIALS, pattern="gpt4", workers=1)


class Both:
    """The same tokenizer twice: by the kernels and by the readable code."""

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Pairs,
        specials: Iterable[str] = (),
        *,
        pattern: str = "gpt4",
        ignore_merges: bool = False,
        dtype: type = np.uint32,
    ) -> None:
        assert in_order(merges)
        ids = {token: id for id, token in vocab.items()}
        self.special_ids = {text: ids[text.encode()] for text in specials}
        self.merger = Merger(vocab, merges, ignore_merges)
        self.pretokenizer = PreTokenizer(pattern, list(specials))
        self.kernels = Encoder(
            vocab, merges, self.special_ids, pattern=pattern, ignore_merges=ignore_merges, dtype=np.dtype(dtype)
        )
        self.dtype = dtype

    def read(self, text: str) -> list[int]:
        ids: list[int] = []
        for pieces, special in self.pretokenizer.stream([text], 1 << 20):
            ids += chain.from_iterable(map(self.merger.encode, pieces))
            ids += [] if special is None else [self.special_ids[special]]
        return ids

    def check(self, texts: list[str]) -> None:
        ids, offsets = self.kernels.encode(texts)
        assert ids.dtype == self.dtype
        assert offsets.dtype == np.int64
        assert offsets.shape == (len(texts) + 1,)
        assert (offsets[0], offsets[-1]) == (0, ids.size)
        for text, start, end in zip(texts, offsets[:-1], offsets[1:], strict=True):
            assert ids[start:end].tolist() == self.read(text), repr(text[:200])


def ordered_merges(chance: random.Random, letters: str, count: int) -> Pairs:
    """Merges at random that `in_order` accepts; many make a token that another makes too."""
    tokens = [letter.encode() for letter in letters]
    taken: set[bytes] = set()
    merges: Pairs = []
    for _ in range(20 * count):
        token = chance.choice(tokens)
        at = chance.randrange(1, len(token)) if len(token) > 1 and chance.random() < 0.7 else 0
        pair = (token[:at], token[at:]) if at else (token, chance.choice(tokens))
        if not set(pair) <= set(tokens) or pair[0] + pair[1] in taken or pair in merges or len(pair[0] + pair[1]) > 40:
            continue
        merges.append(pair)
        taken.update(pair)
        tokens.append(pair[0] + pair[1])
        if len(merges) == count:
            break
    return merges


def vocab_of(merges: Pairs, alphabet: list[bytes] = BYTES) -> dict[int, bytes]:
    products = sorted({left + right for left, right in merges})
    return dict(enumerate([*alphabet, *products]))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_documents_with_special_tokens_at_their_ends_and_in_them(pattern: str) -> None:
    both = Both(VOCAB, MERGES, SPECIALS, pattern=pattern)
    edges = ["", "", SPECIALS[0], SPECIALS[0] * 3, f"{SPECIALS[1]}a", f"a{SPECIALS[2]}", " ", "\n", SPECIALS[3], ""]
    both.check([*edges, *TEXTS, *edges, *adversarial_texts(1000, seed=22), *edges])
    both.check([])
    both.check([""])
    both.check(["".join(TEXTS)])


def test_the_narrow_type_and_the_widest_ids() -> None:
    Both(VOCAB, MERGES, SPECIALS, dtype=np.uint16).check(TEXTS)
    # Ids of 24 bits, in every place of a remembered piece: entries hold up to four, and longer lists lie elsewhere.
    spread = {(1 << 24) - 1 - id * 1009: token for id, token in VOCAB.items()}
    both = Both(spread, MERGES, SPECIALS)
    both.check([*TEXTS[:300], *TEXTS[:300]])


def test_tokens_made_by_several_merges() -> None:
    chance = random.Random(14)
    several = 0
    for _ in range(100):
        merges = ordered_merges(chance, "abc", chance.randrange(1, 40))
        several += len(merges) - len({left + right for left, right in merges})
        both = Both(vocab_of(merges), merges, pattern="gpt2")
        sizes = [*range(1, 12), *range(LONGEST_SCAN - 1, LONGEST_SCAN + 7), 100, 300]
        both.check(["".join(chance.choices("abc" if size % 2 else "aab", k=size)) for size in sizes])
    assert several > 50


@settings(deadline=None, derandomize=True, max_examples=250)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from(["a", "ab", "abcd"]),
    st.integers(1, 30),
    st.lists(st.text(st.sampled_from("abcd"), max_size=200), max_size=6),
)
def test_any_merges_in_order(chance: random.Random, letters: str, count: int, texts: list[str]) -> None:
    merges = ordered_merges(chance, letters, count)
    both = Both(vocab_of(merges), merges, pattern="gpt2")
    both.check([*texts, letters * 33, letters * 129])


def test_long_pieces_in_which_tokens_repeat() -> None:
    # What overlaps itself is merged from the left, in whatever order its places were found.
    chance = random.Random(23)
    for number in range(300):
        words = ["".join(chance.choices("ab", k=chance.randrange(1, 7))) for _ in range(4)]
        texts = ["".join(chance.choice(words) * chance.randrange(1, 6) for _ in range(40)) for _ in range(3)]
        if number % 2:
            _, merges = train_on_counts({texts[0]: 1, texts[1]: 1}, 256 + chance.randrange(5, 60), [])
        else:
            merges = ordered_merges(chance, "ab", chance.randrange(5, 40))
        Both(vocab_of(merges), merges, pattern="gpt2").check(texts)


def test_long_pieces() -> None:
    chance = random.Random(18)
    runs = ["a" * 40_000, "ab" * 20_000, "=" * 70, "".join(chance.choices("aab", k=10_000)), "é" * 3000, "漢字" * 400]
    lengths = [
        "".join(chance.choices(letters, k=size))
        for letters in ("a", "ab", "etaoin", "é", "aé漢")
        for size in (*range(60, 72), *range(120, 135), 4095, 4096, 4097)
    ]
    corpus = [*TEXTS[:300], *(run[:500] for run in runs), *lengths]
    for size in (300, 700, 3000):
        vocab, merges = train_bpe_from_texts(corpus, size, [], workers=1)
        both = Both(vocab, merges, pattern="gpt2")
        both.check([*runs, *lengths, *runs, *lengths])


def test_bytes_without_a_token_are_left_out() -> None:
    corpus = ["the theme of the thesis " * 3, "a" * 200]
    vocab, merges = train_bpe_from_texts(corpus, 300, [], workers=1)
    for lacking in (set(BYTES) - {bytes([byte]) for byte in "".join(corpus).encode()}, {b" "}, {b"t", b"\xc3"}):
        kept = [pair for pair in merges if not any(byte in pair[0] + pair[1] for byte in lacking)]
        some = {id: token for id, token in vocab.items() if not any(byte in token for byte in lacking)}
        both = Both(some, kept)
        both.check([*TEXTS, "q" * 300, "the qqq themé", "thé" * 50, "aq" * 400, "", "q", *TEXTS[:10]])
    Both({}, []).check(TEXTS[:50])


def test_with_ignore_merges_a_piece_that_is_a_token_is_that_token() -> None:
    # Without most merges much of the vocabulary is only ever a whole piece, some of it longer than a key holds.
    long_words = ["a" * 15, "a" * 16, " extraordinarily", "b" * 70, "c" * 200, " 漢字漢字漢字"]
    tokens = [*VOCAB.values(), *(word.encode() for word in long_words)]
    vocab = dict(enumerate(dict.fromkeys(tokens)))
    texts = [
        *TEXTS,
        *long_words,
        *(f"x{word}{word[0]} {word}" for word in long_words),
        "extraordinarily extraordinarily",
    ]
    ignoring = Both(vocab, MERGES[:400], SPECIALS, ignore_merges=True)
    ignoring.check(texts)
    ignoring.check(texts)
    merging = Both(vocab, MERGES[:400], SPECIALS)
    merging.check(texts)
    assert ignoring.kernels.encode(texts)[0].size < merging.kernels.encode(texts)[0].size
    # Ids need not be without gaps.
    Both({3 * id + 5: token for id, token in vocab.items()}, MERGES[:400], SPECIALS, ignore_merges=True).check(texts)


@pytest.mark.parametrize(("entries", "arena"), [(2, 1 << 10), (8, 1 << 22), (1 << 12, 700), (64, 2000)])
def test_forgetting_changes_nothing(entries: int, arena: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_encoder, "_TABLE_ENTRIES", entries)
    monkeypatch.setattr(kernel_encoder, "_ARENA_BYTES", arena)
    both = Both(VOCAB, MERGES, SPECIALS)
    words = [
        " ".join(f"{word}{number % 7}" for word in ("a", "extraordinarily" * 3, "漢字é" * 6)) for number in range(50)
    ]
    both.check([*TEXTS, *words, *words])
    assert_remembered_once(both)


def assert_remembered_once(both: Both) -> int:
    """No piece lies twice in what is remembered, as one would that is not found again; returns how many there are."""
    (memory,) = both.kernels._memories
    keys = memory.table[memory.table[:, 2] != 0][:, :2].tolist()
    assert len(set(map(tuple, keys))) == len(keys) == memory.state[0]
    return len(keys)


def test_every_piece_is_remembered_but_those_too_long_to_come_back() -> None:
    both = Both(VOCAB, MERGES, SPECIALS)
    texts = [*TEXTS, *(letter * LONGEST_KEPT for letter in "xyz"), *(letter * (LONGEST_KEPT + 1) for letter in "uvw")]
    for _ in range(2):
        both.check(texts)
    segments = chain.from_iterable(both.pretokenizer.stream([text], 1 << 20) for text in texts)
    pieces = {piece.encode() for pieces, _ in segments for piece in pieces}
    assert assert_remembered_once(both) == sum(len(piece) <= LONGEST_KEPT for piece in pieces) < len(pieces)


@pytest.mark.parametrize("room", [0, 1, 10_000, 40_000])
def test_ids_are_handed_on_where_there_is_no_room_for_more(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_encoder, "_ROOM", room)
    both = Both(VOCAB, MERGES, SPECIALS)
    # Many more pieces than are cut at once, and documents that begin and end anywhere among them.
    texts = [*TEXTS, f"a1{SPECIALS[0]}" * 12_000, "", "b2" * 9000, *TEXTS[:200], "z" * 60_000, "."]
    both.check(texts)


def test_four_threads_at_once() -> None:
    both = Both(VOCAB, MERGES, SPECIALS)
    jobs = [TEXTS[at : at + 150] for at in range(0, 1200, 150)] * 4
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(both.kernels.encode, jobs))
    for job, (ids, offsets) in zip(jobs, results, strict=True):
        assert [ids[start:end].tolist() for start, end in pairwise(offsets)] == [both.read(text) for text in job]


def test_after_a_lone_surrogate_all_goes_on() -> None:
    both = Both(VOCAB, MERGES, SPECIALS)
    with pytest.raises(UserError, match=r"lone surrogate, U\+DFFF"):
        both.kernels.encode(["fine", "a\udfff"])
    both.check(TEXTS[:50])


def tokenizer(pattern: str = "gpt4", merges: Pairs = MERGES, **options: bool) -> Tokenizer:
    return Tokenizer(VOCAB, merges, SPECIALS, pattern=pattern, **options)


def is_switched(made: Tokenizer) -> bool:
    return made._encoder._kernels is not None


@pytest.fixture
def _switch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WORTH_BYTES", 20_000)


@pytest.mark.usefixtures("_switch_early")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_ids_are_the_same_before_and_after_the_switch(pattern: str) -> None:
    made = tokenizer(pattern)
    texts = [*TEXTS, "".join(TEXTS[:200])]
    before = []
    for text in texts:
        before.append(made.encode(text))
        if is_switched(made):
            break
    assert 19_000 < sum(map(len, texts[: len(before)])) < 30_000, "it switches once it has seen so much, and not before"
    fresh = tokenizer(pattern)
    long = "".join(TEXTS[:500])
    expected = list(fresh.encode_iterable([long]))
    assert not is_switched(fresh)
    assert made.encode(long) == expected
    assert made.encode_array(long).tolist() == expected
    cuts = [long[at : at + 999] for at in range(0, len(long), 999)]
    assert list(made.encode_iterable(cuts)) == expected
    assert list(made.encode_iterable(long)) == expected
    one_by_one = [list(fresh.encode_iterable([text])) for text in TEXTS]
    for workers in (1, 2, 3, None):
        ids, offsets = made.encode_ragged(TEXTS, workers=workers)
        assert ids.dtype == np.uint16
        assert [ids[start:end].tolist() for start, end in pairwise(offsets)] == one_by_one
        assert [array.tolist() for array in made.encode_batch(TEXTS, workers=workers)] == one_by_one
    assert [made.encode(text) for text in TEXTS] == one_by_one
    assert made.encode_ragged([])[1].tolist() == [0]
    assert made.encode_ragged(["", ""])[1].tolist() == [0, 0, 0]
    assert made.encode_batch([]) == []


@pytest.mark.usefixtures("_switch_early")
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_long_texts_are_encoded_in_parts(size: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PART_CHARACTERS", size)
    # Special tokens with boundaries inside, which no cut may use.
    specials = ["<|of the day|>", " the", "day it's", "x>y.", "<|of"]
    pieces = [
        *specials,
        " the",
        "day",
        " it's ",
        " word",
        ". ",
        "\n\n",
        "<|of the",
        " day|>",
        "x>y",
        "été ",
        "漢字",
        "'s",
    ]
    texts = ["".join(random.Random(number).choices(pieces, k=3000)) for number in range(2)]
    texts = [*texts, "", "a" * 4000, "short", texts[0][:size], ""]
    made = Tokenizer(*train_bpe_from_texts(texts, 400, [], workers=1), specials)
    expected = [list(made.encode_iterable([text])) for text in texts]
    assert not is_switched(made)
    ids, offsets = made.encode_ragged(texts, workers=workers)
    assert is_switched(made)
    assert [ids[start:end].tolist() for start, end in pairwise(offsets)] == expected
    assert made.encode_array(texts[0], workers=workers).tolist() == expected[0]
    assert list(made.encode_iterable(texts[:1])) == expected[0]


@pytest.mark.usefixtures("_switch_early")
def test_what_the_kernels_cannot_do_stays_with_the_readable_code() -> None:
    text = "".join(TEXTS[:300])
    for _ in range(3):
        for made in (tokenizer(r"\w+|\W"), tokenizer(merges=[*MERGES[1:], MERGES[0]])):
            expected = list(made.encode_iterable([text]))
            for _ in range(2):
                assert made.encode(text) == expected
                assert made.encode_ragged([text, text])[0].tolist() == 2 * expected
            assert not is_switched(made)
    assert not in_order([*MERGES[1:], MERGES[0]])


def test_what_in_order_means() -> None:
    assert in_order([])
    assert in_order([(b"a", b"b"), (b"ab", b"c"), (b"b", b"c")])
    assert in_order([(b"b", b"c"), (b"a", b"b"), (b"a", b"bc"), (b"ab", b"c")]), "two merges may make one token"
    assert not in_order([(b"ab", b"c"), (b"a", b"b")])
    assert not in_order([(b"c", b"ab"), (b"a", b"b")])
    assert not in_order([(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"abc", b"d"), (b"a", b"bc")])


@pytest.mark.usefixtures("_switch_early")
def test_threads_that_meet_at_the_switch() -> None:
    reading = tokenizer()
    expected = [list(reading.encode_iterable([text])) for text in TEXTS]
    for _ in range(5):
        made = tokenizer()
        jobs = [TEXTS[at : at + 100] for at in range(0, len(TEXTS), 100)]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda job: made.encode_batch(job, workers=2), jobs))  # noqa: B023
        assert is_switched(made)
        assert [array.tolist() for arrays in results for array in arrays] == expected


def test_an_unusable_number_of_workers_is_told() -> None:
    for texts in ([], ["a"], TEXTS):
        with pytest.raises(UserError, match="workers is 0"):
            tokenizer().encode_ragged(texts, workers=0)


LITTLE = """
import sys
from pathlib import Path
import linnet.tokenizer
from linnet.tokenizer import Tokenizer, train_bpe, train_bpe_from_texts
assert "numba" not in sys.modules, "importing"
text = Path(sys.argv[1]).read_text()
assert len(text) > 100_000
tokenizer = Tokenizer(*train_bpe(sys.argv[1], 300, ["<|end|>"], workers=2), ["<|end|>"])
train_bpe_from_texts([text] * 3, 300, [])
assert "numba" not in sys.modules, "training"
for _ in range(5):
    tokenizer.encode(text)
    tokenizer.encode_batch([text, text])
    list(tokenizer.encode_iterable([text]))
assert "numba" not in sys.modules, "encoding"
"""


def test_little_text_loads_no_kernel(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat<|end|>\n" * 4000)
    subprocess.run([sys.executable, "-c", LITTLE, str(path)], check=True, timeout=60)
