"""Which part of a training step each span belongs to: by matrix shape, name, the module it ran in, and its place."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from linnet.accounting.parameters import head_widths, inner_width
from linnet.config import ModelConfig
from linnet.study.profile.spans import DATA, PART, STEP, Span, dimensions

EMBEDDING, PROJECTIONS, ATTENTION = "embedding", "attention projections", "attention"
FEED_FORWARD, ELEMENTWISE, HEAD = "feed-forward", "norms, rotation, residuals", "head and loss"
SUMMING, CLIPPING, OPTIMIZER = "summing gradients", "clipping", "optimizer"
BOOKKEEPING, LOADING, BETWEEN = "bookkeeping", "data loading", "between operations"
PARTS = (
    EMBEDDING, PROJECTIONS, ATTENTION, FEED_FORWARD, ELEMENTWISE, HEAD,
    SUMMING, CLIPPING, OPTIMIZER, BOOKKEEPING, LOADING, BETWEEN,
)  # fmt: skip

_ATTENTION_NAMES = re.compile(
    r"scaled_dot_product|flash_attention|efficient_attention|cudnn_attention|flex_attention|_varlen_attn|^_Blocked"
)
_FUSED = re.compile(r"(graph_\d+_)?(cpp|triton)_.*fused_|triton_(poi|per|red|tem)_")
# In what the compiler fused into one kernel, the first of these that its name holds.
_IN_FUSED = (
    (_ATTENTION_NAMES, ATTENTION),
    (re.compile(r"log_softmax|nll_loss|logsumexp|cross_entropy"), HEAD),
    (re.compile(r"embedding"), EMBEDDING),
    (re.compile(r"silu|sigmoid"), FEED_FORWARD),
    (re.compile(r"_softmax|masked_fill|triu|tril"), ATTENTION),
)


@dataclass
class Shares:
    """Microseconds of each part, over all steps recorded.

    Attributes:
        forward, backward: by part; parts that are neither stand in `forward`.
        wall: of all steps together.
        of_span: the part that each span's own time was given to.
    """

    forward: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    backward: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    wall: float = 0.0
    of_span: dict[Span, str] = field(default_factory=dict)

    def add(self, span: Span, part: str, *, backward: bool) -> None:
        """Give the own time of `span` to `part`."""
        self.of_span[span] = part
        (self.backward if backward else self.forward)[part] += span.own

    def close(self) -> None:
        """Give what no operation took, of the whole, to what lies between them."""
        taken = sum(self.forward.values()) + sum(self.backward.values())
        # Copies that run beside kernels on a card may add up to more than the time that passed.
        self.wall = max(self.wall, taken)
        self.forward[BETWEEN] += self.wall - taken

    def seconds(self, part: str) -> float:
        """Of forward and backward together."""
        return (self.forward.get(part, 0.0) + self.backward.get(part, 0.0)) / 1e6


def shares_of(outermost: Iterable[Span], config: ModelConfig, tokens: int) -> Shares:
    """Divide the steps among `outermost` into their parts.

    Args:
        tokens: of one micro-batch.
    """
    shares = Shares()
    attribution = _Attribution(shares, Products(config, tokens))
    roots = list(outermost)
    steps = [span for root in roots for span in root.within() if span.name == STEP]
    for step in steps:
        shares.wall += step.end - step.start
        attribution.step(step, [root for root in roots if step.start <= root.start < step.end and root is not step])
    shares.close()
    return shares


class Products:
    """Tells matrix products of a model apart by their shapes.

    Args:
        tokens: of one micro-batch.
    """

    def __init__(self, config: ModelConfig, tokens: int) -> None:
        self._tokens = tokens
        hidden = config.hidden_size
        query, key = head_widths(config)
        inner = inner_width(config)
        self._matrices = {
            HEAD: [(hidden, config.vocab_size)],
            FEED_FORWARD: [(hidden, inner)],
            PROJECTIONS: [(hidden, query), (hidden, key)],
        }
        # Those with one input in common may have been put beside one another.
        self._joined = {
            FEED_FORWARD: [(hidden, 2 * inner)],
            PROJECTIONS: [(hidden, 2 * key), (hidden, query + 2 * key)],
        }

    def part(self, span: Span) -> str | None:
        """The part whose weights `span` multiplies with, forward or backward; None if it fits none, or several."""
        sizes = dimensions(span)
        if sizes is None:
            return None
        if sizes[0] > 1:
            return ATTENTION  # a product for each head
        found = self._fitting(self._matrices, sizes[1:]) or self._fitting(self._joined, sizes[1:])
        return found[0] if len(found) == 1 else None

    def _fitting(self, matrices: dict[str, list[tuple[int, int]]], sizes: tuple[int, ...]) -> list[str]:
        """Parts with a matrix that leaves a micro-batch's tokens; or the head, whose tokens may come in chunks."""
        thirds = {part: [_third(sizes, pair) for pair in pairs] for part, pairs in matrices.items()}
        whole = [part for part, found in thirds.items() if self._tokens in found]
        in_chunks = [HEAD] if any(third is not None for third in thirds.get(HEAD, ())) else []
        return whole or in_chunks


