"""A directory in Hugging Face's format as transformers computes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linnet.config import from_huggingface
from linnet.errors import UserError
from linnet.interop.checkpoint_files import stored_tensors
from linnet.interop.huggingface import checked
from linnet.interop.parity.side import EMBEDDING, HEAD
from linnet.interop.parity.torch_side import TorchSide
from linnet.tokenizer import Tokenizer

VERY_LARGE = 2**62
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json")


class TransformersTokenizer:
    """A tokenizer of transformers as one side of a comparison; see `TokenizerFace`.

    Args:
        tokenizer: as AutoTokenizer gives it.
        stops: the ids at which `generate` stops by the model's generation_config.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[int]) -> None:
        # transformers warns of every text that is longer than the model's context.
        tokenizer.model_max_length = VERY_LARGE
        self._tokenizer, self._stops = tokenizer, stops
        self.differs_on = None

    @property
    def special_ids(self) -> Mapping[str, int]:
        """See `TokenizerFace`."""
        added: dict[str, int] = self._tokenizer.get_added_vocab()
        return added

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """See `TokenizerFace`."""
        own = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        return tuple(dict.fromkeys([*own, *self._stops]))

    @property
    def size(self) -> int:
        """See `TokenizerFace`."""
        return 1 + max(self.vocabulary().values(), default=-1)

    def encode(self, text: str) -> list[int]:
        """See `TokenizerFace`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `TokenizerFace`."""
        text: str = self._tokenizer.decode(list(ids))
        return text

    def vocabulary(self) -> Mapping[str, int]:
        """See `TokenizerFace`."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    def merges(self) -> Sequence[str]:
        """See `TokenizerFace`."""
        listed = json.loads(self._tokenizer.backend_tokenizer.to_str())["model"].get("merges", [])
        return [merge if isinstance(merge, str) else " ".join(merge) for merge in listed]


class TransformersSide(TorchSide):
    """A directory in Hugging Face's format, in transformers.

    transformers reads it only after linnet's own reading has accepted it; no code of the directory's runs.

    Args:
        directory: with config.json and weights, and a tokenizer or none.
        description: which model this is, for people; None: the directory.

    Raises:
        UserError: linnet refuses the directory, or transformers is not installed.
    """

    def __init__(self, directory: Path, description: str | None = None) -> None:
        transformers = _transformers()
        _refuse_adapter(directory)
        checked(directory)
        if has_tokenizer(directory):
            Tokenizer.from_pretrained(directory)
        try:
            with _quiet(transformers):
                module, loading, tokenizer = _read(transformers, directory)
        except Exception as error:  # whatever a library of this size may raise for a file it does not like
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{directory}: linnet reads it, but transformers does not: {first}") from error
        config = from_huggingface(module.config.to_dict(), f"{directory / 'config.json'} in transformers")
        super().__init__(
            module,
            config,
            f"{description or directory} in transformers",
            storage=storage_of(directory, config.tie_word_embeddings),
            versions={"transformers": transformers.__version__, "torch": torch.__version__},
            tokenizer=tokenizer,
            faults=tuple(loading_faults(loading)),
        )

    def tensors(self) -> Mapping[str, Tensor]:
        """See `Side.tensors`."""
        tied = self.config.tie_word_embeddings
        return {
            name: tensor.detach().cpu()
            for name, tensor in self.module.state_dict().items()
            if not (tied and name == HEAD)
        }

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """See `Side.greedy`. A loop of its own, for the directory's generation_config may ask for something else."""
        made: list[int] = []
        unread, cache = torch.tensor([list(ids)], device=self._device), None
        with torch.inference_mode():
            for _ in range(count):
                output = self.module(unread, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = output.past_key_values
                unread = output.logits[:, -1].argmax(dim=-1, keepdim=True)
                made.append(int(unread))
        return made

    def _compute(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        kept = 0 if positions is None else positions.to(ids.device)
        logits: Tensor = self.module(ids, use_cache=False, logits_to_keep=kept).logits
        return logits


def _read(transformers: Any, directory: Path) -> tuple[Any, Mapping[str, Any], TransformersTokenizer | None]:
    module, loading = transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation="sdpa",  # also where the config names a kernel that would have to be fetched
        output_loading_info=True,
    )
    if not has_tokenizer(directory):
        return module, loading, None
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    return module, loading, TransformersTokenizer(tokenizer, _stops(module))


def has_tokenizer(directory: Path) -> bool:
    """Whether `directory` holds a tokenizer of any kind."""
    return any((directory / name).exists() for name in TOKENIZER_FILES)


def storage_of(directory: Path, tied: bool) -> dict[str, str]:
    """The type in which each tensor of `directory` is kept.

    Args:
        directory: in Hugging Face's format.
        tied: leave out a head that is the embedding.
    """
    kinds = {name: _kind(tensor.dtype) for name, tensor in stored_tensors(directory).items()}
    if tied and EMBEDDING in kinds:
        kinds.pop(HEAD, None)
    return kinds


def loading_faults(loading: Mapping[str, Any]) -> Iterator[str]:
    """What transformers says of tensors that it did not find or did not know, one clause each."""
    for name in sorted(loading.get("missing_keys") or ()):
        yield f"{name} is missing, so transformers draws it at random"
    for name in sorted(loading.get("unexpected_keys") or ()):
        if "rotary_emb" not in name:
            yield f"{name} is unknown to transformers, which leaves it out"
    for key in loading.get("mismatched_keys") or ():
        yield f"{key[0]} has another shape than transformers wants, so it draws it at random"


def _kind(dtype: torch.dtype) -> str:
    # float64 is rounded by every reader, eight bits are widened by every reader: both are float32 from then on.
    return str(dtype).removeprefix("torch.") if dtype in (torch.bfloat16, torch.float16) else "float32"


def _stops(module: Any) -> list[int]:
    stops = module.generation_config.eos_token_id if module.generation_config is not None else None
    return [] if stops is None else [stops] if isinstance(stops, int) else list(stops)


def _refuse_adapter(directory: Path) -> None:
    if (directory / "adapter_config.json").exists():
        raise UserError(
            f"{directory}: holds adapter_config.json, and transformers would add that adapter to the model: "
            "merge it into the weights, or move the file away"
        )


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "computing a model in Hugging Face's format independently needs transformers: pip install 'linnet[hf]'"
        ) from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars and no warnings of transformers' in the block."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
