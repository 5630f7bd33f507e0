"""Text and JSON files, read and written whole, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from linnet.durable import write_durably
from linnet.errors import UserError

# The greatest tokenizer.json at large is half of this; read, JSON can take thirty times as much memory.
MOST_JSON_BYTES = 2**26


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, its line endings kept.

    Raises:
        UserError: a file that is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; check the path.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: byte {error.start} cannot be decoded; fetch or write it again."
        ) from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: besides `read_text`'s reasons, malformed JSON, another kind of value, a key given twice, or a file
            far longer than any such.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise UserError(f"{path} gives the key {key!r} twice; keep one of them.")
            found[key] = value
        return found

    refuse_special(path)
    if path.is_file() and path.stat().st_size > MOST_JSON_BYTES:
        raise UserError(f"{path} is {path.stat().st_size} bytes long, far more than such a file has; check the path.")
    try:
        value = json.loads(read_text(path), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "fetch or write the file again."
        ) from None
    except RecursionError:
        raise UserError(
            f"{path} is not usable: its JSON is nested too deeply; fetch or write the file again."
        ) from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} holds a number that cannot be read ({error}); fetch or write it again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}; it should hold one object.")
    return value


def refuse_special(path: Path) -> None:
    """Raises UserError where a pipe, socket or device lies at `path`, which would be waited for, or never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is no ordinary file; check the path.")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 as `linnet.durable` does, so that the file is never half written; makes its folder.

    Raises:
        UserError: a folder that cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; check the folder.") from None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object as `write_text` does."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
