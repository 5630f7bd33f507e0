"""linnet doctor verify-resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.overrides import ACCEPTS_OVERRIDES, path_and_overrides
from linnet.cli.terminal import is_terminal, printable
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.doctor.resume_proof import ResumeProof

_SHOWN = 16  # hexadecimal digits of a hash in the table; --json has them all


@click.command(
    "verify-resume",
    short_help="Prove that a run that is killed and resumed is the run that never stopped.",
    context_settings=ACCEPTS_OVERRIDES,
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG [--SECTION.KEY VALUE]...")
@click.option("--steps", type=int, default=30, show_default=True, help="Optimizer steps of each run, at least 8.")
@click.option("--kills", type=int, default=4, show_default=True, help="How often the second run is interrupted.")
@click.option(
    "--work",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where both runs lie meanwhile. Default: the system's directory for temporary files.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify_resume(words: tuple[str, ...], steps: int, kills: int, work: Path | None, as_json: bool) -> None:
    """Train CONFIG straight, and again interrupted by real SIGTERM and SIGKILL, and compare what both left.

    The interruptions fall between two saves and inside a save. Compared are SHA-256 of every tensor of the weights and
    of the optimizer, random number generators, the ids of the next batch, counters, and every value in the metrics and
    samples. The runs are processes of their own, and are removed at the end.

    The demo takes half a minute on two cores, of which most is PyTorch starting six times.

    \b
    Examples:
      linnet doctor verify-resume configs/demo.yaml
      linnet doctor verify-resume configs/demo.yaml --steps 200 --kills 12
      linnet doctor verify-resume configs/demo.yaml --train.grad_accum 4 --json

    Exit code 0: equal to the bit. Exit code 2: not, and the message names the first difference.
    """
    config, overrides = path_and_overrides(words)
    if config is None:
        raise UserError("CONFIG is missing: name a YAML file, as in `linnet doctor verify-resume configs/demo.yaml`")
    from linnet.cli.progress import progress_reporter
    from linnet.doctor import verify_resume as prove

    with progress_reporter() as report:
        proof = prove(config, overrides, steps=steps, kills=kills, work=work, progress=report)
    if as_json:
        click.echo(json.dumps(proof.as_json(), allow_nan=False, ensure_ascii=is_terminal()))
    else:
        print_proof(proof)
    if not proof.proven:
        raise UserError(proof.refusal())


def print_proof(proof: ResumeProof) -> None:
    """Print where the run was interrupted, what was compared, and whether it is equal."""
    from linnet.cli.tables import print_table
    from linnet.doctor.findings import counted

    click.echo(f"{proof.steps} steps, a checkpoint every {proof.save_every}")
    for number, interruption in enumerate(proof.interruptions, 1):
        click.echo(f"{number}. {interruption}")
    click.echo()
    rows = [
        (row.what, row.straight[:_SHOWN], row.interrupted[:_SHOWN], "yes" if row.equal else f"NO {row.difference}")
        for row in proof.rows
    ]
    print_table([tuple(map(printable, row)) for row in rows], ("what", "straight", "interrupted", "equal"))
    if proof.proven:
        click.echo(f"\nproven: {counted(len(proof.interruptions), 'interruption')} changed no bit")
