"""Data sets of the Hugging Face Hub, or ones that `datasets` wrote to disk, streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linnet.data.documents import Documents, gathered, missing_field, text_of
from linnet.errors import UserError

_SAVED_TO_DISK = ("dataset_info.json", "dataset_dict.json")


@dataclass(frozen=True)
class HubDataset:
    """One split of a data set, a row a document.

    Args:
        name: `owner/name` on the Hub, or a local directory.
        config: the data set's configuration, e.g. `wikitext-2-raw-v1`.
        split: the data set's own split, e.g. `train`.
        text_field: the column that holds the text.
    """

    name: str
    config: str | None
    split: str
    text_field: str

    @classmethod
    def parse(cls, spec: str, text_field: str) -> HubDataset:
        """From `hf:owner/name[:config][@split]`; the split is `train` unless given.

        Raises:
            UserError: if the form is not that.
        """
        name, at, split = spec.removeprefix("hf:").partition("@")
        name, colon, config = name.partition(":")
        if not name or (at and not split) or (colon and not config):
            raise UserError(f"{spec}: should be hf:owner/name[:config][@split], e.g. hf:roneneldan/TinyStories@train")
        return cls(name, config or None, split or "train", text_field)

    @property
    def size(self) -> int | None:
        return None

    @property
    def entropy_nats_per_byte(self) -> float | None:
        return None

    @property
    def spec(self) -> str:
        return f"hf:{self.name}" + (f":{self.config}" if self.config else "") + f"@{self.split}"

    def fingerprint(self) -> dict[str, Any]:
        """The names, and for a local directory its files; a Hub data set is not asked whether it changed."""
        facts = {"kind": "hf", "name": self.name, "config": self.config, "split": self.split}
        root = Path(self.name).expanduser()
        if not root.is_dir():
            return facts
        files = sorted(path for path in root.rglob("*") if path.is_file())
        listing = [[str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        return {**facts, "name": str(root.resolve()), "files": listing}

    def batches(self) -> Iterator[Documents]:
        return gathered(self._texts())

    def _texts(self) -> Iterator[str]:
        rows = iter(self._open())
        number = 0
        while True:
            try:
                record = next(rows)
            except StopIteration:
                return
            except Exception as error:  # `datasets` lets errors of many libraries through; all mean that reading failed
                raise self._failed(f"row {number + 1} could not be read", error) from error
            number += 1
            if number == 1 and self.text_field not in record:
                raise missing_field(self.spec, self.text_field, record)
            yield text_of(record, self.text_field, f"{self.spec} row {number}")

    def _open(self) -> Iterable[dict[str, Any]]:
        try:
            import datasets
        except ImportError as error:
            raise UserError(f"{self.spec}: needs the datasets library: pip install 'linnet[hub]'") from error
        root = Path(self.name).expanduser()
        try:
            if any((root / name).is_file() for name in _SAVED_TO_DISK):
                saved = datasets.load_from_disk(str(root))
                if not isinstance(saved, datasets.DatasetDict):
                    saved = {str(saved.split or "train"): saved}
                if self.split not in saved:
                    raise LookupError(f"there is no split '{self.split}', only {', '.join(saved)}")
                rows = saved[self.split]
            else:
                path = str(root) if root.is_dir() else self.name
                # Before version 4 the library would ask whether to run a data set's own code.
                rows = datasets.load_dataset(
                    path, self.config, split=self.split, streaming=True, trust_remote_code=False
                )
        except Exception as error:  # from a wrong name to a broken proxy: to the user all mean that it did not open
            raise self._failed("could not be opened", error) from error
        return rows  # type: ignore[no-any-return]

    def _failed(self, what: str, error: Exception) -> UserError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return UserError(f"{self.spec}: {what} ({reason}): check the name, the split and the network")
