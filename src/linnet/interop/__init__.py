"""Models of other libraries, in."""

from linnet.interop.huggingface import load_hf, load_hf_model

__all__ = ["load_hf", "load_hf_model"]
