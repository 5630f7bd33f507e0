"""Ranges that tell the profiler which module an operation ran in, and when data is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.autograd.profiler import record_function

from linnet.model import RMSNorm, RotaryEmbedding, SelfAttention
from linnet.study.profile.parts import ATTENTION, ELEMENTWISE, EMBEDDING, FEED_FORWARD, HEAD, PROJECTIONS
from linnet.study.profile.spans import DATA, PART, Span, dimensions

_BY_NAME = {
    "embed_tokens": EMBEDDING,
    "q_proj": PROJECTIONS,
    "k_proj": PROJECTIONS,
    "v_proj": PROJECTIONS,
    "o_proj": PROJECTIONS,
    "mlp": FEED_FORWARD,
    "lm_head": HEAD,
    "model": ELEMENTWISE,  # between the others: residuals
}
_BY_KIND: tuple[tuple[type[nn.Module], str], ...] = (
    (RMSNorm, ELEMENTWISE),
    (RotaryEmbedding, ELEMENTWISE),
    (SelfAttention, ATTENTION),
)


class MarkedBatches:
    """Stands for the batches of a run, and marks the time until each is there."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.tokens = 0  # of one micro-batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def micro_batches(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """As the batches' own."""
        with record_function(DATA):
            batches = iter(self._batches.micro_batches(*arguments, **options))
        while True:
            with record_function(DATA):
                batch = next(batches, None)
            if batch is None:
                return
            self.tokens = batch.inputs.numel()
            yield batch


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """Inside, each module of `model` marks what runs in it; what it computes stays the same."""
    handles = []
    for name, module in model.named_modules():
        part = _part_of(name, module)
        if part is None:
            continue
        open_ranges: list[record_function] = []

        def enter(_: nn.Module, __: object, part: str = part, ranges: list[record_function] = open_ranges) -> None:
            ranges.append(record_function(PART + part))
            ranges[-1].__enter__()  # type: ignore[no-untyped-call]

        def leave(_: nn.Module, __: object, ___: object, ranges: list[record_function] = open_ranges) -> None:
            ranges.pop().__exit__(None, None, None)

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_compiled(outermost: Sequence[Span]) -> bool:
    """Whether the model's products ran in compiled code, in which a module has no place of its own to be marked."""
    products = [span for root in outermost for span in root.within() if dimensions(span) is not None]
    outside_optimizer = [span for span in products if not _inside(span, ("Optimizer.",))]
    return not outside_optimizer or any(
        _inside(span, ("Torch-Compiled Region", "CompiledFunction")) for span in outside_optimizer
    )


def _inside(span: Span, beginnings: Iterable[str]) -> bool:
    return any(outer.name.startswith(tuple(beginnings)) for outer in span.ancestors())


def _part_of(name: str, module: nn.Module) -> str | None:
    by_kind = next((part for kind, part in _BY_KIND if isinstance(module, kind)), None)
    return by_kind if by_kind is not None else _BY_NAME.get(name.rpartition(".")[2])
