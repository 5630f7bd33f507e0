"""Machine code for the tokenizer: the same pre-tokens, merges and ids as the readable modules beside this package."""

from __future__ import annotations
