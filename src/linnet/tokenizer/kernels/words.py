"""Pre-tokens as keys of hash tables: short ones are their own key, long ones are compared byte by byte."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from linnet.tokenizer.kernels.compiling import inner

# A key is two words of 64 bits. Up to SHORT bytes fill the first word and seven bytes of the second, the length its
# last byte. Of a longer piece the words are a hash, with LONG in that byte.
SHORT = 15
LONG = np.uint64(0xFF << 56)
# Buffers end in so many bytes that are read and never looked at.
PADDING = 16

_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
_FIRST = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xC2B2AE3D27D4EB4F)
_THIRD = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_ROTATION, _REST = np.uint64(29), np.uint64(35)
_LENGTH_SHIFT = np.uint64(56)


@intrinsic
def load64(typing_context, data, at):
    """Eight bytes from `at` on as one little-endian word, wherever it lies."""
    signature = types.uint64(data, types.int64)

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = builder.gep(array.data, [arguments[1]])
        load = builder.load(builder.bitcast(byte, ir.IntType(64).as_pointer()))
        load.align = 1
        return load

    return signature, generate


@inner
def mix(first, second):
    """A hash of the two words of a key."""
    mixed = (first ^ (second * _SECOND)) * _FIRST
    mixed = (mixed ^ (mixed >> _HALF)) * _THIRD
    return mixed ^ (mixed >> _HALF)


@inner
def short_key(data, start, size):
    """The key of a piece of at most SHORT bytes."""
    first = load64(data, start) & _MASKS[min(size, 8)]
    second = load64(data, start + 8) & _MASKS[max(size - 8, 0)]
    return first, second | (np.uint64(size) << _LENGTH_SHIFT)


@inner
def long_key(data, start, size):
    """The key of a piece of more than SHORT bytes."""
    first = np.uint64(size) * _FIRST
    second = _THIRD
    at = start
    end = start + size
    while at < end:
        word = load64(data, at) & _MASKS[min(end - at, 8)]
        first = (first ^ word) * _FIRST
        first = first << _ROTATION | first >> _REST
        second = (second + word) * _SECOND
        second ^= second >> _HALF
        at += 8
    return first, second | LONG


@inner
def same_bytes(left, at_left, right, at_right, size):
    """Whether `size` bytes of one buffer equal those of another; both are padded."""
    done = 0
    while done + 8 <= size:
        if load64(left, at_left + done) != load64(right, at_right + done):
            return False
        done += 8
    mask = _MASKS[size - done]
    return load64(left, at_left + done) & mask == load64(right, at_right + done) & mask
