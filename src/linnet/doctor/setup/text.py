"""Text to ids and back: nothing lost, nothing outside the model's vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from linnet.data.stream import TokenStream
from linnet.doctor.findings import Outcome, counted, failed, passed, skipped
from linnet.doctor.setup.subject import Setup
from linnet.tokenizer import Tokenizer

# Bytes that no text in UTF-8 holds: a vocabulary may do without them.
NEVER_IN_UTF8 = frozenset([0xC0, 0xC1, *range(0xF5, 0x100)])
MOST_TOKENS_READ = 1 << 26

ADVERSARIAL = (
    "",
    " ",
    "\n\n\r\n\t \u00a0\u2028\x85",
    "don't WE'LL I'M x'S 'ſ",
    "naïve e\u0301 Straße İstanbul ﬁne",
    "日本語、한국어 मानक हिन्दी ส้ม שָׁלוֹם مرحبا",
    "👩\u200d👩\u200d👧 🇨🇭 👍🏽 ❤\ufe0f 1\ufe0f\u20e3 🏴\U000e0067\U000e0062\U000e007f",
    "\x00\x07\x1b[0m\x7f\ufffd\ufffe\ue000\U0010ffff\u202e",
    "12345 ３.14 ½Ⅳ² 0x1F 10,000",
    "a" * 300 + " " * 300 + "\n" * 50,
    "#include <x>\n\tif (a != b) { return; } // =====",
)


def round_trip(setup: Setup) -> Outcome:
    """Text made to go wrong must come back as it went in, special tokens in it included."""
    tokenizer = setup.tokenizer
    lost = {bytes([byte]) for byte in tokenizer.missing_bytes}
    tried = 0
    for text in _texts(tokenizer):
        if lost and any(bytes([byte]) in lost for byte in text.encode()):
            continue
        tried += 1
        ids = tokenizer.encode(text)
        back = tokenizer.decode(ids)
        if back != text:
            at = next(
                (n for n, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back))
            )
            return failed(
                f"{text[at : at + 20]!r} came back as {back[at : at + 20]!r}",
                "the tokenizer's files are damaged, or not those of one tokenizer: train it anew, or fetch it again",
            )
        if list(tokenizer.encode_array(text)) != ids or list(tokenizer.encode_iterable(iter(text))) != ids:
            return failed(
                f"{text[:40]!r} has other ids when it is encoded as an array or in pieces",
                "report this as a defect of linnet's, with the tokenizer",
            )
    broken = _decoded_halves(tokenizer)
    if broken is not None:
        return failed(broken, "report this as a defect of linnet's, with the tokenizer")
    return passed(
        f"{tried} texts made to go wrong came back as they were, emoji, control characters and special tokens "
        "among them; halves of characters decode to U+FFFD"
    )


def every_byte(setup: Setup) -> Outcome:
    """A byte without a token is text lost without a word."""
    tokenizer = setup.tokenizer
    missing = sorted(set(tokenizer.missing_bytes) - NEVER_IN_UTF8)
    named = ", ".join(f"0x{byte:02X}" for byte in missing[:8]) + (", …" if len(missing) > 8 else "")
    lost = _bytes_lost(setup)
    if lost is not None and lost[0] > 0:
        share = f"{lost[0]:,} of {lost[1]:,} bytes of the text stand for no token"
        return failed(
            f"{share}: they were lost" + (f" (no token for {named})" if missing else ""),
            "use a tokenizer with all 256 bytes, such as one that linnet trains, and prepare the data again",
            figure=float(lost[0]),
            bound=0.0,
        )
    if any(byte < 0x80 for byte in missing):
        return failed(
            f"there is no token for {named}: text that needs them loses them",
            "use a tokenizer with all 256 bytes, such as one that linnet trains",
        )
    if missing:
        more = "; this text needs none of them" if lost is not None else ""
        return passed(f"no token for {named}: text that needs them would lose them{more}")
    return passed("every byte that UTF-8 uses has a token" + ("; no byte of the text was lost" if lost else ""))


def ids_fit(setup: Setup) -> Outcome:
    """The model needs a row for every id."""
    ids, rows = setup.tokenizer.vocab_size, setup.model.vocab_size
    if ids > rows:
        return failed(
            f"the tokenizer has {ids:,} ids and the model rows for {rows:,} of them",
            f"set model.vocab_size to at least {ids}, or use the tokenizer that belongs to the model",
            figure=float(ids),
            bound=float(rows),
        )
    spare = f"; {rows - ids:,} rows stand for no token and are never written" if rows > ids else ""
    return passed(f"{ids:,} ids, {rows:,} rows{spare}", figure=float(ids), bound=float(rows))


def special_ids_fit(setup: Setup) -> Outcome:
    """Special tokens are often added after the fact, past the end of the model's table."""
    special, rows = setup.tokenizer.special_ids, setup.model.vocab_size
    if not special:
        return skipped("the tokenizer has no special tokens")
    outside = {token: id for token, id in special.items() if id >= rows}
    if outside:
        token, id = next(iter(outside.items()))
        return failed(
            f"the special token {token!r} has id {id}, and the model has rows up to {rows - 1}",
            f"set model.vocab_size to at least {max(special.values()) + 1}",
            figure=float(max(special.values())),
            bound=float(rows - 1),
        )
    for token, id in special.items():
        if setup.tokenizer.encode(token) != [id]:
            return failed(
                f"the special token {token!r} is encoded as {setup.tokenizer.encode(token)[:8]}, not as its id {id}",
                "the tokenizer's files disagree: fetch or train it again",
            )
    names = ", ".join(f"{token!r} {id}" for token, id in list(special.items())[:3])
    return passed(
        f"{counted(len(special), 'special token')}, all below {rows:,}: {names}" + (", …" if len(special) > 3 else "")
    )


