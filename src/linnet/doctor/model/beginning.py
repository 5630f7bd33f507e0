"""The first look: does it run, are its numbers finite, does it begin where a model that knows nothing begins."""

from __future__ import annotations

import math

from torch import Tensor, nn

from linnet.doctor.findings import Check, Outcome, failed, passed, skipped
from linnet.doctor.model.subject import ENORMOUS, ModelSubject, embedding_of, setting

# Normal logits of standard deviation d give ln(V) + d^2 / 2. Half a nat is left for chance and odd distributions.
LOSS_MARGIN = 0.5
# SmolLM2-135M, published, begins with d = 1; beyond 1.5 no initialization is meant so.
USUAL_DEVIATION, MOST_DEVIATION = 1.0, 1.5
SCALE_FACTOR = 3.0


def examine_forward(subject: ModelSubject) -> Outcome:
    """It takes rows of the whole length asked for, and answers with logits of every position."""
    batch, sequence = 2, subject.sequence_length
    ids = subject.ids(batch, sequence, 1)
    ids[1, -1] = subject.vocab_size - 1
    logits = subject.logits(ids)
    width = logits.shape[-1]
    if width < subject.vocab_size:
        return failed(
            f"the logits are {width} wide and ids go up to {subject.vocab_size - 1}",
            "give the head as many rows as the vocabulary",
            figure=width,
            bound=subject.vocab_size,
        )
    if not bool(logits.isfinite().all()):
        return failed("the logits hold NaN or infinity", "find the first layer whose output is not finite")
    if (most := float(logits.abs().max())) > ENORMOUS:
        return failed(
            f"the logits reach {most:.2g}: {subject.diverged}",
            "go back to weights from before that; if they are fresh, draw them smaller",
            figure=most,
            bound=ENORMOUS,
        )
    return passed(f"{batch} rows of {sequence} tokens give finite logits {tuple(logits.shape)} in {subject.dtype}")


def examine_finite(subject: ModelSubject) -> Outcome:
    """No parameter or buffer is NaN or infinite."""
    tensors = [*subject.model.named_parameters(), *subject.model.named_buffers()]
    kinds: dict[str, int] = {}
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        if not _sound(tensor):
            return failed(f"{name} holds NaN or infinity", "initialize it, or load weights that are whole")
        if isinstance(tensor, nn.Parameter):
            kinds[str(tensor.dtype)] = kinds.get(str(tensor.dtype), 0) + tensor.numel()
    total = sum(kinds.values())
    if len(kinds) > 1:
        mix = ", ".join(f"{count:,} in {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))
        return passed(f"all {total:,} parameters are finite; their types differ: {mix}")
    kind = next(iter(kinds), "no type")
    return passed(f"{f'all {total:,} parameters are' if total != 1 else 'the one parameter is'} finite, in {kind}")


def examine_first_loss(subject: ModelSubject) -> Outcome:
    """Before training, random tokens cost ln(V) nats each."""
    if subject.wishes.trained:
        return skipped("the model is trained: only fresh weights begin at ln(V)")
    shape = 2, subject.sequence_length
    targets = subject.ids(*shape, 21)
    loss, logits = subject.initial_loss(subject.ids(*shape, 20), targets)
    if not math.isfinite(loss):
        return skipped("the loss is no number, see 'forward pass'")
    expected = math.log(logits.shape[-1])
    deviation = _configured_deviation(subject)
    bound = LOSS_MARGIN + min(deviation, MOST_DEVIATION) ** 2 / 2
    seen = f"the first loss on random tokens is {loss:.3f}; ln({logits.shape[-1]}) is {expected:.3f}"
    if abs(loss - expected) <= bound:
        constant = bool((logits == logits[..., :1]).all())
        return passed(f"{seen}{' (the head begins at zero: all logits are equal)' if constant else ''}",
                      figure=abs(loss - expected), bound=bound)  # fmt: skip
    if loss < expected:
        return failed(f"{seen}, and nothing can know random targets that well", "look for targets inside the input",
                      figure=expected - loss, bound=bound)  # fmt: skip
    if subject.asleep and setting(subject.config, "tie_word_embeddings"):
        return failed(
            f"{seen}: what writes into the stream begins at zero, so the tied head foretells the token just read",
            "set tie_word_embeddings to false, or let the residual branches begin with random weights",
            figure=abs(loss - expected),
            bound=bound,
        )
    return failed(
        f"{seen}: {_too_wide(subject, logits)}",
        "draw every matrix, the embedding above all, from a normal of standard deviation initializer_range (0.02 to "
        "0.04)",
        figure=abs(loss - expected),
        bound=bound,
    )


def examine_scale(subject: ModelSubject) -> Outcome:
    """The embedding was drawn with the standard deviation that the config says."""
    if subject.wishes.trained:
        return skipped("the model is trained: its scale is its own")
    declared = setting(subject.config, "initializer_range")
    embedding = embedding_of(subject.model, subject.vocab_size)
    if not isinstance(declared, float) or embedding is None:
        return skipped("no initializer_range in the config to hold the embedding against")
    name, weight = embedding
    deviation = float(weight.detach().float().std())
    seen = f"{name} has a standard deviation of {deviation:.3g}; initializer_range is {declared:.3g}"
    if weight.numel() >= 64 and not declared / SCALE_FACTOR <= deviation <= declared * SCALE_FACTOR:
        return failed(
            f"{seen}, which was never applied",
            "after building the model, draw its matrices with std=initializer_range",
            figure=deviation,
            bound=declared * SCALE_FACTOR,
        )
    return passed(seen, figure=deviation, bound=declared * SCALE_FACTOR)


def _sound(tensor: Tensor) -> bool:
    """Whether a parameter is finite, or a buffer, which may be a mask of infinities, is free of NaN."""
    # A finite sum needs no second look, and is many times quicker than asking each entry.
    if bool(tensor.detach().sum().isfinite()):
        return True
    return bool(tensor.isfinite().all() if isinstance(tensor, nn.Parameter) else not tensor.isnan().any())


def _configured_deviation(subject: ModelSubject) -> float:
    """Standard deviation of the first logits of normed states under the config's initializer_range."""
    declared, width = setting(subject.config, "initializer_range"), setting(subject.config, "hidden_size", "n_embd")
    if isinstance(declared, float) and isinstance(width, int):
        return declared * math.sqrt(width)
    return USUAL_DEVIATION


def _too_wide(subject: ModelSubject, logits: Tensor) -> str:
    embedding = embedding_of(subject.model, subject.vocab_size)
    spread = f"the logits have a standard deviation of {float(logits.std()):.3g}"
    if embedding is None:
        return f"{spread}, so the initialization is too wide"
    name, weight = embedding
    deviation = float(weight.detach().float().std())
    declared = setting(subject.config, "initializer_range")
    if isinstance(declared, float) and deviation <= declared * SCALE_FACTOR and declared < 1:
        return f"{spread}, although {name} has the {deviation:.3g} of initializer_range: too wide, or a norm is missing"
    return f"{spread}, as when initializer_range was never applied ({name} has a standard deviation of {deviation:.3g})"


CHECKS = (
    Check("forward pass", examine_forward),
    Check("finite numbers", examine_finite),
    Check("first loss", examine_first_loss),
    Check("initial scale", examine_scale),
)
