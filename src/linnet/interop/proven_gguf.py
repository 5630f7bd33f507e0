"""A GGUF file that gets its name only once llama.cpp computes the same from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from linnet.durable import sync_directory
from linnet.errors import UserError
from linnet.interop.gguf import GGUFReport, export_gguf
from linnet.interop.unproven import Unproven
from linnet.model import TransformerLM
from linnet.new_directory import refuse_existing
from linnet.tokenizer import Tokenizer

if TYPE_CHECKING:
    from linnet.interop.parity import ParityReport


@dataclass(frozen=True)
class ProvenGGUF:
    """A file that was written and what llama.cpp made of it; `report` is None where llama.cpp is not installed."""

    written: GGUFReport
    report: ParityReport | None


def export_proven_gguf(
    model: TransformerLM,
    tokenizer: Tokenizer,
    file: Path,
    dtype: str = "f16",
    *,
    name: str | None = None,
    description: str | None = None,
    force: bool = False,
    progress: Callable[..., None] | None = None,
) -> ProvenGGUF:
    """Write `file` as `export_gguf` does, and compare llama.cpp with `model` where llama-cpp-python is installed.

    Args:
        file: does not exist yet; its directory is made if absent.
        force: keep what is not proven too.
        progress: called as (description, done, total, unit).

    Raises:
        UserError: llama.cpp cannot follow the model or does not compute the same, or something lies at `file`. Nothing
            is left behind.
    """
    refuse_existing(file)
    if file.is_dir():
        raise UserError(f"{file}: is a directory: give the name of a file")
    file.parent.mkdir(parents=True, exist_ok=True)
    beginning = f".{file.name}.unproven-"
    for leftover in list(file.parent.iterdir()):
        if leftover.name.startswith(beginning):
            leftover.unlink()
    aside = file.with_name(f"{beginning}{os.getpid()}")

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("writing tensors", done, total, "tensors")

    try:
        written = export_gguf(model, tokenizer, aside, dtype, name=name, description=description, progress=told)
        report = _compared(model, tokenizer, aside, str(file), progress) if find_spec("llama_cpp") is not None else None
        if report is not None and not report.proven and not force:
            raise Unproven(report)
        if report is not None and not report.proven:
            mark = f"UNPROVEN: {report.findings[0].replace(str(aside), file.name)}"
            written = export_gguf(model, tokenizer, aside, dtype, name=name, description=mark)
        aside.replace(file)
        sync_directory(file.parent)
    except Unproven:
        raise
    except UserError as error:
        raise UserError(str(error).replace(str(aside), str(file))) from error
    finally:
        aside.unlink(missing_ok=True)
    return ProvenGGUF(replace(written, file=file), report)


def _compared(
    model: TransformerLM,
    tokenizer: Tokenizer,
    written: Path,
    description: str,
    progress: Callable[..., None] | None,
) -> ParityReport:
    from linnet.interop.parity import LinnetSide, LlamaCppSide, compare

    ours, theirs = LinnetSide(model, tokenizer, "the model"), LlamaCppSide(written, description)
    return compare(ours, theirs, progress=progress)
