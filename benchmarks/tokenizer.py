"""The tokenizer beside rustbpe, tiktoken and Hugging Face's tokenizers: whole calls, same files, same machine, in turn.

    python benchmarks/tokenizer.py [--only training,encoding] [--gpt2 FOLDER] [--repeats 3] [--check]

Every call that is timed runs in a fresh interpreter, with two threads unless it says otherwise; what counts is the
median of the ratios within each repeat. The texts are 100 MB of the Python sources found here and 100 MB of linnet's
stories, made at the first use and kept in --corpora. Each section replaces its part of results/tokenizer.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from record import RESULTS, circumstances, write_result
from tokenizer_corpora import Corpora, facts
from tokenizer_sections import SECTIONS, Bench

SIZE = 100_000_000
WIDTH_WHEN_PIPED = 220
PEERS = ("numba", "rustbpe", "tiktoken", "tokenizers", "regex")
COLUMNS: dict[str, tuple[str, ...]] = {
    "compiling": ("process", "what", "seconds", "process_seconds"),
    "training": (
        *("corpus", "vocab_size", "contender", "seconds", "process_seconds", "megabytes_per_second", "peak_bytes"),
        *("merges", "linnet_times_faster", "first_100_merges_agree", "same_order_up_to", "oracle"),
    ),
    "encoding": (
        *("corpus", "vocabulary", "contender", "seconds", "second_call_seconds", "megabytes_per_second", "peak_bytes"),
        *("tokens", "linnet_times_faster", "all_ids_equal"),
    ),
    "prepare": ("corpus", "tokenizer", "process_seconds", "megabytes_per_second", "peak_bytes", "disk_bytes"),
    "memory": (
        *("text", "what", "bytes", "seconds", "megabytes_per_second", "peak_bytes", "growth_bytes"),
        *(
            "growth_after_tables_bytes",
            "traced_peak_bytes",
            "traced_growth_after_tables_bytes",
            "time_per_byte_of_usual",
        ),
    ),
    "strings": (
        *("pattern", "peer", "strings", "distinct", "differ_one_by_one", "differ_together", "round_trip_lost"),
        "invalid_utf8_differ",
    ),
}


def show(console: Console, name: str, section: Mapping[str, Any]) -> None:
    """One section as a table, with what failed in a column of its own."""
    rows: Sequence[Mapping[str, Any]] = section["rows"]
    columns = [column for column in (*COLUMNS[name], "failed") if any(row.get(column) is not None for row in rows)]
    table = Table(title=name, box=None, pad_edge=False)
    for column in columns:
        right = any(isinstance(row.get(column), (int, float)) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(_cell(column, row.get(column)) for column in columns))
    console.print(table)
    for note in section.get("notes", ()):
        console.print(note)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return str(value.get("failed", value.get("identical")))
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, list):
        return "; ".join(value)
    if column.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,.2f}" if isinstance(value, float) and value != int(value) else f"{value:,.0f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas; default: all")
    parser.add_argument("--gpt2", type=Path, help="the folder of gpt2_vocab.json and gpt2_merges.txt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="also compare the merges with the readable trainer's")
    parser.add_argument("--skip", default="", help="contenders to leave out, with semicolons, by how their names begin")
    parser.add_argument("--corpora", type=Path, default=here / ".corpora", help="where the texts are kept")
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of a text; another size has a result of its own")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that one process may take")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := [name for name in options.only if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]!r}; choose among {', '.join(SECTIONS)}")
    if options.gpt2 is not None and not (options.gpt2 / "gpt2_vocab.json").exists():
        parser.error(f"{options.gpt2} holds no gpt2_vocab.json; check the folder")
    return options


def main() -> None:
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WHEN_PIPED)
    began = time.perf_counter()

    def report(line: str) -> None:
        console.print(f"{time.perf_counter() - began:7.0f} s  {line}", highlight=False, markup=False, soft_wrap=True)

    corpora = Corpora(options.corpora.resolve(), options.size)
    skip = tuple(filter(None, options.skip.split(";")))
    bench = Bench(corpora, options.repeats, options.gpt2, options.check, skip, options.limit, report)
    name = "tokenizer" if options.size == SIZE else f"tokenizer-{options.size}"
    path = RESULTS / f"{name}.json"
    for chosen in options.only:
        found = SECTIONS[chosen](bench)
        section = {**circumstances(PEERS), "repeats": options.repeats, "skipped": list(skip), **found}
        sections = json.loads(path.read_text(encoding="utf-8"))["sections"] if path.exists() else {}
        result = {
            "what": "tokenizer: whole calls in fresh processes, medians, two threads unless said otherwise",
            "corpora": {name: facts(text) for name, text in bench.texts().items()},
            "sections": {**sections, chosen: section},
        }
        write_result(name, result)
        show(console, chosen, section)
    console.print(path)


if __name__ == "__main__":
    main()
