"""Fetching a tokenizer's files from the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from linnet.errors import UserError


def fetch_tokenizer(name: str) -> Path:
    """A `tokenizer.json` from the Hub, or a folder with `vocab.json` and `merges.txt` where there is none.

    Files that were fetched before are taken from the Hub's cache on this machine without asking for newer ones.

    Args:
        name: "owner/model" or "model".

    Raises:
        UserError: not a name, no such model, no network, or huggingface_hub not installed.
    """
    if name.endswith((".json", ".txt")) or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name, re.ASCII):
        raise UserError(f"{name} is missing; give a folder, a tokenizer.json or a name on the Hugging Face Hub.")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise UserError(
            f"{name} is not on this machine, and fetching it from the Hub needs huggingface_hub: "
            "pip install 'linnet[hub]'"
        ) from None
    try:
        for cached_only in (True, False):
            for files in (("tokenizer.json",), ("vocab.json", "merges.txt")):
                try:
                    paths = [Path(hf_hub_download(name, file, local_files_only=cached_only)) for file in files]
                except EntryNotFoundError as error:
                    if isinstance(error, LocalEntryNotFoundError) and not cached_only:
                        raise
                else:
                    return paths[0] if len(paths) == 1 else paths[0].parent
        reason = "that model has neither tokenizer.json nor vocab.json with merges.txt"
    except LocalEntryNotFoundError:
        reason = "the Hugging Face Hub cannot be reached and no copy of it is cached"
    except HfHubHTTPError as error:
        reason = f"the Hugging Face Hub says: {str(error).strip().splitlines()[-1]}"
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
    raise UserError(f"{name} is not a path here, and could not be fetched: {reason}; check the name or give a path.")
