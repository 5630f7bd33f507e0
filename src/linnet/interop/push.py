"""Files to a repository on the Hugging Face Hub, in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from linnet.errors import UserError

Kind = Literal["model", "space"]


def check_push(repository: str) -> None:
    """See that a push to `repository` can begin, before anything is computed; asks nobody on the network.

    Raises:
        UserError: huggingface_hub is not installed, nobody is logged in, or `repository` is no `owner/name`.
    """
    try:
        from huggingface_hub import get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    except ImportError as error:
        raise UserError("--push needs huggingface_hub: pip install 'linnet[hub]'") from error
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push '{repository}' is no repository's name: {_first_line(error)}") from error
    if repository.count("/") != 1:
        raise UserError(f"--push '{repository}' names no owner: give owner/name")
    if get_token() is None:
        raise UserError("--push needs you to be logged in to the Hugging Face Hub: run `hf auth login`")


def push(files: Mapping[str, Path | bytes], repository: str, *, kind: Kind = "model", private: bool = False) -> str:
    """Put `files` into `repository` on the Hub, made if absent, and return its address.

    Args:
        files: by their names there; a path's content is read as it is sent.
        repository: `owner/name`.
        kind: a model, or a Space that runs Gradio.
        private: seen by its owner alone, where the repository is made now.

    Raises:
        UserError: no network, no right, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="linnet")
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    # What the library sends with: httpx, or requests in older ones. Its errors are not all the operating system's.
    transport_error: type[BaseException] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    try:
        made = api.create_repo(
            repository,
            repo_type=kind,
            private=private or None,
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
        )
        api.create_commit(repository, operations, commit_message="Export by linnet", repo_type=kind)
    except HfHubHTTPError as error:
        raise UserError(f"the Hub refused {repository}: {_reason(error)}") from error
    except (transport_error, OSError) as error:
        raise UserError(f"the Hub cannot be reached ({_first_line(error)})") from error
    except ValueError as error:  # the model card's front matter is checked there
        raise UserError(f"the Hub refused {repository}: {_first_line(error)}") from error
    return str(made)


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    told = getattr(error, "server_message", None) or str(error).strip().splitlines()[-1]
    hints = {401: "; log in with `hf auth login`", 403: "; your token may not write there"}
    return f"{' '.join(told.split())}{hints.get(status or 0, '')}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
