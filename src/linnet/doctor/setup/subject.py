"""What the checks of a setup look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from linnet.config import ModelConfig, RunConfig
from linnet.data import PreparedData
from linnet.tokenizer import Tokenizer
from linnet.train import RunDirectory


@dataclass(frozen=True)
class Setup:
    """A model with its tokenizer, and what of a run there is around them.

    Attributes:
        model: its settings, the vocabulary settled.
        tokenizer: its tokenizer.
        workspace: a directory to write in, on the disk that a run would use.
        config: of the run that there is, or is to be.
        data: what it reads; None where there is none, or none was found.
        no_data: why there is none.
        run: the run that there is already.
        place: the run directory that there is, or is to be.
        exported: a directory in Hugging Face's format.
    """

    model: ModelConfig
    tokenizer: Tokenizer
    workspace: Path
    config: RunConfig | None = None
    data: PreparedData | None = None
    no_data: str = "a model alone has no data"
    run: RunDirectory | None = None
    place: Path | None = None
    exported: Path | None = None
