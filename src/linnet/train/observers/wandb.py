"""Weights & Biases, online or offline."""

from __future__ import annotations

import errno
import html
from pathlib import Path
from typing import Any, Literal

from linnet.errors import UserError
from linnet.train.events import Evaluated, Event, Logged, Refused, Sampled
from linnet.train.observers.metrics import record_for


class WeightsAndBiases:
    """Sends the records of metrics.jsonl and the samples to one W&B run, taken up again when the run is resumed.

    Raises:
        UserError: if wandb is not installed, or cannot log in.
    """

    def __init__(
        self, directory: Path, run_id: str, project: str, mode: Literal["online", "offline"], config: dict[str, Any]
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("train.wandb needs the wandb package: pip install 'linnet[wandb]'") from error
        self._html = wandb.Html
        self._refusals = (wandb.errors.Error, OSError)
        try:
            self._run = wandb.init(
                project=project,
                name=directory.name,
                id=run_id,
                resume="allow",
                mode=mode,
                dir=str(directory),
                config=config,
                settings=wandb.Settings(silent=True),
            )
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            raise UserError(f"train.wandb {mode}: {error}; log in with `wandb login`, or use offline") from error

    def observe(self, event: Event) -> None:
        try:
            self._log(event)
        except self._refusals as error:
            raise OSError(errno.EIO, f"wandb: {error}") from error

    def _log(self, event: Event) -> None:
        if isinstance(event, Logged | Evaluated | Refused):
            record = record_for(event)
            self._run.log({key: value for key, value in record.items() if key != "step"}, step=event.step)
        elif isinstance(event, Sampled):
            self._run.log(
                {"sample": self._html(f"<pre>{html.escape(event.prompt + event.text)}</pre>")}, step=event.step
            )

    def close(self) -> None:
        self._run.finish()
