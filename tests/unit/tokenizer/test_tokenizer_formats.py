from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

import linnet
from adversarial_text import adversarial_texts
from linnet.errors import UserError
from linnet.tokenizer import Tokenizer, train_bpe_from_texts
from linnet.tokenizer.alphabet import BYTE_TO_CHAR, CHAR_TO_BYTE, from_printable, to_printable
from linnet.tokenizer.patterns import PATTERNS, piece_finder
from linnet.tokenizer.unicode16 import as_in_unicode_16

SPECIALS = ["<|endoftext|>", "<|a b|>", "<|ü漢|>"]
TEXT = "the cat sat on the mat, 1999 times; naïve 漢字 😀 <|endoftext|>x<|a b|> <|ü漢|>\n\n  end"


def trained(pattern: str = "gpt2") -> Tokenizer:
    vocab, merges = train_bpe_from_texts([TEXT * 3], 300, SPECIALS, pattern=pattern)
    return Tokenizer(vocab, merges, SPECIALS, pattern=pattern)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trained().save(tmp_path)
    return tmp_path


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_alphabet_is_that_of_gpt2() -> None:
    assert len(BYTE_TO_CHAR) == len(CHAR_TO_BYTE) == 256
    # As every published GPT-2 file has them.
    for byte, char in {0x20: "Ġ", 0x0A: "Ċ", 0x09: "ĉ", 0x00: "Ā", 0x7F: "ġ", 0xAD: "Ń", 0x21: "!", 0xFF: "ÿ"}.items():
        assert BYTE_TO_CHAR[byte] == char


@given(st.binary())
def test_the_alphabet_goes_both_ways(token: bytes) -> None:
    assert from_printable(to_printable(token)) == token
    assert from_printable(to_printable(token) + " ") is None


@pytest.mark.parametrize("pattern", ["gpt2", "smollm", "gpt4", "o200k", r"\w+|\p{N}{1,3}+|\s+$", "(?:word)"])
def test_saving_and_loading_changes_nothing(tmp_path: Path, pattern: str) -> None:
    tokenizer = trained(pattern)
    tokenizer.save(tmp_path / "new" / "folder")
    for source in (tmp_path / "new" / "folder", str(tmp_path / "new" / "folder" / "tokenizer.json")):
        again = Tokenizer.from_pretrained(source)
        assert again.fingerprint == tokenizer.fingerprint
        assert (again.vocab, again.merges) == (tokenizer.vocab, tokenizer.merges)
        assert (again.special_ids, again.eos_id) == (tokenizer.special_ids, tokenizer.eos_id)
        assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_vocab_and_merges_files_change_nothing(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.save_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    again = Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt", SPECIALS)
    assert again.fingerprint == tokenizer.fingerprint
    # A folder of them: what is neither a byte nor a merge's product is special.
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == tokenizer.fingerprint
    lines = (tmp_path / "merges.txt").read_bytes().split(b"\n")
    assert lines[0] == b"#version: 0.2"
    (tmp_path / "merges.txt").write_bytes(b"\r\n".join(lines[1:]))
    assert Tokenizer.from_pretrained(tmp_path).fingerprint == tokenizer.fingerprint


def test_added_tokens_beside_vocab_and_merges_are_read(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.save_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 400}')
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.special_tokens == [*SPECIALS, "<pad>"]
    assert again.encode("<pad>") == [400]
    assert again.vocab_size == 401


def test_a_merge_may_begin_with_a_hash(tmp_path: Path) -> None:
    vocab, merges = train_bpe_from_texts(["## ## ##"], 257, [])
    assert merges == [(b"#", b"#")]
    Tokenizer(vocab, merges).save_files(tmp_path / "v", tmp_path / "m")
    assert Tokenizer.from_files(tmp_path / "v", tmp_path / "m").encode("##") == [256]
    (tmp_path / "m").write_text("# #\n")
    assert Tokenizer.from_files(tmp_path / "v", tmp_path / "m").encode("##") == [256]


def test_merges_as_pairs_are_read(folder: Path) -> None:
    before = Tokenizer.from_pretrained(folder).fingerprint
    edit(folder, lambda content: content["model"].update(merges=[m.split(" ") for m in content["model"]["merges"]]))
    assert Tokenizer.from_pretrained(folder).fingerprint == before


HARMLESS: list[Callable[[dict[str, Any]], object]] = [
    lambda c: c.update(post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}),
    lambda c: c.update(post_processor={"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}),
    lambda c: c.update(decoder=None),
    lambda c: c.update(normalizer={"type": "Sequence", "normalizers": []}),
    lambda c: c["pre_tokenizer"].pop("use_regex"),
    lambda c: c.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [c["pre_tokenizer"]]}),
    lambda c: c["model"].update(unk_token="<unk>", dropout=0.0, continuing_subword_prefix=""),
    lambda c: c["model"].pop("type"),
    lambda c: [token.update(normalized=True) for token in c["added_tokens"]],
    lambda c: c["model"]["vocab"].pop("<|a b|>"),
]


