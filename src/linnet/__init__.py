"""linnet trains small language models from nothing, and proves that the result is right."""

__version__ = "0.1.0"
