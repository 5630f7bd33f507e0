"""What `linnet export` does for each format: where it writes by default, in which types, and what it has to tell."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from linnet import __version__
from linnet.cli.progress import Report, amount
from linnet.interop.export_huggingface import HFExport, export_hf, parameter_count, sizes_in
from linnet.interop.export_weights import export_weights
from linnet.interop.facts import TrainingFacts
from linnet.interop.gguf.storage import check_dtype
from linnet.interop.markdown import fenced
from linnet.interop.model_card import CardForm, CardSubject, model_card
from linnet.interop.proven_gguf import export_proven_gguf
from linnet.interop.safetensors_shards import weight_type
from linnet.interop.space import write_space
from linnet.new_directory import new_directory
from linnet.train import StoredModel

if TYPE_CHECKING:
    from linnet.interop.parity import ParityReport

PROMPT = "Once upon a time"


@dataclass(frozen=True)
class Request:
    """An export that was asked for.

    Attributes:
        name: of the model, for headings.
        out: where to.
        repository: on the Hub, if it is to go there.
    """

    loaded: StoredModel
    name: str
    out: Path
    dtype: str
    license: str
    max_shard_bytes: int
    force: bool
    repository: str | None
    facts: TrainingFacts | None
    progress: Report


@dataclass(frozen=True)
class Written:
    """An export that was made.

    Attributes:
        path: where it lies.
        files: bytes of each file, by name.
        report: how another implementation compared, if one did.
        lines: what else there is to tell.
        warnings: what a person should know before trusting it.
        next: commands to try.
        to_push: what goes to the Hub, by its name there.
        kind: of the repository there.
    """

    path: Path
    files: Mapping[str, int]
    report: ParityReport | None
    next: tuple[str, ...]
    to_push: Mapping[str, Path | bytes]
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    kind: Literal["model", "space"] = "model"


@dataclass(frozen=True)
class Format:
    """One way to write a model.

    Attributes:
        dtype: of the weights, where none is given.
        spell: the proper name of a dtype.
        place: where in a run's `export` directory, from the run's name and the dtype.
    """

    write: Callable[[Request], Written]
    dtype: str
    spell: Callable[[str], str]
    place: Callable[[str, str], str]


def write_huggingface(request: Request) -> Written:
    """The model in Hugging Face's format."""
    export = _export_hf(request, request.out, request.repository)
    place = shlex.quote(str(request.out))
    load = f"from transformers import pipeline; print(pipeline('text-generation', {str(request.out)!r})({PROMPT!r}))"
    python = f'python -c "{load}"' if not set('"$`\\!') & set(load) else f"python -c {shlex.quote(load)}"
    return Written(
        path=request.out,
        files=export.files,
        report=export.report,
        next=(f"linnet generate {place} --prompt {shlex.quote(PROMPT)}", python),
        to_push=_files_below(request.out, export.files),
    )


def write_space_folder(request: Request) -> Written:
    """A Space around the model in Hugging Face's format."""
    with new_directory(request.out) as aside:
        export = _export_hf(request, aside / "model", None)
        write_space(
            aside,
            title=request.name,
            license=request.license,
            example_prompt=_example_prompt(request),
            facts=_told_in_space(request, export.report),
        )
        files = sizes_in(aside)
    place = shlex.quote(str(request.out))
    return Written(
        path=request.out,
        files=files,
        report=_of(export.report, aside, request.out),
        next=(f"cd {place} && pip install -r requirements.txt && python app.py",),
        to_push=_files_below(request.out, files),
        kind="space",
    )


def write_gguf(request: Request) -> Written:
    """One file for llama.cpp."""
    loaded, file = request.loaded, request.out
    export = export_proven_gguf(
        loaded.model,
        loaded.tokenizer,
        file,
        request.dtype,
        name=request.name,
        force=request.force,
        progress=request.progress,
    )
    unproven = export.report.findings if export.report is not None and not export.report.proven else ()
    warnings = (*export.written.differences, *([export.written.note] if export.written.note else []))
    note = "Its tensors and vocabulary were read back from the file and are the model's own."
    if export.report is None:
        warnings = (*warnings, "not run in llama.cpp, only read back: pip install 'linnet[llama-cpp]'")
        note += " It was not run in llama.cpp."
    command = f"llama-cli -m {shlex.quote(str(file))} -p {shlex.quote(PROMPT)} -n 100"
    form = CardForm("gguf", ("gguf", "llama.cpp"), fenced(f'llama-cli -m {file.name} -p "{PROMPT}" -n 100', "sh"))
    card = model_card(_subject(request, form), request.facts, export.report, unproven=unproven, note=note)
    return Written(
        path=file,
        files={file.name: export.written.size},
        report=export.report,
        next=(command,),
        to_push={file.name: file, "README.md": card.encode()},
        warnings=warnings,
    )


