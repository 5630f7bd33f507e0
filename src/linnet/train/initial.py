"""The weights a run begins with."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from linnet.checkpoint import DamagedCheckpoint
from linnet.config import RunConfig
from linnet.data import PreparedData
from linnet.errors import UserError
from linnet.model import TransformerLM, parameter_shapes
from linnet.train.run_directory import RunDirectory
from linnet.train.stored_model import StoredModel, read_stored_model, weights_sha256


def initial_model(config: RunConfig, run: RunDirectory, data: PreparedData) -> TransformerLM:
    """Drawn at random on the CPU, so the same on every device; or the weights of `model.init_from`.

    The hash of weights that came from elsewhere is kept in the run's provenance.

    Raises:
        UserError: if they are not there, do not fit the config, or know another tokenizer.
    """
    source = config.model.init_from
    if source is None:
        return TransformerLM(config.model)
    begin = read_stored_model(Path(source), _refuse)
    _refuse_misfit(config, begin, data, source)
    model = TransformerLM.from_tensors(config.model, begin.model.state_dict())
    origin = {"source": source, "description": begin.description, "weights_sha256": weights_sha256(model)}
    run.write_provenance({**run.provenance(), "init_from": origin})
    return model


def _refuse(damage: DamagedCheckpoint) -> NoReturn:
    raise damage


def _refuse_misfit(config: RunConfig, begin: StoredModel, data: PreparedData, source: str) -> None:
    if begin.tokenizer.fingerprint != data.tokenizer.fingerprint:
        raise UserError(
            f"tokenizer: is not the one that the weights of model.init_from {source} were trained with: "
            "leave the tokenizer section out, and it is taken from there"
        )
    ours, theirs = parameter_shapes(config.model), parameter_shapes(begin.model.config)
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"model: {name} is {ours.get(name, 'absent')} in this config and {theirs.get(name, 'absent')} in "
                f"model.init_from {source}: leave out what that model settles itself"
            )
