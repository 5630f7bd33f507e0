"""Special tokens, ends of documents and bytes that are no UTF-8 are found where Python finds them."""

from __future__ import annotations

import random
import re
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.errors import UserError
from linnet.tokenizer.kernels import texts as kernel_texts
from linnet.tokenizer.kernels.marking import END_OF_DOCUMENT, find_marks, first_not_utf8
from linnet.tokenizer.kernels.texts import Cutter
from linnet.tokenizer.kernels.words import PADDING

Mark = tuple[int, int, int]

# Prefixes of each other, tokens that overlap, and bytes that many or only one of them begin with.
SETS = {
    "prefixes": ["<a", "<a><a>", "<a>", "<a><a><b>"],
    "overlaps": ["ab c", "cab", "bb", " c"],
    "one first byte": [f"<|{number}|>" for number in range(300)],
    "many first bytes": [chr(0x40 + number % 60) * 2 + str(number) for number in range(300)],
    "beyond ascii": ["漢字", "漢", "é!", "字漢", "😀😀", "😀é"],
    "none": [],
}
PIECES = {
    "prefixes": ["<", "a", ">", "<a>", "<a", "<b>", "xxxxxxxxx", "é"],
    "overlaps": [*list("abc "), "cab", "bb", " c", "--------"],
    "one first byte": ["<", "|", "<|", *(f"<|{number}|>" for number in (0, 1, 12, 123, 299)), "|>", "9", "word " * 3],
    "many first bytes": ["AA1", "BB2", "BB62", "A", "B", "A1", "ZZ26", "ZZ86", "zz", "word " * 3],
    "beyond ascii": [*list("漢字é!😀 a"), "        "],
    "none": ["a", "<", "漢"],
}


def expected_marks(texts: list[str], specials: list[str]) -> list[Mark]:
    longest_first = sorted(specials, key=len, reverse=True)
    marks = []
    end = 0
    for text in texts:
        for match in re.finditer("|".join(map(re.escape, longest_first)), text) if specials else []:
            begin = end + len(text[: match.start()].encode())
            marks.append((begin, begin + len(match.group().encode()), specials.index(match.group())))
        end += len(text.encode())
        marks.append((end, end, END_OF_DOCUMENT))
    return marks


def found_marks(texts: list[str], specials: list[str]) -> list[Mark]:
    documents = Cutter("gpt2", specials).documents(texts)
    assert documents.size == sum(len(text.encode()) for text in texts)
    return [(*mark, kind) for mark, kind in zip(documents.marks.tolist(), documents.kinds.tolist(), strict=True)]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("room", [0, 3, 1024])
def test_marks_are_where_the_leftmost_and_longest_special_tokens_stand(
    name: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_texts, "_FIRST_MARKS", room)

    @settings(deadline=None, derandomize=True, max_examples=60)
    @given(st.lists(st.lists(st.sampled_from(PIECES[name]), max_size=15).map("".join), max_size=6))
    def check(texts: list[str]) -> None:
        assert found_marks(texts, SETS[name]) == expected_marks(texts, SETS[name])

    check()
    chance = random.Random(4)
    texts = ["".join(chance.choices(PIECES[name], k=chance.randrange(60))) for _ in range(200)]
    assert found_marks(texts, SETS[name]) == expected_marks(texts, SETS[name])


def test_no_special_token_straddles_two_documents_and_many_fit_into_one() -> None:
    # Together the texts spell two of the special tokens.
    assert found_marks(["x<", "a>", "<a", "><a>"], ["<a>", "<a><a>"]) == [
        *[(2, 2, END_OF_DOCUMENT), (4, 4, END_OF_DOCUMENT), (6, 6, END_OF_DOCUMENT)],
        *[(7, 10, 0), (10, 10, END_OF_DOCUMENT)],
    ]
    marks = found_marks(["<a>" * 5000, "", "", "<a>"], ["<a>"])
    assert len(marks) == 5005
    assert [mark[2] for mark in marks[4999:]] == [0, END_OF_DOCUMENT, END_OF_DOCUMENT, END_OF_DOCUMENT, 0, -1]
    assert found_marks([], ["<a>"]) == []


