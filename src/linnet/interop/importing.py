"""A model of others into a directory of one's own: read strictly, proven against transformers, copied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from linnet.config import ModelConfig
from linnet.durable import sync_file, write_durably
from linnet.errors import UserError
from linnet.interop.huggingface import KeyReport, load_hf, load_hf_model
from linnet.interop.safetensors_shards import DTYPES, write_weights
from linnet.interop.unproven import Unproven, need_transformers, transformers_is_installed
from linnet.model import TransformerLM
from linnet.new_directory import new_directory
from linnet.tokenizer import Tokenizer

if TYPE_CHECKING:
    from linnet.interop.parity import ParityReport

PROOF = "parity.json"
# Data that makes a model, and what goes beside it; no code.
_MAKING = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_BESIDE = ("chat_template.jinja", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")


@dataclass(frozen=True)
class Import:
    """What an import wrote.

    Attributes:
        directory: where.
        config: of the model.
        files: bytes of each file there, by name.
        report: how transformers compared; None where it could not be asked and that was forced.
    """

    directory: Path
    config: ModelConfig
    files: dict[str, int]
    report: ParityReport | None


def import_hf(
    source: Path,
    out: Path,
    keys: KeyReport,
    *,
    force: bool = False,
    progress: Callable[..., None] | None = None,
) -> Import:
    """Copy the model in `source` to `out`, once linnet and transformers are proven to compute the same from it.

    Files of safetensors are copied as they are, `.bin` files written anew as safetensors. The comparison is kept beside
    them in `parity.json`.

    Args:
        source: a directory in Hugging Face's format.
        out: does not exist yet, or is empty.
        keys: what `inspect_hf` found in `source`.
        force: copy what is not proven too; `parity.json` says so.
        progress: called as (description, done, total, unit).

    Raises:
        UserError: linnet does not read it or does not compute the same, or transformers is not installed. Nothing is
            left behind.
    """
    if not force:
        need_transformers("an import is compared with transformers before it is kept")
    with new_directory(out) as aside:
        model, tokenizer = load_hf(source)
        report = _compared(model, tokenizer, source, progress)
        if report is not None and not report.proven and not force:
            raise Unproven(report)
        if keys.safetensors:
            names = [*keys.files, *_MAKING, *_BESIDE]
        else:
            write_weights(aside, model.state_dict(), _one_dtype(keys), progress=progress)
            names = [*_MAKING, *_BESIDE]
        for name in names:
            if (source / name).is_file() and (name not in _BESIDE or _is_its_own(source, name)):
                _copy(source / name, aside / name)
        proof = {"source": source.name, "keys": asdict(keys), "parity": None if report is None else report.as_json()}
        write_durably(aside / PROOF, json.dumps(proof, indent=2, ensure_ascii=False) + "\n")
        _refuse_unequal(model, aside)
        files = {path.name: path.stat().st_size for path in sorted(aside.iterdir())}
    return Import(out, model.config, files, report)


def _compared(
    model: TransformerLM, tokenizer: Tokenizer, source: Path, progress: Callable[..., None] | None
) -> ParityReport | None:
    if not transformers_is_installed():
        return None
    from linnet.interop.parity import LinnetSide, TransformersSide, compare
    from linnet.interop.parity.transformers_side import storage_of

    storage = storage_of(source, model.config.tie_word_embeddings)
    ours = LinnetSide(model, tokenizer, str(source), storage=storage)
    return compare(ours, TransformersSide(source), progress=progress)


def _one_dtype(keys: KeyReport) -> str:
    """The type that loses nothing of what linnet has read, which is float32 where a checkpoint mixes types."""
    (only, *others) = keys.dtypes
    return only if not others and only in DTYPES else "float32"


def _is_its_own(source: Path, name: str) -> bool:
    """Whether a file of `source` lies there, or in the Hub's cache around it, rather than being a link elsewhere."""
    blobs = source.resolve().parent.parent / "blobs"
    return (source / name).resolve().parent in (source.resolve(), blobs)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        sync_file(written)


def _refuse_unequal(model: TransformerLM, written: Path) -> None:
    """A last look: what stands in the new directory is what was proven."""
    again = load_hf_model(written)
    same = again.config == model.config and all(
        torch.equal(ours.view(torch.int32), theirs.view(torch.int32))  # bit for bit, NaN too
        for ours, theirs in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    if not same:
        raise UserError(f"{written}: does not hold what was read: the source changed, or the disk is at fault")
