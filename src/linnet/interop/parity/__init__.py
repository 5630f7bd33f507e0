"""The gate through which models come in and go out: two implementations side by side, proven or refused."""

from linnet.interop.parity.compare import compare
from linnet.interop.parity.linnet_side import LinnetSide
from linnet.interop.parity.llama_cpp_side import LlamaCppSide
from linnet.interop.parity.opening import is_huggingface_directory, linnet_side_of_directory, open_side, split_engine
from linnet.interop.parity.report import Check, ParityReport
from linnet.interop.parity.side import Side
from linnet.interop.parity.transformers_side import TransformersSide

__all__ = [
    "Check",
    "LinnetSide",
    "LlamaCppSide",
    "ParityReport",
    "Side",
    "TransformersSide",
    "compare",
    "is_huggingface_directory",
    "linnet_side_of_directory",
    "open_side",
    "split_engine",
]
