"""GGUF, llama.cpp's file format: models out, files back in for comparison, and llama.cpp itself as the other side."""

from linnet.interop.gguf.llama_cpp import LlamaCpp
from linnet.interop.gguf.pretokenizers import known_differences
from linnet.interop.gguf.reader import GGUFContent, read_gguf
from linnet.interop.gguf.writer import GGUFReport, export_gguf

__all__ = ["GGUFContent", "GGUFReport", "LlamaCpp", "export_gguf", "known_differences", "read_gguf"]
