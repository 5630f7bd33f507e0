"""Models of other libraries, in and out."""

from linnet.interop.export_huggingface import HFExport, export_hf
from linnet.interop.export_weights import WeightsExport, export_weights
from linnet.interop.facts import TrainingFacts
from linnet.interop.gguf import GGUFReport, export_gguf
from linnet.interop.huggingface import load_hf, load_hf_model
from linnet.interop.rows import halves_to_pairs, hf_tensors, pairs_to_halves

__all__ = [
    "GGUFReport",
    "HFExport",
    "TrainingFacts",
    "WeightsExport",
    "export_gguf",
    "export_hf",
    "export_weights",
    "halves_to_pairs",
    "hf_tensors",
    "load_hf",
    "load_hf_model",
    "pairs_to_halves",
]
