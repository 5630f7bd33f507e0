"""A model and its tokenizer in Hugging Face's format, published only once transformers computes the same from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linnet.config import to_huggingface
from linnet.durable import write_durably
from linnet.errors import UserError
from linnet.interop.facts import TrainingFacts
from linnet.interop.markdown import fenced
from linnet.interop.model_card import CardForm, CardSubject, check_license, model_card
from linnet.interop.rows import hf_tensors
from linnet.interop.safetensors_shards import MOST_SHARD_BYTES, weight_type, write_weights
from linnet.interop.unproven import Unproven, need_transformers, transformers_is_installed
from linnet.model import TransformerLM
from linnet.new_directory import new_directory
from linnet.text_files import write_json
from linnet.tokenizer import Tokenizer

if TYPE_CHECKING:
    from linnet.interop.parity import ParityReport


@dataclass(frozen=True)
class HFExport:
    """What an export wrote.

    Attributes:
        directory: where.
        files: bytes of each file in it, by name.
        dtype: of the weights.
        report: how transformers compared; None where it could not be asked and that was forced.
    """

    directory: Path
    files: Mapping[str, int]
    dtype: str
    report: ParityReport | None


def export_hf(
    model: TransformerLM,
    tokenizer: Tokenizer,
    directory: str | Path,
    dtype: str = "bfloat16",
    *,
    name: str | None = None,
    max_shard_bytes: int = MOST_SHARD_BYTES,
    facts: TrainingFacts | None = None,
    license: str = "unknown",
    repository: str | None = None,
    force: bool = False,
    progress: Callable[..., None] | None = None,
) -> HFExport:
    """Write a model that `AutoModelForCausalLM` and `AutoTokenizer` load, and prove that they load the same model.

    It is written aside, loaded by transformers and compared with `model`; only then does it get its name.

    Args:
        model: on any device.
        tokenizer: its tokenizer.
        directory: does not exist yet, or is empty.
        dtype: of the weights: float32, bfloat16, float16, or short bf16, fp16, fp32.
        name: the model card's heading.
        max_shard_bytes: of tensors in one file.
        facts: of the training, for the model card.
        license: an identifier of the Hub's, such as apache-2.0.
        repository: on the Hub, `owner/name`, where that is known; the model card then loads it from there.
        force: write what is not proven too; the model card says so at its top.
        progress: called as (description, done, total, unit).

    Raises:
        UserError: transformers has no such model or does not compute the same from it, is not installed, weights are
            too great for `dtype`, or something lies at `directory`. Nothing is left behind.
    """
    dtype = weight_type(dtype)
    check_license(license)
    refuse_small_vocabulary(model, tokenizer)
    config = huggingface_config(model, tokenizer, dtype)
    if not force:
        need_transformers("an export is compared with transformers before it is published")
    with new_directory(Path(directory)) as aside:
        write_weights(aside, hf_tensors(model), dtype, max_shard_bytes=max_shard_bytes, progress=progress)
        write_json(aside / "config.json", config)
        write_json(aside / "generation_config.json", _generation_config(tokenizer))
        tokenizer.save(aside, model_max_length=model.config.max_position_embeddings)
        report, unproven = _prove(model, tokenizer, aside, str(directory), force, progress)
        subject = CardSubject(
            name=name or "A small language model",
            config=model.config,
            parameters=parameter_count(model),
            tokenizer=tokenizer,
            dtype=dtype,
            license=license,
            form=CardForm("transformers", (config["model_type"],), _use(repository)),
        )
        write_durably(aside / "README.md", model_card(subject, facts, report, unproven=unproven))
        files = sizes_in(aside)
    return HFExport(Path(directory), files, dtype, report)


def huggingface_config(model: TransformerLM, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    """The whole config.json of a model whose weights are stored as `dtype`.

    Raises:
        UserError: no model of transformers computes what this one does.
    """
    return {
        **to_huggingface(model.config),
        # Written where they are None too, because LlamaConfig has defaults of its own. No pad_token_id: transformers
        # would not train the embedding of that token, and it is the end of text.
        "bos_token_id": tokenizer.eos_id,
        "eos_token_id": tokenizer.eos_id,
        "torch_dtype": dtype,  # transformers 4
        "dtype": dtype,  # transformers 5
    }


def parameter_count(model: TransformerLM) -> int:
    """Parameters of `model`, a tied head counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def refuse_small_vocabulary(model: TransformerLM, tokenizer: Tokenizer) -> None:
    """Raise UserError if `tokenizer` has ids that `model` lacks."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the model only {model.config.vocab_size}: "
            "they do not belong together"
        )


def sizes_in(directory: Path) -> dict[str, int]:
    """Bytes of each file in `directory` and below, by its path there."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.stat().st_size for path in files}


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Ids alone: how boldly to sample is for whoever calls `generate`, which is greedy unless told otherwise."""
    end = tokenizer.eos_id
    return {} if end is None else {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}


def _prove(
    model: TransformerLM,
    tokenizer: Tokenizer,
    written: Path,
    description: str,
    force: bool,
    progress: Callable[..., None] | None,
) -> tuple[ParityReport | None, tuple[str, ...]]:
    """The comparison, and why the export is not proven if it is not.

    Raises:
        UserError: it is not, and nobody forced it.
    """
    if not transformers_is_installed():
        return None, ("transformers was not installed, so nothing was compared.",)
    from linnet.interop.parity import LinnetSide, TransformersSide, compare

    ours, theirs = LinnetSide(model, tokenizer, "the model"), TransformersSide(written, description)
    report = compare(ours, theirs, progress=progress)
    if report.proven:
        return report, ()
    if not force:
        raise Unproven(report)
    return report, tuple(finding.replace(str(written), "the export") for finding in report.findings)


def _use(repository: str | None) -> str:
    place = repository or "path/to/this/directory"
    code = f'''from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForCausalLM.from_pretrained("{place}")
prompt = tokenizer("Once upon a time", return_tensors="pt")
text = model.generate(**prompt, max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95)
print(tokenizer.decode(text[0], skip_special_tokens=True))'''
    command = f'linnet generate {place} --prompt "Once upon a time" --temperature 0.8 --top-p 0.95'
    return f"{fenced(code, 'python')}\n\n{fenced(command, 'sh')}"
