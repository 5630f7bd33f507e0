"""Layer by layer: where the norm stands, and whether activations and gradients keep their size over depth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from linnet.doctor.findings import Check, Outcome, failed, passed, skipped
from linnet.doctor.model.calling import uncompiled
from linnet.doctor.model.subject import ENORMOUS, ModelSubject

# A block that adds a branch as large as what it is given multiplies the root mean square by sqrt(2); a post-norm
# gradient falls by sqrt(2) a block (Xiong et al., 2020). Faster is a mistake; the first factor is room for the ends,
# where a pre-norm stream starts small.
PER_BLOCK = math.sqrt(2)
ROOM = 100.0


@dataclass(frozen=True)
class _Step:
    """One module inside a block: what it took and gave, and how often each had been written to by then."""

    name: str
    module: nn.Module
    taken: Tensor
    given: Tensor
    writes: tuple[int, int]

    @property
    def is_norm(self) -> bool:
        return "norm" in type(self.module).__name__.lower()


@dataclass
class _Passage:
    """What went in and out of one block and of the modules in it, in the order they ran."""

    entered: Tensor | None = None
    left: Tensor | None = None
    inside: list[_Step] = field(default_factory=list)

    @property
    def norms(self) -> list[_Step]:
        """The norms of the residual stream; those of queries and keys have another shape."""
        shape = self.left.shape if self.left is not None else None
        return [step for step in self.inside if step.is_norm and step.taken.shape == shape]

    def reads_a_branch(self, norm: _Step) -> bool:
        """Whether what `norm` takes is what a module with weights has given, before anything was added to it."""
        return any(
            step.given.data_ptr() == norm.taken.data_ptr() and step.writes[1] == norm.writes[0]
            for step in self.inside
            if not step.is_norm and any(True for _ in step.module.parameters())
        )


def examine_norm_position(subject: ModelSubject) -> Outcome:
    """A post-norm block is norm(x + f(x)), a pre-norm block x + f(norm(x))."""
    config = subject.linnet_config
    if config is not None and config.norm == "none":
        return skipped("the model has no norms")
    wanted = subject.wishes.norm_position or (config.norm_position if config is not None else None)
    if wanted is None:
        return skipped("norm_position was not given: say 'pre' or 'post' to have it checked")
    if not subject.blocks:
        return skipped("no list of equal blocks was found")
    with _watched(subject) as passages:
        subject.logits(subject.ids(1, min(subject.sequence_length, 8), 60))
    for (name, _), passage in zip(subject.blocks, passages, strict=True):
        if passage.left is None or passage.entered is None or not passage.norms:
            return skipped(f"{name} did not run, or holds no module with 'norm' in its name")
        outcome = _post(name, passage) if wanted == "post" else _pre(name, passage)
        if outcome is not None:
            return outcome
    form = "norm(x + f(x))" if wanted == "post" else "x + f(norm(x))"
    return passed(f"all {len(passages)} blocks are {form}")


def examine_sizes(subject: ModelSubject) -> Outcome:
    """Activations and gradients neither vanish nor explode over depth."""
    if not subject.blocks:
        return skipped("no list of equal blocks was found")
    rms = subject.block_sizes
    if broken := _not_finite(rms):
        return failed(
            f"the output of block {broken - 1} of {len(rms)} is not finite; root mean squares run {_list(rms)}",
            "look into that block, or if sizes grow up to it, into the residual path, norms and initialization",
        )
    if (most := max(rms)) > ENORMOUS:
        return failed(
            f"block {rms.index(most)} of {len(rms)} puts out numbers of {most:.2g} (root mean square): "
            f"{subject.diverged}",
            "go back to weights from before that; then a lower rate, warm-up, or clipping the gradient's norm",
            figure=most,
            bound=ENORMOUS,
        )
    if subject.wishes.trained:
        return passed(f"block outputs have root mean squares of {min(rms):.3g} to {max(rms):.3g} (trained: no bound)")
    norms = _gradient_by_block(subject)
    rate = PER_BLOCK ** (len(rms) - 1)
    seen = f"root mean squares of block outputs run from {rms[0]:.3g} to {rms[-1]:.3g}"
    spread = _spread(rms)
    if spread > ROOM * rate:
        return failed(
            f"{seen}, a factor of {spread:.2g} over {len(rms)} blocks: {_list(rms)}",
            "check the residual path, the norms and the standard deviation of what writes into the stream",
            figure=spread,
            bound=ROOM * rate,
        )
    if not norms:
        return passed(f"{seen}; no parameter in the blocks requires a gradient", figure=spread)
    seen += f", gradient norms from {norms[0]:.3g} to {norms[-1]:.3g}"
    spread = _spread(norms)
    if spread > ROOM * rate:
        return failed(
            f"{seen}, a factor of {spread:.2g} over {len(norms)} blocks: {_list(norms)}",
            "check that each block adds to what it is given (x + f(x)), and how the norms stand",
            figure=spread,
            bound=ROOM * rate,
        )
    return passed(seen, figure=spread, bound=ROOM * rate)


def _post(name: str, passage: _Passage) -> Outcome | None:
    *earlier, last = passage.norms
    branch = next((norm for norm in (*earlier, last) if passage.reads_a_branch(norm)), None)
    if branch is not None:
        return _after_branch(name, branch.name)
    if _same(last.given, passage.left):
        return None
    return failed(
        f"{name} does not put out what its last norm gives, so it is not norm(x + f(x)): it looks like pre-norm",
        "norm the sum of the stream and the branch, and hand that on",
    )


def _pre(name: str, passage: _Passage) -> Outcome | None:
    first, last = passage.norms[0], passage.norms[-1]
    if passage.reads_a_branch(first):
        return _after_branch(name, first.name)
    if _same(last.given, passage.left):
        return failed(f"{name} puts out what its last norm gives: it is post-norm", "norm only what a branch reads")
    if not _same(first.taken, passage.entered):
        return failed(
            f"{name}: {first.name} does not norm what the block is given, so it is not x + f(norm(x))",
            "let each branch read the normed stream",
        )
    return None


def _after_branch(name: str, norm: str) -> Outcome:
    return failed(
        f"{name} is built as x + norm(f(x)): {norm} norms the branch, and the residual is added after it",
        "post-norm is norm(x + f(x)); pre-norm is x + f(norm(x))",
    )


@contextmanager
def _watched(subject: ModelSubject) -> Iterator[list[_Passage]]:
    """Notes what passes through each block and the modules in it, until the context ends."""
    passages = [_Passage() for _ in subject.blocks]
    hooks = []
    for passage, (_, block) in zip(passages, subject.blocks, strict=True):
        hooks.append(block.register_forward_hook(_note_block(passage), with_kwargs=True))
        for name, module in block.named_modules():
            if name:
                hooks.append(module.register_forward_hook(_note_inside(passage, name), with_kwargs=True))
    try:
        with uncompiled():
            yield passages
    finally:
        for hook in hooks:
            hook.remove()


def _note_block(passage: _Passage) -> Any:
    def note(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        passage.entered = _tensor(arguments, named)
        passage.left = _tensor((output,), {})

    return note


def _note_inside(passage: _Passage, name: str) -> Any:
    def note(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        taken, given = _tensor(arguments, named), _tensor((output,), {})
        if taken is not None and given is not None:
            passage.inside.append(_Step(name, module, taken, given, (taken._version, given._version)))

    return note


def _tensor(values: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """The first value, or what comes first in it, where that is a tensor."""
    for value in (*values, *named.values())[:1]:
        inner = value[0] if isinstance(value, tuple | list) and value else value
        if isinstance(inner, Tensor):
            return inner
    return None


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and (one is other or torch.equal(one, other))


def _gradient_by_block(subject: ModelSubject) -> list[float]:
    squares = []
    for name, _ in subject.blocks:
        sizes = [size for key, size in subject.sizes.items() if key.startswith(f"{name}.") and size is not None]
        if sizes:
            squares.append(math.sqrt(sum(size * size for size in sizes)))
    return squares


def _spread(sizes: list[float]) -> float:
    return max(sizes) / max(min(sizes), 1e-30)


def _not_finite(sizes: list[float]) -> int:
    """One more than the index of the first size that is not finite; 0 if all are."""
    return next((index + 1 for index, size in enumerate(sizes) if not math.isfinite(size)), 0)


def _list(sizes: list[float]) -> str:
    return " ".join(f"{size:.2g}" for size in sizes)


SIZES = (Check("sizes by layer", examine_sizes),)
CHECKS = (Check("norm position", examine_norm_position),)
