"""A prepared data set: tokens, tokenizer and the facts about them, opened from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linnet.data.shards import open_shards
from linnet.data.splits import TRAIN, VALIDATION
from linnet.data.stream import TokenStream
from linnet.errors import UserError
from linnet.text_files import read_json_object
from linnet.tokenizer import Tokenizer

MANIFEST = "dataset.json"
TOKENIZER = "tokenizer"
FORMAT = 1


@dataclass(frozen=True)
class PreparedData:
    """Text made ready for training.

    Args:
        directory: where it lies.
        key: hash of everything that determines the tokens.
        manifest: what `dataset.json` says.
        train: tokens to train on.
        validation: tokens to validate on, if any were kept.
        tokenizer: what made the tokens.
        entropy_nats_per_byte: the loss that no model can beat, where it is known.
    """

    directory: Path
    key: str
    manifest: Mapping[str, Any]
    train: TokenStream
    validation: TokenStream | None
    tokenizer: Tokenizer
    entropy_nats_per_byte: float | None

    @property
    def splits(self) -> dict[str, TokenStream]:
        """The splits that there are, by name."""
        return {TRAIN: self.train} | ({VALIDATION: self.validation} if self.validation is not None else {})

    def verify(self) -> None:
        """Read every token and compare with the checksums.

        Raises:
            UserError: if anything changed since it was written.
        """
        for stream in self.splits.values():
            stream.verify()


def load_prepared(directory: str | Path) -> PreparedData:
    """The prepared data in `directory`.

    Raises:
        UserError: if there is none, or its parts are missing, damaged or do not belong together.
    """
    directory = Path(directory)
    manifest = _read_manifest(directory / MANIFEST)
    try:
        key, entropy = manifest["key"], manifest["entropy_nats_per_byte"]
        fingerprint = manifest["tokenizer"]["fingerprint"]
        splits = {
            name: _open_split(directory, fingerprint, facts["shards"], facts["tokens"])
            for name, facts in manifest["splits"].items()
        }
        train = splits[TRAIN]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{directory / MANIFEST}: is damaged ({error!r}): {_again(directory)}") from error
    tokenizer = Tokenizer.from_pretrained(directory / TOKENIZER)
    if tokenizer.fingerprint != fingerprint:
        raise UserError(f"{directory / TOKENIZER}: is not the tokenizer that made the tokens: {_again(directory)}")
    return PreparedData(directory, key, manifest, train, splits.get(VALIDATION), tokenizer, entropy)


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path.parent}: holds no prepared data (no {path.name}): run `linnet data prepare`")
    try:
        manifest = read_json_object(path)
    except UserError as error:
        raise UserError(f"{path}: is damaged ({str(error).rstrip('.')}): {_again(path.parent)}") from error
    if manifest.get("format") != FORMAT:
        raise UserError(f"{path}: is not of format {FORMAT}: {_again(path.parent)}")
    return manifest


def _open_split(directory: Path, fingerprint: str, names: list[str], tokens: int) -> TokenStream:
    for name in names:
        if Path(name).name != name or name == ".." or (directory / name).is_symlink():
            raise UserError(f"{directory / MANIFEST}: names {name!r}, no file in its directory: {_again(directory)}")
    stream = TokenStream(open_shards([directory / name for name in names]))
    for shard in stream.shards:
        if shard.header.tokenizer_fingerprint != fingerprint:
            raise UserError(f"{shard.path}: was made with another tokenizer: {_again(directory)}")
    if stream.tokens != tokens:
        raise UserError(f"{directory}: its shards hold {stream.tokens} tokens, not {tokens}: {_again(directory)}")
    return stream


def _again(directory: Path) -> str:
    return f"delete {directory} and prepare the data again"
