"""Numbers that a text states about a run: where, of what, and how finely."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# The name of a quantity as people write it -> its key in metrics.jsonl; `parameters` stands in no record.
QUANTITIES = {
    "loss": "loss",
    "training loss": "loss",
    "train loss": "loss",
    "val loss": "val_loss",
    "val_loss": "val_loss",
    "validation loss": "val_loss",
    "perplexity": "val_perplexity",
    "validation perplexity": "val_perplexity",
    "val perplexity": "val_perplexity",
    "ppl": "val_perplexity",
    "bits per byte": "val_bits_per_byte",
    "bits/byte": "val_bits_per_byte",
    "nats per byte": "val_nats_per_byte",
    "nats/byte": "val_nats_per_byte",
    "tok/s": "tokens_per_second",
    "tokens/s": "tokens_per_second",
    "tokens per second": "tokens_per_second",
    "params": "parameters",
    "parameters": "parameters",
    "lr": "lr",
}
_NAMES = "|".join(sorted((re.escape(name) for name in QUANTITIES), key=len, reverse=True))
_NUMBER = r"(?P<number>\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?:\s*(?P<scale>[kKMB]|million|billion)\b)?"
_MARKS = r"[*_`]*"
# `val loss 3.21`, `val loss: **3.21**`, `perplexity of 24.8`, `loss = 3.2`
_NAME_FIRST = re.compile(
    rf"(?<![\w./-])(?P<name>{_NAMES})\b{_MARKS}(?:\s*[:=]\s*|\s+(?:of|is|was)\s+|\s+){_MARKS}{_NUMBER}", re.IGNORECASE
)
# `3,585.9 tok/s`, `134,515,008 parameters`
_NUMBER_FIRST = re.compile(
    rf"(?<![\w.,/-]){_NUMBER}{_MARKS}\s+"
    r"(?P<name>tok/s|tokens/s|tokens per second|(?:bits|nats)(?: per |/)byte|params|parameters)(?![\w/])",
    re.IGNORECASE,
)
# `val loss: 0.84 nats per byte`: what is measured so is no loss of a token, whatever it is called.
_PER_BYTE = re.compile(rf"{_MARKS}\s+(?:bits|nats)(?: per |/)byte\b(?!\s*[:=]?\s*\d)", re.IGNORECASE)
_STEP = re.compile(r"\bstep\s+(?P<step>\d[\d,]*)(?:/(?P<last>\d+))?", re.IGNORECASE)
_VALIDATION_LINE = re.compile(r"\[val @ step \d+\]")
# Words after which a number is a bound or another's, and marks that make it a range or a share.
_NOT_EXACT = re.compile(
    r"(?:about|around|roughly|approximately|almost|nearly|over|under|below|above|than|least|most|to|from|~|≈|<|>|≤|≥|±)\s*"
    rf"{_MARKS}$",
    re.IGNORECASE,
)
_GOES_ON = re.compile(rf"{_MARKS}\s*(?:%|±|–|—|-\s*\d|to \d|times|x\b|×|\.\.\.|…)")


@dataclass(frozen=True)
class Claim:
    """One number.

    Attributes:
        line: counted from 1.
        name: of the quantity, as written.
        key: of the quantity in a run's records.
        text: the number as written.
        value: what it says.
        grain: one unit of its last written place.
        step: of which step it is said, where that is said.
        last: the end of the run that a quoted log line names.
    """

    line: int
    name: str
    key: str
    text: str
    value: float
    grain: float
    step: int | None = None
    last: int | None = None


def claims_in(text: str) -> Iterator[Claim]:
    """Every number in `text` that is said to be a run's: in quoted log lines, in prose, in tables by step."""
    header: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("|"):
            cells = [cell.strip(" *_`") for cell in line.strip().strip("|").split("|")]
            if not header:
                header = [cell.lower() for cell in cells]
            elif "step" in header:
                yield from _in_row(number, header, cells)
            continue
        header = []
        yield from _in_line(number, line)


def _in_line(number: int, line: str) -> Iterator[Claim]:
    said = _STEP.search(line)
    step = int(said["step"].replace(",", "")) if said else None
    last = int(said["last"]) if said and said["last"] else None
    validation = _VALIDATION_LINE.search(line) is not None
    for pattern in (_NAME_FIRST, _NUMBER_FIRST):
        for match in pattern.finditer(line):
            if _NOT_EXACT.search(line[: match.start("number")]) or _NOT_EXACT.search(line[: match.start()]):
                continue
            if _GOES_ON.match(line, match.end()):
                continue
            name = match["name"]
            if QUANTITIES[name.lower()] in ("loss", "val_loss") and _PER_BYTE.match(line, match.end()):
                continue
            key = "val_loss" if validation and name == "loss" else QUANTITIES[name.lower()]
            claim = _claim(number, name, key, match["number"], match["scale"], step, last)
            if claim is not None:
                yield claim


def _in_row(number: int, header: list[str], cells: list[str]) -> Iterator[Claim]:
    row = dict(zip(header, cells, strict=False))
    step = row.get("step", "").replace(",", "")
    if not step.isdigit():
        return
    for name, cell in row.items():
        match = re.fullmatch(_NUMBER, cell)
        if name in QUANTITIES and match is not None:
            claim = _claim(number, name, QUANTITIES[name], match["number"], match["scale"], int(step), None)
            if claim is not None:
                yield claim


def _claim(
    line: int, name: str, key: str, number: str, scale: str | None, step: int | None, last: int | None
) -> Claim | None:
    mantissa, _, exponent = number.replace(",", "").partition("e")
    decimals = len(mantissa.partition(".")[2])
    if decimals == 0 and key not in ("tokens_per_second", "parameters"):
        return None  # too coarse to be a measurement: `loss 4`
    factor = {"k": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "billion": 1e9}.get((scale or "").lower(), 1.0)
    factor *= 10.0 ** int(exponent or 0)
    text = f"{number} {scale}" if scale else number
    return Claim(line, name, key, text, float(mantissa) * factor, factor * 10.0**-decimals, step, last)
