"""Names, shapes and the order of rows in GGUF."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_examples import SHAPE, example_model
from linnet.config import ModelConfig
from linnet.errors import UserError
from linnet.interop.gguf.layout import (
    LLAMA,
    QWEN3,
    architecture_of,
    expected_shapes,
    file_name,
    hugging_face_name,
    to_canonical_rows,
    to_file_rows,
)
from linnet.interop.rows import pairs_to_halves

VARIANTS = [
    {},
    {"tie_word_embeddings": False, "head_dim": 24},
    {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
    {"qk_norm": True, "num_key_value_heads": 1},
]
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    heads=st.integers(1, 4),
    half=st.integers(1, 8),
    columns=st.one_of(st.none(), st.integers(1, 3)),
    interleaved=st.booleans(),
    architecture=st.sampled_from([LLAMA, QWEN3]),
    name=st.sampled_from([Q_PROJ, Q_PROJ.replace("q_proj", "k_proj"), Q_PROJ.replace("q_proj", "v_proj")]),
)
def test_rows_come_back_as_hugging_face_has_them(
    heads: int, half: int, columns: int | None, interleaved: bool, architecture: str, name: str
) -> None:
    shape = (heads * 2 * half,) if columns is None else (heads * 2 * half, columns)
    ours = torch.rand(shape)
    config = ModelConfig(**{**SHAPE, "head_dim": 2 * half, "rope_interleaved": interleaved})
    stored = to_file_rows(name, ours, config, architecture)
    canonical = pairs_to_halves(ours, 2 * half) if interleaved and "v_proj" not in name else ours
    assert to_canonical_rows(name, stored, 2 * half, architecture).equal(canonical)


def test_a_llama_rotates_neighbours_and_a_qwen3_halves() -> None:
    config = ModelConfig(**{**SHAPE, "head_dim": 4, "num_attention_heads": 2})
    rows = torch.arange(8)
    assert to_file_rows(Q_PROJ, rows, config, LLAMA).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert to_file_rows(Q_PROJ, rows, config, QWEN3).tolist() == rows.tolist()
    interleaved = config.replace(rope_interleaved=True)
    assert to_file_rows(Q_PROJ, rows, interleaved, LLAMA).tolist() == rows.tolist()
    assert to_file_rows(Q_PROJ, rows, interleaved, QWEN3).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("changes", VARIANTS)
def test_names_and_shapes_are_those_of_the_model_and_of_the_gguf_package(changes: dict[str, object]) -> None:
    model = example_model(**changes)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert dict(expected_shapes(model.config)) == shapes
    gguf = pytest.importorskip("gguf")
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture_of(model.config).upper()], 2)
    for name in shapes:
        module, _, kind = name.rpartition(".")
        assert file_name(name) == f"{known.get_name(module)}.{kind}"
        assert hugging_face_name(file_name(name)) == name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"position_embedding": "none"}, "position_embedding none"),
        ({"norm": "none"}, "norm none"),
        ({"norm_position": "post"}, "norm_position post"),
        ({"feed_forward": "silu"}, "feed_forward silu"),
        ({"qk_norm": True, "attention_bias": True}, "qk_norm with attention_bias"),
        ({"qk_norm": True, "mlp_bias": True}, "qk_norm with mlp_bias"),
        ({"num_hidden_layers": 513}, "513"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        architecture_of(ModelConfig(**{**SHAPE, **changes}))
