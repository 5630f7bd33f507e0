"""Which attention to profile, and which one really ran."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from linnet.config import ModelConfig
from linnet.config.suggest import nearest
from linnet.errors import UserError
from linnet.study.profile.parts import ATTENTION, Shares

# One kernel alone of those that PyTorch's scaled_dot_product_attention chooses from, and the devices that have it.
_FORCED = {
    "flash": (SDPBackend.FLASH_ATTENTION, ("cpu", "cuda")),
    "efficient": (SDPBackend.EFFICIENT_ATTENTION, ("cuda",)),
    "cudnn": (SDPBackend.CUDNN_ATTENTION, ("cuda",)),
    "math": (SDPBackend.MATH, ("cpu", "cuda")),
}
_OF_MODEL: tuple[str, ...] = get_args(ModelConfig.model_fields["attention"].annotation)
ATTENTIONS = (*_OF_MODEL, *_FORCED)

_BLOCKED = "linnet's products over blocks of queries: scores of a block at a time"
# What an operation's name tells, the more telling ones first.
_KERNELS = (
    (
        "flash_attention_for_cpu",
        "flash, CPU",
        "PyTorch's flash attention for processors: scores in blocks",
    ),
    ("flex_attention", "flex", "FlexAttention: a kernel compiled for this mask, which leaves out blocks it hides"),
    ("_Blocked", "blocked", _BLOCKED),
    ("_varlen_attn", "flash, variable length", "FlashAttention over documents of several lengths"),
    ("cudnn_attention", "cuDNN", "cuDNN's fused attention"),
    (
        "efficient_attention",
        "memory-efficient",
        "the memory-efficient kernel of xFormers: scores in blocks",
    ),
    ("flash_attention", "flash", "FlashAttention-2: scores in blocks"),
    ("scaled_dot_product_attention_math", "math", "PyTorch's written-out fallback, which holds all scores at once"),
)


# What it is, where only products are seen, by model.attention.
_SPELT_OUT = {
    "auto": ("blocked", _BLOCKED),
    "sdpa": ("math", "PyTorch's written-out fallback, spelt out by the compiler, which holds all scores at once"),
    "reference": ("reference", "linnet's written-out attention, which holds all scores at once"),
}


@dataclass(frozen=True)
class AttentionKernel:
    """What computed attention.

    Attributes:
        name: short.
        sentence: what that is.
        operations: names by which the profiler saw it.
    """

    name: str
    sentence: str
    operations: tuple[str, ...]


def refuse_impossible(attentions: Iterable[str], device: torch.device) -> None:
    """See that each is a name in `ATTENTIONS` that `device` has.

    Raises:
        UserError: one is not.
    """
    for name in attentions:
        if name not in ATTENTIONS:
            known = ", ".join(ATTENTIONS)
            raise UserError(
                f"--attention {name}: there is no such attention{nearest(name, ATTENTIONS)}; known: {known}"
            )
        if name in _FORCED and device.type not in _FORCED[name][1]:
            raise UserError(f"--attention {name}: there is no such kernel on {device}: use sdpa, reference or flash")


def possible_on(device: torch.device) -> tuple[str, ...]:
    """The attentions worth comparing on `device`: each kernel that it has, under its own name."""
    twice = ("sdpa", "auto") if device.type == "cuda" else ("sdpa",)
    return tuple(
        name for name in ATTENTIONS if name not in twice and (name not in _FORCED or device.type in _FORCED[name][1])
    )


def is_forced(attention: str) -> bool:
    """Whether that is one of PyTorch's kernels alone, and no name of `model.attention`."""
    return attention in _FORCED


def with_attention(config: ModelConfig, attention: str) -> ModelConfig:
    """`config` with the attention of that name; kernels of PyTorch's own choice are forced by `forced` beside it."""
    return config.replace(attention="sdpa" if attention in _FORCED else attention)


def forced(attention: str) -> AbstractContextManager[Any]:
    """Where only the kernel called `attention` may be chosen; nothing is forced for a name of `model.attention`."""
    return sdpa_kernel([_FORCED[attention][0]]) if attention in _FORCED else nullcontext()


def kernel_that_ran(shares: Shares, config: ModelConfig) -> AttentionKernel:
    """What the operations of the recorded steps tell of their attention."""
    seen = sorted({span.name for span, part in shares.of_span.items() if part == ATTENTION})
    for sign, name, sentence in _KERNELS:
        found = tuple(operation for operation in seen if sign in operation and not operation.startswith("autograd::"))
        if found:
            return AttentionKernel(name, sentence, found)
    products = tuple(operation for operation in seen if operation in ("aten::bmm", "aten::baddbmm"))
    if not products:
        return AttentionKernel("unknown", "no operation known to be attention was seen", ())
    name, sentence = _SPELT_OUT.get(config.attention, _SPELT_OUT["sdpa"])
    return AttentionKernel(name, sentence, products)
