"""linnet tokenizer encode, decode."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from linnet.cli.terminal import for_standard_output
from linnet.cli.tokenizer_argument import load_tokenizer, refuse_to_overwrite, says_too_little
from linnet.errors import UserError

if TYPE_CHECKING:
    import numpy.typing as npt

    from linnet.cli.progress import Report
    from linnet.tokenizer import Tokenizer

    Ids = npt.NDArray[Any]

READ_BYTES = 1 << 20
IDS_AT_ONCE = 1 << 16
DIGITS = 18  # more than any id has, fewer than Python refuses to read
NPY_MAGIC = b"\x93NUMPY"


@click.command("encode", short_help="Text to ids.")
@click.argument("tokenizer")
@click.argument("text", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option("--out", type=click.Path(path_type=Path), help="Write the ids as raw uint16 or uint32 instead.")
@click.option("--npy", type=click.Path(path_type=Path), help="Write the ids as an array for numpy.load instead.")
@says_too_little
def encode(
    tokenizer: str, text: str, out: Path | None, npy: Path | None, pattern: str | None, special: tuple[str, ...]
) -> None:
    """Ids of TEXT (a UTF-8 file, also .gz or .zst; default: standard input), one line for all, or an array in a file.

    TOKENIZER is a run, a directory, a tokenizer.json, a .tiktoken file (with --pattern) or a name on the Hub. Memory
    does not grow with the text.

    \b
    Examples:
      linnet tokenizer encode runs/demo story.txt
      linnet tokenizer encode story-tokenizer story.txt --out story.ids
      linnet tokenizer encode story-tokenizer story.txt.gz --npy story.npy
    """
    from linnet.cli.progress import progress_reporter
    from linnet.tokenizer.blocks import encode_blocks

    if out is not None and npy is not None and out.resolve() == npy.resolve():
        raise UserError(f"{out}: is named by --out and by --npy: give each a file of its own")
    for path in filter(None, (out, npy)):
        refuse_to_overwrite(path, [text, tokenizer])
    loaded = load_tokenizer(tokenizer, pattern, special)
    stdout = sys.stdout  # a progress bar on a terminal puts a stream of its own in this place
    printed = out is None and npy is None
    with ExitStack() as stack:
        seen = printed and stdout is not None and stdout.isatty()
        report = None if seen else stack.enter_context(progress_reporter())
        blocks = encode_blocks(loaded, _decoded(text, report))
        if printed:
            separator = ""
            for ids in _small_blocks(blocks):
                click.echo(separator + " ".join(map(str, ids)), nl=False, file=stdout)
                separator = " "
            click.echo(file=stdout)
            return
        count = _write(blocks, loaded, out, npy)
    kind = loaded.dtype.name
    if out is not None:
        click.echo(f"{out}: {count:,} ids as little-endian {kind}")
    if npy is not None:
        click.echo(f"{npy}: {count:,} ids as an array of {kind}")


@click.command("decode", short_help="Ids to text.")
@click.argument("tokenizer")
@click.argument("ids", type=click.File("rb"), default="-")
@click.option("--raw", is_flag=True, help="The ids are raw integers, as `encode --out` writes them.")
@says_too_little
def decode(tokenizer: str, ids: BinaryIO, raw: bool, pattern: str | None, special: tuple[str, ...]) -> None:
    """Text of IDS (a file; default: standard input): decimal numbers between white space, or a .npy file.

    TOKENIZER is as for `encode`. Bytes that are no UTF-8 appear as U+FFFD.

    \b
    Examples:
      echo "72 105" | linnet tokenizer decode runs/demo
      linnet tokenizer decode story-tokenizer story.npy
      linnet tokenizer decode story-tokenizer story.ids --raw
    """
    import codecs

    loaded = load_tokenizer(tokenizer, pattern, special)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    vocab = loaded.vocab
    for block in _raw_ids(ids, loaded) if raw else _read_ids(ids):
        known = [vocab[id] if id in vocab else loaded.token_bytes(id) for id in block]  # the latter says what is wrong
        sys.stdout.write(for_standard_output(decoder.decode(b"".join(known))))
    sys.stdout.write(for_standard_output(decoder.decode(b"", True)))


def _decoded(name: str, report: Report | None) -> Iterator[str]:
    """The text named, a piece at a time, its line ends as they are."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    for chunk in _chunks(name, report):
        held = len(decoder.getstate()[0])
        try:
            yield decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            shown = "standard input" if name == "-" else name
            raise UserError(f"{shown}: is not UTF-8 near byte {done - held + error.start}") from error
        done += len(chunk)