@pytest.mark.parametrize("change", HARMLESS)
def test_what_changes_no_id_is_accepted(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    before = Tokenizer.from_pretrained(folder).fingerprint
    edit(folder, change)
    assert Tokenizer.from_pretrained(folder).fingerprint == before


def _byte_level(**changed: object) -> dict[str, object]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **changed}


def _split(pattern: dict[str, str], **changed: object) -> dict[str, object]:
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False, **changed}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


SPELLINGS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+": "gpt4",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)"
    r"|\s+": "gpt4",
    PATTERNS["o200k"]: "o200k",
    " +|,": " +|,",
    "gpt4": "(?:gpt4)",
}


@pytest.mark.parametrize(("expression", "pattern"), SPELLINGS.items())
def test_expressions_in_circulation_are_known(folder: Path, expression: str, pattern: str) -> None:
    edit(folder, lambda content: content.update(pre_tokenizer=_split({"Regex": expression})))
    assert Tokenizer.from_pretrained(folder).pattern == pattern
    if pattern in PATTERNS:
        removed = _split({"Regex": expression}, behavior="Removed", invert=True)
        edit(folder, lambda content: content.update(pre_tokenizer=removed))
        assert Tokenizer.from_pretrained(folder).pattern == pattern
        texts = list(map(as_in_unicode_16, adversarial_texts(1000, seed=11)))
        one, other = piece_finder(pattern), regex.compile(expression).findall
        assert [one(text) for text in texts] == [other(text) for text in texts]


def test_ignore_merges_is_kept(folder: Path) -> None:
    edit(folder, lambda content: content["model"].update(ignore_merges=True, merges=[]))
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.ignore_merges
    assert len(tokenizer.encode("the")) == 1
    tokenizer.save(folder / "again")
    assert Tokenizer.from_pretrained(folder / "again").fingerprint == tokenizer.fingerprint


