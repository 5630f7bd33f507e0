"""A page on which a language model continues what you write.

Started by `python app.py`. Needs what requirements.txt lists, and the model in the folder that space.json names.
"""

from __future__ import annotations

import html
import json
import secrets
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.themes.utils.fonts import Font, LocalFont
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
TOKENS_PER_PASS = 512  # of the prompt: between two passes a visitor can stop
SECONDS_PER_UPDATE = 0.05
LONGEST_PROMPT = 1_000_000  # characters
LONGEST_CONTINUATION = 4096  # tokens
LARGEST_SEED = 2**53 - 1  # the largest whole number that a browser keeps exactly
ABOUT = (
    "A language model that continues what you write. It was not taught to answer questions, "
    "and nothing it writes need be true."
)
# A status that is not final ends in "…".
SAY_STOPPED = "status => status.endsWith('…') ? status.slice(0, -1) + ' · stopped' : status"
STYLE = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
#title .html-container, #about .html-container, #facts .html-container { padding: 0; overflow-wrap: anywhere; }
#title h1 { margin: 0; }
#about .prose, #facts .prose, #status textarea { color: var(--body-text-color); opacity: 0.75; }
footer > .divider:last-of-type { display: none; }
#status, #status textarea { border: 0 !important; background: none; box-shadow: none; padding: 0; }
"""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: `temperature` 0 takes the likeliest, `top_k` 0 and `top_p` 1 leave none out."""

    temperature: float
    top_p: float
    top_k: int
    seed: int


class LanguageModel:
    """A causal language model in Hugging Face's format, read once and shared by all visitors.

    Its weights come in a thread of their own, so that the page opens before them.
    """

    def __init__(self, folder: Path) -> None:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.context: int = config.max_position_embeddings
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.ready = threading.Event()
        self._fault: Exception | None = None
        threading.Thread(target=self._load, args=(folder,), daemon=True).start()

    def _load(self, folder: Path) -> None:
        began = time.perf_counter()
        # Few processors are fast in bfloat16, and some are wrong in it.
        dtype = "auto" if self.device == "cuda" else torch.float32
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
            self._model = model.to(self.device).eval()
            self._set_ids(model)
            seconds = time.perf_counter() - began
            print(f"{model.num_parameters():,} parameters on {self.device} in {seconds:.1f} s", flush=True)
        except Exception as error:
            self._fault = error
            traceback.print_exc()
        finally:
            self.ready.set()

    def _set_ids(self, model: Any) -> None:
        ends = model.generation_config.eos_token_id
        self.end_ids = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        # A model's vocabulary may be larger than its tokenizer's: those ids mean nothing.
        self._unknown = torch.ones(model.config.vocab_size, dtype=torch.bool)
        self._unknown[list(self.tokenizer.get_vocab().values())] = False

    def check(self) -> None:
        """Raise what kept the weights from being read, as a message for the page."""
        if self._fault is not None:
            reason = html.escape(str(self._fault).strip().partition("\n")[0])
            raise gr.Error(f"The model could not be loaded: {reason}", duration=None, print_exception=False)

    def encode(self, prompt: str) -> list[int]:
        """The ids of the prompt; of an empty one the end-of-text token, after which a new text begins."""
        ids: list[int] = self.tokenizer(prompt, verbose=False)["input_ids"]
        if not ids and self.tokenizer.eos_token_id is None:
            raise gr.Error("This model cannot begin a text on its own: write a prompt.", print_exception=False)
        return ids or [self.tokenizer.eos_token_id]

    def decode(self, ids: list[int], *, whole: bool) -> str:
        """The text of the ids; unless it is `whole`, without a last character that is not complete yet."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text if whole else text.rstrip("\N{REPLACEMENT CHARACTER}")

    def ids_after(self, prompt: list[int], sampling: Sampling) -> Iterator[int | None]:
        """New ids without end, each as soon as it is made; None for every part of the prompt that was read before.

        Nothing runs unless the next one is asked for, so a visitor who leaves or stops leaves nothing behind.
        """
        generator = torch.Generator().manual_seed(sampling.seed)
        cache = None
        for start in range(0, len(prompt), TOKENS_PER_PASS):
            if start:
                yield None
            logits, cache = self._read(prompt[start : start + TOKENS_PER_PASS], cache)
        while True:
            token = draw(logits, sampling, generator)
            yield token
            logits, cache = self._read([token], cache)

    @torch.inference_mode()
    def _read(self, ids: list[int], cache: Any) -> tuple[Tensor, Any]:
        """Logits (vocabulary,) of the token after `ids`, float32 on the CPU, and the cache with `ids` in it."""
        input_ids = torch.tensor([ids], device=self.device)
        output = self._model(input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[0, -1].float().cpu()
        if not logits.isfinite().all():
            raise gr.Error("The model's output is not finite: its weights are damaged.", print_exception=False)
        return logits.masked_fill(self._unknown, -torch.inf), output.past_key_values


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """An id by linnet's rules: temperature, then top-k, then top-p, then one uniform number."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = (logits - logits.max()) / max(sampling.temperature, torch.finfo(logits.dtype).tiny)
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        descending, order = logits.sort(descending=True, stable=True)
        probabilities = descending.softmax(0)
        outside = probabilities.cumsum(0) - probabilities >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(0, order, outside), -torch.inf)
    cumulative = logits.softmax(0).double().cumsum(0)
    uniform = torch.rand(1, dtype=torch.float64, generator=generator)
    return int(torch.searchsorted(cumulative, uniform * cumulative[-1:], right=True))


