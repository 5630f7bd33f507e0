"""Budget, stop request and meter."""

from __future__ import annotations

import os
import signal
import time

import pytest

from linnet.train.limits import ASSUMED_SAVE_RATE, Budget, Meter, StopRequest


def test_no_budget_is_never_spent() -> None:
    assert not Budget(None, 0.0, 0).limited
    assert not Budget(None, 0.0, 10**15).spent(10**9)


def test_a_budget_keeps_room_for_step_evaluation_and_save() -> None:
    now = time.time()
    assert not Budget(100, now, 0).spent(1)
    assert Budget(100, now - 99, 0).spent(0)
    assert Budget(100, now, 0).spent(60), "the next step would not fit"
    assert Budget(100, now, int(60 * ASSUMED_SAVE_RATE)).spent(0), "the first save would not fit"
    evaluated = Budget(100, now, 0)
    evaluated.evaluation_took(60)
    evaluated.evaluation_took(1)
    assert evaluated.spent(0), "the longest evaluation so far would not fit"
    sampled = Budget(100, now, 0)
    sampled.sample_took(60)
    assert sampled.spent(0), "the longest sample so far would not fit"
    saved = Budget(100, now, 0)
    saved.save_took(60)
    assert saved.spent(0), "the longest save so far would not fit"


def test_the_first_signal_is_kept_and_the_handlers_are_given_back() -> None:
    stop = StopRequest()
    before = signal.getsignal(signal.SIGTERM)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def _hurried() -> None:
    with StopRequest().listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)


def test_a_second_signal_interrupts_what_is_in_progress() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        _hurried()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_closed_terminal_stops_the_run_unless_that_is_ignored() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler in (signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(signal.SIGHUP, handler)
            stop = StopRequest()
            with stop.listening():
                if handler is signal.SIG_DFL:
                    os.kill(os.getpid(), signal.SIGHUP)
                else:
                    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert (stop.signal is signal.SIGHUP) is (handler is signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_rate_is_that_of_training_without_what_watching_took() -> None:
    meter = Meter()
    meter.resume()
    time.sleep(0.05)
    meter.count(1000)
    meter.pause()
    time.sleep(0.3)  # an evaluation
    meter.resume()
    time.sleep(0.05)
    meter.count(1000)
    meter.pause()
    assert 2000 / 0.25 < meter.rate() <= 2000 / 0.1
    assert meter.step_seconds() > 0.02, "a step is foreseen by those before the last log line"
    assert meter.rate() == 0.0
