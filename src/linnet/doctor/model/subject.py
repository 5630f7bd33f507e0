"""A module on the examination table: what is known about it, how it is asked, and how it is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.config import ModelConfig
from linnet.doctor.model.calling import Calling, uncompiled, unwrapped
from linnet.doctor.model.rounding import distance, same_shapes, unit, working_dtype
from linnet.runtime import untouched_randomness

Positions = Literal["auto", "rope", "absolute", "none"]
CachedForward = Callable[[Sequence[Tensor]], Tensor]

GRADIENT_LENGTH = 32
# Beyond this, numbers mean nothing: a softmax of them is one entry, and their gradients are rounding. The largest root
# mean squares in models of good health are some hundreds.
ENORMOUS = 1e4
LENGTH_SETTINGS = (
    "longest_sequence",
    "max_position_embeddings",
    "n_positions",
    "block_size",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "context_length",
    "sequence_len",
)


@dataclass(frozen=True)
class Wishes:
    """What the caller said about the module; see `check_model`."""

    trained: bool = False
    positions: Positions = "auto"
    norm_position: Literal["pre", "post"] | None = None
    tied: bool | None = None
    reference: nn.Module | Callable[[], nn.Module] | None = None
    cached: CachedForward | None = None
    seed: int = 0


class ModelSubject:
    """A module that maps ids to logits, and what the checks ask of it.

    Args:
        model: left as it is found, see `left_as_it_was`.
        calling: how it is asked for logits.
        vocab_size: ids drawn for it are below this.
        sequence_length: tokens a row that it is given.
        wishes: what the caller said.
    """

    def __init__(
        self, model: nn.Module, calling: Calling, vocab_size: int, sequence_length: int, wishes: Wishes
    ) -> None:
        self.model = model
        self.calling = calling
        self.vocab_size = vocab_size
        self.sequence_length = sequence_length
        self.wishes = wishes
        self.config = getattr(unwrapped(model), "config", None)
        self.device = device_of(model)
        self.probe = _awake(model, wishes.seed)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The coarsest floating type it computes in."""
        return working_dtype(self.model, self._logits(self.model, self.ids(1, 2, 0)))

    @cached_property
    def eps(self) -> float:
        """Relative distance of neighbouring numbers in that type."""
        return unit(self.dtype, self.device)

    @cached_property
    def layers(self) -> int:
        """Blocks, as far as they can be told."""
        return max(len(self.blocks), 1)

    @cached_property
    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Name and module of each block of the probe, in order; empty where no stack of equal modules is found."""
        return blocks_of(unwrapped(self.probe))

    @property
    def asleep(self) -> bool:
        """Whether matrices that begin at zero were filled in the probe."""
        return self.probe is not self.model

    @property
    def linnet_config(self) -> ModelConfig | None:
        """The settings of a model made by linnet."""
        return self.config if isinstance(self.config, ModelConfig) else None

    @cached_property
    def block_sizes(self) -> list[float]:
        """Root mean square of what each block puts out over two random rows; 0 for a block that did not run."""
        sizes = [0.0] * len(self.blocks)

        def note(index: int) -> Callable[..., None]:
            def noted(module: nn.Module, arguments: Any, output: Any) -> None:
                given = output[0] if isinstance(output, tuple | list) and output else output
                if isinstance(given, Tensor):
                    sizes[index] = float(given.detach().float().square().mean().sqrt())

            return noted

        hooks = [block.register_forward_hook(note(index)) for index, (_, block) in enumerate(self.blocks)]
        try:
            with uncompiled():
                self.logits(self.ids(2, min(self.sequence_length, GRADIENT_LENGTH), 61))
        finally:
            for hook in hooks:
                hook.remove()
        return sizes

    @property
    def diverged(self) -> str:
        """What to say of numbers beyond `ENORMOUS`."""
        fresh = "" if self.wishes.trained else ", or its weights were drawn far too large"
        return f"the model's numbers have diverged{fresh}"

    @cached_property
    def trouble(self) -> str:
        """Why no question about the structure has an answer that means anything; empty where they have."""
        ids = self.ids(2, min(self.sequence_length, GRADIENT_LENGTH), 62)
        first, second = self.logits(ids), self.logits(ids)
        sizes = [float(first.abs().max()), *self.block_sizes]
        if not all(size <= ENORMOUS for size in sizes):  # NaN too
            return f"{self.diverged}, see 'forward pass', 'finite numbers' and 'sizes by layer'"
        if distance(first, second) > same_shapes(self.eps):
            return "the same tokens give other logits each time, see 'determinism'"
        return ""

    def ids(self, batch: int, sequence: int, salt: int) -> Tensor:
        """Uniformly random ids (batch, sequence); the same for the same `salt`."""
        generator = torch.Generator().manual_seed(self.wishes.seed * 1009 + salt)
        return torch.randint(self.vocab_size, (batch, sequence), generator=generator).to(self.device)

    def logits(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """What the probe answers, in float32 or wider, without a gradient."""
        return self._logits(self.probe, ids, positions)

    def _logits(self, model: nn.Module, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            logits = self.calling(model, ids, positions)
        return logits if logits.dtype == torch.float64 else logits.float()

    def initial_loss(self, ids: Tensor, targets: Tensor) -> tuple[float, Tensor]:
        """Mean cross-entropy in nats of the module itself, without any filling, and its logits."""
        logits = self._logits(self.model, ids)
        return float(F.cross_entropy(logits.flatten(0, 1), targets.flatten())), logits

    def gradients(self, ids: Tensor, targets: Tensor) -> dict[str, Tensor | None]:
        """Gradient of the probe's mean loss by each parameter that wants one; None where it reaches nothing."""
        with torch.enable_grad():
            logits = self.calling(self.probe, ids)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            return gradients_of(loss, unwrapped(self.probe))

    @cached_property
    def sizes(self) -> dict[str, float | None]:
        """Norm of each parameter's gradient over one batch; None where it reaches nothing."""
        length = min(self.sequence_length, GRADIENT_LENGTH)
        batch = self.ids(2, length, 1), self.ids(2, length, 2)
        return {name: None if grad is None else float(grad.norm()) for name, grad in self.gradients(*batch).items()}


