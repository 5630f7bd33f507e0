"""Which special token ends a text."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from linnet.errors import UserError
from linnet.tokenizer import Tokenizer

BYTES = {byte: bytes([byte]) for byte in range(256)}
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>"]


def test_the_one_given_or_endoftext_or_the_first() -> None:
    assert Tokenizer(BYTES, [], SPECIALS).eos_id == 256
    assert Tokenizer(BYTES, [], [*SPECIALS, "<|endoftext|>"]).eos_id == 258
    assert Tokenizer(BYTES, [], SPECIALS, eos_token="<|end_of_text|>").eos_id == 257
    assert Tokenizer(BYTES, []).eos_id is None
    with pytest.raises(UserError, match="is no special token"):
        Tokenizer(BYTES, [], SPECIALS, eos_token="</s>")


def test_it_is_kept_in_files_copies_and_fingerprints(tmp_path: Path) -> None:
    tokenizer = Tokenizer(BYTES, [], SPECIALS, eos_token="<|end_of_text|>")
    tokenizer.save(tmp_path)
    for same in (
        Tokenizer.from_pretrained(tmp_path),
        Tokenizer.from_pretrained(tmp_path / "tokenizer.json"),
        pickle.loads(pickle.dumps(tokenizer)),  # noqa: S301 - our own bytes
    ):
        assert (same.eos_id, same.fingerprint) == (257, tokenizer.fingerprint)
    default = Tokenizer(BYTES, [], SPECIALS)
    assert default.fingerprint != tokenizer.fingerprint
    assert default.fingerprint == Tokenizer(BYTES, [], SPECIALS, eos_token=SPECIALS[0]).fingerprint


@pytest.mark.parametrize(
    ("eos_token", "expected"),
    [("<|end_of_text|>", 257), ({"content": "<|end_of_text|>", "lstrip": False}, 257), ("</s>", 256), (None, 256)],
)
def test_tokenizer_config_json_names_it(tmp_path: Path, eos_token: object, expected: int) -> None:
    Tokenizer(BYTES, [], SPECIALS).save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": eos_token}))
    assert Tokenizer.from_pretrained(tmp_path).eos_id == expected
    file.write_text("[")
    with pytest.raises(UserError, match=r"tokenizer_config\.json"):
        Tokenizer.from_pretrained(tmp_path)
