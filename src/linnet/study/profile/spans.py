"""What the profiler saw, as a tree of spans in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

# Begins the name of every range that linnet itself marks.
MARK = "linnet::"
STEP = MARK + "step"
DATA = MARK + "data"
PART = MARK + "part::"
_ADDED = ("aten::addmm", "aten::addmm_", "aten::baddbmm", "aten::baddbmm_")  # to what stands before their factors
PRODUCTS = ("aten::mm", "aten::bmm", "mkldnn::_linear_pointwise", *_ADDED)
# What wraps operations and computes nothing itself: its own time is Python's and PyTorch's, between operations.
_WRAPPERS = (
    MARK,
    "autograd::engine::",
    "Torch-Compiled Region",
    "TorchDynamo Cache Lookup",
    "Pregraph bytecode",
    "AOTDispatcher Runtime Wrapper",
    "CompiledFunction",
    "## Call CompiledFxGraph",
    "ProfilerStep",
)


@dataclass(eq=False, slots=True)
class Span:
    """One call that the profiler saw, and those inside it.

    Attributes:
        start, end: microseconds.
        thread: on which it ran.
        own: microseconds spent in it and in nothing inside it: on the processor, or, of kernels that it launched, on
            the card.
        forward: thread and number of the operation of the forward pass that this is the backward pass of.
        number: sequence number that a node of autograd made here would get, -1 where none is made.
        shapes: of the arguments.
    """

    name: str
    start: float
    end: float
    thread: int
    own: float
    forward: tuple[int, int] | None
    number: int
    shapes: tuple[tuple[int, ...], ...]
    parent: Span | None = None
    inside: list[Span] = field(default_factory=list)

    @property
    def wraps(self) -> bool:
        """Whether this only holds other operations together."""
        return self.name.startswith(_WRAPPERS)

    @property
    def is_backward(self) -> bool:
        """Whether autograd called this."""
        return self.name.startswith("autograd::engine::evaluate_function")

    def ancestors(self) -> Iterator[Span]:
        """Those that this is inside of, from the nearest on."""
        span = self.parent
        while span is not None:
            yield span
            span = span.parent

    def within(self) -> Iterator[Span]:
        """This one and all inside it, in order of time."""
        yield self
        for span in self.inside:
            yield from span.within()


def spans_of(events: Iterable[Any], *, on_card: bool) -> list[Span]:
    """The outermost spans of a `torch.profiler.profile.events()`, in order of time.

    Args:
        on_card: whether the time of an operation is that of the kernels it launched.
    """
    made: dict[int, Span] = {}
    pairs = []
    for event in events:
        if event.device_type.name != "CPU" or event.is_async:
            continue
        span = Span(
            name=event.name,
            start=event.time_range.start,
            end=event.time_range.end,
            thread=event.thread,
            own=event.self_device_time_total if on_card else event.self_cpu_time_total,
            forward=(event.fwd_thread, event.sequence_nr) if event.fwd_thread else None,
            number=event.sequence_nr,
            shapes=tuple(tuple(shape) for shape in event.input_shapes or () if _is_shape(shape)),
        )
        made[id(event)] = span
        pairs.append((event, span))
    outermost: list[Span] = []
    for event, span in pairs:
        span.parent = made.get(id(event.cpu_parent))
        (outermost if span.parent is None else span.parent.inside).append(span)
    for _, span in pairs:
        span.inside.sort(key=lambda inner: inner.start)
    return sorted(outermost, key=lambda span: span.start)


def dimensions(span: Span) -> tuple[int, int, int, int] | None:
    """(batch, m, k, n) of the matrix product (m, k) by (k, n) that `span` is, or None where it is none."""
    if span.name not in PRODUCTS:
        return None
    factors = span.shapes[1:3] if span.name in _ADDED else span.shapes[:2]
    if len(factors) < 2 or len(factors[0]) < 2 or len(factors[0]) != len(factors[1]):
        return None
    (*batch, m, k), right = factors[0], factors[1]
    n = right[0] if span.name.startswith("mkldnn") else right[-1]  # a linear layer's weight is (out, in)
    return (batch[0] if batch else 1), m, k, n


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list | tuple) and all(isinstance(size, int) for size in shape)