def gradients_of(loss: Tensor, model: nn.Module) -> dict[str, Tensor | None]:
    """Gradient of `loss` by each parameter of `model` that wants one; no `.grad` is touched."""
    wanting = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not wanting or not loss.requires_grad:
        return dict.fromkeys(wanting)
    found = torch.autograd.grad(loss, list(wanting.values()), allow_unused=True)
    return dict(zip(wanting, found, strict=True))


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Inside, `model` evaluates; afterwards its modes, buffers and the generators of random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, dict(module._buffers), {name: _clone(buffer) for name, buffer in module._buffers.items()})
        for module in model.modules()
    ]
    with untouched_randomness():
        try:
            # Not model.eval(): a class may give train() and eval() side effects of its own.
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, held, values in buffers:
                module._buffers.clear()
                module._buffers.update(held)
                _write_back(held, values)


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer lies."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def setting(config: Any, *names: str) -> Any:
    """The first of `names` that a config, an object or a mapping, holds and that is not None."""
    for name in names:
        value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if value is not None:
            return value
    return None


def longest_sequence(model: nn.Module) -> int | None:
    """Tokens the module takes at most, as its config or the module itself tells."""
    inner = unwrapped(model)
    for holder in (getattr(inner, "config", None), inner):
        length = setting(holder, *LENGTH_SETTINGS)
        if isinstance(length, int) and length > 0:
            return length
    return None


def embedding_of(model: nn.Module, rows: int = 0) -> tuple[str, nn.Parameter] | None:
    """Name and weight of the token embedding: the first embedding of at least `rows` rows."""
    inner = unwrapped(model)
    for name, module in inner.named_modules():
        weight = getattr(module, "weight", None)
        known = isinstance(module, nn.Embedding) or "embedding" in type(module).__name__.lower()
        if known and isinstance(weight, nn.Parameter) and weight.ndim == 2 and weight.shape[0] >= rows:
            return f"{name}.weight" if name else "weight", weight
    return None


def blocks_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The longest-weighing list of equal, composite modules inside `model`: its transformer blocks."""
    best: list[tuple[str, nn.Module]] = []
    most = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict):
            continue
        children = list(module.named_children())
        if len({type(child) for _, child in children}) != 1 or not any(True for _ in children[0][1].children()):
            continue
        weight = sum(parameter.numel() for parameter in module.parameters())
        if weight > most:
            prefix = f"{name}." if name else ""
            best, most = [(prefix + child_name, child) for child_name, child in children], weight
    return best


def _awake(model: nn.Module, seed: int) -> nn.Module:
    """`model`, or where matrices begin at zero a copy with small random ones, through which something flows."""
    zero = [name for name, parameter in model.named_parameters() if parameter.ndim >= 2 and _is_zero(parameter)]
    if not zero:
        return model
    filled = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in zero:
            parameter = filled.get_parameter(name)
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return filled


def _is_zero(matrix: Tensor) -> bool:
    return not matrix[:1].any() and not matrix.any()  # one row is quickly read


def _clone(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()


def _write_back(held: Mapping[str, Tensor | None], values: Mapping[str, Tensor | None]) -> None:
    with torch.no_grad():
        for name, buffer in held.items():
            value = values[name]
            if buffer is not None and value is not None and not torch.equal(buffer, value):
                buffer.copy_(value)
