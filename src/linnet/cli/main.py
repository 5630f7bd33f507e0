"""The `linnet` command: finds the subcommand, and turns every error into one sentence and an exit code."""

from __future__ import annotations

import errno
import importlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from linnet import __version__
from linnet.cli.terminal import printable
from linnet.config.suggest import nearest
from linnet.errors import UserError

# name: (module, short help). Modules are imported when their command is called, so that --help stays fast.
COMMANDS: dict[str, tuple[str, str]] = {
    "tokenizer": ("linnet.cli.tokenizer", "Train a byte-level BPE tokenizer; encode, decode, compare, convert."),
    "data": ("linnet.cli.data", "Prepare text as token shards; show what is in them."),
    "train": ("linnet.cli.train", "Train a model, or go on with a run."),
    "generate": ("linnet.cli.generate", "Write text with a trained model."),
    "eval": ("linnet.cli.evaluate", "Measure loss, perplexity and bits per byte."),
    "import": ("linnet.cli.import_model", "Bring in a model of the Llama family, proven against transformers."),
    "export": ("linnet.cli.export", "Write a model for transformers, llama.cpp, a Space, or for inference alone."),
    "doctor": ("linnet.cli.doctor", "Prove a config, a run or a model right; name the mistake in it."),
    "profile": ("linnet.cli.profile", "Show where a training step's time goes, and how near it is to the limit."),
    "runs": ("linnet.cli.runs", "List the runs of a directory."),
}

LONGEST_SENTENCE = 4000  # characters
EXIT_USER_ERROR = 2
EXIT_DEFECT = 1
EXIT_INTERRUPTED = 130


class BrokenPipe(Exception):  # noqa: N818 - it is the pipe that is broken
    """Carries a BrokenPipeError, its cause, past click, which would end the process with code 1 and say nothing."""


@contextmanager
def _broken_pipes_told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise BrokenPipe from error


class LazyGroup(click.Group):
    """A group whose commands live in modules imported on first use."""

    def __init__(self, commands: Mapping[str, tuple[str, str]], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._places = dict(commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._places:
            return None
        module = importlib.import_module(self._places[cmd_name][0])
        command: click.Command = module.command
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _broken_pipes_told():  # --help and --version print here
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _broken_pipes_told():
            code = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._places and not args[0].startswith("-"):
            known = ", ".join(self._places)
            raise UserError(f"there is no command '{args[0]}'{nearest(args[0], self._places)}; known: {known}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._places.items()])


HELP = """Train small language models from nothing, and prove that the result is right.

\b
Examples:
  linnet train configs/demo.yaml
  linnet generate runs/demo --prompt "Once upon a time"
  linnet eval runs/demo

Every command has --help with examples. --debug shows tracebacks.
"""

cli = LazyGroup(
    COMMANDS,
    name="linnet",
    help=HELP,
    params=[
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show a traceback with an error."),
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli = click.version_option(__version__, prog_name="linnet")(cli)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `linnet` and exit: 0 on success, 2 for a mistake in what was given, 1 for a defect of linnet's."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode shows what it can
    try:
        with _ended_by_signals():
            sys.exit(cli.main(args=words, prog_name="linnet", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as asked:
        print(asked.format_message(), file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipe as broken:
        error = broken.__cause__
        assert isinstance(error, BrokenPipeError)
        if not _output_is_unread():
            fail(error, debug)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else what is left is written at exit
        sys.exit(0)
    except (KeyboardInterrupt, click.exceptions.Abort):
        if debug:
            raise
        print("linnet: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        fail(error, debug)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command by an exception, so that what was half written is removed on the way.

    `linnet train` has its own answer to them; and what the caller ignores, as under nohup, stays ignored.
    """
    caught = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        caught = []

    def end(number: int, _: FrameType | None) -> NoReturn:
        print(f"linnet: ended by {signal.Signals(number).name}", file=sys.stderr)
        sys.exit(128 + number)

    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def fail(error: Exception, debug: bool) -> NoReturn:
    """Say what `error` means and exit; with `debug`, raise it."""
    if debug:
        raise error
    sentence, code = explain(error)
    # What a file of others holds may stand in the sentence, and must neither move the cursor nor fill the screen.
    shown = printable(sentence)
    if len(shown) > LONGEST_SENTENCE:
        shown = f"{shown[: LONGEST_SENTENCE // 2]} ... {shown[-LONGEST_SENTENCE // 2 :]}"
    print(f"linnet: {shown}", file=sys.stderr)
    sys.exit(code)


def _output_is_unread() -> bool:
    """Whether the reader of standard output has gone, as `head` does when it has read enough."""
    if sys.stdout is None:
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll(0))


def explain(error: Exception) -> tuple[str, int]:
    """One sentence for `error`, and the exit code that goes with it."""
    if isinstance(error, UserError):
        return str(error), EXIT_USER_ERROR
    if isinstance(error, click.ClickException):
        command = getattr(error, "ctx", None)
        hint = f" (see `{command.command_path} --help`)" if command is not None else ""
        return " ".join(error.format_message().split()).rstrip(".") + hint, EXIT_USER_ERROR
    if _is_out_of_memory(error):
        return (
            "out of memory: lower train.batch_size (and raise train.grad_accum, which costs no memory), data.seq_len, "
            "or the model's size",
            EXIT_USER_ERROR,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left on the disk ({error.filename or error}): free some and run the same command",
            EXIT_USER_ERROR,
        )
    if isinstance(error, OSError):
        reason = error.strerror.lower() if error.strerror else " ".join(str(error).split()) or type(error).__name__
        return (f"{error.filename}: {reason}" if error.filename is not None else reason), EXIT_USER_ERROR
    kind = type(error).__name__
    return f"this is a defect of linnet's: {kind}: {error} (run with --debug for where)", EXIT_DEFECT


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, the system, or torch on any device had no memory left; told without importing torch."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if not isinstance(error, RuntimeError):
        return False
    message = str(error)
    return type(error).__name__ == "OutOfMemoryError" or any(
        sign in message for sign in ("can't allocate memory", "not enough memory", "out of memory", "_ALLOC_FAILED")
    )
