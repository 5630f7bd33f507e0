"""Text in, text out: whole characters as they come, stop strings held back, ends told apart."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from linnet.errors import UserError
from linnet.generate.engine import generate_stream
from linnet.generate.sampling import SamplingSettings
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer

Reason = Literal["stop", "length", "eos"]


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        text: without the stop string, and without a character that the length limit cut in two.
        ids: all ids made but the end-of-text id; those of a stop string are among them.
        reason: "stop": a stop string came; "eos": the model ended the text; "length": `max_new_tokens` were made.
        tokens: how many ids were made.
        prompt_tokens: how many ids the prompt has.
        seconds: from the first token asked for to the last one made, reading the prompt included.
        seed: repeats this completion.
    """

    text: str
    ids: list[int]
    reason: Reason
    tokens: int
    prompt_tokens: int
    seconds: float
    seed: int


class TextGenerator:
    """A model with its tokenizer.

    Args:
        context: the longest window in tokens, as in `generate`.

    Raises:
        UserError: if the tokenizer has more ids than the model.
    """

    def __init__(self, model: TransformerLM, tokenizer: Tokenizer, context: int | None = None) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the model's vocabulary only "
                f"{model.config.vocab_size}: they do not belong together"
            )
        self.model, self.tokenizer, self.context = model, tokenizer, context
        self._forbidden = sorted(set(range(model.config.vocab_size)) - tokenizer.vocab.keys())

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        settings: SamplingSettings | None = None,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> TextStream:
        """An iterator over pieces of text, each as soon as it is certain.

        Args:
            prompt: special tokens in it count as such. An empty prompt stands for the end-of-text token, after which a
                model begins a new text.
            settings: by default `SamplingSettings()`.
            stop: end before the first of these strings; nothing of it is ever handed out.
            seed: of the random numbers; None takes one from the operating system, told in `Completion.seed`.

        Raises:
            UserError: for an empty prompt where the tokenizer has no end-of-text token, an empty stop string, or what
                `generate` refuses.
        """
        ids = self.tokenizer.encode(prompt)
        eos = self.tokenizer.eos_id
        if not ids:
            if eos is None:
                raise UserError("the prompt is empty and the tokenizer has no end-of-text token: give a prompt")
            ids = [eos]
        seed = secrets.randbits(32) if seed is None else seed
        tokens = generate_stream(
            self.model,
            ids,
            max_new_tokens,
            **asdict(settings if settings is not None else SamplingSettings()),
            generator=seeded(seed),
            context=self.context,
            forbidden_ids=self._forbidden,
        )
        return TextStream(tokens, self.tokenizer, (stop,) if isinstance(stop, str) else stop, seed, len(ids))

    def complete(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        settings: SamplingSettings | None = None,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> Completion:
        """The whole text at once; arguments as for `stream`."""
        return self.stream(prompt, max_new_tokens=max_new_tokens, settings=settings, stop=stop, seed=seed).completion()


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU, whose numbers depend on `seed` alone."""
    if not 0 <= seed < 2**63:
        raise UserError(f"seed is {seed}: give a whole number from 0 to {2**63 - 1}")
    return torch.Generator().manual_seed(seed)


class TextStream(Iterator[str]):
    """Text made from ids as they come; `completion()` tells how it went."""

    def __init__(
        self, tokens: Iterator[int], tokenizer: Tokenizer, stop: Sequence[str], seed: int, prompt_tokens: int
    ) -> None:
        self._ids: list[int] = []
        self._shown: list[str] = []
        self._reason: Reason = "length"
        self._seconds = 0.0
        self._seed, self._prompt_tokens = seed, prompt_tokens
        self._pieces = self._text(tokens, tokenizer, StopFilter(stop))

    def __next__(self) -> str:
        began = time.perf_counter()
        try:
            piece = next(self._pieces)
        finally:
            self._seconds += time.perf_counter() - began
        self._shown.append(piece)
        return piece

    def completion(self) -> Completion:
        """Run to the end, if it has not been reached, and sum up; `text` holds every piece from the first."""
        for _ in self:
            pass
        return Completion(
            "".join(self._shown),
            list(self._ids),
            self._reason,
            len(self._ids),
            self._prompt_tokens,
            self._seconds,
            self._seed,
        )

    def _text(self, tokens: Iterator[int], tokenizer: Tokenizer, stops: StopFilter) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            if token == tokenizer.eos_id:
                self._reason = "eos"
                break
            self._ids.append(token)
            if piece := stops.feed(decoder.decode(tokenizer.token_bytes(token))):
                yield piece
            if stops.found:
                self._reason = "stop"
                return
        # A character that the model itself broke off is invalid; one that the length limit cut is only unfinished.
        rest = stops.feed(decoder.decode(b"", final=self._reason == "eos"))
        if stops.found:
            self._reason = "stop"
        if rest := rest + stops.finish():
            yield rest


class StopFilter:
    """Passes text on until a stop string is complete, holding back what may be the beginning of one.

    The first stop string to be complete ends the text; of those complete at the same character, the longest. So the
    result does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise UserError("a stop string is empty: give at least one character")
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that is now certain to come before any stop string."""
        if self.found:
            return ""
        text = self._held + text
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            self.found = True
            self._held = ""
            return text[: min(ends)[1]]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
