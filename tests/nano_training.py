"""A training loop in nanoGPT's manner around `NanoGPT`, as other people write theirs, and its pieces for the doctor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from nano_gpt import NanoConfig, NanoGPT

IGNORED = -1
Batch = tuple[Tensor, Tensor]


class NanoLoop:
    """Every method is a piece that a mistake may be planted in."""

    gradient_accumulation_steps = 3
    batch_size, block_size = 2, 32
    learning_rate, min_lr = 1e-3, 1e-4
    warmup_iters, max_iters, lr_decay_iters = 20, 400, 400
    log_interval = 10

    def __init__(self, dropout: float = 0.1) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = NanoGPT(NanoConfig(block_size=self.block_size, dropout=dropout, n_layer=2))
        self.data = torch.randint(65, (4000,), generator=torch.Generator().manual_seed(0))

    def windows(self, ids: Tensor) -> Batch:
        """The text in rows."""
        starts = range(0, len(ids) - self.block_size - 1, self.block_size)
        x = torch.stack([ids[i : i + self.block_size] for i in starts])
        y = torch.stack([ids[i + 1 : i + 1 + self.block_size] for i in starts])
        return x, y

    def get_batch(self) -> Batch:
        """Windows that begin anywhere."""
        ix = torch.randint(len(self.data) - self.block_size - 2, (self.batch_size,))
        x = torch.stack([self.data[i : i + self.block_size] for i in ix])
        y = torch.stack([self.data[i + 1 : i + 1 + self.block_size] for i in ix])
        return x, y

    def micro_batches(self, step: int) -> list[Batch]:
        """Those of one step."""
        return [self.get_batch() for _ in range(self.gradient_accumulation_steps)]

    def configure_optimizer(self, model: nn.Module) -> Optimizer:
        """AdamW, decay on matrices."""
        decay = [p for p in model.parameters() if p.dim() >= 2]
        rest = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.95))

    def train_step(self, model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch]) -> float:
        """One iteration."""
        total = 0.0
        for x, y in micro_batches:
            _, loss = model(x, y)
            loss = loss / len(micro_batches)
            total += loss.item()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    def get_lr(self, it: int) -> float:
        """Warm-up and cosine."""
        if it < self.warmup_iters:
            return self.learning_rate * (it + 1) / (self.warmup_iters + 1)
        if it > self.lr_decay_iters:
            return self.min_lr
        ratio = (it - self.warmup_iters) / (self.lr_decay_iters - self.warmup_iters)
        return self.min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (self.learning_rate - self.min_lr)

    def get_lr_resumed(self, it: int) -> float:
        """The same in a run made longer."""
        return self.get_lr(it)

    def log_lines(self, losses: Sequence[float], first: int) -> list[tuple[int, float]]:
        """Step and mean of each line."""
        lines, running, count = [], 0.0, 0
        for step, loss in enumerate(losses, start=first):
            running, count = running + loss, count + 1
            if step % self.log_interval == 0:
                lines.append((step, running / count))
                running, count = 0.0, 0
        return lines

    @torch.no_grad()
    def estimate_loss(self, model: nn.Module, batches: Sequence[Batch]) -> float:
        """Validation."""
        was_training = model.training
        model.eval()
        nats, count = 0.0, 0
        for x, y in batches:
            logits, _ = model(x, y)
            losses = F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), ignore_index=IGNORED, reduction="sum")
            nats += losses.item()
            count += int((y != IGNORED).sum())
        model.train(was_training)
        return nats / count

    @torch.no_grad()
    def sample(self, model: nn.Module) -> list[int]:
        """Eight ids."""
        was_training = model.training
        model.eval()
        generator = torch.Generator().manual_seed(0)
        idx = torch.zeros(1, 1, dtype=torch.int64)
        for _ in range(8):
            logits, _ = model(idx)
            idx = torch.cat([idx, torch.multinomial(logits[0, -1:].softmax(-1), 1, generator=generator)], dim=1)
        model.train(was_training)
        return idx[0].tolist()

    def save(self, path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        """One file."""
        model = getattr(model, "_orig_mod", model)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iter_num": step}
        torch.save({**state, "rng": torch.get_rng_state()}, path)

    def load(self, path: Path, model: nn.Module, optimizer: Optimizer) -> Any:
        """Back again."""
        checkpoint = torch.load(path, weights_only=True)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        torch.set_rng_state(checkpoint["rng"])
        return checkpoint["iter_num"]

    def measure(
        self, submit: Callable[[], Any], steps: int, tokens_per_step: int, synchronize: Callable[[], None]
    ) -> float:
        """Tokens per second."""
        synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            submit()
        synchronize()
        return steps * tokens_per_step / (time.perf_counter() - began)

    def pieces(self) -> dict[str, Any]:
        """All of it, as `check_training` takes it."""
        return {
            "step": self.train_step,
            "optimizer": self.configure_optimizer,
            "batches": self.micro_batches,
            "windows": self.windows,
            "schedule": lambda step: self.get_lr(step - 1),
            "resumed_schedule": lambda step: self.get_lr_resumed(step - 1),
            "warmup_steps": self.warmup_iters + 1,
            "max_steps": self.max_iters,
            "evaluate": self.estimate_loss,
            "sample": self.sample,
            "save": self.save,
            "load": self.load,
            "logged": self.log_lines,
            "rate": self.measure,
            "ignore_index": IGNORED,
        }
