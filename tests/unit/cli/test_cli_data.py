"""linnet data, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from linnet.cli.main import main

STORIES = ["--data.source", "builtin:stories", "--data.max_bytes", "40000", "--tokenizer.vocab_size=300"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["data", *words])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return call


def row(output: str, name: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.startswith(name))


def test_prepare_then_show(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, told, error = run("show", *STORIES)
    assert (code, told) == (2, "")
    assert "not prepared" in error
    assert "`linnet data prepare --data.source builtin:stories" in error
    code, prepared, _ = run("prepare", *STORIES)
    assert code == 0
    (directory,) = (tmp_path / "prepared").iterdir()
    assert row(prepared, "directory")[1] == f"prepared/{directory.name}"
    assert row(prepared, "entropy")[2:5] == ["nats", "per", "byte:"]
    numbers = row(prepared, "train  ")
    assert int(numbers[3].replace(",", "")) < 40_000
    code, shown, _ = run("show", *STORIES, "--samples", "2", "--data.seq_len", "32", "--verify")
    assert code == 0
    assert shown.startswith(prepared)
    assert shown.count("--- train, window ") == shown.count("--- validation, window ") == 2
    assert shown.endswith("every token matches its checksum\n")
    assert run("show", f"prepared/{directory.name}")[1] == prepared
    code, _, error = run("prepare", f"prepared/{directory.name}")
    assert (code, "is prepared already" in error) == (2, True)


def test_config_file_and_its_overrides(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "text.txt").write_text("a few words and an end<|endoftext|>" * 100)
    (tmp_path / "run.yaml").write_text("data: {source: text.txt, seq_len: 16}\ntokenizer: {vocab_size: 290}\n")
    code, told, _ = run("prepare", "run.yaml", "--tokenizer.vocab_size", "270")
    assert code == 0
    assert row(told, "vocabulary")[1] == "270"
    assert row(told, "train  ")[1] != "0"
    code, shown, _ = run("show", "run.yaml", "--tokenizer.vocab_size", "270", "--samples", "1")
    assert code == 0
    assert "words and an end<|endoftext|>" in shown


def test_mistakes_are_one_line(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for words, sentence in (
        (["prepare", "--data.source", "nothing.txt"], "linnet: nothing.txt: there is no such file or directory"),
        (["prepare", "--data.sorce", "x"], "data.sorce"),
        (["prepare", str(tmp_path)], "config.yaml: there is no such config file"),
        (["show", "nowhere.yaml"], "linnet: nowhere.yaml: there is no such config file"),
        (["show", str(tmp_path)], "config.yaml: there is no such config file"),
    ):
        code, told, error = run(*words)
        assert (code, told) == (2, "")
        assert sentence in error
        assert error.count("\n") == 1


def test_help_has_examples(run) -> None:  # type: ignore[no-untyped-def]
    for words in (["--help"], ["prepare", "--help"], ["show", "--help"]):
        code, told, _ = run(*words)
        assert code == 0
        assert "Examples:\n    linnet data" in told.replace("\n  \n", "\n")
