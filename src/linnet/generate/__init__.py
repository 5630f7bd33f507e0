"""Sampling, the key-value cache and the loops that turn prompts into text."""

from linnet.generate.cache import KeyValueCache, LayerCache
from linnet.generate.engine import evaluation_mode, generate, generate_stream
from linnet.generate.sampling import SamplingSettings, distribution, sample
from linnet.generate.text import Completion, TextGenerator, TextStream

__all__ = [
    "Completion",
    "KeyValueCache",
    "LayerCache",
    "SamplingSettings",
    "TextGenerator",
    "TextStream",
    "distribution",
    "evaluation_mode",
    "generate",
    "generate_stream",
    "sample",
]
