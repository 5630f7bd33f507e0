"""TensorBoard: curves of loss, rate, gradient norm and throughput, and samples as text."""

from __future__ import annotations

import io
import os
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
from tensorboard.summary.writer import record_writer  # type: ignore[import-untyped]
from torch.utils.tensorboard import summary

from linnet.train.events import Evaluated, Event, Logged, Refused, Sampled
from linnet.train.observers.appended import AppendedFile
from linnet.train.observers.lines import indented

EventRecord, SessionLog, RecordWriter = event_pb2.Event, event_pb2.SessionLog, record_writer.RecordWriter
_summary: Any = summary  # its functions have no types
_FILE_NUMBERS = count()


class TensorBoard:
    """Writes events under `directory`; those of steps after `first_step` are superseded.

    TensorBoard's own writer has a thread that dies of a full disk; here an event is in the file when `observe` returns.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_FILE_NUMBERS)}"
        self._file = AppendedFile(directory / f"events.out.tfevents.{name}", lines=False)
        version = EventRecord(wall_time=time.time(), file_version="brain.Event:2")
        restart = EventRecord(
            wall_time=time.time(), step=first_step + 1, session_log=SessionLog(status=SessionLog.START)
        )
        self._append(version, restart)

    def observe(self, event: Event) -> None:
        match event:
            case Logged():
                self._summarize(
                    event.step,
                    _summary.scalar("train/loss", event.loss),
                    _summary.scalar("train/learning_rate", event.learning_rate),
                    _summary.scalar("train/grad_norm", event.grad_norm),
                    _summary.scalar("train/tokens_per_second", event.tokens_per_second),
                    *([] if event.mfu is None else [_summary.scalar("train/mfu", event.mfu)]),
                )
            case Evaluated():
                self._summarize(
                    event.step,
                    _summary.scalar("validation/loss", event.evaluation.loss),
                    _summary.scalar("validation/bits_per_byte", event.evaluation.bits_per_byte),
                )
            case Sampled():
                # Markdown would swallow line breaks; four spaces make a block that keeps them.
                block = "    " + indented(event.prompt + event.text)
                self._summarize(event.step, _summary.text("sample", block))
            case Refused():
                self._summarize(event.step, _summary.text("incident", f"    {event.incident}"))

    def _summarize(self, step: int, *summaries: Any) -> None:
        now = time.time()
        self._append(*(EventRecord(wall_time=now, step=step, summary=summary) for summary in summaries))

    def _append(self, *records: Any) -> None:
        together = io.BytesIO()
        writer = RecordWriter(together)
        for record in records:
            writer.write(record.SerializeToString())
        self._file.append(together.getvalue())

    def close(self) -> None:
        self._file.close()
