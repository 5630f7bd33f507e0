from __future__ import annotations

import pytest
import torch

from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.generate import KeyValueCache, LayerCache

CPU = torch.device("cpu")


def test_append_returns_everything_so_far_in_order() -> None:
    cache = LayerCache(2, 3, 6, 4, CPU, torch.float32)
    keys, values = torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 4)
    start = 0
    for end in (2, 3, 6):
        got_keys, got_values = cache.append(keys[:, :, start:end], values[:, :, start:end])
        assert torch.equal(got_keys, keys[:, :, :end])
        assert torch.equal(got_values, values[:, :, :end])
        assert cache.length == end
        start = end


def test_memory_is_allocated_once_and_reused_after_reset() -> None:
    cache = LayerCache(1, 1, 2, 2, CPU, torch.float32)
    place = cache.append(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))[0].data_ptr()
    cache.reset()
    assert cache.length == 0
    keys, _ = cache.append(torch.full((1, 1, 1, 2), 5.0), torch.zeros(1, 1, 1, 2))
    assert keys.data_ptr() == place
    assert keys.tolist() == [[[[5.0, 5.0]]]]


def test_more_than_fits_is_refused_and_leaves_the_cache_as_it_was() -> None:
    cache = LayerCache(1, 1, 2, 2, CPU, torch.float32)
    cache.append(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    with pytest.raises(UserError, match="holds 1 of 2 positions and 2 more do not fit"):
        cache.append(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert cache.length == 1


def test_a_batch_of_another_size_is_not_broadcast() -> None:
    cache = LayerCache(2, 1, 4, 2, CPU, torch.float32)
    with pytest.raises(AssertionError):
        cache.append(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))


def test_a_model_cache_has_a_layer_each_of_the_models_shape() -> None:
    config = ModelConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=16
    )
    cache = KeyValueCache(config, 4, 10, CPU, torch.bfloat16)
    assert (len(cache), cache.length, cache.capacity) == (3, 0, 10)
    for layer in cache:
        keys, values = layer.append(torch.ones(4, 2, 7, 8), torch.ones(4, 2, 7, 8))
        assert keys.shape == values.shape == (4, 2, 7, 8)
        assert keys.dtype == values.dtype == torch.bfloat16
    assert cache.length == 7
    cache.reset()
    assert [layer.length for layer in cache] == [0, 0, 0]
