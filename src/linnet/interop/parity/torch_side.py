"""A model computed by PyTorch, linnet's or transformers': its weights can be exchanged and its modules watched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from linnet.config import ModelConfig
from linnet.generate import evaluation_mode
from linnet.interop.parity.side import TokenizerFace


class TorchSide(ABC):
    """What the two sides computed by PyTorch share; see `Side`.

    Args:
        module: with parameters in float32 under Hugging Face's names.
        config: as Hugging Face has it.
        description: which model, and who computes it.
        storage: the type in which each tensor is kept.
        versions: of the libraries that compute it.
        tokenizer: None where it has none.
        faults: what went wrong while it was read.
    """

    arithmetic = "float32"
    exact_positions: int | None = None

    def __init__(
        self,
        module: nn.Module,
        config: ModelConfig,
        description: str,
        *,
        storage: Mapping[str, str],
        versions: Mapping[str, str],
        tokenizer: TokenizerFace | None,
        faults: tuple[str, ...] = (),
    ) -> None:
        assert all(parameter.dtype == torch.float32 for parameter in module.parameters()), "parity is for float32"
        self.module, self.config, self.description = module, config, description
        self.storage, self.versions, self.tokenizer, self.faults = storage, versions, tokenizer, faults

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """See `Side.tensors`."""

    def logits(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """See `Side.logits`."""
        with torch.inference_mode(), evaluation_mode(self.module):
            return self._compute(ids.to(self._device), positions).float().cpu()

    @abstractmethod
    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """See `Side.greedy`."""

    def longest(self) -> int:
        """See `Side.longest`."""
        return self.config.longest_sequence

    @contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Compute with `tensors`, by Hugging Face's names and in its row order, and then with the own ones again.

        Nothing is copied but rows that have another order here.
        """
        own = self._own_order(tensors)
        kept = [(parameter, parameter.data) for parameter in self.module.parameters()]
        try:
            for name, parameter in self.module.named_parameters():
                parameter.data = own[name].to(parameter.device)
            yield
        finally:
            for parameter, data in kept:
                parameter.data = data

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _own_order(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return tensors

    @abstractmethod
    def _compute(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """Logits of `ids` (batch, sequence) at `positions` or all."""


def module_names(config: ModelConfig) -> list[str]:
    """The modules that a Llama computes one after another, by the names they have in linnet and in transformers."""
    inside = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
    blocks = [f"model.layers.{layer}.{part}" for layer in range(config.num_hidden_layers) for part in inside]
    return ["model.embed_tokens", *blocks, "model.norm"]


def record_modules(side: TorchSide, ids: Tensor, inputs: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """What each module takes and gives while `side` computes the logits of `ids`.

    Args:
        side: whose modules.
        ids: (batch, sequence).
        inputs: what modules are given in place of what reaches them, by name.

    Returns:
        By name: (input, output), each (batch, sequence, hidden); the embedding's input is the ids.
    """
    modules = dict(side.module.named_modules())
    seen: dict[str, Any] = {}
    hooks = []
    for name in module_names(side.config):
        hooks.append(modules[name].register_forward_pre_hook(_giver(name, inputs), with_kwargs=True))
        hooks.append(modules[name].register_forward_hook(_recorder(name, seen), with_kwargs=True))
    try:
        side.logits(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _giver(name: str, inputs: Mapping[str, Tensor] | None) -> Any:
    def give(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if inputs is None or name not in inputs:
            return None
        if args:
            return (inputs[name].to(args[0].device), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": inputs[name].to(kwargs["hidden_states"].device)}

    return give


def _recorder(name: str, seen: dict[str, Any]) -> Any:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        made = output[0] if isinstance(output, tuple) else output
        seen[name] = given.cpu().clone(), made.cpu().clone()

    return record
