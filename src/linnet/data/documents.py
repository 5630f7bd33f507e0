"""Files cut into documents: text, JSON lines, Parquet. Many small documents come at once, a large one in pieces."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from linnet.data.bytestreams import COMPRESSED, read_bytes, refusing_bombs
from linnet.errors import UserError

_PARQUET_ROWS = 16  # a page of a few bytes can stand for rows of many megabytes
_GATHERED_CHARACTERS = 1 << 20
_GATHERED_DOCUMENTS = 1 << 12
LONGEST_LINE = 1 << 26  # bytes of one JSON document; read, it can take thirty times as much memory


class Documents(NamedTuple):
    """Documents that follow one another.

    The first text may go on with the last document before, and the last text's document goes on unless `ends`; all
    others are whole. There is at least one text, and a text may be empty.
    """

    texts: list[str]
    ends: bool


def read_documents(path: Path, text_field: str, end_of_text: str, *, bounded: bool = False) -> Iterator[Documents]:
    """The documents of one file, its kind taken from its ending; any ending not known is text.

    Args:
        bounded: as in `read_bytes`.

    Raises:
        UserError: if the file is missing or damaged, not UTF-8, lacks `text_field`, or unpacks without measure.
    """
    kind = kind_of(path)
    if kind == ".jsonl":
        return gathered(_json_lines(path, text_field, bounded))
    if kind == ".parquet":
        return gathered(_parquet(path, text_field, bounded=bounded))
    return cut_documents(read_text(path, bounded=bounded), end_of_text)


def kind_of(path: Path) -> str:
    """The ending that tells what a file holds, with `.gz` and `.zst` taken off."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSED else path.suffix.lower()


def read_text(path: Path, *, bounded: bool = False) -> Iterator[str]:
    """The characters of a UTF-8 file exactly as they are, in pieces.

    Raises:
        UserError: if the file is not UTF-8, with the offset of the first byte that is not.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    for chunk in read_bytes(path, bounded=bounded):
        held = len(decoder.getstate()[0])
        try:
            yield decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, offset - held + error.start) from error
        offset += len(chunk)
    held = len(decoder.getstate()[0])
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, offset - held + error.start) from error


def cut_documents(chunks: Iterable[str], end_of_text: str) -> Iterator[Documents]:
    """Text cut at every `end_of_text`, which itself is dropped; without one, a single document."""
    held = ""
    for chunk in chunks:
        texts = (held + chunk).split(end_of_text)
        settled = max(0, len(texts[-1]) - (len(end_of_text) - 1))  # the rest may be the beginning of `end_of_text`
        texts[-1], held = texts[-1][:settled], texts[-1][settled:]
        yield Documents(texts, ends=False)
    yield Documents([held], ends=True)


def gathered(texts: Iterable[str]) -> Iterator[Documents]:
    """Whole documents, about a million characters of them at a time."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= _GATHERED_CHARACTERS or len(held) == _GATHERED_DOCUMENTS:
            yield Documents(held, ends=True)
            held, size = [], 0
    if held:
        yield Documents(held, ends=True)


def _not_utf8(path: Path, offset: int) -> UserError:
    return UserError(f"{path}: is not UTF-8 text (byte {offset}): convert it, or leave it out with a glob")


def _lines(path: Path, bounded: bool) -> Iterator[tuple[int, bytes]]:
    number = size = 0
    held: list[bytes] = []
    for chunk in read_bytes(path, bounded=bounded):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            number += 1
            held.append(line)
            yield number, _joined(held)
        size = len(rest) if whole else size + len(rest)
        if size > LONGEST_LINE:
            raise UserError(
                f"{path}:{number + 1}: is longer than {LONGEST_LINE:,} bytes: give one JSON object a line, "
                "or a text of that length as .txt"
            )
        held.append(rest)
    yield number + 1, _joined(held)


def _joined(parts: list[bytes]) -> bytes:
    """The parts in one; the list is emptied, for a line may be large."""
    line = b"".join(parts)
    parts.clear()
    return line


def _json_lines(path: Path, text_field: str, bounded: bool) -> Iterator[str]:
    for number, line in _lines(path, bounded):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: is not UTF-8 (byte {error.start} of the line): convert it") from error
        if not text or text.isspace():
            continue
        del line
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = _why_no_json(error)
            raise UserError(f"{path}:{number}: is not JSON ({reason}): give one JSON object a line") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: is not a JSON object: give one object a line, with the text in a field")
        yield text_of(record, text_field, f"{path}:{number}")


def _why_no_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else "a number of thousands of digits"


def text_of(record: dict[str, Any], text_field: str, place: str) -> str:
    """The text in a record.

    Raises:
        UserError: if the field is missing or does not hold text, naming `place`.
    """
    if text_field not in record:
        raise missing_field(place, text_field, record)
    text = record[text_field]
    if not isinstance(text, str):
        raise UserError(f"{place}: field '{text_field}' holds {type(text).__name__}, not text: set data.text_field")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{place}: field '{text_field}' holds half a surrogate pair: mend the record") from error
    return text


def missing_field(place: str, text_field: str, fields: Iterable[str]) -> UserError:
    """The error for a text field that is not there, naming those that are."""
    there = ", ".join(sorted(fields)) or "none"
    return UserError(f"{place}: has no field '{text_field}' (there are: {there}): set data.text_field")


def _parquet(path: Path, text_field: str, *, bounded: bool) -> Iterator[str]:
    texts = _parquet_texts(path, text_field)
    return texts if bounded else refusing_bombs(texts, path)


def _parquet_texts(path: Path, text_field: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow: pip install 'linnet[parquet]'") from error
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_field not in columns:
                raise missing_field(str(path), text_field, columns)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=[text_field]):
                column = batch.column(0)
                if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
                    longest = pyarrow.compute.max(pyarrow.compute.binary_length(column)).as_py() or 0
                    if longest > LONGEST_LINE:
                        raise UserError(
                            f"{path}: between rows {row + 1} and {row + len(column)} is one of {longest:,} bytes, more "
                            f"than {LONGEST_LINE:,}: cut it up, or give a text of that length as .txt"
                        )
                for text in column.to_pylist():
                    row += 1
                    yield text_of({text_field: text}, text_field, f"{path} row {row}")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: is not whole Parquet data ({reason}): fetch or write it again") from error
