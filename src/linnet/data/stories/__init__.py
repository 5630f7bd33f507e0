"""`builtin:stories`: short English stories from a grammar whose entropy is known exactly."""

from __future__ import annotations

from linnet.data.stories.corpus import (
    entropy_per_byte,
    entropy_per_story,
    expected_bytes,
    log_probability,
    stories,
)

__all__ = ["entropy_per_byte", "entropy_per_story", "expected_bytes", "log_probability", "stories"]
