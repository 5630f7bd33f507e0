"""llama.cpp on a GGUF file, through llama-cpp-python's C interface: ids of text, logits, greedy continuation.

Set for comparison: on the CPU, keys and values in float32, no flash attention, no token added to a text.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from linnet.errors import UserError
from linnet.interop.gguf.package import llama_cpp_package
from linnet.interop.gguf.reader import GGUFContent, read_gguf

MOST_BATCH = 512
MOST_THREADS = 4
_ERROR = 4  # the level of llama.cpp's messages that tell why it gave up


class LlamaCpp:
    """A model in llama.cpp.

    llama.cpp ends the whole process over some damaged files, so `read_gguf` must have accepted the file first.

    Args:
        file: a GGUF file.
        context: most tokens of one sequence; None: the model's own, 4096 at most.
        threads: None: one for each core, four at most.

    Raises:
        UserError: no llama-cpp-python, a file that `read_gguf` or llama.cpp refuses, or no memory for the context.
    """

    def __init__(self, file: str | Path, context: int | None = None, *, threads: int | None = None) -> None:
        self._model: Any = None
        self._context: Any = None
        self._native = native = llama_cpp_package("llama.cpp")
        self.content: GGUFContent = read_gguf(file)
        longest = self.content.config.max_position_embeddings
        self.context = min(longest, 4096) if context is None else context
        self._threads = threads or min(MOST_THREADS, os.cpu_count() or 1)
        with self._told(f"{file}: llama.cpp does not load it"):
            native.llama_backend_init()
            settings = native.llama_model_default_params()
            settings.n_gpu_layers = 0
            self._model = native.llama_model_load_from_file(os.fsencode(file), settings)
            if self._model is not None:
                self._context = native.llama_init_from_model(self._model, self._context_settings())
            if self._context is None:
                self.close()
                raise _NothingBackError
        self._vocabulary = native.llama_model_get_vocab(self._model)
        self._memory = native.llama_get_memory(self._context)
        self._positions = 0

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """The ids of a text; special tokens in it become one id each if `special`, and are cut like any text if not."""
        data = text.encode()
        ids = (self._native.llama_token * (len(data) + 8))()
        count = self._native.llama_tokenize(self._vocabulary, data, len(data), ids, len(ids), False, special)
        assert count >= 0, "no token is shorter than a byte"
        return list(ids[:count])

    def logits(self, ids: Sequence[int], positions: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
        """(count, vocabulary): what follows each of `ids`, from an empty cache; of all, or at ascending `positions`.

        Raises:
            UserError: more ids than the context, or an id that the model does not have.
        """
        self._forget()
        wanted = np.arange(len(ids)) if positions is None else np.asarray(positions)
        kept, start = [], 0
        for rows in self._decode(ids, every=True):
            inside = wanted[(wanted >= start) & (wanted < start + len(rows))]
            kept.append(rows[inside - start])
            start += len(rows)
        return np.concatenate(kept)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The `count` likeliest ids after `ids`, one after the other with the cache; an end token does not stop it.

        Raises:
            UserError: more ids than the context, or an id that the model does not have.
        """
        self._forget()
        chosen: list[int] = []
        fed = list(ids)
        while len(chosen) < count:
            *_, last = self._decode(fed, every=False)
            fed = [int(last[-1].argmax())]
            chosen += fed
        return chosen

    def close(self) -> None:
        """Give the memory back."""
        if self._context is not None:
            self._native.llama_free(self._context)
        if self._model is not None:
            self._native.llama_model_free(self._model)
        self._context = self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _context_settings(self) -> Any:
        native = self._native
        settings = native.llama_context_default_params()
        settings.n_ctx = self.context
        settings.n_batch = settings.n_ubatch = min(self.context, MOST_BATCH)
        settings.n_seq_max = 1
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.type_k = settings.type_v = native.GGML_TYPE_F32
        settings.flash_attn_type = native.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.offload_kqv = settings.op_offload = False
        return settings

    def _forget(self) -> None:
        self._native.llama_memory_clear(self._memory, True)
        self._positions = 0

    def _decode(self, ids: Sequence[int], every: bool) -> Iterator[npt.NDArray[np.float32]]:
        """Reads `ids` on from what is cached; yields the logits of each batch, of all its tokens or of the last."""
        vocabulary = self.content.config.vocab_size
        if not ids or self._positions + len(ids) > self.context:
            raise UserError(f"{self._positions + len(ids)} tokens do not fit llama.cpp's context of {self.context}")
        if not all(0 <= id < vocabulary for id in ids):
            raise UserError(f"{self.content.file}: has ids from 0 to {vocabulary - 1}, and was given others")
        native = self._native
        size = min(self.context, MOST_BATCH)
        batch = native.llama_batch_init(size, 0, 1)
        try:
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                batch.n_tokens = len(part)
                for at, id in enumerate(part):
                    batch.token[at] = id
                    batch.pos[at] = self._positions + at
                    batch.n_seq_id[at] = 1
                    batch.seq_id[at][0] = 0
                    batch.logits[at] = every or at == len(part) - 1
                with self._told(f"{self.content.file}: llama.cpp does not run it"):
                    if native.llama_decode(self._context, batch) != 0:
                        raise _NothingBackError
                self._positions += len(part)
                rows = len(part) if every else 1
                found = native.llama_get_logits(self._context)
                yield np.ctypeslib.as_array(found, shape=(rows, vocabulary)).astype(np.float32, copy=True)
        finally:
            native.llama_batch_free(batch)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Keeps llama.cpp's messages from stderr, and tells the first of its errors where the block fails."""
        messages: list[str] = []

        def keep(level: int, text: bytes, _: ctypes.c_void_p) -> None:
            if level == _ERROR and text.strip():
                messages.append(text.decode(errors="replace").strip())

        callback = self._native.llama_log_callback(keep)
        self._native.llama_log_set(callback, None)
        try:
            yield
        except _NothingBackError:
            raise UserError(f"{what}: {messages[0] if messages else 'it does not say why'}") from None
        finally:
            self._native.llama_log_set(_silence(self._native), None)


class _NothingBackError(Exception):
    """llama.cpp gave nothing back."""


@cache
def _silence(native: Any) -> Any:
    """A callback that hears llama.cpp's messages and says nothing; it must live as long as llama.cpp may call it."""
    return native.llama_log_callback(lambda *_: None)