class Writer:
    """Answers the page with texts of `model`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def write(
        self, prompt: str, max_tokens: int, temperature: float, top_p: float, top_k: int, seed: int | None
    ) -> Iterator[tuple[str, str]]:
        """The prompt with what the model has written so far, and a line on how it goes.

        Args:
            prompt: text to continue; empty for a new text.
            max_tokens: tokens to write at most.
            temperature: 0 takes the likeliest token, higher is more varied.
            top_p: choose among the likeliest tokens that together hold this probability; 1 for all.
            top_k: choose among this many likeliest tokens; 0 for all.
            seed: the same seed and settings give the same text; -1 or none for a new one each time.
        """
        if len(prompt) > LONGEST_PROMPT:
            message = f"The prompt has {len(prompt):,} characters: give at most {LONGEST_PROMPT:,}."
            raise gr.Error(message, print_exception=False)
        prompt = prompt.encode("utf-8", "replace").decode()  # a lone surrogate is no text
        while not self.model.ready.wait(0.5):
            yield prompt, "Loading the model…"
        self.model.check()
        ids = self.model.encode(prompt)
        kept = ids[-max(1, self.model.context - max_tokens, self.model.context // 2) :]
        limit = min(max_tokens, self.model.context - len(kept))
        sampling = Sampling(temperature, top_p, top_k, secrets.randbits(32) if seed is None or seed < 0 else seed)
        notes = []
        if len(kept) < len(ids):
            notes.append(f"read only the last {len(kept):,} of the prompt's {len(ids):,} tokens")
        if temperature:
            notes.append(f"seed {sampling.seed}")
        for text, written, seconds, reason in self._steps(kept, limit, sampling):
            yield prompt + text, status(written, seconds, notes, reason)

    def _steps(self, prompt: list[int], limit: int, sampling: Sampling) -> Iterator[tuple[str, int, float, str]]:
        """Text so far, tokens so far, seconds so far, and at the end why it ended."""
        began = shown = time.perf_counter()
        written: list[int] = []
        for token in self.model.ids_after(prompt, sampling):
            ended = token in self.model.end_ids
            if token is not None and not ended:
                written.append(token)
            if ended or len(written) == limit:
                break
            if (now := time.perf_counter()) - shown >= SECONDS_PER_UPDATE:
                shown = now
                yield self.model.decode(written, whole=False), len(written), now - began, ""
        if ended:
            reason = "the model ended the text"
        elif len(prompt) + limit == self.model.context:
            reason = f"the context of {self.model.context:,} tokens is full"
        else:
            reason = "as many as asked for"
        yield self.model.decode(written, whole=ended), len(written), time.perf_counter() - began, reason


def status(written: int, seconds: float, notes: list[str], reason: str) -> str:
    """One line for people; without a `reason` why it ended it goes on, and the line ends in "…"."""
    if not written and not reason:
        return " · ".join(["Reading the prompt", *notes]) + "…"
    rate = f", {written / seconds:,.0f} a second" if written else ""
    count = f"{written:,} token{'' if written == 1 else 's'} in {seconds:.1f} s{rate}"
    return " · ".join([count, *notes, reason] if reason else [count, *notes]) + ("" if reason else "…")


def sliders(longest: int) -> list[gr.Slider | gr.Number]:
    """The settings, in the order in which `Writer.write` takes them; `longest` is the most tokens of a text."""
    return [
        gr.Slider(1, longest, min(200, longest), step=1, precision=0, label="Max tokens"),
        gr.Slider(0, 2, 0.8, step=0.05, label="Temperature", info="0: always the likeliest token"),
        gr.Slider(0.01, 1, 1, step=0.01, label="Top-p", info="1: off"),
        gr.Slider(0, 200, 0, step=1, precision=0, label="Top-k", info="0: off"),
        gr.Number(-1, label="Seed", info="-1: a new one each time", minimum=-1, maximum=LARGEST_SEED, precision=0),
    ]


def build(model: LanguageModel, title: str, prompts: list[str], facts: dict[str, str]) -> gr.Blocks:
    """The page: a prompt, what came of it, and the settings. All that is not ours is shown as plain text."""
    writer = Writer(model)
    page = gr.Blocks(title=title, analytics_enabled=False)
    with page:
        gr.HTML(f"<h1>{html.escape(title)}</h1>", elem_id="title")
        gr.HTML(ABOUT, elem_id="about")
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                prompt = gr.Textbox(
                    prompts[0] if prompts else "",
                    label="Prompt",
                    lines=3,
                    max_lines=10,
                    placeholder="Empty: the model begins a new text",
                )
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=120)
                text = gr.Textbox(
                    label="Text", elem_id="text", lines=10, max_lines=22, interactive=False, buttons=["copy"]
                )
                line = gr.Textbox(
                    label="How it goes",
                    show_label=False,
                    container=False,
                    interactive=False,
                    max_lines=4,
                    elem_id="status",
                )
                if prompts:
                    gr.Examples([[text] for text in prompts], prompt, label="Prompts to try", cache_examples=False)
            with gr.Column(scale=3, min_width=280):
                settings = sliders(min(LONGEST_CONTINUATION, model.context - 1))
        if facts:
            gr.HTML(" · ".join(html.escape(f"{name}: {value}") for name, value in facts.items()), elem_id="facts")
        running = gr.on(
            [go.click, prompt.submit],
            writer.write,
            [prompt, *settings],
            [text, line],
            api_name="generate",
            show_progress="minimal",
        )
        stopped = stop.click(None, cancels=[running], api_visibility="private")
        # What is still on its way must arrive before the line is finished: this answer comes behind it.
        answered = stopped.then(lambda: None, concurrency_limit=None, api_visibility="private")
        answered.then(None, line, line, js=SAY_STOPPED, api_visibility="private")
    # One text at a time: it takes every core, and two would each be half as fast.
    page.queue(default_concurrency_limit=1, max_size=32)
    return page


def main() -> None:
    """Serve the page until it is stopped."""
    about = json.loads((HERE / "space.json").read_text(encoding="utf-8"))
    model = LanguageModel(HERE / about["model"])
    page = build(model, about["title"], about["prompts"], about["facts"])
    # Gradio's own semibold has no Latin letters; this one does.
    font: list[Font | str] = [LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"]
    page.launch(
        theme=gr.themes.Default(font=font).set(block_info_text_color="*neutral_500"),
        css=STYLE,
        show_error=True,
        ssr_mode=False,
        footer_links=["api", "gradio"],
        run_history=False,
    )


if __name__ == "__main__":
    main()
