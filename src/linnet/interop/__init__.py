"""Models of other libraries, in and out."""

from linnet.interop.huggingface import load_hf, load_hf_model
from linnet.interop.rows import halves_to_pairs, hf_tensors, pairs_to_halves

__all__ = ["halves_to_pairs", "hf_tensors", "load_hf", "load_hf_model", "pairs_to_halves"]
