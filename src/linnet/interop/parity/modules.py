"""Two implementations module by module: which of them computes something else from the same input, and what."""

from __future__ import annotations

from torch import Tensor

from linnet.interop.parity.differences import shown
from linnet.interop.parity.formulas import likely_cause
from linnet.interop.parity.torch_side import TorchSide, module_names, record_modules

# Of the root mean square: rounding in float32 leaves about 1e-6 of one module.
_APART = 2e-5
_LENGTH = 48


def module_findings(first: TorchSide, second: TorchSide, ids: Tensor) -> list[str]:
    """Modules whose outputs differ although they are given the same input, the first of them with its likely cause.

    The second side's modules are given what reached those of the first, so that one fault does not spread.

    Args:
        first, second: with weights and settings that agree.
        ids: (batch, sequence), on which their logits differ.
    """
    ids = ids[:1, : min(_LENGTH, ids.shape[1])]
    ones = record_modules(first, ids)
    given = {name: entry for name, (entry, _) in ones.items() if name != "model.embed_tokens"}
    others = record_modules(second, ids, given)
    differing = [name for name in module_names(first.config) if _apart(ones[name][1], others[name][1]) > _APART]
    if not differing:
        return [_nothing_found(first, second, ids)]
    name = differing[0]
    (entry, one), (_, other) = ones[name], others[name]
    rest = [later for later in differing[1:] if later.rsplit(".", 1)[-1] != name.rsplit(".", 1)[-1]]
    alike = len(differing) - 1 - len(rest)
    found = f"{name} computes something else, though its input, weights and settings agree"
    found += f" (outputs differ by up to {(one - other).abs().max().item():.3g})"
    cause = likely_cause(first.config, first.tensors(), name, entry, (one, other))
    found += f": {cause}" if cause else ""
    found += f"; and so in {alike} more layers" if alike else ""
    return [found, *([f"{shown(rest)} compute something else, too"] if rest else [])]


def _apart(one: Tensor, other: Tensor) -> float:
    scale = one.square().mean().sqrt().clamp_min(1e-30)
    return ((one - other).square().mean().sqrt() / scale).item()


def _nothing_found(first: TorchSide, second: TorchSide, ids: Tensor) -> str:
    """Every module alone computes the same: either the difference is rounding, or what joins modules differs."""
    difference = (first.logits(ids) - second.logits(ids)).abs().max().item()
    alone = f"every module alone computes the same from the same input to {_APART:g}"
    if difference > 1e-2:
        return f"{alone}, so what joins them differs: residual paths, the head, or a scale (logits by {difference:.3g})"
    return f"{alone}, so rounding adds up, to {difference:.3g} in the logits of {ids.shape[1]} ids"
