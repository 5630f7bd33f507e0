"""The loop of a run, as a list of verbs."""

from __future__ import annotations

from linnet.train.training import Ending, Training


def train(training: Training) -> Ending:
    """Train until the last step, the end of the budget, or a signal; returns which it was."""
    with training.stop.listening():
        training.compile()
        training.meter.resume()
        while (ending := training.ending()) is None:
            training.take_step()
            training.log_if_due()
            training.save_if_due()
            training.evaluate_if_due()
            training.sample_if_due()
        return training.finish(ending)
