"""Machine code for the tokenizer: the same pre-tokens, merges and ids as the readable modules beside this package.

Everything here is compiled by numba when it is first called, and kept on disk. Import it only where there is enough to
do: `linnet.tokenizer.engine` says when.
"""

from __future__ import annotations
