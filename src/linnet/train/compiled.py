"""How the training step runs the model: which parts are compiled, and whether that pays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from linnet.accounting import count_parameters
from linnet.config import RunConfig
from linnet.errors import UserError
from linnet.model import AttentionMask, TransformerLM, document_blocks, document_mask, documents_of
from linnet.train.graphs import Layers, Replayed

# Compiling one block takes some 15 s on two cores and then saves about a tenth of each step; at the 2e11 operations a
# second of a small processor, that is won back over so many operations (docs/performance.md).
OPERATIONS_THAT_PAY = 4e13
# Fewer tokens at once than these leave most kernels of a small model shorter than the time it takes to launch one.
MOST_GRAPHED_TOKENS = 8192


def compiling_pays(config: RunConfig, device: torch.device) -> bool:
    """Whether `train.compile: auto` compiles a run of this config that begins now.

    On a processor that depends on the run's length, so it is decided once, when the run begins, and kept with it.
    """
    if device.type == "cuda":
        return has_triton()
    train = config.train
    tokens = train.max_steps * train.windows_per_step * config.data.seq_len
    return 6 * count_parameters(config.model).total * tokens >= OPERATIONS_THAT_PAY and cpp_compiler() is not None


def cpp_compiler() -> str | None:
    """The C++ compiler that PyTorch would call on a processor, if there is one."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return str(get_cpp_compiler())
    except InvalidCxxCompiler:
        return None


def logits_of(
    model: TransformerLM,
    device: torch.device,
    *,
    compiled: bool,
    dtype: torch.dtype | None = None,
    end_of_text: int | None = None,
    graphed: bool = False,
) -> Callable[[Tensor], Tensor]:
    """ids (batch, sequence) to logits (batch, sequence, vocabulary), for training; all else as `hidden_states_of`.

    Where nothing is compiled, `model` itself is called, and its hooks see it.
    """
    if compiled:
        hidden_states = hidden_states_of(
            model, device, compiled=True, dtype=dtype, end_of_text=end_of_text, graphed=graphed
        )
        return lambda input_ids: _times(hidden_states(input_ids), model.head)
    if dtype is None and end_of_text is None:
        return model
    mask = masks_of(model, device, end_of_text)
    return lambda input_ids: model(input_ids, mask=mask(input_ids), dtype=dtype)


def hidden_states_of(
    model: TransformerLM,
    device: torch.device,
    *,
    compiled: bool,
    dtype: torch.dtype | None = None,
    end_of_text: int | None = None,
    graphed: bool = False,
) -> Callable[[Tensor], Tensor]:
    """ids (batch, sequence) to the states that the head of `model` reads, for training.

    Args:
        compiled: whether the layers are.
        dtype: what they compute in; None: the type of their weights.
        end_of_text: the id that ends documents, where each is to be read apart.
        graphed: whether CUDA replays what is compiled as a graph.

    Raises:
        UserError: it is to be compiled, and there is no compiler; or the model's attention does not train here.
    """
    mask = masks_of(model, device, end_of_text)
    layers = layers_of(model, device, dtype, compiled=compiled, graphed=graphed)
    return lambda input_ids: layers(input_ids, mask(input_ids))


def masks_of(
    model: TransformerLM, device: torch.device, end_of_text: int | None
) -> Callable[[Tensor], AttentionMask | None]:
    """ids (batch, sequence) to the mask that keeps documents apart, once for all layers; None where none is wanted.

    Raises:
        UserError: the model's attention does not train here.
    """
    if end_of_text is None:
        return lambda input_ids: None
    flex = model.config.attention == "flex"
    if flex and device.type != "cuda":
        raise UserError(
            f"model.attention flex: FlexAttention does not train on {device}: use auto, which masks documents too"
        )
    make = document_blocks if flex else document_mask
    return lambda input_ids: make(documents_of(input_ids, end_of_text))


def _times(hidden: Tensor, head: Tensor) -> Tensor:
    return hidden @ head.to(hidden.dtype).T


def layers_of(
    model: TransformerLM, device: torch.device, dtype: torch.dtype | None, *, compiled: bool, graphed: bool
) -> Layers:
    """What `hidden_states_of` runs under a mask.

    Compiled on CUDA as a whole. On a processor block by block: all blocks share one compiled function, so a deep model
    compiles as fast as a shallow one. Parameters keep their names either way, and `model` itself stays uncompiled for
    all else that calls it.

    Raises:
        UserError: it is to be compiled, and there is no compiler.
    """
    if not compiled:
        return lambda input_ids, mask: model.hidden_states(input_ids, mask=mask, dtype=dtype)
    keep_compiled_code()
    # Norms and gates are made again in the backward pass instead of being kept: a third less memory for 2 % of time.
    torch._functorch.config.activation_memory_budget = 0.9
    if device.type == "cuda":
        if not has_triton():
            raise UserError("train.compile true needs Triton and a card that it knows: install it, or set it to false")
        return whole_on_cuda(model, dtype, graphed=graphed)
    if cpp_compiler() is None:
        raise UserError("train.compile true needs a C++ compiler (g++ or clang++): install one, or set it to false")
    return BlockByBlock(model, dtype)


def whole_on_cuda(model: TransformerLM, dtype: torch.dtype | None, *, graphed: bool) -> Layers:
    """All layers compiled as one."""
    whole = torch.compile(model.hidden_states, dynamic=False, mode="reduce-overhead" if graphed else None)

    def layers(input_ids: Tensor, mask: AttentionMask | None) -> Tensor:
        return whole(input_ids, mask=mask, dtype=dtype)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Replayed(layers, trained) if graphed else layers


def graphs_pay(config: RunConfig) -> bool:
    """Whether a card would wait for the program between the kernels of a micro-batch; blocks of a mask are no graph."""
    flex = config.model.attention == "flex" and config.data.document_mask
    return not flex and config.train.windows_at_once * config.data.seq_len <= MOST_GRAPHED_TOKENS


class BlockByBlock:
    """The hidden states of a model whose blocks are compiled one for all."""

    def __init__(self, model: TransformerLM, dtype: torch.dtype | None) -> None:
        self.model = model
        self.dtype = dtype
        self.blocks = [cast(nn.Module, torch.compile(layer, dynamic=False)) for layer in model.model.layers]

    def __call__(self, input_ids: Tensor, mask: AttentionMask | None) -> Tensor:
        """ids (batch, sequence) -> (batch, sequence, hidden)."""
        x: Tensor = self.model.model.embed_tokens(input_ids)
        if self.dtype is not None:
            x = x.to(self.dtype)
        for block in self.blocks:
            x = block(x, mask=mask)
        x = self.model.model.norm(x)
        return x


def keep_compiled_code() -> None:
    """Let compiled code outlive the system's temporary files, where the user's caches are."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(caches / "linnet" / "compiled"))
