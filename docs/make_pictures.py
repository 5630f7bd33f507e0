"""Draws the pictures of the docs.

python docs/make_pictures.py demo-loss runs/demo   loss of a run against time, and the floor no model can beat
python docs/make_pictures.py bytes-per-token       what a larger vocabulary gains, for stories and for linnet's source
python docs/make_pictures.py space FOLDER          the page of a Space folder, with a text that its model wrote
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import matplotlib as mpl
import matplotlib.pyplot as plt
import regex
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from linnet.data.stories import stories
from linnet.tokenizer import Tokenizer, train_bpe_from_texts

PICTURES = Path(__file__).with_name("pictures")
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Of one commit, so that the picture can be drawn again while the source goes on.
SOURCE_COMMIT = "b23933a"
BLUE, RED, GREEN = "#4477aa", "#ee6677", "#228833"


def draw_loss(run: Path, target: Path) -> None:
    """Training and validation loss of `run` in nats per byte, over seconds since the process began."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    log = (run / "train.log").read_text(encoding="utf-8")
    floor = float(re.findall(r"lowest possible ([\d.]+)", log)[-1])
    validated = [record for record in records if "val_nats_per_byte" in record]
    # One tokenizer, one text: the ratio of loss to loss per byte is the same throughout.
    per_byte = validated[-1]["val_nats_per_byte"] / validated[-1]["val_loss"]
    trained = [record for record in records if "loss" in record]
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    axes.plot(
        [record["seconds"] for record in trained],
        [record["loss"] * per_byte for record in trained],
        color=BLUE,
        label="training",
    )
    axes.plot(
        [record["seconds"] for record in validated],
        [record["val_nats_per_byte"] for record in validated],
        "o",
        color=RED,
        label="validation",
    )
    axes.axhline(floor, color=GREEN, linestyle="--", label=f"entropy of the text, {floor:.4f}")
    axes.set(xlabel="seconds since the process began", ylabel="nats per byte", ylim=(0, 1.0), xlim=(0, None))
    _save(figure, axes, target)


def draw_bytes_per_token(target: Path) -> None:
    """Bytes per token on text that was not trained on, over the size of the vocabulary."""
    code = _source_files(SOURCE_COMMIT)
    corpora = {
        "stories": (BLUE, list(islice(stories(0), 2700)), list(islice(stories(1), 270))),
        "linnet's Python source": (RED, [text for number, text in enumerate(code) if number % 10], code[::10]),
    }
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    for name, (color, training, held_out) in corpora.items():
        points = _bytes_per_token(training, held_out)
        ceiling = _bytes(held_out) / sum(len(regex.findall(GPT2, text)) for text in held_out)
        print(f"{name}: trained on {_bytes(training):,} bytes, measured on {_bytes(held_out):,}; ceiling {ceiling:.2f}")
        print("".join(f"{size:10,} tokens {value:6.2f} bytes per token\n" for size, value in points), end="")
        axes.plot(*zip(*points, strict=True), "o-", color=color, label=name)
        axes.axhline(ceiling, color=color, linestyle="--", label=f"one token per pre-token, {ceiling:.2f}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set(xlabel="tokens in the vocabulary", ylabel="bytes per token", ylim=(0, 5))
    _save(figure, axes, target)


def draw_space(folder: Path, target: Path) -> None:
    """The page that `python app.py` serves in `folder`, as Chromium shows it once a text is written."""
    from playwright.sync_api import sync_playwright

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        _await_answer(address, server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            page = browser.new_page(viewport={"width": 1120, "height": 800})
            page.goto(address)
            seed = page.get_by_label("Seed")
            seed.fill("1")
            seed.press("Tab")
            page.get_by_role("button", name="Generate", exact=True).click()
            finished = "/(asked for|ended the text|is full)$/.test(document.querySelector('#status textarea').value)"
            page.wait_for_function(finished, timeout=120_000)
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement.blur()")
            target.parent.mkdir(exist_ok=True)
            page.screenshot(path=target, full_page=True, animations="disabled")
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _await_answer(address: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with suppress(URLError):
            return urlopen(address).close()
        time.sleep(0.2)
    sys.exit("app.py ended before it served its page; its message stands above")


def _source_files(commit: str) -> list[str]:
    """The Python files of src and tests as they were at `commit`, sorted by path."""
    archive = ["git", "archive", commit, "src", "tests"]
    packed = subprocess.run(archive, cwd=PICTURES.parents[1], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        members = sorted((member for member in files if member.name.endswith(".py")), key=lambda member: member.name)
        return [file.read().decode() for member in members if (file := files.extractfile(member)) is not None]


def _bytes_per_token(training: list[str], held_out: list[str]) -> list[tuple[int, float]]:
    """(vocabulary size, bytes per token) for powers of two and for the size at which no pair is left."""
    vocab, merges = train_bpe_from_texts(training, 1 << 16, [])
    points = []
    for size in [*(1 << power for power in range(8, len(vocab).bit_length())), len(vocab)]:
        # BPE is greedy: a smaller vocabulary is the beginning of a larger one.
        tokenizer = Tokenizer(dict(islice(vocab.items(), size)), merges[: size - 256])
        points.append((size, _bytes(held_out) / sum(len(tokenizer.encode(text)) for text in held_out)))
    return points


def _bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _save(figure: Figure, axes: Axes, target: Path) -> None:
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    mpl.rcParams.update({"svg.hashsalt": "linnet", "font.size": 10})
    match sys.argv[1:]:
        case ["demo-loss", run]:
            draw_loss(Path(run), PICTURES / "demo-loss.svg")
        case ["bytes-per-token"]:
            draw_bytes_per_token(PICTURES / "bytes-per-token.svg")
        case ["space", folder]:
            draw_space(Path(folder), PICTURES / "space.png")
        case _:
            sys.exit(__doc__)
