"""`linnet generate`: continue prompts with a trained model."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.terminal import for_standard_output, is_terminal
from linnet.errors import UserError

if TYPE_CHECKING:
    from linnet.generate import Completion, SamplingSettings, TextGenerator


def _with_dashes(option: str) -> str:
    """--max_new_tokens is --max-new-tokens."""
    return option.replace("_", "-")


@click.command("generate", context_settings={"token_normalize_func": _with_dashes})
@click.argument("model", metavar="RUN_OR_MODEL", type=click.Path(path_type=Path))
@click.option("--prompt", help="The text to continue. Without any prompt the model begins a text of its own.")
@click.option(
    "--prompts",
    metavar="FILE",
    help='Prompts, one a line, or a .jsonl file of objects with "prompt"; empty lines are skipped. -: standard input.',
)
@click.option("--max-new-tokens", default=200, show_default=True, help="The most tokens to make for each prompt.")
@click.option("--temperature", default=1.0, show_default=True, help="Below 1 bolder choices are rarer; 0 is greedy.")
@click.option("--greedy", is_flag=True, help="Always the likeliest token: the same as --temperature 0.")
@click.option("--top-k", type=int, help="Only the K likeliest tokens.")
@click.option("--top-p", type=float, help="Only the fewest likeliest tokens that together reach this probability.")
@click.option("--min-p", type=float, help="Only tokens at least this fraction as likely as the likeliest.")
@click.option(
    "--repetition-penalty", default=1.0, show_default=True, help="Above 1: tokens that came before are less likely."
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@click.option("--seed", type=int, help="Repeat a text: sample N of all, counted from 0, is made with seed + N.")
@click.option("--context", type=int, help="The longest window in tokens that the model reads; by default its own.")
@click.option("--num-samples", default=1, show_default=True, help="Texts for each prompt.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: prompt, text, reason, tokens, seed, ...")
@click.pass_context
def command(
    click_context: click.Context,
    model: Path,
    prompt: str | None,
    prompts: str | None,
    max_new_tokens: int,
    temperature: float,
    greedy: bool,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float,
    stop: tuple[str, ...],
    seed: int | None,
    context: int | None,
    num_samples: int,
    device: str,
    as_json: bool,
) -> None:
    """Continue a prompt with RUN_OR_MODEL: a run directory, one of its checkpoints, or a Hugging Face directory.

    The text goes to standard output as it is made, after its prompt; several texts are parted by a line of dashes.

    \b
    Examples:
      linnet generate runs/demo --prompt "Once upon a time" --max-new-tokens 100
      linnet generate runs/demo --prompt "Once" --temperature 0.8 --top-p 0.95 --seed 7
      linnet generate runs/demo --prompts prompts.txt --greedy --json > texts.jsonl
      linnet generate runs/demo --num-samples 3 --stop "The end"
    """
    from linnet.cli.models import load_run_or_model
    from linnet.generate import SamplingSettings, TextGenerator

    if greedy and click_context.get_parameter_source("temperature") is not click.core.ParameterSource.DEFAULT:
        raise UserError("--greedy and --temperature are both given: choose one")
    if prompt is not None and prompts is not None:
        raise UserError("--prompt and --prompts are both given: choose one")
    if num_samples < 1:
        raise UserError(f"--num-samples is {num_samples}: give at least 1")
    settings = SamplingSettings(0.0 if greedy else temperature, top_k, top_p, min_p, repetition_penalty)
    texts = read_prompts(prompts) if prompts is not None else [prompt or ""]
    loaded = load_run_or_model(model, device)
    generator = TextGenerator(loaded.model, loaded.tokenizer, context if context is not None else loaded.context)
    write_all(
        generator,
        [text for text in texts for _ in range(num_samples)],
        settings,
        max_new_tokens=max_new_tokens,
        stop=stop,
        seed=seed,
        as_json=as_json,
    )


def write_all(
    generator: TextGenerator,
    prompts: Iterable[str],
    settings: SamplingSettings,
    *,
    max_new_tokens: int,
    stop: tuple[str, ...],
    seed: int | None,
    as_json: bool,
) -> None:
    """Write a text for each prompt to standard output, and its rate to standard error where a person watches."""
    first_seed = secrets.randbits(32) if seed is None else seed
    for index, prompt in enumerate(prompts):
        stream = generator.stream(
            prompt, max_new_tokens=max_new_tokens, settings=settings, stop=stop, seed=first_seed + index
        )
        if as_json:
            click.echo(_as_json(prompt, stream.completion()))
            continue
        if index:
            click.echo("-" * 20)
        click.echo(for_standard_output(prompt), nl=False)
        for piece in stream:
            click.echo(for_standard_output(piece), nl=False)
        click.echo()
        if sys.stderr.isatty():
            click.secho(_rate(stream.completion()), err=True, dim=True)


def read_prompts(file: str) -> list[str]:
    """The prompts in a text file, one a line, or in a .jsonl file; `-` is standard input, as text.

    Raises:
        UserError: for a file that is missing, not UTF-8 or empty, or a line that holds no prompt.
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        lines = data.decode("utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}): give a file of prompts") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text at byte {error.start}: save it as UTF-8") from error
    numbered = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise UserError(f"{file}: holds no prompt: write one on each line")
    if not file.endswith(".jsonl"):
        return [line for _, line in numbered]
    return [_prompt_of(line, f"{file}:{number}") for number, line in numbered]


def _prompt_of(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply, or a number without end"
        raise UserError(f'{where}: is not JSON ({reason}): give {{"prompt": "..."}} on each line') from error
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise UserError(f'{where}: has no text "prompt": give {{"prompt": "..."}} on each line')
    return str(value["prompt"])


def _as_json(prompt: str, completion: Completion) -> str:
    fields = {
        "prompt": prompt,
        "text": completion.text,
        "reason": completion.reason,
        "prompt_tokens": completion.prompt_tokens,
        "tokens": completion.tokens,
        "seconds": round(completion.seconds, 4),
        "seed": completion.seed,
    }
    return json.dumps(fields, ensure_ascii=is_terminal())


def _rate(completion: Completion) -> str:
    ends = {"eos": "end of text", "stop": "stop text", "length": "--max-new-tokens"}
    rate = completion.tokens / completion.seconds if completion.seconds else 0.0
    return (
        f"{completion.tokens} tokens in {completion.seconds:.2f} s ({rate:.1f} tokens/s), "
        f"ended by {ends[completion.reason]}, seed {completion.seed}"
    )