@pytest.mark.parametrize("at", [*range(20), 63, 64, 65])
def test_a_special_token_is_found_at_every_offset_of_a_word(at: int) -> None:
    for after in range(9):
        text = "-" * at + "<|e|>" + "-" * after
        assert found_marks([text], ["<|e|>"])[0] == (at, at + 5, 0)
        assert found_marks(["-" * at + "<|e|"], ["<|e|>"]) == [(at + 4, at + 4, END_OF_DOCUMENT)]


def check_utf8(data: bytes) -> None:
    array = np.frombuffer(data + b"\x80" * PADDING, dtype=np.uint8)
    try:
        data.decode()
        expected = -1
    except UnicodeDecodeError as error:
        expected = error.start
    assert first_not_utf8(array, len(data)) == expected, data


def test_the_first_byte_that_is_no_utf8() -> None:
    chance = random.Random(2)
    edges = [0x00, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x40000, 0x10FFFF]
    for point in edges:
        for before in range(9):
            for after in ("", "x", "x" * 12, "é"):
                check_utf8(b"a" * before + chr(point).encode() + after.encode())
    # Every first byte with every second one, and the edges of the third and the fourth.
    for lead in range(0x80, 0x100):
        for second in range(0x70, 0xD0):
            for rest in (b"", b"\x80", b"\x80\x80", b"\xbf\xbf", b"\x7f\x80", b"\xc0\x80", b"\x80\xc0", b"\x80\x7f"):
                check_utf8(bytes([lead, second]) + rest)
        check_utf8(bytes([lead]))
        check_utf8(b"12345678" + bytes([lead]))
    for _ in range(3000):
        chars = chance.choices(["a", "hello world ", "é", "漢", "😀", *map(chr, edges)], k=chance.randrange(1, 12))
        data = bytearray("".join(chars).encode())
        check_utf8(bytes(data))
        check_utf8(bytes(data[: chance.randrange(len(data))]))
        at = chance.randrange(len(data))
        data[at] = chance.choice([chance.randrange(256), data[at] ^ 1 << chance.randrange(8)])
        check_utf8(bytes(data))
    for _ in range(1000):
        check_utf8(bytes(chance.choices(range(256), k=chance.randrange(1, 5))))


def test_parts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "text"
    words = ["für", " alle", "<|end|>", " Fälle", "漢字"]
    ends = [0, *accumulate(len(word.encode()) for word in words)]
    path.write_bytes("".join(words).encode())
    cutter = Cutter("gpt2", ["<|end|>"])
    for start, end, word in zip(ends, ends[1:], words, strict=False):
        documents = cutter.file_part(path, start, end)
        assert documents.data[: documents.size].tobytes() == word.encode()
        assert documents.kinds.tolist() == ([0, END_OF_DOCUMENT] if word[0] == "<" else [END_OF_DOCUMENT])
    with pytest.raises(UserError, match=f"text is not UTF-8: byte {ends[3] + 2} \\(0xc3\\)"):
        cutter.file_part(path, ends[3], ends[3] + 3)
    # The place is that of the whole file.
    path.write_bytes(b"abc \xff")
    with pytest.raises(UserError, match="byte 4 \\(0xff\\)"):
        cutter.file_part(path, 3, 5)


def test_a_lone_surrogate_is_told() -> None:
    with pytest.raises(UserError, match=r"lone surrogate, U\+D800, in 'ab.*cd'"):
        Cutter("gpt2", []).documents(["fine", "ab\ud800cd"])


def test_text_of_every_origin_goes_through_the_same_machine_code(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("abc def")
    cutter = Cutter("gpt2", ["<s>"])
    for documents in (cutter.documents(["abc def"]), cutter.file_part(tmp_path / "text", 0, 7)):
        assert [(cut.start, cut.stop, cut.ends[: cut.pieces].tolist()) for cut in documents.cuts()] == [
            (0, 7, [3, 7, -1])
        ]
    # Each would take seconds to compile for another kind of array.
    assert len(cutter.cut.signatures) == 1
    assert len(find_marks.signatures) == 1
