"""JSON on standard output, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_line(record: Mapping[str, Any]) -> str:
    """`record`, whose values are no containers, as a JSON object; JSON has no NaN or infinity: both become null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
    return json.dumps(finite, allow_nan=False)
