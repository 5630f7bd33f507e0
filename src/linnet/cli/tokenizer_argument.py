"""TOKENIZER on the command line: a run, a directory, a file or a name on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.tokenizer import Tokenizer

KINDS = "a run, a directory with tokenizer.json, a tokenizer.json, a .tiktoken file or a name on the Hub"
_RANKS = (".tiktoken", ".model")


def says_too_little(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options `pattern` and `special`, for files that do not say all that `load_tokenizer` has to know."""
    command = click.option(
        "--special",
        multiple=True,
        metavar="TEXT[=ID]",
        help="Special token of a .tiktoken file, where it has one; may be repeated. Without ID: the next free one.",
    )(command)
    return click.option(
        "--pattern",
        help="How text is cut, for a .tiktoken file, or vocab.json and merges.txt [gpt2], which do not say: gpt2, "
        "smollm, gpt4 (also called cl100k or llama3), o200k, or a regular expression.",
    )(command)


def load_tokenizer(name: str, pattern: str | None = None, special: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer that `name` leads to.

    Args:
        name: a run or prepared data, which keep theirs in `tokenizer/`; a directory with tokenizer.json or with
            vocab.json and merges.txt; a tokenizer.json; a .tiktoken file; a name on the Hub.
        pattern: for files that do not say it.
        special: special tokens of a .tiktoken file, each as TEXT or TEXT=ID.

    Raises:
        UserError: if there is no tokenizer, or an option is missing or of no use.
    """
    from linnet.tokenizer import Tokenizer

    path = Path(name).expanduser()
    if _is_ranks(name):
        if pattern is None:
            raise UserError(f"{name}: does not say how text is cut into pre-tokens: give --pattern, such as gpt4")
        return Tokenizer.from_tiktoken(path, pattern, _special_tokens(special))
    _refuse_useless([name], pattern, special)
    if path.is_dir():
        home = _home(path)
        return Tokenizer.from_pretrained(home) if pattern is None else _from_pair(home, pattern)
    if path.exists() and not _may_be_json(path):
        raise UserError(f"{name}: is no tokenizer: give {KINDS}")
    return Tokenizer.from_pretrained(path if path.exists() else name)


def load_tokenizers(
    names: Iterable[str], pattern: str | None = None, special: Sequence[str] = ()
) -> dict[str, Tokenizer]:
    """Several by name; the options go to those of them that need them.

    Raises:
        UserError: as `load_tokenizer` does, and for a name that is given twice.
    """
    listed = list(names)
    _refuse_useless(listed, pattern, special)
    found: dict[str, Tokenizer] = {}
    for name in listed:
        if name in found:
            raise UserError(f"{name}: is given twice: name each tokenizer once")
        found[name] = load_tokenizer(
            name, pattern if _lacks_pattern(name) else None, special if _is_ranks(name) else ()
        )
    return found


def _is_ranks(name: str) -> bool:
    return name.endswith(_RANKS)


def _is_pair(path: Path) -> bool:
    return (path / "vocab.json").exists() and not (path / "tokenizer.json").exists()


def _lacks_pattern(name: str) -> bool:
    return _is_ranks(name) or _is_pair(_home(Path(name).expanduser()))


def _refuse_useless(names: Sequence[str], pattern: str | None, special: Sequence[str]) -> None:
    shown = ", ".join(names)
    if pattern is not None and not any(map(_lacks_pattern, names)):
        raise UserError(f"{shown}: the files say how text is cut into pre-tokens: leave --pattern out")
    if special and not any(map(_is_ranks, names)):
        raise UserError(f"{shown}: the files say which tokens are special: leave --special out")


def _special_tokens(given: Sequence[str]) -> dict[str, int] | list[str]:
    found: dict[str, int] = {}
    for entry in given:
        text, equals, id = entry.rpartition("=")
        if equals and text and id.isdecimal() and id.isascii():
            found[text] = int(id)
    if found and len(found) < len(given):
        raise UserError("--special gives some tokens an id and others none: give each one, or none")
    return found or list(given)


def _from_pair(folder: Path, pattern: str) -> Tokenizer:
    from linnet.tokenizer import Tokenizer
    from linnet.tokenizer.vocab_files import read_vocab_folder

    return Tokenizer(*read_vocab_folder(folder), pattern=pattern)


def _home(path: Path) -> Path:
    """Where in the directory `path` the tokenizer's files are."""
    if not path.is_dir() or any((path / name).exists() for name in ("tokenizer.json", "vocab.json")):
        return path
    if (path / "tokenizer").is_dir():
        return path / "tokenizer"
    if (path / "config.yaml").exists():
        raise UserError(f"{path}: is a run that has no tokenizer yet: `linnet train` makes it before the first step")
    return path


def _may_be_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def refuse_to_overwrite(out: Path, inputs: Iterable[str]) -> None:
    """Raises UserError where `out` is one of the files that the command reads, or lies in a directory that it reads."""
    for name in inputs:
        path = Path(name)
        if path.is_file() and path.resolve() == out.resolve():
            raise UserError(f"{out}: is read by this command: give another name to write to")
        if path.is_dir() and out.exists() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{out}: is part of {path}, which this command reads: give another name to write to")
