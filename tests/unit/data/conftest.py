"""Text and settings that the tests of the data layer share."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from linnet.config import DataConfig, TokenizerConfig

WORDS = [
    "cat", "dog", "bird", "naïve", "house", "ran", "over", "the", "a", "1905", "'tis", "don't", "日本", "says:",
]  # fmt: skip


def random_text(characters: int, seed: int = 0) -> str:
    """Words, numbers, blanks and line ends in no order."""
    generator = random.Random(seed)
    parts: list[str] = []
    size = 0
    while size < characters:
        parts.append(generator.choice(WORDS) + generator.choice([" ", " ", " ", ", ", "  ", "\n", "\r\n", "\n\n"]))
        size += len(parts[-1])
    return "".join(parts)[:characters]


@pytest.fixture
def make_text() -> Callable[..., str]:
    return random_text


@pytest.fixture
def small_tokenizer() -> TokenizerConfig:
    return TokenizerConfig(vocab_size=300)


@pytest.fixture
def data_settings(tmp_path: Path) -> Callable[..., DataConfig]:
    """DataConfig whose prepared data lie in the test's own directory."""

    def settings(**changes: object) -> DataConfig:
        return DataConfig.model_validate({"directory": str(tmp_path / "prepared"), "seq_len": 8, **changes})

    return settings
