"""Tables in the documentation, made from the results: `python benchmarks/tables.py` writes them anew.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, where NAME is that of a file in results/.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
PAGES = ("README.md", "docs/performance.md", "docs/quality.md")


def training(result: dict[str, Any]) -> str:
    """Every peer's medians, and linnet's ratios to it."""
    ratios = result["ratios_of_linnet_to"]
    rows = []
    for peer, medians in result["medians"].items():
        beside = ratios.get(peer)
        rate = f"{medians['tokens_per_second']:.0f}" + (f" ({beside['tokens_per_second']:.2f}×)" if beside else "")
        peak = f"{medians['peak_bytes'] / 1e9:.2f} GB" + (f" ({beside['peak_bytes']:.2f})" if beside else "")
        rows.append((peer, rate, peak))
    for name, said in (("default", "limit of PyTorch's products"), ("oneDNN", "limit of oneDNN's products")):
        share = result["share_of_limit"][name]
        most = statistics.median(found["limits"][f"tokens_per_second, {name}"] for found in result["rounds"])
        rows.append((said, f"{most:.0f} (linnet at {share:.2f} of it)", ""))
    return "\n".join(
        [
            f"{result['what']}; {described(result)}, medians of {len(result['rounds'])} rounds, in brackets linnet's "
            "ratio to it:",
            "",
            *table(("", "tokens/s", "peak memory"), rows),
        ]
    )


def quality(result: dict[str, Any]) -> str:
    """Both contenders' loss and seconds over the seeds."""
    rows = []
    for name, said in (("nanogpt", "nanoGPT's recipe"), ("linnet", "`configs/shakespeare-cpu.yaml`")):
        found = result[name]
        nats, bits, seconds = found["nats_per_byte"], found["bits_per_byte"], found["process_seconds"]
        reached = [value for value in found["seconds_until"]["1.88"] if value is not None]
        until = f"{min(reached):.0f} to {max(reached):.0f} s" if reached else "never"
        rows.append(
            (
                said,
                f"{nats['mean']:.4f} ± {nats['deviation']:.4f}",
                f"{bits['mean']:.3f}",
                f"{seconds['mean']:.0f} s",
                f"{until} ({len(reached)} of {len(found['seconds_until']['1.88'])})",
            )
        )
    heads = ("", "nats/byte, last tenth", "bits/byte", "whole process", "1.88 reached after")
    seeds = len(result["runs"]["linnet"])
    return "\n".join([f"{described(result)}, {seeds} seeds, mean ± standard deviation:", "", *table(heads, rows)])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "training-4x256": training,
    "training-1x2048": training,
    "quality": quality,
}


def described(result: dict[str, Any]) -> str:
    """Machine and date."""
    machine = result["machine"]
    return f"{machine['cores']} cores of an {machine['processor']}, {result['date'][:10]}"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of Markdown."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def filled(page: str) -> str:
    """`page` with every table made anew.

    Raises:
        KeyError: a block names a table that nobody makes.
        FileNotFoundError: its result is not there.
    """

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        return f"<!-- {name} -->\n{TABLES[name](result)}\n<!-- /{name} -->"

    return re.sub(r"<!-- (?P<name>[\w-]+) -->\n.*?<!-- /(?P=name) -->", block, page, flags=re.DOTALL)


if __name__ == "__main__":
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path)
