"""Text from a real model whose weights are set by hand to write one known text, and from ids cut in any way."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.generate import SamplingSettings, TextGenerator, TextStream
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

GREEDY = SamplingSettings(temperature=0)
EOS = "<|endoftext|>"
BYTES = Tokenizer({0: EOS.encode(), **{1 + byte: bytes([byte]) for byte in range(256)}}, [], [EOS])


def writer(text: bytes, vocab_size: int = 257, then: int = 0) -> TextGenerator:
    """A model that knows one text of distinct bytes: after each of its bytes the next, after the last the id `then`.

    Its blocks add nothing to the residual stream, so the logits depend on the last token alone.
    """
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=vocab_size + vocab_size % 2,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = TransformerLM(config)
    ids = [0, *(1 + byte for byte in text), then]
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            model.get_parameter(f"model.layers.0.{name}.weight").zero_()
        model.get_parameter("model.embed_tokens.weight").copy_(torch.eye(vocab_size, config.hidden_size))
        head = model.get_parameter("lm_head.weight").zero_()
        for current, following in pairwise(ids):
            head[following, current] = 10.0
    return TextGenerator(model, BYTES)


def test_a_prompt_is_continued_to_the_end_of_the_text() -> None:
    completion = writer("abcd😀é.".encode()).complete("ab", max_new_tokens=50, settings=GREEDY, seed=8)
    assert completion.text == "cd😀é."
    assert completion.reason == "eos"
    assert bytes(token - 1 for token in completion.ids).decode() == "cd😀é."
    assert (completion.tokens, completion.prompt_tokens, completion.seed) == (9, 2, 8)
    assert completion.seconds > 0


def test_an_empty_prompt_begins_after_the_end_of_text_token() -> None:
    completion = writer(b"xyz").complete("", max_new_tokens=50, settings=GREEDY)
    assert (completion.text, completion.reason, completion.prompt_tokens) == ("xyz", "eos", 1)


def test_the_stream_hands_out_whole_characters_as_they_come() -> None:
    stream = writer("a😀bé".encode()).stream("", max_new_tokens=50, settings=GREEDY)
    assert list(stream) == ["a", "😀", "b", "é"]
    assert stream.completion().text == "a😀bé"


def test_a_character_cut_by_the_length_limit_is_left_out() -> None:
    completion = writer("a😀".encode()).complete("", max_new_tokens=3, settings=GREEDY)
    assert (completion.text, completion.reason, completion.tokens) == ("a", "length", 3)


def test_a_character_that_the_model_itself_broke_off_is_invalid() -> None:
    completion = writer(b"a\xf0\x9f").complete("", max_new_tokens=9, settings=GREEDY)
    assert (completion.text, completion.reason) == ("a�", "eos")


def test_a_stop_string_ends_the_text_and_is_not_shown() -> None:
    generator = writer("one, two.".replace("o", "0", 1).encode()[:7])  # distinct bytes: "0ne, tw"
    stopped = generator.complete("", max_new_tokens=50, settings=GREEDY, stop=", t")
    assert (stopped.text, stopped.reason, stopped.tokens) == ("0ne", "stop", 6)
    assert list(generator.stream("", max_new_tokens=50, settings=GREEDY, stop=[", x", "zz"])) == [
        "0", "n", "e", ", t", "w",
    ]  # fmt: skip


def test_what_was_held_back_comes_when_the_text_ends() -> None:
    generator = writer(b"abc")
    assert generator.complete("", max_new_tokens=50, settings=GREEDY, stop=["cd"]).text == "abc"
    assert generator.complete("", max_new_tokens=3, settings=GREEDY, stop=["cd"]).text == "abc"


def test_ids_without_a_token_are_never_made() -> None:
    unknown = 280
    generator = writer(b"ab", vocab_size=300, then=unknown)
    assert generator.model(torch.tensor([[1 + ord("b")]])).argmax() == unknown, "the model itself wants that id"
    for chosen in (GREEDY, SamplingSettings(temperature=50.0)):
        made = generator.complete("a", max_new_tokens=60, settings=chosen, seed=1).ids
        assert all(token < 257 for token in made)


def test_a_seed_repeats_and_is_told() -> None:
    generator = writer(b"ab")
    hot = SamplingSettings(temperature=200.0)
    first = generator.complete("a", max_new_tokens=30, settings=hot)
    assert generator.complete("a", max_new_tokens=30, settings=hot, seed=first.seed).ids == first.ids
    assert generator.complete("a", max_new_tokens=30, settings=hot).seed != first.seed


def test_settings_and_context_reach_the_model() -> None:
    generator = writer(b"abcdefgh")
    assert generator.complete("a", max_new_tokens=5).text == "bcdef"
    assert generator.complete("a", max_new_tokens=5, settings=SamplingSettings(temperature=1e4), seed=1).text != "bcdef"
    with pytest.raises(UserError, match="context is 65"):
        TextGenerator(generator.model, BYTES, context=65).stream("a", max_new_tokens=5)


def test_a_tokenizer_larger_than_the_model_is_refused() -> None:
    model = writer(b"ab").model
    larger = Tokenizer(BYTES.vocab, [], [EOS, "<|more|>"])
    with pytest.raises(UserError, match="tokenizer has 258 ids and the model's vocabulary only 257"):
        TextGenerator(model, larger)


def test_an_empty_prompt_without_an_end_of_text_token_is_refused() -> None:
    plain = Tokenizer({byte: bytes([byte]) for byte in range(256)}, [])
    generator = TextGenerator(writer(b"ab").model, plain)
    with pytest.raises(UserError, match="no end-of-text token: give a prompt"):
        generator.stream("", max_new_tokens=1)


def test_mistakes_are_told_at_the_call() -> None:
    generator = writer(b"ab")
    with pytest.raises(UserError, match="a stop string is empty"):
        generator.stream("a", max_new_tokens=1, stop=["x", ""])
    with pytest.raises(UserError, match="seed is -1"):
        generator.stream("a", max_new_tokens=1, seed=-1)
    with pytest.raises(UserError, match="max_new_tokens is -4"):
        generator.stream("a", max_new_tokens=-4)


def expected_text(text: str, stops: list[str]) -> tuple[str, bool]:
    """Read one character at a time; the first stop string to be complete ends it, the longest of several."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def stream_of(data: bytes, cuts: list[int], stops: list[str]) -> TextStream:
    """`data` as tokens cut at `cuts`, ended by the end-of-text id."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    vocab = {0: EOS.encode(), **{1 + index: piece for index, piece in enumerate(dict.fromkeys(pieces))}}
    ids = {piece: token for token, piece in vocab.items()}
    return TextStream(iter([*(ids[piece] for piece in pieces), 0]), Tokenizer(vocab, [], [EOS]), stops, 0, 1)


FEW = st.text("abé😀", max_size=25)
STOPS = st.lists(st.text("abé😀", min_size=1, max_size=4), max_size=3)
CUTS = st.lists(st.integers(0, 200), max_size=60)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(FEW, CUTS, STOPS)
@example("abab😀b", [1, 2, 3, 4, 5, 6, 7, 8], ["bab😀", "b😀", "😀"])
@example("aabaabaac", list(range(9)), ["aabaac"])
def test_no_cut_into_tokens_changes_the_text_or_shows_a_stop_string(
    text: str, cuts: list[int], stops: list[str]
) -> None:
    stream = stream_of(text.encode(), cuts, stops)
    pieces = list(stream)
    expected, stopped = expected_text(text, stops)
    assert "".join(pieces) == expected
    assert "" not in pieces
    assert not any(stop in expected for stop in stops)
    assert stream.completion().reason == ("stop" if stopped else "eos")


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.binary(max_size=30), CUTS)
@example(b"\xf0\x9f\x98\x80\xe2\x82", list(range(6)))
def test_any_bytes_decode_as_they_would_at_once(data: bytes, cuts: list[int]) -> None:
    assert "".join(stream_of(data, cuts, [])) == data.decode("utf-8", "replace")


@settings(deadline=None, derandomize=True, max_examples=100)
@given(FEW.filter(bool), CUTS)
def test_valid_text_never_shows_the_replacement_character_on_the_way(text: str, cuts: list[int]) -> None:
    assert all("�" not in piece for piece in stream_of(text.encode(), cuts, []))