def write_weights(request: Request) -> Written:
    """Weights for inference and nothing else, with what they take beside what the checkpoint takes."""
    loaded = request.loaded
    export = export_weights(
        loaded.model,
        loaded.tokenizer,
        request.out,
        request.dtype,
        max_shard_bytes=request.max_shard_bytes,
        progress=request.progress,
    )
    command = f"linnet generate {shlex.quote(str(request.out))} --prompt {shlex.quote(PROMPT)}"
    place = request.repository or "path/to/this/directory"
    form = CardForm("linnet", (), fenced(f'linnet generate {place} --prompt "{PROMPT}"', "sh"))
    note = f"All {export.tensors} tensors were read back from the files, bit for bit."
    card = model_card(_subject(request, form), request.facts, None, note=note)
    return Written(
        path=request.out,
        files=export.files,
        report=None,
        next=(command,),
        to_push={**_files_below(request.out, export.files), "README.md": card.encode()},
        lines=(*_sizes(loaded, export.files), f"all {export.tensors} tensors read back bit for bit"),
    )


def _gguf_type(name: str) -> str:
    long_names = {"float32": "f32", "fp32": "f32", "float16": "f16", "fp16": "f16", "bfloat16": "bf16"}
    dtype = long_names.get(name, name)
    check_dtype(dtype)
    return dtype


FORMATS = {
    "hf": Format(write_huggingface, "bfloat16", weight_type, lambda name, dtype: "hf"),
    "gguf": Format(write_gguf, "f16", _gguf_type, lambda name, dtype: f"{name}-{dtype}.gguf"),
    "space": Format(write_space_folder, "bfloat16", weight_type, lambda name, dtype: "space"),
    "weights": Format(write_weights, "float32", weight_type, lambda name, dtype: "weights"),
}


def _export_hf(request: Request, directory: Path, repository: str | None) -> HFExport:
    return export_hf(
        request.loaded.model,
        request.loaded.tokenizer,
        directory,
        request.dtype,
        name=request.name,
        max_shard_bytes=request.max_shard_bytes,
        facts=request.facts,
        license=request.license,
        repository=repository,
        force=request.force,
        progress=request.progress,
    )


def _subject(request: Request, form: CardForm) -> CardSubject:
    loaded = request.loaded
    return CardSubject(
        name=request.name,
        config=loaded.model.config,
        parameters=parameter_count(loaded.model),
        tokenizer=loaded.tokenizer,
        dtype=request.dtype,
        license=request.license,
        form=form,
    )


def _of(report: ParityReport | None, aside: Path, place: Path) -> ParityReport | None:
    """`report` on what was `aside` and is at `place` now."""
    return None if report is None else replace(report, second=report.second.replace(str(aside), str(place)))


def _files_below(directory: Path, names: Mapping[str, int]) -> dict[str, Path | bytes]:
    return {name: directory / name for name in names}


def _example_prompt(request: Request) -> str:
    prompt = request.loaded.config.train.sample_prompt if request.loaded.config is not None else ""
    return prompt or PROMPT


def _told_in_space(request: Request, report: ParityReport | None) -> dict[str, str]:
    facts, told = request.facts or TrainingFacts(), {}
    if report is None or not report.proven:
        told["UNPROVEN"] = "this model has not been shown to compute what the trained one computes"
    told["Parameters"] = f"{parameter_count(request.loaded.model):,}"
    if facts.sources:
        told["Trained on"] = ", ".join(facts.sources)
    if facts.tokens_seen is not None:
        told["Tokens trained on"] = f"{facts.tokens_seen:,}"
    if facts.validation_bits_per_byte is not None:
        told["Validation loss"] = f"{facts.validation_bits_per_byte:.4f} bits per byte"
    return {**told, "Made with": f"linnet {__version__}"}


def _sizes(loaded: StoredModel, files: Mapping[str, int]) -> tuple[str, ...]:
    """Before and after: what the checkpoint takes on the disk, and what the export does."""
    after = sum(files.values())
    if loaded.checkpoint is None:
        return (f"after   {amount(after, 'B')}",)
    sizes = sizes_in(loaded.checkpoint)
    before = sum(sizes.values())
    return (
        f"before  {amount(before, 'B')} in {loaded.checkpoint}: weights {amount(sizes['model.safetensors'], 'B')}, "
        f"optimizer {amount(sizes['optimizer.safetensors'], 'B')}",
        f"after   {amount(after, 'B')}, {after / before:.0%} of it",
    )
