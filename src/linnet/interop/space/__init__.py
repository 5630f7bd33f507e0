"""A folder that Hugging Face Spaces runs as it stands: a page on which an exported model writes."""

from linnet.interop.space.writing import write_space

__all__ = ["write_space"]
