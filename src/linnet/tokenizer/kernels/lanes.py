"""Sixty-four bytes at a time: which pre-tokens of ASCII text begin where, by the expressions of GPT-2 and SmolLM.

Each class of character becomes a word with a bit for each byte, and the expression becomes a few operations on these
words. Two neighbours tell whether a pre-token begins at a byte, so nothing is decided at the last one.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from linnet.tokenizer.kernels.compiling import inner

LANES = 64
_ONE = np.uint64(1)
_TWO, _THREE = np.uint64(2), np.uint64(3)
# The first byte begins a pre-token anyway, and the last has an unknown neighbour.
_DECIDED = np.uint64((1 << LANES) - 1 - 1 - (1 << (LANES - 1)))


@intrinsic
def classes_of(typing_context, data, at):
    """(letters, digits, white space, blanks, apostrophes, what is not ASCII) among 64 bytes, a bit each."""
    word = types.uint64
    signature = types.UniTuple(word, 6)(data, types.int64)

    def generate(context, builder, signature, arguments):
        lanes = ir.VectorType(ir.IntType(8), LANES)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = builder.gep(array.data, [arguments[1]])
        text = builder.load(builder.bitcast(byte, lanes.as_pointer()))
        text.align = 1

        def every(value):
            return ir.Constant(lanes, [value] * LANES)

        def within(values, first, count):
            return builder.icmp_unsigned("<", builder.sub(values, every(first)), every(count))

        def bits(flags):
            return builder.bitcast(flags, ir.IntType(LANES))

        blanks = builder.icmp_unsigned("==", text, every(0x20))
        letters = within(builder.or_(text, every(0x20)), ord("a"), 26)
        words = [
            bits(letters),
            bits(within(text, ord("0"), 10)),
            bits(builder.or_(blanks, within(text, 0x09, 5))),
            bits(blanks),
            bits(builder.icmp_unsigned("==", text, every(0x27))),
            bits(builder.icmp_unsigned(">=", text, every(0x80))),
        ]
        return context.make_tuple(builder, signature.return_type, words)

    return signature, generate


@intrinsic
def lowest_bit(typing_context, word):
    """The place of the lowest bit of a word that is not zero."""
    signature = types.int64(types.uint64)

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate


@inner
def _contractions(data, at, apostrophes, starts):
    """`starts` where some of these apostrophes, which begin pre-tokens, are 's 'd 'm 't 'll 've 're."""
    while apostrophes:
        place = lowest_bit(apostrophes)
        apostrophes &= apostrophes - _ONE
        if place + 3 > LANES:
            break
        letter = data[at + place + 1]
        second = data[at + place + 2]
        bit = _ONE << np.uint64(place)
        if letter == 0x73 or letter == 0x64 or letter == 0x6D or letter == 0x74:
            starts = (starts & ~(bit << _ONE)) | bit << _TWO
        elif (letter == 0x6C and second == 0x6C) or (second == 0x65 and (letter == 0x76 or letter == 0x72)):
            starts = (starts & ~(bit << _ONE)) | bit << _THREE
    return starts


@inner
def starts_in_block(data, at, digits_alone):
    """At which of the 64 bytes from `at` on, a beginning itself, pre-tokens begin; as far as these bytes tell."""
    letters, digits, spaces, blanks, apostrophes, beyond = classes_of(data, at)
    letters &= ~beyond
    others = ~(letters | digits | spaces | beyond)
    after_blank = blanks << _ONE
    going_on = (letters & letters << _ONE) | (others & others << _ONE)
    if digits_alone:
        words = digits | ((letters | others) & ~going_on & ~after_blank)
        kept_whole = spaces | digits
    else:
        going_on |= digits & digits << _ONE
        words = (letters | digits | others) & ~going_on & ~after_blank
        kept_whole = spaces
    starts = words | (spaces & ~(spaces << _ONE & kept_whole >> _ONE))
    quoted = apostrophes & starts & letters >> _ONE
    if quoted:
        starts = _contractions(data, at, quoted, starts)
    decided = _DECIDED
    if beyond:
        # Nothing at or next to what is not ASCII.
        low = beyond & (~beyond + _ONE)
        decided &= (low - _ONE) >> _ONE
    return starts & decided
