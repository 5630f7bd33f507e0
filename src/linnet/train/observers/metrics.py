"""metrics.jsonl and samples.jsonl: one JSON object a line, never a step twice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from linnet.durable import write_durably
from linnet.text_files import refuse_special
from linnet.train.events import Evaluated, Event, Logged, Refused, Sampled
from linnet.train.observers.appended import AppendedFile


def record_for(event: Logged | Evaluated | Refused) -> dict[str, Any]:
    """The numbers of `event` under their names in metrics.jsonl."""
    if isinstance(event, Refused):
        incident = event.incident
        return {
            "step": incident.step,
            "incident": incident.reason,
            "incident_action": incident.action,
            "incident_loss": incident.loss,
            "incident_grad_norm": incident.grad_norm,
            "incident_bound": incident.bound,
            "incident_first_sample": incident.first_sample,
        }
    if isinstance(event, Logged):
        return {
            "step": event.step,
            "tokens": event.tokens,
            "seconds": round(event.seconds, 3),
            "loss": event.loss,
            "lr": event.learning_rate,
            "grad_norm": event.grad_norm,
            "tokens_per_second": round(event.tokens_per_second, 1),
            "mfu": None if event.mfu is None else round(event.mfu, 4),
        }
    evaluation = event.evaluation
    return {
        "step": event.step,
        "tokens": event.tokens,
        "seconds": round(event.seconds, 3),
        "val_loss": evaluation.loss,
        "val_perplexity": evaluation.perplexity,
        "val_bits_per_byte": evaluation.bits_per_byte,
        "val_nats_per_byte": evaluation.nats_per_byte,
        "val_tokens": evaluation.tokens,
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; a line that a crash cut off, even within a character, is left out."""
    if not path.exists():
        return []
    refuse_special(path)
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # no JSON, or no UTF-8
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records


def forget_after(path: Path, step: int) -> None:
    """Drop the records of steps after `step`, which a resumed run writes again, and half lines.

    The file is replaced whole, and left alone where nothing is to be dropped: a full disk is no reason to refuse that.
    """
    if not path.exists():
        return
    kept = [record for record in read_records(path) if record["step"] <= step]
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept).encode()
    if content != path.read_bytes():
        write_durably(path, content)


class JsonLines:
    """Writes both files of a run directory."""

    def __init__(self, directory: Path, first_step: int) -> None:
        self._metrics = self._open(directory / "metrics.jsonl", first_step)
        self._samples = self._open(directory / "samples.jsonl", first_step)

    @staticmethod
    def _open(path: Path, first_step: int) -> AppendedFile:
        forget_after(path, first_step)
        return AppendedFile(path)

    def observe(self, event: Event) -> None:
        if isinstance(event, Logged | Evaluated | Refused):
            self._write(self._metrics, record_for(event))
        elif isinstance(event, Sampled):
            self._write(self._samples, {"step": event.step, "prompt": event.prompt, "text": event.text})

    @staticmethod
    def _write(file: AppendedFile, record: dict[str, Any]) -> None:
        # JSON has no NaN or infinity: a loss that is not a number is written as null.
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        file.append((json.dumps(finite, ensure_ascii=False) + "\n").encode())

    def close(self) -> None:
        self._metrics.close()
        self._samples.close()
