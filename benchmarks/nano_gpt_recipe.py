"""nanoGPT's recipe for tiny Shakespeare on a processor, as its README gives it, in plain PyTorch.

    python benchmarks/nano_gpt_recipe.py train TEXT DIRECTORY [--seed 1337]
    python benchmarks/nano_gpt_recipe.py score TEXT DIRECTORY

The recipe (karpathy/nanoGPT, README, "I only have a macbook"):

    python train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 \\
        --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 \\
        --dropout=0.0

`train` prepares the characters, trains, validates every 250 steps as nanoGPT does, keeps the weights that validated
best and writes the curve. `score` measures those weights on every character of the last tenth, and is no part of the
recipe or of its seconds. Nothing here is linnet's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
STEPS, WARMUP, MAX_RATE, MIN_RATE = 2000, 100, 1e-3, 1e-4
BETAS, WEIGHT_DECAY, GRAD_CLIP = (0.9, 0.99), 0.1, 1.0
EVAL_EVERY, EVAL_BATCHES = 250, 20


class Norm(nn.Module):
    """LayerNorm without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class Attention(nn.Module):
    """Heads of one fused projection on PyTorch's kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.c_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time_, width = x.size()
        query, key, value = (
            part.view(batch, time_, HEADS, width // HEADS).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=2)
        )
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        output: Tensor = self.c_proj(y.transpose(1, 2).contiguous().view(batch, time_, width))
        return output


class Block(nn.Module):
    """Attention and a GELU feed-forward four times as wide, each after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = Norm(), Attention(), Norm()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        output: Tensor = x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))
        return output


class GPT(nn.Module):
    """Learned positions, head tied to the embedding."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, WIDTH)
        self.wpe = nn.Embedding(BLOCK, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = Norm()
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = math.sqrt(2 * LAYERS) if name.endswith("c_proj.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1)))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)


def characters(text: Path) -> tuple[int, Tensor, Tensor]:
    """Size of the alphabet, and the ids of the first nine tenths and of the last one."""
    content = text.read_text(encoding="utf-8")
    ids = {character: number for number, character in enumerate(sorted(set(content)))}
    tokens = torch.tensor([ids[character] for character in content])
    cut = int(len(tokens) * 0.9)
    return len(ids), tokens[:cut], tokens[cut:]


def random_batch(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Windows that begin anywhere, and the characters after theirs."""
    starts = torch.randint(len(tokens) - BLOCK, (BATCH,)).tolist()
    inputs = torch.stack([tokens[start : start + BLOCK] for start in starts])
    targets = torch.stack([tokens[start + 1 : start + 1 + BLOCK] for start in starts])
    return inputs, targets


def loss_of(model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """Nats per character."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def rate(step: int) -> float:
    """Warm-up, then half a cosine."""
    if step < WARMUP:
        return MAX_RATE * (step + 1) / (WARMUP + 1)
    progress = min(1.0, (step - WARMUP) / (STEPS - WARMUP))
    return MIN_RATE + 0.5 * (1 + math.cos(math.pi * progress)) * (MAX_RATE - MIN_RATE)


@torch.no_grad()
def estimate(model: GPT, tokens: Tensor) -> float:
    """Mean loss of a few random batches."""
    model.eval()
    losses = [loss_of(model, *random_batch(tokens)).item() for _ in range(EVAL_BATCHES)]
    model.train()
    return sum(losses) / len(losses)


def optimizer_of(model: GPT) -> torch.optim.Optimizer:
    """AdamW with decay on matrices; nanoGPT asks for the fused form on CUDA only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=MAX_RATE, betas=BETAS)


def train(text: Path, directory: Path, seed: int) -> None:
    """The whole recipe."""
    began = psutil.Process().create_time()
    torch.manual_seed(seed)
    vocabulary, training, validation = characters(text)
    model = GPT(vocabulary)
    optimizer = optimizer_of(model)
    best, curve = math.inf, []
    batch = random_batch(training)
    for step in range(STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        if step % EVAL_EVERY == 0:
            losses = {"train": estimate(model, training), "validation": estimate(model, validation)}
            if losses["validation"] < best and step > 0:
                best = losses["validation"]
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                torch.save(state, directory / "ckpt.pt")
            curve.append({"step": step, "seconds": time.time() - began, **losses})
        loss = loss_of(model, *batch)
        batch = random_batch(training)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"iter {step}: loss {loss.item():.4f}")
    (directory / "curve.json").write_text(json.dumps(curve), encoding="utf-8")


@torch.no_grad()
def score(text: Path, directory: Path) -> dict[str, float]:
    """Nats over the last tenth in windows side by side, every character once; the first follows the one before it."""
    vocabulary, training, validation = characters(text)
    model = GPT(vocabulary)
    model.load_state_dict(torch.load(directory / "ckpt.pt", weights_only=True)["model"])
    model.eval()
    tokens = torch.cat((training[-1:], validation))
    nats, count = 0.0, len(validation)
    for start in range(0, count, BLOCK):
        inputs, targets = tokens[start : start + BLOCK][: count - start], tokens[start + 1 : start + 1 + BLOCK]
        nats += loss_of(model, inputs[None], targets[None]).item() * len(targets)
    return {"nats_per_byte": nats / count, "bytes": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["train", "score"])
    parser.add_argument("text", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1337)
    options = parser.parse_args()
    if options.verb == "train":
        train(options.text, options.directory, options.seed)
    else:
        print(json.dumps(score(options.text, options.directory)))


if __name__ == "__main__":
    main()