def _texts(tokenizer: Tokenizer) -> Iterator[str]:
    yield from ADVERSARIAL
    specials = tokenizer.special_tokens[:8]
    for token in specials:
        yield f"{token}before{token}{token} after {token[:-1]} {token[1:]}"
    points = [*range(0x3100), *range(0x3100, 0x110000, 257)]
    letters = [chr(point) for point in points if not 0xD800 <= point < 0xE000]
    for start in range(0, len(letters), 512):
        yield "".join(letters[start : start + 512])


def _decoded_halves(tokenizer: Tokenizer) -> str | None:
    """What is wrong where the ids of single bytes are decoded, bytes that are no text among them."""
    of_byte = {token[0]: id for id, token in tokenizer.vocab.items() if len(token) == 1}
    for broken in (b"\xff", b"\xc3", b"\xe2\x82", b"a\xf0\x9f\x98b"):
        if all(byte in of_byte for byte in broken):
            decoded, expected = tokenizer.decode([of_byte[byte] for byte in broken]), broken.decode(errors="replace")
            if decoded != expected:
                return f"the bytes {broken!r} decode to {decoded!r} instead of {expected!r}"
    return None


def _bytes_lost(setup: Setup) -> tuple[int, int] | None:
    """Bytes of text that no token stands for, and bytes of text; None where there is no data, or very much."""
    if setup.data is None or sum(stream.tokens for stream in setup.data.splits.values()) > MOST_TOKENS_READ:
        return None
    lost = sum(_lost_in(stream, setup.tokenizer) for stream in setup.data.splits.values())
    return lost, sum(stream.text_bytes for stream in setup.data.splits.values())


def _lost_in(stream: TokenStream, tokenizer: Tokenizer) -> int:
    sizes = np.zeros(tokenizer.vocab_size, np.int64)
    for id, token in tokenizer.vocab.items():
        sizes[id] = len(token)
    stood_for = sum(int(sizes[shard.tokens].sum()) for shard in stream.shards)
    assert tokenizer.eos_id is not None, "prepared with a token to end documents"
    # Each document ends with one token that stands for no text; the last may have been broken off before it.
    endings = stream.documents * len(tokenizer.token_bytes(tokenizer.eos_id))
    return max(0, stream.text_bytes - (stood_for - endings) - len(tokenizer.token_bytes(tokenizer.eos_id)))
