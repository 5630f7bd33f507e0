"""Models into GGUF and back, by linnet's reader and by the gguf package's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gguf_examples import byte_tokenizer, example_model
from linnet.config import RopeScaling
from linnet.errors import UserError
from linnet.interop.gguf import export_gguf, read_gguf
from linnet.interop.gguf.layout import file_name
from linnet.interop.rows import hf_tensors
from linnet.model import TransformerLM

gguf = pytest.importorskip("gguf")
TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_every_number_is_the_models_own_rounded_to_the_type(tmp_path: Path, dtype: str) -> None:
    model = example_model(tie_word_embeddings=False, attention_bias=True)
    report = export_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", dtype)
    content = read_gguf(tmp_path / "model.gguf")
    for name, tensor in hf_tensors(model).items():
        found = content.tensor(name)
        if tensor.ndim == 1:
            assert content.stored[name] == "f32"
            assert found.equal(tensor), name
        elif dtype == "q8_0":
            blocks, stored = tensor.reshape(-1, 32), found.reshape(-1, 32)
            step = blocks.abs().amax(dim=1, keepdim=True) / 127
            # Half a step, and what rounding the step itself to float16 makes of 127 of them.
            assert bool(((blocks - stored).abs() <= step * (0.5 + 127 * 2**-11) + 1e-9).all()), name
            assert not stored.equal(blocks)
        else:
            assert found.equal(tensor.to(TORCH[dtype]).float()), name
    assert content.config == model.config.replace(initializer_range=content.config.initializer_range)
    assert report.size == (tmp_path / "model.gguf").stat().st_size
    assert sum(report.stored.values()) == len(content.stored)


def test_the_gguf_package_reads_the_same(tmp_path: Path) -> None:
    scaling = RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
    model = example_model(rope_scaling=scaling, head_dim=24, rms_norm_eps=1e-6)
    export_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", "f16", name="Bird", description="sings")
    reader, content = gguf.GGUFReader(tmp_path / "model.gguf"), read_gguf(tmp_path / "model.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    lists = {f"tokenizer.ggml.{name}": getattr(content, name) for name in ("tokens", "merges")}
    lists["tokenizer.ggml.token_type"] = content.token_types
    assert fields == {**content.metadata, **{key: list(value) for key, value in lists.items()}}
    assert fields["general.name"] == "Bird"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert fields["llama.attention.key_length"] == 24
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert "output.weight" not in [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        if "attn_q" not in tensor.name and "attn_k" not in tensor.name:
            name = next(name for name in content.stored if file_name(name) == tensor.name)
            assert np.array_equal(tensor.data.astype(np.float32), content.tensor(name).numpy())
    assert content.config.rms_norm_eps == 1e-6
    assert content.config.rope_scaling == scaling


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_interleaved": True, "attention_bias": True, "mlp_bias": True},
        {"qk_norm": True},
        {"qk_norm": True, "rope_interleaved": True},
        {
            "rope_scaling": RopeScaling(
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            )
        },
    ],
)
def test_what_is_read_back_computes_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = example_model(**changes)
    export_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", "f32")
    content = read_gguf(tmp_path / "model.gguf")
    again = TransformerLM.from_tensors(content.config, content.tensors()).eval()
    ids = torch.randint(0, 300, (2, 100))
    with torch.no_grad():
        torch.testing.assert_close(again(ids), model(ids), rtol=0, atol=1e-5)


def test_rows_that_are_no_multiple_of_32_stay_float16_and_are_told(tmp_path: Path) -> None:
    model = example_model(intermediate_size=100)
    report = export_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", "q8_0")
    assert report.wider == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    assert report.note is not None
    assert "2 tensors stay float16" in report.note
    assert report.stored == {"q8_0": 13, "f32": 5, "f16": 2}
    assert export_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", "f16").note is None


def test_the_same_model_gives_the_same_bytes_in_any_float_type_it_fits(tmp_path: Path) -> None:
    model = example_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    export_gguf(model, byte_tokenizer(), tmp_path / "one.gguf", "q8_0")
    export_gguf(model.bfloat16(), byte_tokenizer(), tmp_path / "other.gguf", "q8_0")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "other.gguf").read_bytes()


def test_progress_counts_tensors(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    export_gguf(example_model(), byte_tokenizer(), tmp_path / "x.gguf", progress=lambda *step: told.append(step))
    assert told == [(done, 20) for done in range(1, 21)]


@pytest.mark.parametrize(
    ("value", "dtype", "complaint"),
    [(float("nan"), "f32", "not finite"), (1e6, "f16", "float16's greatest"), (1e6, "q4_0", "'q4_0'")],
)
def test_a_refusal_leaves_what_was_there(tmp_path: Path, value: float, dtype: str, complaint: str) -> None:
    model = example_model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4] = value
    (tmp_path / "model.gguf").write_text("before")
    with pytest.raises(UserError, match=complaint):
        export_gguf(model, byte_tokenizer(), tmp_path / "model.gguf", dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert (tmp_path / "model.gguf").read_text() == "before"


def test_settings_that_float32_does_not_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layer_norm_rms_epsilon is 1e-50"):
        export_gguf(example_model(rms_norm_eps=1e-50), byte_tokenizer(), tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_one_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory"):
        export_gguf(example_model(), byte_tokenizer(), tmp_path)
    with pytest.raises(UserError, match="there is no directory"):
        export_gguf(example_model(), byte_tokenizer(), tmp_path / "nowhere" / "model.gguf")
