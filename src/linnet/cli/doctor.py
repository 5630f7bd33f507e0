"""linnet doctor."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linnet.cli.doctor_parity import parity
from linnet.cli.doctor_resume import verify_resume
from linnet.cli.overrides import ACCEPTS_OVERRIDES, path_and_overrides
from linnet.cli.terminal import is_terminal
from linnet.config.suggest import nearest
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.doctor import Diagnosis


_UNBROKEN = "\xa0"


class _Examination(click.Command):
    """`linnet doctor SUBJECT`, whose help names the commands beside it."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, beside.get_short_help_str(100)) for name, beside in command.commands.items()])


class _Doctor(click.Group):
    """A group whose first word, where it is none of its commands, is what is to be examined."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        if args and re.fullmatch(r"\w[\w-]*", args[0]) and not Path(args[0]).exists():
            meant = nearest(args[0], self.commands)
            if meant:
                raise UserError(f"there is neither a command nor a file '{args[0]}'{meant}")
        return examine.make_context(info_name, args, parent, **extra)


@click.command("doctor", cls=_Examination, context_settings=ACCEPTS_OVERRIDES)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="SUBJECT [--SECTION.KEY VALUE]...")
@click.option("--only", multiple=True, metavar="NAME", help="Make this check alone, or those with the word in them.")
@click.option(
    "--claims",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hold its numbers against a run's log; without --only nothing else.",
)
@click.option("--run_dir", "--run-dir", type=click.Path(path_type=Path), help="Where a config's run would be.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def examine(
    words: tuple[str, ...], only: tuple[str, ...], claims: Path | None, run_dir: Path | None, as_json: bool
) -> None:
    """Prove a setup right, or name what is wrong with it: one line a check, and the remedy.

    SUBJECT is a config, before it is trained; a run, also while it is in progress; or a model in Hugging Face's format.
    Of a config and a run the trainer is rehearsed too: a few real steps, saves and resumptions in a temporary
    directory. Text that was not prepared yet is prepared first, as `linnet train` would. A subject that is called like
    a command below is given as ./NAME.

    \b
    Examples:
      linnet doctor configs/demo.yaml
      linnet doctor configs/demo.yaml --train.batch_size 64 --only memory
      linnet doctor runs/demo
      linnet doctor runs/demo --claims README.md
      linnet doctor exports/demo --json
      linnet doctor verify-resume configs/demo.yaml
      linnet doctor parity runs/demo exports/demo

    Exit code 0: no check failed. Exit code 2: some did, and the last line names them.
    """
    subject, overrides = path_and_overrides(words)
    if subject is None:
        raise UserError(
            "what is to be examined? Give a config, a run, or a model in Hugging Face's format, as in "
            "`linnet doctor configs/demo.yaml`"
        )
    from linnet.cli.doctor_lines import examining, print_summary, tell
    from linnet.doctor import diagnose

    out = sys.stdout
    with _checks_listed(), examining() as report:
        found = diagnose(
            subject,
            overrides,
            run_dir=run_dir,
            claims=claims,
            only=only,
            progress=report,
            on_finding=None if as_json else lambda finding: tell(finding, out),
        )
    if as_json:
        click.echo(json.dumps(found.as_json(), allow_nan=False, ensure_ascii=is_terminal()))
    else:
        print_summary(found)
    if not found.healthy:
        raise UserError(_refusal(found))


@contextmanager
def _checks_listed() -> Iterator[None]:
    """Print the names of all checks where the block refuses one, before the sentence that ends the command."""
    from linnet.doctor.battery import checks_by_part
    from linnet.doctor.findings import NoSuchCheck

    try:
        yield
    except NoSuchCheck:
        for part, names in checks_by_part().items():
            whole = ", ".join(name.replace(" ", _UNBROKEN) for name in names)
            lines = textwrap.fill(whole, 100, initial_indent="  ", subsequent_indent="  ")
            click.echo(f"{part}:\n{lines.replace(_UNBROKEN, ' ')}", err=True)
        raise


def _refusal(found: Diagnosis) -> str:
    names = [finding.name for finding in found.failed]
    what = "1 check" if len(names) == 1 else f"{len(names)} checks"
    return f"{found.subject}: {what} failed: {', '.join(names)}"


command = _Doctor("doctor", help=examine.help, short_help=examine.short_help)
command.add_command(parity)
command.add_command(verify_resume)
