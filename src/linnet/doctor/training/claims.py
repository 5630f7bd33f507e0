"""Whether what a README says of a run is what the run's log says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from linnet.doctor.findings import Check, Diagnosis, Outcome, failed, passed, run_checks, skipped
from linnet.doctor.training.claim_patterns import Claim, claims_in

Record = Mapping[str, Any]
LOOKED_AT = (
    "losses, perplexities, bits and nats per byte, tokens a second, numbers of parameters, and learning rates written "
    "as in the log"
)
REMEDY = "copy the number from the log, or have it written by a command that reads the log"
_PARAMETERS = re.compile(r"^Model params: ([\d,]+)", re.MULTILINE)
_LAST_STEPS = re.compile(r"^step +\d+/(\d+) ", re.MULTILINE)


def check_claims(
    text: str, records: Iterable[Record], *, log: str = "", parameters: int | None = None, where: str = "README.md"
) -> Diagnosis:
    """Compare the numbers a text states about a run with the run's records.

    Numbers are compared as finely as they are written. Looked at are quoted log lines, tables with a column `step`, and
    prose such as "val loss 3.21", "perplexity of 24.8", "1.35 bits per byte", "3,585 tok/s" and "134.5M parameters";
    not numbers after words such as "about" or "below", nor lines of runs of another length than the log's, nor other
    numbers of parameters where the model's own is stated too.

    Args:
        text: what was written for people.
        records: metrics.jsonl, as `linnet.train.read_records` gives it.
        log: train.log.
        parameters: of the model; None takes them from `log`.
        where: the text's name, for the findings.
    """
    rows = [*records, *_records_of(log)]
    if parameters is None and (stated := _PARAMETERS.findall(log)):
        parameters = int(stated[-1].replace(",", ""))
    lengths = {int(last) for last in _LAST_STEPS.findall(log)}
    claims = [claim for claim in claims_in(text) if claim.last is None or not lengths or claim.last in lengths]
    if any(_tells_parameters(claim, parameters) for claim in claims):  # other counts are other models'
        claims = [claim for claim in claims if claim.key != "parameters" or _tells_parameters(claim, parameters)]
    checks: list[Check[Sequence[Record]]] = [
        Check(f"{where} line {claim.line}: {claim.name}", partial(judge_claim, claim, parameters)) for claim in claims
    ]
    if not checks:
        checks.append(Check(where, lambda _: skipped(f"states no number about the run; looked for were {LOOKED_AT}")))
    return Diagnosis(f"numbers in {where}", run_checks(checks, rows))


def judge_claim(claim: Claim, parameters: int | None, records: Sequence[Record]) -> Outcome:
    """Whether some record says what `claim` says; of a given step, that step's."""
    said = f"{claim.name} {claim.text}"
    if claim.key == "parameters":
        if parameters is None:
            return skipped("the number of parameters is not known: give parameters=, or log=")
        if _agree(claim, parameters):
            return passed(f"{said}: the model has {parameters:,}", figure=claim.value, bound=parameters)
        return failed(f"says {said}, and the model has {parameters:,}", REMEDY, figure=claim.value, bound=parameters)
    logged = {
        int(record["step"]): float(record[claim.key])
        for record in reversed(records)  # where one step has several, the first is the finest
        if isinstance(record.get(claim.key), int | float)
    }
    if not logged:
        return skipped(f"the log holds no {claim.key}")
    if claim.step is not None:
        return _of_step(claim, said, logged)
    agreeing = [step for step, value in logged.items() if _agree(claim, value)]
    if agreeing:
        return passed(f"{said}: the log says so at step {agreeing[-1]}", figure=claim.value)
    if claim.key == "tokens_per_second" and min(logged.values()) <= claim.value <= max(logged.values()):
        return passed(f"{said}: between the rates that the log holds", figure=claim.value)
    nearest = min(logged, key=lambda step: abs(logged[step] - claim.value))
    return failed(
        f"says {said}, and the log never does: the nearest is {logged[nearest]:.6g}, at step {nearest}",
        REMEDY,
        figure=claim.value,
        bound=logged[nearest],
    )


def _records_of(log: str) -> list[dict[str, Any]]:
    """The numbers of a train.log, line by line."""
    return [{"step": claim.step, claim.key: claim.value} for claim in claims_in(log) if claim.step is not None]


def _tells_parameters(claim: Claim, parameters: int | None) -> bool:
    return claim.key == "parameters" and parameters is not None and _agree(claim, parameters)


def _of_step(claim: Claim, said: str, logged: Mapping[int, float]) -> Outcome:
    step = claim.step
    assert step is not None
    if step not in logged:
        return failed(
            f"says {said} at step {step}, of which the log has no {claim.key} (it has those of steps {min(logged)} to "
            f"{max(logged)})",
            REMEDY,
            figure=claim.value,
        )
    value = logged[step]
    if _agree(claim, value):
        return passed(f"{said} at step {step}: the log says so", figure=claim.value, bound=value)
    return failed(f"says {said} at step {step}, and the log says {value:.6g}", REMEDY, figure=claim.value, bound=value)


def _agree(claim: Claim, value: float) -> bool:
    return abs(claim.value - value) <= 0.51 * claim.grain
