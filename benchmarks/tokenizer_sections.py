"""The sections of benchmarks/tokenizer.py: what each runs, how often, and what it concludes."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from measured import measure
from tokenizer_corpora import Corpora, facts

JOBS = Path(__file__).with_name("tokenizer_jobs.py")
SOURCES = Path(__file__).parents[1] / "src"
VOCABULARIES = (10_000, 32_000)
TRAINERS = ("linnet", "rustbpe", "tokenizers", "tokenizers, by lines")
ENCODERS = (
    "linnet, 1 thread",
    "linnet, 2 threads",
    "linnet, one string",
    "tiktoken, 1 thread",
    "tiktoken, 2 threads",
    "tiktoken, 2 halves",
    "tokenizers, 2 threads",
)
PATTERNS = ("gpt2", "smollm", "gpt4", "o200k")
STRINGS = 200_000
FIRST_MERGES = 100
ENVIRONMENT = {
    "PYTHONPATH": str(SOURCES),
    "RAYON_NUM_THREADS": "2",
    "TOKENIZERS_PARALLELISM": "true",
    "OMP_NUM_THREADS": "1",
}

Run = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all sections share.

    Args:
        gpt2: the folder of gpt2_vocab.json and gpt2_merges.txt, if there is one.
        skip: contenders whose names begin so are left out.
        limit: seconds that one process may take.
        report: told of each process as it ends.
    """

    corpora: Corpora
    repeats: int
    gpt2: Path | None
    check: bool
    skip: tuple[str, ...]
    limit: float
    report: Callable[[str], None]

    def texts(self) -> dict[str, Path]:
        """The two normal corpora."""
        return {"python": self.corpora.python(), "stories": self.corpora.stories()}

    def wanted(self, names: Sequence[str]) -> list[str]:
        """The names that are not skipped."""
        return [name for name in names if not name.startswith(self.skip)] if self.skip else list(names)

    def job(self, job: str, *, environment: Mapping[str, str] | None = None, **arguments: Any) -> Run:
        """A job of tokenizer_jobs.py in a fresh interpreter: what it says, and what its process took."""
        given = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        found = self.command([sys.executable, str(JOBS), job, json.dumps(given)], f"{job} {_words(given)}", environment)
        return {**found, **json.loads(found.pop("output").splitlines()[-1])} if "output" in found else found

    def command(self, command: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> Run:
        """Any command as a process of its own."""
        found = measure(command, {**ENVIRONMENT, **(environment or {})}, self.limit)
        seconds = found.get("process_seconds")
        self.report(f"{name}: {found['failed'] if seconds is None else f'{seconds:.1f} s'}")
        return found

    def interleaved(self, contenders: Mapping[str, Callable[[], Run]]) -> dict[str, list[Run]]:
        """Each contender once in every repeat, every other time in reverse order."""
        runs: dict[str, list[Run]] = {name: [] for name in contenders}
        for repeat in range(self.repeats):
            for name in list(contenders) if repeat % 2 == 0 else reversed(list(contenders)):
                runs[name].append(contenders[name]())
        return runs

    def learned(self, corpus: Path, vocab_size: int, contender: str) -> Path:
        """Where a training leaves its vocabulary (a folder) and its merges (with .json)."""
        return corpus.with_name(f"{corpus.stem}-{vocab_size}-{'-'.join(contender.replace(',', '').split())}")

    def trained(self, corpus: Path) -> Path:
        """The folder of linnet's larger vocabulary of a corpus, made here where that was not done before."""
        folder = self.learned(corpus, VOCABULARIES[-1], "linnet")
        if not (folder / "tokenizer.json").exists():
            self.job("train", contender="linnet", corpus=corpus, vocab_size=VOCABULARIES[-1], out=folder)
        return folder


def compiling(bench: Bench) -> Row:
    """What the first process ever pays for compilation, and the next one, in a cache folder of this section's own."""
    corpus = bench.corpora.python()
    trained = bench.trained(corpus)
    vocab = {"vocab": trained / "vocab.json", "merges": trained / "merges.txt"}
    train = {"contender": "linnet", "corpus": corpus, "vocab_size": VOCABULARIES[0]}
    encode = {"contender": "linnet, 2 threads", "corpus": corpus, **vocab}
    runs: dict[tuple[str, str], list[Run]] = {}
    for _ in range(bench.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for process, (what, arguments) in product(("first", "second"), (("train", train), ("encode", encode))):
                found = bench.job(what, environment={"NUMBA_CACHE_DIR": folder}, **arguments)
                runs.setdefault((process, what), []).append(found)
    rows = [
        {"process": process, "what": what, **_medians(each), "runs": each} for (process, what), each in runs.items()
    ]
    return {"rows": rows}


def training(bench: Bench) -> Row:
    """Training as a whole call, file to merges."""
    rows = []
    for (name, corpus), vocab_size in product(bench.texts().items(), VOCABULARIES):
        contenders = bench.wanted(TRAINERS)
        if "linnet" in contenders:
            bench.job("train", contender="linnet", corpus=corpus, vocab_size=vocab_size)  # compiles, where need be

        def once(contender: str, corpus: Path = corpus, vocab_size: int = vocab_size) -> Callable[[], Run]:
            out = bench.learned(corpus, vocab_size, contender)
            return lambda: bench.job("train", contender=contender, corpus=corpus, vocab_size=vocab_size, out=out)

        runs = bench.interleaved({contender: once(contender) for contender in contenders})
        size = facts(corpus)["bytes"]
        for contender in contenders:
            row = {"corpus": name, "vocab_size": vocab_size, "contender": contender, **_medians(runs[contender])}
            row |= _rate(row, size) | {"linnet_times_faster": _ratio(runs, contender, "linnet")}
            if contender != "linnet" and "linnet" in contenders:
                row |= _agreement(*(bench.learned(corpus, vocab_size, one) for one in ("linnet", contender)))
            elif contender == "linnet" and bench.check:
                merges = bench.learned(corpus, vocab_size, contender).with_suffix(".json")
                row["oracle"] = bench.job("oracle", corpus=corpus, vocab_size=vocab_size, merges=merges)
            rows.append({**row, "runs": runs[contender]})
    return {"rows": rows}


def encoding(bench: Bench) -> Row:
    """Encoding of documents in memory to ids in memory."""
    rows, notes = [], []
    if bench.gpt2 is None:
        notes.append("no --gpt2 folder: GPT-2's vocabulary was left out")
    for name, corpus in bench.texts().items():
        trained = bench.trained(corpus)
        vocabularies = {f"trained {VOCABULARIES[-1]}": (trained / "vocab.json", trained / "merges.txt")}
        if bench.gpt2 is not None:
            vocabularies["gpt2"] = (bench.gpt2 / "gpt2_vocab.json", bench.gpt2 / "gpt2_merges.txt")
        for label, (vocab, merges) in vocabularies.items():
            contenders = bench.wanted(ENCODERS)
            files = {"corpus": corpus, "vocab": vocab, "merges": merges}
            if any(contender.startswith("linnet") for contender in contenders):
                bench.job("encode", contender="linnet, 2 threads", **files)  # compiles, where need be

            def once(contender: str, files: dict[str, Path] = files) -> Callable[[], Run]:
                return lambda: bench.job("encode", contender=contender, **files)

            runs = bench.interleaved({contender: once(contender) for contender in contenders})
            hashes = {run["sha256"] for listed in runs.values() for run in listed if "sha256" in run}
            for contender in contenders:
                row = {"corpus": name, "vocabulary": label, "contender": contender, **_medians(runs[contender])}
                row |= _rate(row, row.get("bytes", 0))
                row |= {"linnet_times_faster": _ratio(runs, contender, "linnet, 2 threads")}
                row |= {"all_ids_equal": len(hashes) == 1} if "sha256" in row else {}
                rows.append({**row, "runs": runs[contender]})
    return {"rows": rows, "notes": notes}


def prepare(bench: Bench) -> Row:
    """`linnet data prepare` as a user starts it, with a tokenizer given and with one trained on the text."""
    rows = []
    for name, corpus in bench.texts().items():
        given = ["--tokenizer.source", str(bench.trained(corpus))]
        made = ["--tokenizer.vocab_size", str(VOCABULARIES[-1])]
        ways = {"given": given, f"trained, {VOCABULARIES[-1]}": made}

        def once(way: str, corpus: Path = corpus, ways: dict[str, list[str]] = ways) -> Callable[[], Run]:
            return lambda: prepared(bench, corpus, ways[way], f"prepare {corpus.stem}, tokenizer {way}")

        once("given")()  # compiles, where need be
        runs = bench.interleaved({way: once(way) for way in ways})
        for way in ways:
            row = {"corpus": name, "tokenizer": way, **_medians(runs[way])}
            row |= _rate({"seconds": row.get("process_seconds")}, facts(corpus)["bytes"])
            rows.append({**row, "runs": runs[way]})
    return {"rows": rows}


def prepared(bench: Bench, corpus: Path, options: Sequence[str], name: str) -> Run:
    """One `linnet data prepare` from nothing, its shards deleted afterwards."""
    directory = bench.corpora.folder / "prepared"
    shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "linnet", "data", "prepare", "--data.source", str(corpus)]
    found = bench.command([*command, "--data.directory", str(directory), *options], name)
    if "output" in found:
        found.pop("output")
        found["disk_bytes"] = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    shutil.rmtree(directory, ignore_errors=True)
    return found


def memory(bench: Bench) -> Row:
    """Ten times the text, a text as a stream, one enormous line, one enormous run of a letter."""
    normal = bench.corpora.python()
    trained = bench.trained(normal)
    vocab = {"vocab": trained / "vocab.json", "merges": trained / "merges.txt"}
    found = bench.job("stream", corpus=normal, **vocab)
    rate = _rate(found, found.get("bytes", 0))
    stream = {"text": "python", "what": "encode_iterable", **_size(normal), **found, **rate}
    return {"rows": [*_ten_times(bench, trained), stream, *_hard_cases(bench, vocab)]}


def _ten_times(bench: Bench, trained: Path) -> list[Row]:
    """Training on, and preparing, ten copies of the sources, which are deleted afterwards."""
    large = bench.corpora.copies()
    try:
        train = bench.job("train", contender="linnet", corpus=large, vocab_size=VOCABULARIES[-1])
        found = prepared(bench, large, ["--tokenizer.source", str(trained)], "prepare ten copies")
        prepare = {**found, "seconds": found.get("process_seconds")}
        ways = {f"train {VOCABULARIES[-1]}": train, "data prepare": prepare}
        size = _size(large)
    finally:
        bench.corpora.remove(large)
    return [
        {"text": "ten copies", "what": what, **size, **run, **_rate(run, size["bytes"])} for what, run in ways.items()
    ]


def _hard_cases(bench: Bench, vocab: Mapping[str, Path]) -> list[Row]:
    """How much longer a byte takes where the text is one line, or one pre-token, than in the sources."""

    def train(text: Path) -> Run:
        return bench.job("train", contender="linnet", corpus=text, vocab_size=VOCABULARIES[-1])

    def encode(text: Path) -> Run:
        return bench.job("encode_whole", corpus=text, **vocab)

    rows = []
    texts = {"python": bench.corpora.python(), "one line": bench.corpora.line(), "a run of a": bench.corpora.run()}
    for what, call in ((f"train {VOCABULARIES[-1]}", train), ("encode_array", encode)):
        runs = bench.interleaved({name: partial(call, text) for name, text in texts.items()})
        usual = None
        for name, text in texts.items():
            row = {"text": name, "what": what, **_size(text), **_medians(runs[name])}
            row |= _rate(row, row["bytes"])
            usual = usual or row.get("megabytes_per_second")
            if usual and "megabytes_per_second" in row:
                row["time_per_byte_of_usual"] = usual / row["megabytes_per_second"]
            rows.append({**row, "runs": runs[name]})
    return rows


def strings(bench: Bench) -> Row:
    """Generated strings against a peer, pattern by pattern, with GPT-2's vocabulary where it is at hand."""
    if bench.gpt2 is None:
        folder = bench.trained(bench.corpora.python())
        vocab, merges = folder / "vocab.json", folder / "merges.txt"
    else:
        vocab, merges = bench.gpt2 / "gpt2_vocab.json", bench.gpt2 / "gpt2_merges.txt"
    count = min(STRINGS, bench.corpora.size // 100)
    return {
        "rows": [
            {"pattern": pattern, **bench.job("strings", pattern=pattern, vocab=vocab, merges=merges, count=count)}
            for pattern in PATTERNS
        ]
    }


SECTIONS: dict[str, Callable[[Bench], Row]] = {
    section.__name__: section for section in (compiling, training, encoding, prepare, memory, strings)
}


def _medians(runs: Sequence[Run]) -> Row:
    """The median of every number over the runs that ended well, what else is the same in all, and how others ended."""
    good = [run for run in runs if "failed" not in run]
    row: Row = {}
    for key in good[0] if good else ():
        values = [run[key] for run in good]
        if all(isinstance(value, (int, float)) for value in values):
            row[key] = statistics.median(values)
        elif values.count(values[0]) == len(values):
            row[key] = values[0]
    failed = [run["failed"] for run in runs if "failed" in run]
    return {**row, "failed": sorted(set(failed))} if failed else row


def _rate(row: Row, size: int) -> Row:
    seconds = row.get("seconds")
    return {"megabytes_per_second": size / 1e6 / seconds} if seconds else {}


def _size(text: Path) -> Row:
    return {"bytes": facts(text)["bytes"]}


def _ratio(runs: Mapping[str, Sequence[Run]], contender: str, ours: str) -> float | None:
    """The median, over the repeats, of the contender's time by linnet's in the same repeat."""
    pairs = zip(runs.get(ours, ()), runs[contender], strict=False)
    ratios = [theirs["seconds"] / our["seconds"] for our, theirs in pairs if "seconds" in our and "seconds" in theirs]
    return statistics.median(ratios) if ratios else None


def _agreement(ours: Path, theirs: Path) -> Row:
    """Whether the first merges make the same tokens, and how many, from the beginning, do so in the same order."""
    files = [path.with_suffix(".json") for path in (ours, theirs)]
    if not all(file.exists() for file in files):
        return {}
    one, other = (["".join(pair) for pair in json.loads(file.read_text())] for file in files)
    first = sorted(one[:FIRST_MERGES]) == sorted(other[:FIRST_MERGES])
    apart = (at for at, (mine, its) in enumerate(zip(one, other, strict=False)) if mine != its)
    return {"first_100_merges_agree": first, "same_order_up_to": next(apart, min(len(one), len(other)))}


def _words(arguments: Mapping[str, Any]) -> str:
    return ", ".join(Path(value).stem if isinstance(value, str) else str(value) for value in arguments.values())
