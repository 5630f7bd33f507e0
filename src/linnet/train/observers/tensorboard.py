"""TensorBoard: curves of loss, rate, gradient norm and throughput, and samples as text."""

from __future__ import annotations

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from linnet.train.events import Evaluated, Event, Logged, Sampled, Saved


class TensorBoard:
    """Writes events under `directory`; those of steps after `first_step` are superseded."""

    def __init__(self, directory: Path, first_step: int) -> None:
        self._writer = SummaryWriter(str(directory), purge_step=first_step + 1)

    def observe(self, event: Event) -> None:
        match event:
            case Logged():
                self._scalar("train/loss", event.loss, event.step)
                self._scalar("train/learning_rate", event.learning_rate, event.step)
                self._scalar("train/grad_norm", event.grad_norm, event.step)
                self._scalar("train/tokens_per_second", event.tokens_per_second, event.step)
            case Evaluated():
                self._scalar("validation/loss", event.evaluation.loss, event.step)
                self._scalar("validation/bits_per_byte", event.evaluation.bits_per_byte, event.step)
            case Sampled():
                # Markdown would swallow line breaks; four spaces make a block that keeps them.
                text = "    " + (event.prompt + event.text).replace("\n", "\n    ")
                self._writer.add_text("sample", text, event.step)
            case Saved():
                self._writer.flush()

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        self._writer.close()
