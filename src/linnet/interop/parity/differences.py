"""Two models read from files: which settings differ, which tensors, and what could have been done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from linnet.config import NOT_THE_FUNCTION, ModelConfig
from linnet.interop.parity.side import EMBEDDING, HEAD, Side
from linnet.interop.parity.storage import BITS, round_as, same_stored
from linnet.interop.rows import halves_to_pairs, is_rotated, pairs_to_halves
from linnet.model.frequencies import inverse_frequencies

# tie_word_embeddings and rope_scaling are looked at apart, and both sides have rotate-half rows.
_FIELDS = tuple(
    name
    for name in ModelConfig.model_fields
    if name not in NOT_THE_FUNCTION and name not in ("tie_word_embeddings", "rope_scaling", "rope_interleaved")
)
_VOCABULARY = "the vocabularies are"


@dataclass(frozen=True)
class Difference:
    """A tensor that is not the same on both sides.

    Attributes:
        names: the tensors it is about.
        what: a clause with a place for their names.
        explains: the setting that differs for this reason.
    """

    names: tuple[str, ...]
    what: str
    explains: str | None = None

    def clause(self) -> str:
        """The clause, its names filled in."""
        return self.what.format(shown(self.names))


def shown(names: Sequence[str], most: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def config_findings(first: ModelConfig, second: ModelConfig) -> dict[str, str]:
    """Settings that define the function and differ: a clause with both values for each."""
    found = {}
    for name in _FIELDS:
        one, other = getattr(first, name), getattr(second, name)
        # Settings are computed with in float32, and GGUF keeps them so.
        if one != other and not (isinstance(one, float) and np.float32(one) == np.float32(other)):
            found[name] = f"{name} is {one} in the first and {other} in the second"
    if first.rope_scaling != second.rope_scaling and not _rotate_alike(first, second):
        found["rope_scaling"] = f"rope_scaling is {_scaling(first)} in the first and {_scaling(second)} in the second"
    return found


def _rotate_alike(first: ModelConfig, second: ModelConfig) -> bool:
    """Whether two ways of writing rope_scaling down come to the same angles."""
    for length in (1, min(first.longest_sequence, second.longest_sequence)):
        ones, others = (
            inverse_frequencies(
                config.head_dim, config.rope_theta, config.rope_scaling, config.max_position_embeddings, length
            )
            for config in (first, second)
        )
        if ones[0].shape != others[0].shape or not torch.allclose(ones[0], others[0], rtol=1e-6, atol=0):
            return False
        if abs(ones[1] - others[1]) > 1e-6:
            return False
    return first.longest_sequence == second.longest_sequence


def _scaling(config: ModelConfig) -> str:
    return "absent" if config.rope_scaling is None else str(config.rope_scaling.model_dump(exclude_none=True))


def tensor_findings(first: Side, second: Side) -> tuple[int, list[Difference]]:
    """How many tensors are compared, and each kind of difference between them."""
    ones, others = first.tensors(), second.tensors()
    differences = list(_head(first, second, ones, others))
    tied = HEAD not in ones or HEAD not in others
    for mine, theirs, where in ((ones, others, "second"), (others, ones, "first")):
        missing = tuple(name for name in mine if name not in theirs and not (tied and name == HEAD))
        if missing:
            differences.append(Difference(missing, f"{{}}: missing in the {where}"))
    shared = [name for name in ones if name in others]
    pairs = _Pairs(first, second, ones, others)
    differing = [name for name in shared if not pairs.same(name)]
    differences += _explained(pairs, differing)
    return len(shared), differences


def _head(first: Side, second: Side, ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[Difference]:
    """A head of its own on one side only, if it is another matrix than the embedding."""
    for mine, theirs, has, lacks, owner in (
        (ones, others, "first", "second", first),
        (others, ones, "second", "first", second),
    ):
        if HEAD in mine and HEAD not in theirs:
            storage = owner.storage.get(HEAD, "float32"), owner.storage.get(EMBEDDING, "float32")
            if not same_stored(mine[HEAD], mine[EMBEDDING], *storage):
                yield Difference(
                    (HEAD,),
                    f"the {has} has a head of its own ({{}}), which the {lacks} has lost: tie_word_embeddings there "
                    "makes the embedding the head",
                )


class _Pairs:
    """The tensors of both sides, each with the type it is stored in."""

    def __init__(self, first: Side, second: Side, ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
        self.first, self.second, self.ones, self.others = first, second, ones, others

    def same(self, name: str, change: Callable[[Tensor], Tensor] = lambda tensor: tensor, of: str = "") -> bool:
        """Whether the second side's `name` is the first side's `of`, by default of that name, after `change`."""
        source = of or name
        one, other = change(self.ones[source]), self.others[name]
        if one.shape != other.shape:
            return False
        kinds = self.first.storage.get(source, "float32"), self.second.storage.get(name, "float32")
        # A row tells almost always, and a tensor may be large.
        return same_stored(one[:1], other[:1], *kinds) and same_stored(one, other, *kinds)


def _explained(pairs: _Pairs, differing: list[str]) -> Iterator[Difference]:
    """The differing tensors, those with one explanation together."""
    grouped: dict[str | None, list[str]] = {}
    for name in differing:
        grouped.setdefault(_explanation(pairs, name, differing), []).append(name)
    unexplained = grouped.pop(None, [])
    for what, names in grouped.items():
        assert what is not None
        yield Difference(tuple(names), what, "vocab_size" if _VOCABULARY in what else None)
    if unexplained:
        yield Difference(tuple(unexplained), f"{{}}: {_largest(pairs, unexplained)}")


def _explanation(pairs: _Pairs, name: str, differing: Sequence[str]) -> str | None:
    """A clause with a place for the names that it holds for; None where nothing explains the difference."""
    one, other = pairs.ones[name], pairs.others[name]
    for holder in differing:
        if holder != name and pairs.same(name, of=holder):
            return _exchanged(pairs, name, holder)
    head_dim = pairs.first.config.head_dim
    if is_rotated(name) and one.shape == other.shape and one.shape[0] % head_dim == 0 and head_dim % 2 == 0:
        if pairs.same(name, lambda rows: halves_to_pairs(rows, head_dim)):
            return "{}: rows stand in the interleaved order in the second, left unpermuted or permuted once too often"
        if pairs.same(name, lambda rows: pairs_to_halves(rows, head_dim)):
            return "{}: rows stand in the interleaved order in the first, left unpermuted or permuted once too often"
    if one.ndim == 2 and pairs.same(name, lambda matrix: matrix.T):
        return "{}: transposed"
    if one.shape != other.shape:
        return _other_shape(pairs, name)
    for kind in BITS:
        if kind == "float32" or (kind == "q8_0" and one.shape[-1] % 32):
            continue
        for wider, narrower, where in ((one, other, "second"), (other, one, "first")):
            if torch.equal(round_as(wider, kind), narrower):
                return f"{{}}: rounded to {kind} in the {where}, though it is stored in another type there"
    return _scaled(one, other)


def _exchanged(pairs: _Pairs, name: str, holder: str) -> str:
    ends = tuple(part.rsplit(".", 2)[-2] for part in (holder, name))
    if pairs.same(holder, of=name):
        if name.replace(f".{ends[1]}.", ".") == holder.replace(f".{ends[0]}.", "."):
            one, other = sorted(ends)
            return f"{one} and {other} are swapped: {{}}"
        return f"{min(name, holder)} and {max(name, holder)} are swapped: {{}}"
    return f"{{}} in the second is {holder} of the first"


def _other_shape(pairs: _Pairs, name: str) -> str:
    one, other = pairs.ones[name], pairs.others[name]
    shapes = f"{tuple(one.shape)} in the first and {tuple(other.shape)} in the second"
    if name not in (EMBEDDING, HEAD) or one.shape[1:] != other.shape[1:]:
        return f"{{}} is {shapes}"
    rows = min(len(one), len(other))
    off = abs(len(one) - len(other))
    kinds = pairs.first.storage.get(name, "float32"), pairs.second.storage.get(name, "float32")
    missing = f"{_VOCABULARY} off by one" if off == 1 else f"{_VOCABULARY} {off} rows apart"
    if same_stored(one[:rows], other[:rows], *kinds):
        return f"{missing}: {{}} is {shapes}; the rows that both have agree, the last are missing"
    if same_stored(one[-rows:], other[-rows:], *kinds):
        return f"{missing}: {{}} is {shapes}; the first rows are missing, so every id is shifted"
    return f"{missing}: {{}} is {shapes}"


def _scaled(one: Tensor, other: Tensor) -> str | None:
    """Whether one is the other times a number, or plus one."""
    if torch.allclose(one + 1, other, rtol=1e-5, atol=1e-6) or torch.allclose(one, other + 1, rtol=1e-5, atol=1e-6):
        return "{}: one of the two has 1 added to it"
    factor = ((one * other).sum() / one.square().sum().clamp_min(1e-30)).item()
    if abs(factor - 1) > 1e-4 and torch.allclose(one * factor, other, rtol=1e-4, atol=1e-6):
        return f"{{}}: in the second it is {factor:.6g} times that of the first"
    return None


def _largest(pairs: _Pairs, names: Sequence[str]) -> str:
    """Where the greatest of the differences that nothing explains is, and how great."""
    worst, place = -1.0, ""
    for name in names:
        difference = (pairs.ones[name] - pairs.others[name]).abs()
        if not torch.isfinite(difference).all():
            return f"differ, and {name} holds weights that are not finite"
        greatest = difference.max().item()
        if greatest > worst:
            at = np.unravel_index(int(difference.argmax()), tuple(difference.shape))
            worst, place = greatest, f"{name}[{', '.join(map(str, at))}]"
    return f"differ, the most by {worst:.3g} at {place}"
