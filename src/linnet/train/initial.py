"""The weights a run begins with."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from linnet.checkpoint import DamagedCheckpoint
from linnet.config import NOT_THE_FUNCTION, ModelConfig, RunConfig, model_of_source, tokenizer_of
from linnet.data import PreparedData
from linnet.errors import UserError
from linnet.model import TransformerLM
from linnet.tokenizer import Tokenizer
from linnet.train.run_directory import RunDirectory
from linnet.train.stored_model import read_stored_model, weights_sha256

# What may differ from the model that the weights were made for: how it is computed and initialized, how far it reads.
_FREE = NOT_THE_FUNCTION | {"max_position_embeddings"}


def refuse_other_start(config: RunConfig, data: PreparedData) -> None:
    """See that `config` describes the model whose weights it begins with, and that the data is in that model's ids.

    Raises:
        UserError: naming the first setting that differs, or the tokenizer.
    """
    source = config.model.init_from
    if source is None:
        return
    theirs = model_of_source(source)
    for name in ModelConfig.model_fields:
        ours, its = getattr(config.model, name), getattr(theirs, name)
        if name not in _FREE and ours != its:
            raise UserError(
                f"model.{name} is {ours} here and {its} in model.init_from {source}, whose weights would compute "
                "something else: leave it out, and it is taken from there"
            )
    if Tokenizer.from_pretrained(tokenizer_of(Path(source))).fingerprint != data.tokenizer.fingerprint:
        raise UserError(
            f"tokenizer: is not the one that the weights of model.init_from {source} were trained with: "
            "leave the tokenizer section out, and it is taken from there"
        )


def initial_model(config: RunConfig, run: RunDirectory) -> TransformerLM:
    """Drawn at random on the CPU, so the same on every device; or the weights of `model.init_from`.

    The hash of weights that came from elsewhere is kept in the run's provenance.

    Raises:
        UserError: if they are not there, or damaged.
    """
    source = config.model.init_from
    if source is None:
        return TransformerLM(config.model)
    begin = read_stored_model(Path(source), _refuse)
    model = TransformerLM.from_tensors(config.model, begin.model.state_dict())
    origin = {"source": source, "description": begin.description, "weights_sha256": weights_sha256(model)}
    run.write_provenance({**run.provenance(), "init_from": origin})
    return model


def _refuse(damage: DamagedCheckpoint) -> NoReturn:
    raise damage
