"""What a README says of a run, held against the run's log."""

from __future__ import annotations

from typing import Any

import pytest

from linnet.doctor.training import check_claims
from linnet.train.evaluate import Evaluation
from linnet.train.events import Evaluated, Logged
from linnet.train.observers.lines import line_for
from linnet.train.observers.metrics import record_for

LOGGED = [
    Logged(step, 5000, step * 1024, 1.0, 11 - step / 1000, 3e-4 - step * 1e-8, 1.0, 3500 + step / 10)
    for step in (50, 5000)
]
VALIDATED = Evaluated(5000, 5_120_000, 9.0, Evaluation(6.2 * 1000, 1000, 4000), None)
RECORDS: list[dict[str, Any]] = [record_for(event) for event in (*LOGGED, VALIDATED)]
LOG = "Model params: 134,515,008\n" + "\n".join(line_for(event) or "" for event in LOGGED) + "\n"


def examined(text: str) -> Any:
    return check_claims(text, RECORDS, log=LOG)


def test_lines_copied_from_the_log_pass_number_by_number() -> None:
    text = "\n".join(f"    {line_for(event)}" for event in (*LOGGED, VALIDATED))
    diagnosis = examined(text)
    assert {finding.outcome.status for finding in diagnosis.findings} == {"passed"}, str(diagnosis)
    assert len(diagnosis.findings) == 3 + 3 + 4


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (
            "step   50/5000 | lr 2.995e-04 | loss 9.9500 | tok/s 3505.0",
            "loss",
            "says loss 9.9500 at step 50, and the log says 10.95",
        ),
        ("step 5000/5000 | lr 2.500e-04 | loss 6.0000 | tok/s 9000.0", "tok/s", "and the log says 4000"),
        ("step  123/5000 | loss 6.0000", "loss", "of which the log has no loss"),
        ("[val @ step 5000] loss 5.9000 | ppl 492.75", "loss", "the log says 6.2"),
        ("The final validation loss is **5.81**.", "validation loss", "the nearest is 6.2, at step 5000"),
        ("It reaches a perplexity of 42.1 in one night", "perplexity", "the nearest is 492"),
        ("that is 1.35 bits per byte", "bits per byte", "the nearest is 2.236"),
        ("val loss: 1.24 nats per byte", "nats per byte", "the nearest is 1.55"),
        ("bits/byte 1.35", "bits/byte", "the nearest is 2.236"),
        ("trains at 14,343.7 tok/s on a laptop", "tok/s", "the nearest is 4000"),
        ("Model params: 162,826,560", "params", "the model has 134,515,008"),
        ("It has 162.8M parameters.", "parameters", "the model has 134,515,008"),
        ("| step | loss |\n|---|---|\n| 50 | 9.95 |\n| 5000 | 6.00 |", "loss", "says loss 9.95 at step 50"),
    ],
)
def test_a_number_that_the_log_contradicts_is_named(text: str, name: str, words: str) -> None:
    failed = examined(text).failed
    assert failed, text
    assert failed[0].name.endswith(f": {name}")
    assert words in failed[0].outcome.sentence


@pytest.mark.parametrize(
    "text",
    [
        "The final validation loss is **6.20**.",
        "loss 10.950 after warm-up, val loss: 6.2, perplexity of 492.75, 2.236 bits per byte",
        "134.5M parameters, 134,515,008 params",
        "val loss: 1.550 nats per byte",
        "the validation loss is **2.236** bits/byte",
        "between 3,505 tok/s and 4,000 tok/s; on average 3,700 tok/s",
        "| step | loss | tok/s |\n|---|---|---|\n| 50 | 10.95 | 3505 |\n| 5000 | 6.00 | 4,000 |",
    ],
)
def test_true_numbers_pass_as_finely_as_they_are_written(text: str) -> None:
    diagnosis = examined(text)
    assert diagnosis.healthy, str(diagnosis)
    assert all(finding.outcome.status == "passed" for finding in diagnosis.findings)


@pytest.mark.parametrize(
    "text",
    [
        "linnet train configs/demo.yaml --optim.max_lr 3.0e-4",
        "a first loss of about 10.8, below 3.5, and a loss under 2.0",
        "loss went from 10.82 to 3.1",
        "Nothing here measures anything: version 2.13, 2 cores, 0.5 GB, 12 layers.",
        "learning rate 3e-4, warm-up 200, loss 4",
        "step   50/800 | lr 1.0e-04 | loss 5.0000 | tok/s 1.0",
        "| variant | loss |\n|---|---|\n| rope | 3.21 |\n| nope | 3.55 |",
        "tok/s improved by 12.5 %, 30% more tok/s",
        "loss 3.1-3.4",
    ],
)
def test_what_is_no_claim_about_the_run_is_left_alone(text: str) -> None:
    diagnosis = examined(text)
    assert diagnosis.healthy, str(diagnosis)
    assert [finding.outcome.status for finding in diagnosis.findings] == ["skipped"]


def test_a_log_alone_will_do() -> None:
    text = (line_for(LOGGED[0]) or "").replace("loss 10.95", "loss 10.96")
    (finding,) = check_claims(text, [], log=LOG).failed
    assert "says loss 10.9600 at step 50, and the log says 10.95" in finding.outcome.sentence


def test_another_models_size_is_not_the_runs() -> None:
    assert examined("134,515,008 parameters; the small one has 1,574,592 parameters").healthy


def test_the_line_is_named() -> None:
    (finding,) = check_claims("one\ntwo\nval loss 1.23\n", RECORDS, where="docs/x.md").failed
    assert finding.name == "docs/x.md line 3: val loss"
