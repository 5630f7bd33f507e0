"""Byte-level BPE by hand: training, encoding, decoding and the file formats."""

from __future__ import annotations

from linnet.tokenizer.tokenizer import Tokenizer
from linnet.tokenizer.training import train_bpe, train_bpe_from_texts

__all__ = ["Tokenizer", "train_bpe", "train_bpe_from_texts"]
