"""GGUF files that are damaged, or made to do harm: one sentence, no crash, nothing followed beyond the file's end."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_examples import byte_tokenizer, example_model
from linnet.config import RopeScaling
from linnet.errors import UserError
from linnet.interop.gguf import export_gguf, read_gguf
from linnet.interop.gguf.header import read_header

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file with every kind of tensor."""
    file = tmp_path_factory.mktemp("gguf") / "sound.gguf"
    scaling = RopeScaling(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    model = example_model(hidden_size=32, intermediate_size=32, num_hidden_layers=1, rope_scaling=scaling)
    export_gguf(model, byte_tokenizer(), file, "q8_0")
    return file


def read_changed(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "changed.gguf"
    file.write_bytes(raw)
    content = read_gguf(file)
    content.tensors()


def with_value(raw: bytes, key: str, value: bytes) -> bytes:
    """The file with other bytes where the value of `key` begins."""
    at = raw.index(key.encode()) + len(key) + 4
    return raw[:at] + value + raw[at + len(value) :]


U32, U64 = struct.Struct("<I"), struct.Struct("<Q")
HUGE = U64.pack(2**62)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("general.architecture", U64.pack(5) + b"gpt_2", "general.architecture 'gpt_2' is not supported"),
        ("general.architecture", HUGE, "announces 4611686018427387904 more"),
        ("llama.block_count", U32.pack(2), "blk.1.attn_norm.weight is missing"),
        ("llama.block_count", U32.pack(2**32 - 1), "less than or equal to 4096"),
        ("llama.block_count", U32.pack(4000), "announces 4000 layers, but holds 11 tensors"),
        ("llama.block_count", U32.pack(0), "positive integer"),
        ("llama.embedding_length", U32.pack(64), "token_embd.weight is"),
        ("llama.context_length", U32.pack(2**31), "max_position_embeddings"),
        ("llama.attention.head_count", U32.pack(3), "num_key_value_heads 2 does not divide"),
        ("llama.attention.value_length", U32.pack(4), "heads are 8 wide"),
        ("llama.rope.dimension_count", U32.pack(4), "heads are 8 wide"),
        ("llama.rope.freq_base", struct.pack("<f", float("nan")), "positive number"),
        ("llama.vocab_size", U32.pack(299), "lists 300 tokens"),
        ("tokenizer.ggml.model", U64.pack(4) + b"bert", "'bert'"),
        ("tokenizer.ggml.tokens", U32.pack(8) + HUGE, "array of 4611686018427387904"),
        ("tokenizer.ggml.tokens", U32.pack(9), "array of 300 of type 9"),
        ("tokenizer.ggml.tokens", U32.pack(8) + U64.pack(2**24), "announces 16777216"),
        ("tokenizer.ggml.tokens", U32.pack(8) + U64.pack(300) + U64.pack(13) + b"\xff", "not UTF-8"),
        ("tokenizer.ggml.tokens", U32.pack(8) + U64.pack(300) + U64.pack(13) + b"<|end\0ftext|>", "NUL character"),
        ("tokenizer.ggml.token_type", U32.pack(6), "token_type is missing, empty or of another type"),
    ],
)
def test_a_changed_setting_is_named(sound: Path, tmp_path: Path, key: str, value: bytes, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read_changed(tmp_path, with_value(sound.read_bytes(), key, value))


def test_the_same_token_twice_is_refused_before_llama_cpp_ends_the_process(sound: Path, tmp_path: Path) -> None:
    raw = sound.read_bytes().replace(U64.pack(1) + b"#", U64.pack(1) + b"!", 1)
    with pytest.raises(UserError, match="same token twice"):
        read_changed(tmp_path, raw)


def test_a_key_that_may_change_the_model_is_named(sound: Path, tmp_path: Path) -> None:
    raw = sound.read_bytes().replace(b"llama.vocab_size", b"llama.exp_countX", 1)
    with pytest.raises(UserError, match=r"llama\.exp_countX = 300 may change the model"):
        read_changed(tmp_path, raw)


@pytest.mark.parametrize(
    ("after_name", "value", "complaint"),
    [
        (0, U32.pack(5), "has 5 dimensions"),
        (4, HUGE, "has the shape"),
        (4, U64.pack(31), "has the shape"),
        (4, U64.pack(64), r"begins at \d+ instead of"),
        (20, U32.pack(99), "unknown type 99"),
        (24, U64.pack(0), "begins at 0 instead of"),  # over the tensor before it
        (24, HUGE, r"begins at \d+ instead of"),
    ],
)
def test_a_tensor_that_cannot_lie_there_is_named(
    sound: Path, tmp_path: Path, after_name: int, value: bytes, complaint: str
) -> None:
    raw = sound.read_bytes()
    at = raw.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + after_name
    with pytest.raises(UserError, match=complaint):
        read_changed(tmp_path, raw[:at] + value + raw[at + len(value) :])


def test_a_file_cut_anywhere_is_refused(sound: Path, tmp_path: Path) -> None:
    raw = sound.read_bytes()
    for length in [0, 3, 4, 23, 24, *range(25, len(raw), 211), len(raw) - 32]:
        with pytest.raises(UserError, match=r"truncated|damaged|no GGUF file"):
            read_changed(tmp_path, raw[:length])


def test_what_is_no_gguf_file_is_refused(sound: Path, tmp_path: Path) -> None:
    raw = sound.read_bytes()
    for other in (b"", b"PK\x03\x04" + raw, b"GGUF" + U32.pack(3)[::-1] + raw[8:], b"GGUF" + U32.pack(9) + raw[8:]):
        with pytest.raises(UserError, match=r"no GGUF file|of version"):
            read_changed(tmp_path, other)
    with pytest.raises(UserError, match="no such file"):
        read_gguf(tmp_path / "absent.gguf")
    with pytest.raises(UserError, match="is a directory"):
        read_gguf(tmp_path)


def test_counts_are_not_followed(sound: Path, tmp_path: Path) -> None:
    raw = sound.read_bytes()
    for counts in (HUGE + raw[16:24], raw[8:16] + HUGE):
        with pytest.raises(UserError, match="announces"):
            read_changed(tmp_path, raw[:8] + counts + raw[24:])


@settings(
    deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_byte_leads_to_anything_but_a_sentence(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(sound.read_bytes())
    end = min(tensor.begin for tensor in read_header(sound).tensors.values())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, end - 8))
        value = data.draw(st.one_of(st.binary(min_size=1, max_size=1), st.integers(0, 2**64 - 1).map(U64.pack)))
        raw[at : at + len(value)] = value
    with suppress(UserError):
        read_changed(tmp_path, bytes(raw))
