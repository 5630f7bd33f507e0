"""Token ids in, token ids out: the window a model reads, and the loop that makes it longer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from linnet.errors import UserError
from linnet.generate.cache import KeyValueCache
from linnet.generate.sampling import SamplingSettings, sample
from linnet.model import TransformerLM

# Tokens read by one forward pass: the logits of a whole 8192-token prompt of SmolLM2 would take 1.6 GB.
TOKENS_PER_PASS = 512


def generate(
    model: TransformerLM,
    prompt_ids: Sequence[int] | Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Collection[int] | None = None,
    generator: torch.Generator | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    context: int | None = None,
    use_cache: bool = True,
    forbidden_ids: Collection[int] = (),
) -> list[int]:
    """Continue a prompt.

    The model is in evaluation mode meanwhile and in its former mode afterwards; PyTorch's global random numbers and the
    weights are not touched.

    Args:
        model: on any device, in any floating dtype.
        prompt_ids: at least one id; a list or an integer tensor of one dimension.
        max_new_tokens: how many ids to make at most.
        temperature, top_k, top_p, min_p, repetition_penalty: see `SamplingSettings`. The penalty counts every id of the
            prompt and of what was made so far.
        stop_ids: end at the first of these; it is not returned.
        generator: source of the random numbers, on any device. None: a new one on the CPU, seeded by the operating
            system. At temperature 0 nothing is drawn from it.
        context: the longest window the model reads, by default and at most its `max_position_embeddings`. The window
            begins as the last `context` ids of the prompt. When it is full and grows by one, only its newest
            `max(1, context // 2)` ids stay and positions count from 0 again.
        use_cache: keep keys and values between tokens. The window and, to rounding, the logits are the same without.
        forbidden_ids: never made.

    Returns:
        The new ids only.

    Raises:
        UserError: for an empty prompt, an id outside the vocabulary, a setting out of range, or logits that are not
            finite.
    """
    return list(
        generate_stream(
            model,
            prompt_ids,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop_ids=stop_ids,
            generator=generator,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            context=context,
            use_cache=use_cache,
            forbidden_ids=forbidden_ids,
        )
    )


def generate_stream(
    model: TransformerLM,
    prompt_ids: Sequence[int] | Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Collection[int] | None = None,
    generator: torch.Generator | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    context: int | None = None,
    use_cache: bool = True,
    forbidden_ids: Collection[int] = (),
) -> Iterator[int]:
    """`generate`, each id as soon as it is made.

    Arguments are checked at the call, before the first id is asked for. Between two ids the model is in the mode its
    owner left it in.
    """
    settings = SamplingSettings(temperature, top_k, top_p, min_p, repetition_penalty)
    prompt = _checked_prompt(prompt_ids, model.config.vocab_size)
    if max_new_tokens < 0:
        raise UserError(f"max_new_tokens is {max_new_tokens}: give 0 or more")
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    window = _Window(model, prompt, _checked_context(context, model), max_new_tokens, use_cache)
    sampler = _Sampler(settings, generator, prompt, _mask(forbidden_ids, model.config.vocab_size, window.device))
    return _run(window, sampler, max_new_tokens, frozenset(stop_ids or ()))


def _run(window: _Window, sampler: _Sampler, max_new_tokens: int, stop_ids: frozenset[int]) -> Iterator[int]:
    for _ in range(max_new_tokens):
        # Entered anew for each id: a generator that is left suspended must not leave its caller in inference mode.
        with torch.inference_mode(), evaluation_mode(window.model):
            token = sampler.next_id(window.logits())
        if token in stop_ids:
            return
        window.append(token)
        yield token


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module of `model` in evaluation mode, and then each in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _Window:
    """The ids a model reads, never more than `context`, and the logits that follow them."""

    def __init__(
        self, model: TransformerLM, prompt: list[int], context: int, max_new_tokens: int, use_cache: bool
    ) -> None:
        weight = next(model.parameters())
        self.model, self.device, self.context = model, weight.device, context
        self.ids = prompt[-context:]
        self.unread = self.ids.copy()
        self.cache = None
        if use_cache:
            capacity = min(context, len(self.ids) + max_new_tokens)
            self.cache = KeyValueCache(model.config, 1, capacity, self.device, _attention_dtype(weight))

    def append(self, token: int) -> None:
        if len(self.ids) < self.context:
            self.ids.append(token)
            self.unread.append(token)
            return
        self.ids = [*self.ids, token][-max(1, self.context // 2) :]
        self.unread = self.ids.copy()
        if self.cache is not None:
            self.cache.reset()

    def logits(self) -> Tensor:
        """Of the token after the window: (vocabulary,)."""
        if self.cache is None:
            return self._last_logits(self.ids)
        passes = [self.unread[start : start + TOKENS_PER_PASS] for start in range(0, len(self.unread), TOKENS_PER_PASS)]
        for ids in passes:
            logits = self._last_logits(ids)
        self.unread.clear()
        return logits

    def _last_logits(self, ids: list[int]) -> Tensor:
        logits: Tensor = self.model(torch.tensor([ids], device=self.device), caches=self.cache)
        return logits[0, -1]


class _Sampler:
    """Chooses ids, and remembers them where a repetition penalty asks for it.

    Args:
        forbidden: booleans (vocabulary,), or None where every id may come.
    """

    def __init__(
        self, settings: SamplingSettings, generator: torch.Generator, prompt: list[int], forbidden: Tensor | None
    ) -> None:
        self.settings, self.generator, self.forbidden = settings, generator, forbidden
        self.seen = dict.fromkeys(prompt) if settings.repetition_penalty != 1 else None

    def next_id(self, logits: Tensor) -> int:
        if not torch.isfinite(logits.amax()):
            raise UserError(
                "the model's logits are not finite: its weights are damaged or its training diverged; "
                "use an earlier checkpoint"
            )
        if self.forbidden is not None:
            logits = logits.masked_fill(self.forbidden, -torch.inf)
        seen = torch.tensor(list(self.seen), device=logits.device) if self.seen is not None else None
        token = int(sample(logits, self.settings, self.generator, seen))
        if self.seen is not None:
            self.seen[token] = None
        return token


def _mask(forbidden_ids: Collection[int], vocab_size: int, device: torch.device) -> Tensor | None:
    if not forbidden_ids:
        return None
    if any(not 0 <= token < vocab_size for token in forbidden_ids):
        raise UserError(f"forbidden_ids has ids outside the model's vocabulary of {vocab_size}")
    mask = torch.zeros(vocab_size, dtype=torch.bool)
    mask[list(forbidden_ids)] = True
    if mask.all():
        raise UserError("forbidden_ids holds the whole vocabulary: leave at least one id")
    return mask.to(device)


def _checked_prompt(prompt_ids: Sequence[int] | Tensor, vocab_size: int) -> list[int]:
    if isinstance(prompt_ids, Tensor):
        if prompt_ids.ndim != 1 or prompt_ids.is_floating_point():
            raise UserError(
                f"prompt_ids is a {prompt_ids.dtype} tensor of shape {tuple(prompt_ids.shape)}: "
                "give integers of one dimension"
            )
        prompt_ids = prompt_ids.tolist()
    prompt = [int(token) for token in prompt_ids]
    if not prompt:
        raise UserError("the prompt is empty: give at least one id, such as the end-of-text id")
    for token in prompt:
        if not 0 <= token < vocab_size:
            raise UserError(f"prompt id {token} is outside the model's vocabulary of {vocab_size}")
    return prompt


def _checked_context(context: int | None, model: TransformerLM) -> int:
    longest = model.config.max_position_embeddings
    if context is None:
        return longest
    if not 1 <= context <= longest:
        raise UserError(f"context is {context}: give 1 to {longest}, the model's max_position_embeddings")
    return context


def _attention_dtype(weight: Tensor) -> torch.dtype:
    """What keys and values come in: the weights' dtype, or autocast's where the caller has it on."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
