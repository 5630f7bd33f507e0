"""The keys and values of the positions a model has read, so that each is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from linnet.config import ModelConfig
from linnet.errors import UserError


class LayerCache:
    """Keys and values of one attention layer, in memory allocated once.

    Args:
        batch_size, heads, capacity, head_dim: the shape of the keys and of the values; `heads` are key-value heads.
        dtype: what is stored; keys and values given to `append` are converted to it.
    """

    def __init__(
        self, batch_size: int, heads: int, capacity: int, head_dim: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (batch_size, heads, capacity, head_dim)
        self._keys = torch.empty(shape, device=device, dtype=dtype)
        self._values = torch.empty(shape, device=device, dtype=dtype)
        self._length = 0

    @property
    def length(self) -> int:
        """Positions held."""
        return self._length

    @property
    def capacity(self) -> int:
        """Positions that fit."""
        return self._keys.shape[2]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of the next positions and return those of every position so far.

        Args:
            key: (batch, heads, new, head_dim), after rotation.
            value: the same shape.

        Returns:
            Views (batch, heads, length, head_dim), good until the next call.

        Raises:
            UserError: if they do not fit.
        """
        batch, heads, new, head_dim = key.shape
        # A batch of one would otherwise be copied over all rows without a word.
        assert (batch, heads, head_dim) == (*self._keys.shape[:2], self._keys.shape[3]), "key does not fit this cache"
        assert key.shape == value.shape, "key and value differ in shape"
        end = self._length + new
        if end > self.capacity:
            raise UserError(
                f"the cache holds {self._length} of {self.capacity} positions and {new} more do not fit: "
                "reset it, or make one with a larger capacity"
            )
        self._keys[:, :, self._length : end] = key
        self._values[:, :, self._length : end] = value
        self._length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def reset(self) -> None:
        """Forget every position; the memory stays."""
        self._length = 0


class KeyValueCache(Sequence[LayerCache]):
    """One `LayerCache` for each layer of a model: `model(input_ids, caches=cache)`.

    Args:
        config: the model's, for its layers, key-value heads and head width.
        batch_size: rows of `input_ids`.
        capacity: positions that fit; at most `config.max_position_embeddings` are of use.
        dtype: the dtype that attention computes in.
    """

    def __init__(
        self, config: ModelConfig, batch_size: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._layers = tuple(
            LayerCache(batch_size, config.num_key_value_heads, capacity, config.head_dim, device, dtype)
            for _ in range(config.num_hidden_layers)
        )

    @property
    def length(self) -> int:
        """Positions held by every layer."""
        return self._layers[0].length

    @property
    def capacity(self) -> int:
        """Positions that fit."""
        return self._layers[0].capacity

    def reset(self) -> None:
        """Forget every position; the memory stays."""
        for layer in self._layers:
            layer.reset()

    @overload
    def __getitem__(self, index: int) -> LayerCache: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LayerCache]: ...
    def __getitem__(self, index: int | slice) -> LayerCache | Sequence[LayerCache]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)
