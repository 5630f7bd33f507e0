"""The gate: two models side by side, proven to compute the same or refused with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from torch import Tensor

from linnet.interop.parity.battery import (
    RANDOM,
    TOKENS,
    Compared,
    compare_greedy,
    compare_logits,
    context,
    fixed_ids,
    long_lengths,
    random_ids,
    spread_positions,
)
from linnet.interop.parity.bounds import LOGIT_BOUND, Bound, rounding_bound
from linnet.interop.parity.differences import config_findings, tensor_findings
from linnet.interop.parity.modules import module_findings
from linnet.interop.parity.report import Check, ParityReport
from linnet.interop.parity.rounding import Rounding, planned_rounding, rounded_tensors
from linnet.interop.parity.side import Side, short_name
from linnet.interop.parity.tokenizers import compare_tokenizers
from linnet.interop.parity.torch_side import TorchSide

Progress = Callable[..., None]


def compare(first: Side, second: Side, *, progress: Progress | None = None) -> ParityReport:
    """Whether two models compute the same: settings, weights, logits, greedy text and tokenizers.

    Where one side stores its weights in a narrower type, the other is computed with its weights rounded to that type,
    so that the function is still held to the bound of float32, and what the rounding itself changes is a check of its
    own. Neither side's weights are changed.

    Args:
        first, second: in any order; findings speak of "the first" and "the second".
        progress: called as (description, done, total, unit).
    """
    examination = _Examination(first, second, progress)
    examination.read()
    with ExitStack() as stack:
        examination.round(stack)
        examination.compute()
    examination.tokenizers()
    return examination.report()


class _Examination:
    """One comparison while it goes on."""

    def __init__(self, first: Side, second: Side, progress: Progress | None) -> None:
        self.first, self.second, self._progress = first, second, progress
        self.checks: list[Check] = []
        self.findings = [f"{fault} ({side.description})" for side in (first, second) for fault in side.faults]
        self._explained = False
        self.notes: list[str] = []
        self.continuations = ("", "")
        self._done = 0
        self._lengths = long_lengths(first, second)
        self._total = 6 + len(self._lengths)
        self._plan: Rounding | None = planned_rounding(first, second)

    def read(self) -> None:
        """Settings and tensors."""
        self._tell()
        settings = config_findings(self.first.config, self.second.config)
        self._add(Check("settings", not settings, len(settings), 0, "fields of the config that differ"))
        count, differences = tensor_findings(self.first, self.second)
        kind = f", the wider rounded to {self._plan.kind}" if self._plan is not None else ""
        detail = f"kinds of difference in {count} tensors{kind}"
        self._add(Check("tensors", not differences, len(differences), 0, detail))
        explained = [difference for difference in differences if difference.explains is not None]
        for difference in explained:
            settings.pop(difference.explains or "", None)
        self.findings += [difference.clause() for difference in explained]
        self.findings += settings.values()
        self.findings += [difference.clause() for difference in differences if difference not in explained]
        self._explained = bool(self.findings)

    def round(self, stack: ExitStack) -> None:
        """Have the wider side hold rounded weights as long as `stack` is open, and measure what that changes."""
        if self._plan is None:
            return
        side, kind = self._plan.side, self._plan.kind
        if side is None:
            self.notes.append(
                f"the wider side's weights cannot be rounded to {kind}, so logits are held to the bound of rounding"
            )
            return
        bound = rounding_bound(kind, side.config.num_hidden_layers)
        ids = random_ids(self.first, self.second, self._shape(), seed=0)
        before = side.logits(ids)
        stack.enter_context(side.holding(rounded_tensors(side, self._plan.narrower)))
        figure = bound.figure(before, side.logits(ids))
        detail = "root mean square change of the logits over their standard deviation"
        self._add(Check(f"rounding to {kind}", figure <= bound.value, figure, bound.value, detail))
        if figure > bound.value:
            self.findings.append(
                f"rounding the weights to {kind} changes the logits by {figure:.2g} of their standard deviation, more "
                f"than {bound.value:.2g}: keep them in a wider type"
            )

    def compute(self) -> None:
        """Logits on fixed, random and long ids, and greedy text."""
        asked: list[tuple[str, Tensor, Tensor | None]] = [
            ("logits, fixed ids", fixed_ids(self.first, self.second), None),
            ("logits, random ids", random_ids(self.first, self.second, self._shape(), seed=0), None),
        ]
        for number, (name, length) in enumerate(self._lengths, 1):
            ids = random_ids(self.first, self.second, (1, length), seed=number)
            asked.append((name, ids, spread_positions(length)))
        seen = []
        for name, ids, positions in asked:
            bound = self._bound(ids.shape[1])
            compared = compare_logits(name, self.first, self.second, ids, positions, bound)
            seen.append(compared)
            self._add(compared.check)
        judged = zip(seen, asked, strict=True)
        failing = next((ids for compared, (_, ids, _) in judged if not compared.check.passed), None)
        if failing is not None:
            self._name_what_computes_otherwise(failing, seen)
        if all(compared.finite for compared in seen):
            self._continue(self._bound(TOKENS).of_one_logit(max(compared.deviation for compared in seen)))

    def tokenizers(self) -> None:
        """Ids, special tokens and sizes, where there are tokenizers."""
        if self.first.tokenizer is None and self.second.tokenizer is None:
            self.notes.append("neither side has a tokenizer, so ids of text were not compared")
            return
        compared = compare_tokenizers(self.first, self.second)
        self.checks += compared.checks
        self.findings += compared.findings
        self._done = self._total
        self._tell()

    def report(self) -> ParityReport:
        """What was found."""
        for check in self.checks:
            assert check.passed or self.findings, f"{check.name} failed and nothing says why"
        return ParityReport(
            self.first.description,
            self.second.description,
            tuple(self.checks),
            tuple(self.findings),
            tuple(self.notes),
            self.continuations,
            (self.first.versions, self.second.versions),
            (short_name(self.first.storage), short_name(self.second.storage)),
        )

    def _bound(self, length: int) -> Bound:
        """Of logits: 1e-4 in float32; looser where a side computes with narrow numbers, or could not be rounded."""
        exact = [side.exact_positions for side in (self.first, self.second) if side.exact_positions is not None]
        plain = Bound(LOGIT_BOUND * max(1.0, length / min(exact, default=length)))
        layers = self.first.config.num_hidden_layers
        kinds = [self.first.arithmetic, self.second.arithmetic]
        if self._plan is not None and self._plan.side is None:
            kinds.append(self._plan.kind)
        bounds = [rounding_bound(kind, layers) for kind in kinds if kind != "float32"]
        return max(bounds, key=lambda bound: bound.value, default=plain)

    def _name_what_computes_otherwise(self, ids: Tensor, seen: list[Compared]) -> None:
        worst = max(seen, key=lambda compared: compared.check.figure or 0.0).check
        assert worst.figure is not None
        found = f"{worst.name} differ by {worst.figure:.3g}, past {worst.bound:g}"
        if not all(compared.finite for compared in seen):
            self.findings.append(f"{worst.name} are not finite: weights are damaged, or training diverged")
        elif any(compared.deviation == 0 for compared in seen):
            self.findings.append("all logits are alike, which proves nothing: the head or the last norm is zero")
        elif self._explained:
            self.findings.append(found)
        elif isinstance(self.first, TorchSide) and isinstance(self.second, TorchSide):
            self.findings += [*module_findings(self.first, self.second, ids), found]
        else:
            self.findings.append(f"{found}, though settings and weights agree: one of the two computes otherwise")

    def _continue(self, tolerance: float) -> None:
        continued = compare_greedy(self.first, self.second, tolerance)
        self._add(continued.check)
        if continued.finding is not None:
            self.findings.append(continued.finding)
        self.continuations = (
            _text((self.first, self.second), [*continued.prompt, *continued.first]),
            _text((self.second, self.first), [*continued.prompt, *continued.second]),
        )

    def _shape(self) -> tuple[int, int]:
        batch, length = RANDOM
        return batch, min(length, context(self.first, self.second))

    def _add(self, check: Check) -> None:
        self.checks.append(check)
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress("comparing", min(self._done, self._total), self._total, "checks")


def _text(sides: tuple[Side, Side], ids: list[int]) -> str:
    """The text of `ids` by the first of two tokenizers that can tell; ids that it lacks are left out."""
    for tokenizer in (side.tokenizer for side in sides):
        if tokenizer is not None:
            known = set(tokenizer.vocabulary().values())
            text = tokenizer.decode([id for id in ids if id in known])
            if text is not None:
                return text
    return ""
