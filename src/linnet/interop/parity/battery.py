"""What two models are asked: ids to give logits for, and a prompt to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linnet.interop.parity.bounds import Bound
from linnet.interop.parity.report import Check
from linnet.interop.parity.side import Side

PROMPT = "Once upon a time"
PARAGRAPH = (
    "Once upon a time there was a small bird that sang 27 songs. In 1809, on a cold morning, it flew from Vienna to "
    'the sea; nobody had asked it to. "Why?" said the wind - and what it heard, it never told.\n\n    def sing(song):\n'
    "        return song * 27\n"
)
FIXED, RANDOM = 96, (4, 64)
LONG, SPREAD, LAST = 2048, 64, 8
LONGEST_STRETCHED = 4096
TOKENS = 64


def context(first: Side, second: Side) -> int:
    """The longest sequence that both promise to read."""
    return min(first.config.max_position_embeddings, second.config.max_position_embeddings)


def vocabulary(first: Side, second: Side) -> int:
    """How many ids both models know."""
    return min(first.config.vocab_size, second.config.vocab_size)


def fixed_ids(first: Side, second: Side) -> Tensor:
    """(1, sequence): the ends of the vocabulary, then a paragraph in the first side's ids, or a formula's."""
    size = vocabulary(first, second)
    ends = [0, size - 1, size // 2, 1 % size]
    text = first.tokenizer.encode(PARAGRAPH) if first.tokenizer is not None else []
    formula = [(7 * i * i + 3 * i + 1) % size for i in range(FIXED)]
    ids = [*ends, *(id for id in text if id < size), *formula]
    return torch.tensor([ids[: min(FIXED, context(first, second))]])


def random_ids(first: Side, second: Side, shape: tuple[int, int], seed: int) -> Tensor:
    """Seeded ids (batch, sequence), the sequence cut where a model's context ends."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary(first, second), shape, generator=generator)


def spread_positions(length: int) -> Tensor:
    """About 64 positions from the first to the last, and the last eight: the logits of all would not fit."""
    spread = torch.linspace(0, length - 1, min(SPREAD, length)).long()
    last = torch.arange(max(0, length - LAST), length)
    return torch.tensor(sorted({*spread.tolist(), *last.tolist()}))


def long_lengths(first: Side, second: Side) -> list[tuple[str, int]]:
    """(name, tokens) of the long sequences: the context, and beyond it where the rotation grows with the sequence."""
    whole = context(first, second)
    lengths = [("logits, long context", min(whole, LONG))]
    beyond = min(first.longest(), second.longest(), max(LONGEST_STRETCHED, whole + SPREAD))
    if whole < beyond <= 2 * LONG:  # attention takes the square of it, in time and memory
        lengths.append(("logits, beyond the context", beyond))
    return lengths


@dataclass(frozen=True)
class Compared:
    """A check of logits and what it saw.

    Attributes:
        check: for the report.
        deviation: the standard deviation of the first side's logits.
        finite: whether all logits of both sides are.
    """

    check: Check
    deviation: float
    finite: bool


def compare_logits(
    name: str, first: Side, second: Side, ids: Tensor, positions: Tensor | None, bound: Bound
) -> Compared:
    """Logits of both sides for `ids` (batch, sequence), at `positions` or all, over the ids that both know."""
    size = vocabulary(first, second)
    one, other = first.logits(ids, positions)[..., :size], second.logits(ids, positions)[..., :size]
    figure, deviation = bound.figure(one, other), one.std().item()
    limit = bound.limit(deviation)
    finite = bool(torch.isfinite(one).all() and torch.isfinite(other).all())
    batch, length = ids.shape
    what = f"{batch} x {length} ids" if batch > 1 else f"{length} ids"
    at = "" if positions is None else f", at {len(positions)} positions"
    measured = "root mean square over standard deviation" if bound.relative else "largest difference"
    detail = f"{measured}; {what}{at}; standard deviation {deviation:.3g}"
    return Compared(Check(name, figure <= limit and deviation > 0, figure, limit, detail), deviation, finite)


@dataclass(frozen=True)
class Continued:
    """A check of greedy text, and the ids that each side made."""

    check: Check
    prompt: list[int]
    first: list[int]
    second: list[int]
    finding: str | None


def prompt_ids(first: Side, second: Side) -> list[int]:
    """What both go on from: at least one id, at most half the context."""
    size, most = vocabulary(first, second), max(1, context(first, second) // 2)
    text = first.tokenizer.encode(PROMPT) if first.tokenizer is not None else [3, 1, 4, 1, 5]
    ids = [id % size for id in text] or [0]
    return ids[:most]


def compare_greedy(first: Side, second: Side, tolerance: float) -> Continued:
    """The likeliest continuation of each side, 64 tokens or what the context holds.

    Where two candidates are closer than rounding can tell, either may be chosen: a parting of ways counts only where
    the margin between the two exceeds twice `tolerance`, by which a logit may differ. After one that does not count
    both go on from what the first chose.
    """
    prompt = prompt_ids(first, second)
    count = min(TOKENS, context(first, second) - len(prompt))
    whole = first.greedy(prompt, count), second.greedy(prompt, count)
    ones, others = whole
    walked, partings = prompt.copy(), 0
    while (same := _common(ones, others)) < len(ones):
        walked += ones[:same]
        margin = _margin(first, second, walked, ones[same], others[same])
        if margin > 2 * tolerance:
            agreed = len(walked) - len(prompt)
            finding = (
                f"greedy text parts at token {agreed + 1} of {count}, where the two candidates are {margin:.2g} apart, "
                f"more than twice the {tolerance:.2g} by which a logit may differ"
            )
            detail = f"{agreed} of {count} tokens the same; margin {margin:.2g} at the parting"
            return Continued(Check("greedy text", False, 1, 0, detail), prompt, *whole, finding)
        partings += 1
        walked.append(ones[same])
        left = count - (len(walked) - len(prompt))
        ones, others = first.greedy(walked, left), second.greedy(walked, left)
    near = f"{partings} near tie{'s' if partings > 1 else ''}"
    ties = f", but for {near} within twice {tolerance:.2g}, not counted" if partings else ""
    detail = f"{count} tokens the same{ties}"
    return Continued(Check("greedy text", True, 0, 0, detail), prompt, *whole, None)


def _common(ones: Sequence[int], others: Sequence[int]) -> int:
    pairs = zip(ones, others, strict=True)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), len(ones))


def _margin(first: Side, second: Side, prefix: list[int], of_first: int, of_second: int) -> float:
    """By how much each side prefers its own candidate, the greater of the two; infinite where it does not know it."""
    ids, last = torch.tensor([prefix]), torch.tensor([len(prefix) - 1])
    if max(of_first, of_second) >= vocabulary(first, second):
        return float("inf")
    one, other = first.logits(ids, last)[0, -1], second.logits(ids, last)[0, -1]
    return max((one[of_first] - one[of_second]).item(), (other[of_second] - other[of_first]).item())
