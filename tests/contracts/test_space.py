"""Promise: the Space folder serves a page that writes, obeys its settings, stops, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch

from linnet.generate import SamplingSettings, TextGenerator
from linnet.interop import load_hf
from linnet.interop.space import write_space
from linnet.tokenizer import Tokenizer, train_bpe

pytest.importorskip("gradio")
transformers = pytest.importorskip("transformers")
playwright = pytest.importorskip("playwright.sync_api")

TITLE = """</script><img src="https://example.org/x.png"> "Stories" & 'more' ${1} {{2}} *s* </title>"""
MARKUP = "<hr/>\n"
CONTEXT = 4096
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Space around a tiny random model whose likeliest tokens stand out, stored in bfloat16."""
    directory = tmp_path_factory.mktemp("space")
    text = directory / "text.txt"
    text.write_text("It was a small bird; the bird ate <i>seeds</i> and said tweet.\n" * 20, encoding="utf-8")
    tokenizer = Tokenizer(*train_bpe(text, 300, ["<|endoftext|>"]), ["<|endoftext|>"])
    space = directory / "a folder"
    write_space(space, title=TITLE, license="mit", example_prompt="the bird", facts={"Kind": "<b>tiny</b>"})
    _write_model(space / "model", tokenizer)
    tokenizer.save(space / "model")
    return space


def _write_model(directory: Path, tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size + 12,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        eos_token_id=tokenizer.eos_id,
        bos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config)
    embedding, head = model.model.embed_tokens.weight.data, model.lm_head.weight.data
    embedding.normal_()
    head.normal_(std=0.3)
    # Dimension 0 is the same at every position, so that here it can be said that the text never ends.
    embedding[:, 0], head[:, 0], head[tokenizer.eos_id, 0] = 3.0, 0.0, -100.0
    for layer in model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj"):  # what stood before must matter
            layer.self_attn.get_submodule(name).weight.data.normal_(std=0.25)
        for weight in (layer.self_attn.o_proj.weight.data, layer.mlp.down_proj.weight.data):
            weight.normal_(std=0.05)[0] = 0
    # After "<" the model writes MARKUP for ever; it never begins that of itself.
    ids = tokenizer.encode(MARKUP)
    assert len(set(ids)) == len(ids) > 2
    for before, after in zip(ids, [*ids[1:], ids[0]], strict=True):
        head[after, 1:] = embedding[before, 1:]
        head[after, 0] = -10
    model.to(torch.bfloat16).save_pretrained(directory)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address of `python app.py`, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    log = folder.parent / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            with suppress(urllib.error.URLError):
                urllib.request.urlopen(address).close()
                break
            time.sleep(0.1)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER)
        yield opened
        opened.close()


class Visitor:
    """Someone with the page open."""

    def __init__(self, page: playwright.Page) -> None:
        self.page = page
        self.prompt = page.get_by_label("Prompt", exact=True)
        self.output = page.locator("#text textarea")
        self.line = page.get_by_label("How it goes")

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def set(self, **settings: float) -> None:
        """`top_p` stands for the page's Top-p, and so on."""
        for name, value in settings.items():
            label = "Seed" if name == "seed" else "number input for " + name.capitalize().replace("_", "-")
            label = label.replace("Max-tokens", "Max tokens")
            field = self.page.get_by_label(label, exact=True)
            field.fill(str(value))
            field.press("Tab")

    def await_line(self, pattern: str) -> str:
        """The status, once it matches `pattern`."""
        deadline = time.monotonic() + 60
        while not re.search(pattern, line := self.line.input_value()):
            assert time.monotonic() < deadline, f"{pattern!r} did not come: {line!r}"
            self.page.wait_for_timeout(10)
        return line

    def write(self, prompt: str = "the bird", **settings: float) -> str:
        """The whole text that comes of it."""
        self.set(**settings)
        self.prompt.fill(prompt)
        before = self.line.input_value()
        self.press("Generate")
        # Two lines are hardly ever equal: they hold a time and a seed.
        self.page.wait_for_function("before => document.querySelector('#status textarea').value != before", arg=before)
        self.await_line(r"(asked for|ended the text|is full)$")
        return self.output.input_value()


@pytest.fixture
def visitor(server: tuple[str, psutil.Process], browser: playwright.Browser) -> Iterator[Visitor]:
    """The page, newly opened; afterwards: nothing was wrong in it, and nobody else was asked for anything."""
    faults, foreign = [], []
    context = browser.new_context()
    context.route(lambda url: not url.startswith(("http://127.0.0.1:", "data:", "blob:")), lambda route: route.abort())
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((server[0], "data:", "blob:")) else foreign.append(request.url),
    )
    page.goto(server[0])
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    yield Visitor(page)
    context.close()
    assert (faults, foreign) == ([], [])