def _third(sizes: tuple[int, ...], pair: tuple[int, int]) -> int | None:
    """What is left of three sizes without a pair of them, or None where they hold no such pair."""
    left = list(sizes)
    for size in pair:
        if size not in left:
            return None
        left.remove(size)
    return left[0]


class _Attribution:
    """Walks the spans of a step from outside in."""

    def __init__(self, shares: Shares, products: Products) -> None:
        self._shares, self._products = shares, products
        self._forward: dict[tuple[int, int], str] = {}

    def step(self, step: Span, beside: list[Span]) -> None:
        """Give every span in `step`, and those that other threads ran meanwhile, its part."""
        # A card's backward pass runs in a thread of autograd's. Loaders have threads of their own, and hold up nobody.
        others = [span for span in beside if span.thread != step.thread and span.is_backward]
        self._forward.clear()
        backward_ends = max((span.end for span in [*step.within(), *others] if span.is_backward), default=step.start)
        optimizer_ends = max((span.end for span in step.inside if span.name.startswith("Optimizer.")), default=step.end)
        for span in [*step.inside, *others]:
            default, backward = HEAD, False
            if span.start >= backward_ends:
                default = CLIPPING if span.start < optimizer_ends else BOOKKEEPING
            self._walk(span, default, backward, settled=False)

    def _walk(self, span: Span, part: str, backward: bool, *, settled: bool) -> None:
        if not settled:
            part, settled = self._part(span, part)
        backward = backward or span.is_backward
        if span.number >= 0 and span.forward is None:
            # Of all operations with one number, the last begun is the one that made autograd's node.
            self._forward[span.thread, span.number] = part
        # What wraps the optimizer or the loader in Python is a cost of theirs.
        own = part if settled or not span.wraps else BETWEEN
        self._shares.add(span, own, backward=backward and own != BETWEEN)
        for inner in span.inside:
            self._walk(inner, part, backward, settled=settled)

    def _part(self, span: Span, part: str) -> tuple[str, bool]:
        """The part of `span`, inside something of `part`, and whether all inside it belongs there too."""
        name = span.name
        if name.startswith(("Optimizer.step", "Optimizer.zero_grad")):
            return OPTIMIZER, True
        if name == DATA:
            return LOADING, True
        if name.startswith(PART):
            return name.removeprefix(PART), False
        if "AccumulateGrad" in name:
            return SUMMING, False
        if span.is_backward and span.forward is not None:
            return self._forward.get(span.forward, part), False
        product = self._products.part(span)
        if product is not None:
            return product, False
        if _FUSED.match(name):
            return next((found for pattern, found in _IN_FUSED if pattern.search(name)), ELEMENTWISE), False
        if _ATTENTION_NAMES.search(name):
            return ATTENTION, False
        if name.startswith("aten::embedding"):
            return EMBEDDING, False
        if name.startswith(("Torch-Compiled Region", "CompiledFunction")):
            return ELEMENTWISE, False
        return part, False