def _chunks(name: str, report: Report | None) -> Iterator[bytes]:
    """The bytes named, and an empty piece at their end."""
    from linnet.data.bytestreams import COMPRESSED, read_bytes

    path = Path(name)
    plain = path.is_file() and path.suffix.lower() not in COMPRESSED
    total = path.stat().st_size if plain and name != "-" else None
    done = 0
    for chunk in _standard_input() if name == "-" else read_bytes(path):
        yield chunk
        done += len(chunk)
        if report is not None:
            report("encoding", done, total)
    yield b""


def _standard_input() -> Iterator[bytes]:
    with click.open_file("-", "rb") as stdin:
        while chunk := stdin.read(READ_BYTES):
            yield chunk


def _small_blocks(blocks: Iterable[Ids]) -> Iterator[list[int]]:
    for block in blocks:
        for start in range(0, block.size, IDS_AT_ONCE):
            yield block[start : start + IDS_AT_ONCE].tolist()


def _write(blocks: Iterable[Ids], tokenizer: Tokenizer, out: Path | None, npy: Path | None) -> int:
    """Write the ids into both files, as far as they are named, and return how many there are."""
    from linnet.durable import replacing

    dtype = tokenizer.dtype.newbyteorder("<")
    count = 0
    with ExitStack() as stack:
        files = [stack.enter_context(replacing(path)) for path in (out, npy) if path is not None]
        if npy is not None:
            files[-1].write(_npy_header(dtype, 0))
        for block in blocks:
            for file in files:
                file.write(block.astype(dtype, copy=False).tobytes())
            count += block.size
        if npy is not None:
            files[-1].seek(0)
            files[-1].write(_npy_header(dtype, count))
    return count


def _npy_header(dtype: Any, count: int) -> bytes:
    """The beginning of a .npy file; its size does not depend on `count`, for which numpy leaves room."""
    import io

    from numpy.lib import format as npy_format

    header = io.BytesIO()
    described = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    npy_format.write_array_header_1_0(header, described)
    return header.getvalue()


def _raw_ids(file: BinaryIO, tokenizer: Tokenizer) -> Iterator[list[int]]:
    import numpy as np

    size = tokenizer.dtype.itemsize
    while data := file.read(IDS_AT_ONCE * size):
        if len(data) % size:
            raise UserError(f"{file.name}: ends in the middle of an id of {size} bytes")
        yield np.frombuffer(data, dtype=tokenizer.dtype.newbyteorder("<")).tolist()


def _read_ids(file: BinaryIO) -> Iterator[list[int]]:
    """Ids from decimal numbers, or from a .npy file, whose beginning no number has."""
    beginning = file.read(len(NPY_MAGIC))
    return _npy_ids(file) if beginning == NPY_MAGIC else _written_ids(file, beginning)


def _npy_ids(file: BinaryIO) -> Iterator[list[int]]:
    import numpy as np
    from numpy.lib import format as npy_format

    version = file.read(2)
    read_header = npy_format.read_array_header_1_0 if version == b"\1\0" else npy_format.read_array_header_2_0
    try:
        shape, _, dtype = read_header(file)
    except ValueError as error:
        raise UserError(f"{file.name}: is a .npy file with a damaged beginning: write it again") from error
    if dtype.kind not in "ui" or len(shape) != 1 or shape[0] < 0:
        raise UserError(f"{file.name}: holds {dtype} of shape {shape}: ids are integers in one dimension")
    left = shape[0]
    while left:
        data = file.read(min(left, IDS_AT_ONCE) * dtype.itemsize)
        if not data or len(data) % dtype.itemsize:
            raise UserError(f"{file.name}: is cut short: it should hold {shape[0]:,} ids")
        block = np.frombuffer(data, dtype=dtype)
        left -= block.size
        yield block.tolist()


def _written_ids(file: BinaryIO, beginning: bytes) -> Iterator[list[int]]:
    line = 1
    data = beginning + file.read(READ_BYTES)
    while data:
        following = file.read(READ_BYTES)
        words = data.split()
        begun = words.pop() if following and not data[-1:].isspace() else b""
        for word in words:
            if not word.isdigit() or len(word) > DIGITS:
                place = next(found.start() for found in re.finditer(rb"\S+", data) if found.group() == word)
                line += data.count(b"\n", 0, place)
                shown = word[:DIGITS].decode("utf-8", "replace")
                raise UserError(f"{file.name}, line {line}: '{shown}' is no id: ids are decimal numbers")
        yield list(map(int, words))
        line += data.count(b"\n")
        data = begun + following