def _as_shown(text: str) -> str:
    """What a browser's text area makes of it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _busy_seconds(process: psutil.Process, over: float) -> float:
    times = process.cpu_times()
    time.sleep(over)
    after = process.cpu_times()
    return after.user + after.system - times.user - times.system


def test_text_appears_bit_by_bit_after_the_prompt(visitor: Visitor) -> None:
    visitor.write(max_tokens=5)
    visitor.page.evaluate(
        """() => { const text = document.querySelector('#text textarea'), seen = window.seen = [];
        setInterval(() => { const length = text.value.length;
            if (!seen.length || seen.at(-1)[1] !== length) seen.push([performance.now() / 1000, length]); }, 5) }"""
    )
    text = visitor.write("small", max_tokens=1200)
    assert text.startswith("small")
    told = re.match(r"1,200 tokens in ([\d.]+) s", visitor.line.input_value())
    times, lengths = zip(*visitor.page.evaluate("window.seen")[1:], strict=True)
    assert len(lengths) > 4
    assert list(lengths) == sorted(lengths)
    assert times[-1] - times[0] > 0.5 * float(told[1]), "the text came in the end, all at once"


def test_temperature_0_repeats_itself(visitor: Visitor) -> None:
    greedy = visitor.write(max_tokens=40, temperature=0)
    assert visitor.write() == greedy
    assert "seed" not in visitor.line.input_value()
    assert visitor.write(temperature=1) != greedy


def test_every_setting_changes_the_outcome(visitor: Visitor) -> None:
    first = visitor.write(max_tokens=40, temperature=1, top_p=1, top_k=0, seed=7)
    assert visitor.write() == first
    assert "seed 7" in visitor.line.input_value()
    assert visitor.write(seed=8) != first
    assert visitor.write(seed=7, temperature=2) != first
    greedy = visitor.write(temperature=0)
    assert visitor.write(temperature=1, top_k=1) == greedy
    assert visitor.write(top_k=0, top_p=0.01) == greedy
    assert visitor.write(top_k=3, top_p=1) not in (first, greedy)
    assert visitor.write(top_k=0, top_p=0.5) not in (first, greedy)
    shorter = visitor.write(top_p=1, max_tokens=10)
    assert first.startswith(shorter)
    assert visitor.line.input_value().startswith("10 tokens")


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 0.8},
        {"temperature": 1.5, "top_k": 20},
        {"temperature": 1.0, "top_k": 50, "top_p": 0.7},
    ],
    ids=str,
)
def test_it_writes_what_linnet_writes(visitor: Visitor, folder: Path, settings: dict[str, float]) -> None:
    expected = TextGenerator(*load_hf(folder / "model")).complete(
        "the bird said", max_new_tokens=60, settings=SamplingSettings(**settings), seed=11
    )
    assert visitor.write("the bird said", max_tokens=60, seed=11, **settings) == _as_shown(
        "the bird said" + expected.text
    )


def test_a_prompt_read_in_parts_is_read_as_one(visitor: Visitor, folder: Path) -> None:
    model, tokenizer = load_hf(folder / "model")
    prompt = "seeds and small birds ate it " * 120
    assert len(tokenizer.encode(prompt)) > 1024
    greedy = SamplingSettings(temperature=0)
    expected = TextGenerator(model, tokenizer).complete(prompt, max_new_tokens=40, settings=greedy)
    assert visitor.write(prompt, max_tokens=40, temperature=0) == _as_shown(prompt + expected.text)


def test_a_seed_of_its_own_each_time(visitor: Visitor) -> None:
    texts = {visitor.write(max_tokens=30, temperature=1) for _ in range(2)}
    assert len(texts) == 2
    seed = int(re.search(r"seed (\d+)", visitor.line.input_value())[1])
    assert visitor.write(seed=seed) in texts


def test_stop_stops(visitor: Visitor, server: tuple[str, psutil.Process]) -> None:
    visitor.set(max_tokens=CONTEXT - 1)
    for _ in range(4):  # once was once not enough to see an update that came too late
        visitor.press("Generate")
        visitor.await_line(r"^\d.* tokens? .*…$")
        visitor.press("Stop")
        line = visitor.await_line("stopped$")
        assert int(line.split()[0].replace(",", "")) < CONTEXT // 2
        visitor.page.wait_for_timeout(200)
        assert visitor.line.input_value() == line
    assert _busy_seconds(server[1], 0.5) < 0.25
    assert visitor.write(max_tokens=5).startswith("the bird")


def test_a_visitor_who_leaves_leaves_nothing_running(visitor: Visitor, server: tuple[str, psutil.Process]) -> None:
    other = visitor.page.context.new_page()
    other.goto(server[0])
    visitor.set(max_tokens=CONTEXT - 1)
    visitor.press("Generate")
    visitor.await_line(r"^\d.* tokens .*…$")
    visitor.page.close()
    used = sum(server[1].cpu_times()[:2])
    Visitor(other).write(max_tokens=5)
    assert sum(server[1].cpu_times()[:2]) - used < 1.5, "as if the text had been written to its end"
    assert _busy_seconds(server[1], 0.5) < 0.25


@pytest.mark.parametrize("patient", [True, False])
def test_a_visitor_waits_for_another_or_gives_up(
    visitor: Visitor, server: tuple[str, psutil.Process], patient: bool
) -> None:
    page = visitor.page.context.new_page()
    page.goto(server[0])
    other = Visitor(page)
    visitor.set(max_tokens=1000, seed=5)
    visitor.press("Generate")
    visitor.await_line(r"^\d.* tokens? .*…$")
    if patient:
        assert len(other.write(max_tokens=5)) > len("the bird")
    else:
        other.press("Generate")
        page.wait_for_timeout(100)
        other.press("Stop")
    assert visitor.await_line("asked for$").startswith("1,000 tokens")
    if not patient:
        page.wait_for_timeout(300)
        assert other.output.input_value() == ""


def test_a_prompt_longer_than_the_context_keeps_its_end(visitor: Visitor) -> None:
    visitor.write("bird " * CONTEXT, max_tokens=5)
    assert f"read only the last {CONTEXT - 5:,} of the prompt's " in visitor.line.input_value()
    visitor.write("bird " * CONTEXT, max_tokens=CONTEXT - 1)
    assert visitor.line.input_value().endswith(f"the context of {CONTEXT:,} tokens is full")


def test_an_empty_prompt_begins_a_text(visitor: Visitor, folder: Path) -> None:
    expected = TextGenerator(*load_hf(folder / "model")).complete(
        "", max_new_tokens=20, settings=SamplingSettings(temperature=0)
    )
    assert visitor.write("", max_tokens=20, temperature=0) == _as_shown(expected.text) != ""


def test_markup_of_the_model_is_shown_as_text(visitor: Visitor) -> None:
    rules = visitor.page.locator("hr").count()
    assert visitor.write("the bird<", max_tokens=30, temperature=0).count(MARKUP) > 3
    assert visitor.page.locator("hr").count() == rules


def test_title_and_facts_are_shown_as_text(visitor: Visitor) -> None:
    assert visitor.page.get_by_role("heading", level=1).inner_text() == TITLE
    assert visitor.page.title() == TITLE
    assert visitor.page.locator("#facts").inner_text() == "Kind: <b>tiny</b>"


def test_a_mistake_is_told_in_the_page(visitor: Visitor) -> None:
    visitor.set(seed=-7)
    visitor.press("Generate")
    visitor.page.get_by_text("Value -7 is less than minimum value -1.").wait_for()


@pytest.fixture
def app(folder: Path) -> ModuleType:
    """app.py as a module; its page is not served."""
    spec = spec_from_file_location("space_app", folder / "app.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_damaged_weights_are_told(app: ModuleType, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    os.truncate(tmp_path / "model" / "model.safetensors", 20_000)
    texts = app.Writer(app.LanguageModel(tmp_path / "model")).write("the bird", 5, 0, 1, 0, 1)
    with pytest.raises(app.gr.Error, match="The model could not be loaded: "):
        list(texts)


def test_weights_that_are_no_numbers_are_told(app: ModuleType, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    model = transformers.LlamaForCausalLM.from_pretrained(folder / "model")
    model.model.norm.weight.data.fill_(torch.nan)
    model.save_pretrained(tmp_path / "model")
    texts = app.Writer(app.LanguageModel(tmp_path / "model")).write("the bird", 5, 0, 1, 0, 1)
    with pytest.raises(app.gr.Error, match="not finite"):
        list(texts)


def test_a_prompt_that_is_no_unicode_is_mended(app: ModuleType, folder: Path) -> None:
    *_, (text, _) = app.Writer(app.LanguageModel(folder / "model")).write("a\ud800", 1, 0, 1, 0, 1)
    assert text.startswith("a?")


def test_a_prompt_that_would_keep_others_waiting_is_refused(app: ModuleType, folder: Path) -> None:
    with pytest.raises(app.gr.Error, match="1,000,001 characters: give at most 1,000,000"):
        list(app.Writer(app.LanguageModel(folder / "model")).write("a" * 1_000_001, 1, 0, 1, 0, 1))


def test_a_character_in_parts_is_not_shown(app: ModuleType, folder: Path) -> None:
    model = app.LanguageModel(folder / "model")
    ids = model.tokenizer("a \N{BIRD}")["input_ids"]
    assert [model.decode(ids[:count], whole=False) for count in range(1, len(ids) + 1)][-2:] == ["a ", "a \N{BIRD}"]


def test_nothing_is_cut_off_on_a_phone(browser: playwright.Browser, server: tuple[str, psutil.Process]) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740}, is_mobile=True)
    page.goto(server[0])
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