REFUSED: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.update(normalizer={"type": "NFC"}), "normalizer NFC"),
    (
        lambda c: c.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}),
        "normalizer NFD + Lowercase",
    ),
    (lambda c: c.update(pre_tokenizer=None), "pre-tokenizer null"),
    (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "pre-tokenizer Whitespace"),
    (lambda c: c.update(pre_tokenizer=_byte_level(add_prefix_space=True)), "add_prefix_space"),
    (lambda c: c["pre_tokenizer"].pop("add_prefix_space"), "add_prefix_space"),
    (lambda c: c.update(pre_tokenizer=_byte_level(use_regex=False)), "use_regex"),
    (
        lambda c: c.update(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": False}, _byte_level()],
            }
        ),
        "individual_digits",
    ),
    (
        lambda c: c.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Split"}, _byte_level()]}),
        "pre-tokenizer Split + ByteLevel",
    ),
    (lambda c: c.update(pre_tokenizer=_split({"String": " "})), "Split without a 'Regex'"),
    (lambda c: c.update(pre_tokenizer=_split({"Regex": " +"}, behavior="MergedWithNext")), "'MergedWithNext'"),
    (lambda c: c.update(pre_tokenizer=_split({"Regex": " +"}, behavior="Removed")), "'Removed'"),
    (lambda c: c.update(pre_tokenizer=_split({"Regex": " +"}, behavior="Removed", invert=True)), "and invert"),
    (lambda c: c.update(pre_tokenizer=_split({"Regex": "( +"})), "'( +' is not a regular expression: missing )"),
    (lambda c: c.update(pre_tokenizer=_split({"Regex": r"\p{N}{1,3}+| +"})), "Split with '{1,3}+' in its expression"),
    (lambda c: c.update(pre_tokenizer=_split({"Regex": " +$"})), "Split with '$' in its expression"),
    (
        lambda c: c.update(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
            }
        ),
        "post-processor TemplateProcessing",
    ),
    (lambda c: c.update(post_processor={"type": "BertProcessing"}), "post-processor BertProcessing"),
    (lambda c: c.update(truncation={"max_length": 5}), "'truncation'"),
    (lambda c: c.update(padding={"strategy": {"Fixed": 8}}), "'padding'"),
    (lambda c: c["model"].update(type="WordPiece"), "WordPiece"),
    (lambda c: c["model"].update(dropout=0.1), "model.dropout"),
    (lambda c: c["model"].update(byte_fallback=True), "model.byte_fallback"),
    (lambda c: c["model"].update(continuing_subword_prefix="##"), "model.continuing_subword_prefix"),
    (lambda c: c["model"].update(end_of_word_suffix="</w>"), "model.end_of_word_suffix"),
    (lambda c: (c["model"].update(unk_token="<unk>"), c["model"]["vocab"].pop("Ā")), "unk_token"),
    (lambda c: c["added_tokens"][1].update(lstrip=True), "lstrip on the added token '<|a b|>'"),
    (lambda c: c["added_tokens"][1].update(rstrip=True), "rstrip"),
    (lambda c: c["added_tokens"][1].update(single_word=True), "single_word"),
    (lambda c: c["added_tokens"][1].update(id=77), "'<|a b|>' the id 77"),
    (
        lambda c: c["added_tokens"].append({"id": 500, "content": "b|><|", "normalized": True}),
        "'normalized' on the added token 'b|><|'",
    ),
    (lambda c: c["added_tokens"].append({"content": "<x>"}), "no content or id"),
    (lambda c: c.update(added_tokens={}) or c.update(added_tokens={"a": 1}), "'added_tokens' should be a list"),
    (lambda c: c.pop("model"), "no object 'model'"),
    (lambda c: c["model"].pop("vocab"), "no object 'model.vocab'"),
    (lambda c: c["model"].pop("merges"), "no list 'model.merges'"),
    (lambda c: c["model"]["merges"].append("t h e"), "'t h e', not a merge"),
    (lambda c: c["model"]["merges"].append(["t", 1]), "not a merge"),
    (lambda c: c["model"]["merges"].append("q z"), "needs the token 'qz'"),
    (lambda c: c["model"]["merges"].append(c["model"]["merges"][0]), "given twice"),
    (lambda c: c["model"]["vocab"].update({"new": 5}), "the id 5 to two tokens"),
    (lambda c: c["model"]["vocab"].update({"new": "5"}), "the id '5'"),
    (lambda c: c["model"]["vocab"].update({"new": True}), "the id True"),
    (lambda c: c["model"]["vocab"].update({"new": 1 << 40}), "the id 1099511627776"),
    (lambda c: c["model"]["vocab"].update({"▁new": 900}), "'▁new'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_changes_ids_is_refused_by_name(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Tokenizer.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_tokens_that_cannot_be_written_apart_are_refused(tmp_path: Path) -> None:
    # "éé" is how the two bytes E9 E9 are written; as a special token it reads the same.
    vocab = {**{i: bytes([i]) for i in range(256)}, 256: b"\xe9\xe9"}
    tokenizer = Tokenizer(vocab, [(b"\xe9", b"\xe9")], ["éé"])
    with pytest.raises(UserError, match="ids 256 and 257 would both be written 'éé'"):
        tokenizer.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model": ', "not valid JSON"),
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b"\xff\xfe", "not UTF-8: byte 0"),
        (b"[1]", "holds a JSON list"),
        (b'{"model": 1, "model": 2}', "the key 'model' twice"),
        (b"", "not valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_files_that_are_not_json_objects_are_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Tokenizer.from_pretrained(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_vocab_and_merges_that_are_malformed_are_told(tmp_path: Path) -> None:
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    tokenizer = Tokenizer({**{i: bytes([i]) for i in range(256)}, 256: b"th"}, [(b"t", b"h")])
    tokenizer.save_files(vocab, merges)

    def told(message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            Tokenizer.from_files(vocab, merges)

    merges.write_text("#version: 0.2\nt h\nthe\n")
    told(f"{merges}, line 3, is 'the', not a merge")
    merges.write_text("t h\n\nt e\n")
    told(f"{merges}: merge 2, 't e', needs the token 'te'")
    merges.write_bytes(b"t h\n\xff")
    told(f"{merges} is not UTF-8: byte 4")
    merges.unlink()
    told(f"{merges} is missing")
    vocab.write_text('{"a": 1, "b": 1}')
    told(f"{vocab} gives the id 1 to two tokens, 'a' and 'b'")
    vocab.write_text('{"a b": 1}')
    told("name it in special_tokens")
    vocab.write_text('{"": 1}')
    told("holds the token ''")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        Tokenizer.from_files(tmp_path, merges)


def test_places_without_a_tokenizer_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither tokenizer"):
        Tokenizer.from_pretrained(tmp_path)
    for name in (tmp_path / "no.json", tmp_path / "nothing" / "here", "a name", "", "a/b/c"):
        with pytest.raises(UserError, match=r"is missing; give a folder|holds neither"):
            Tokenizer.from_pretrained(name)


def test_a_save_that_fails_leaves_the_old_file(folder: Path) -> None:
    before = (folder / "tokenizer.json").read_bytes()
    program = (
        "import resource, signal, sys; from linnet.tokenizer import Tokenizer;"
        "tokenizer = Tokenizer.from_pretrained(sys.argv[1]);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "tokenizer.save(sys.argv[1])"
    )
    done = _python(program, str(folder))
    assert done.returncode == 1
    assert "UserError" in done.stderr
    assert "tokenizer.json cannot be written: File too large" in done.stderr
    assert (folder / "tokenizer.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_saved_files_have_the_usual_permissions(folder: Path) -> None:
    (folder / "other").write_text("")
    assert (folder / "tokenizer.json").stat().st_mode == (folder / "other").stat().st_mode


def _python(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(linnet.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": source, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_name_is_taken_from_the_cache_and_missing_ones_are_told(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    for name, files in {"some--model": ["tokenizer.json"], "older--model": ["vocab.json", "merges.txt"]}.items():
        snapshot = tmp_path / "hub" / f"models--{name}" / "snapshots" / ("0" * 40)
        trained().save(snapshot)
        trained().save_files(snapshot / "vocab.json", snapshot / "merges.txt")
        for path in snapshot.iterdir():
            if path.name not in files:
                path.unlink()
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    program = (
        "import sys; from linnet.tokenizer import Tokenizer; from linnet.errors import UserError\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(Tokenizer.from_pretrained(name).fingerprint)\n"
        "    except UserError as error: print(error)\n"
    )
    names = ["some/model", "older/model", "no/model"]
    done = _python(program, *names, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    first, second, third = done.stdout.splitlines()
    assert first == second == trained().fingerprint
    assert third.startswith("no/model is not a path here, and could not be fetched: the Hugging Face Hub cannot be")


def test_the_package_imports_neither_torch_nor_the_hub() -> None:
    program = "import sys, linnet.tokenizer; print({'torch', 'huggingface_hub', 'tokenizers'} & set(sys.modules))"
    assert _python(program).stdout == "set()\n"


def test_the_settings_beside_it_name_what_ends_a_text_and_pads_a_batch(tmp_path: Path) -> None:
    every_byte = {byte: bytes([byte]) for byte in range(256)}
    Tokenizer(every_byte, [], ["<|pad|>", "<|endoftext|>"]).save(tmp_path / "two", model_max_length=512)
    settings = json.loads((tmp_path / "two" / "tokenizer_config.json").read_text())
    assert {settings[key] for key in ("bos_token", "eos_token", "pad_token")} == {"<|endoftext|>"}
    assert settings["padding_side"] == "left"
    assert settings["model_max_length"] == 512
    assert "unk_token" not in settings, "every text has ids"
    Tokenizer(every_byte, []).save(tmp_path / "none")
    settings = json.loads((tmp_path / "none" / "tokenizer_config.json").read_text())
    assert not {"bos_token", "eos_token", "pad_token", "padding_side", "model_max_length"} & set(settings)
