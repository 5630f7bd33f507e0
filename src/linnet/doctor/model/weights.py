"""Parameters: their names, whether a tied head is really shared, and whether the gradient finds them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.doctor.findings import Check, Outcome, counted, failed, passed, skipped
from linnet.doctor.model.calling import unwrapped
from linnet.doctor.model.subject import ModelSubject, embedding_of, setting

COMPILED, PARALLEL = "_orig_mod", "module"
NAMED = 4


def examine_names(subject: ModelSubject) -> Outcome:
    """Names under which weights would be saved carry no wrapper's prefix; what is really saved, only a save shows."""
    names = list(subject.model.state_dict())
    compiled = next((name for name in names if COMPILED in name.split(".")), None)
    parallel = all(name.split(".")[0] == PARALLEL for name in names)
    if compiled is not None or (parallel and names):
        what, inner = ("torch.compile", "_orig_mod") if compiled is not None else ("a parallel wrapper", "module")
        return skipped(
            f"{what} puts '{inner}.' into names, such as {compiled or names[0]}: save the state_dict() of the module "
            f"inside (.{inner}); whether you do, check_training(save=, load=) tells"
        )
    return passed(f"{counted(len(names), 'name')}, none with the prefix of torch.compile or a parallel wrapper")


def examine_tied_head(subject: ModelSubject) -> Outcome:
    """Embedding and head are one parameter where they are meant to be, and two where not."""
    inner = unwrapped(subject.probe)
    found = embedding_of(inner, subject.vocab_size)
    if found is None:
        return skipped("no token embedding was found")
    name, embedding = found
    head_name, head = _head_of(inner, embedding)
    meant = _meant(subject)
    if not embedding.requires_grad:
        return skipped(f"{name} wants no gradient, so it cannot be asked whether the head moves it")
    if _head_moves(subject, embedding):
        if meant is False:
            return failed(
                f"{name} is the head too, though tie_word_embeddings is false",
                "give the head its own matrix",
            )
        return passed(f"head and embedding are one parameter, {name}, and the head's gradient reaches it")
    return _apart(meant, name, embedding, head_name, head)


def examine_gradient_reach(subject: ModelSubject) -> Outcome:
    """One backward pass gives every parameter a finite gradient that is not zero throughout."""
    sizes = subject.sizes
    if not sizes:
        return skipped("no parameter requires a gradient")
    missing = [name for name, size in sizes.items() if size is None]
    zero = [name for name, size in sizes.items() if size == 0]
    wild = [name for name, size in sizes.items() if size is not None and not torch.tensor(size).isfinite()]
    if wild:
        return failed(
            f"the gradient of {_few(wild)} is NaN or infinite",
            "look for a division, root or logarithm of zero, or a row of scores that is masked wholly",
        )
    if missing or zero:
        parts = [f"{_few(missing)} gets no gradient"] if missing else []
        parts += [f"the gradient of {_few(zero)} is zero throughout"] if zero else []
        return failed(
            f"{'; '.join(parts)}: it will never be trained",
            "use the parameter in forward, outside of no_grad and detach, or leave it out",
            figure=len(missing) + len(zero),
            bound=0,
        )
    frozen = sum(not parameter.requires_grad for parameter in subject.probe.parameters())
    still = f"; {frozen} {'is' if frozen == 1 else 'are'} frozen" if frozen else ""
    reached = "the one parameter gets" if len(sizes) == 1 else f"all {len(sizes)} parameters get"
    filled = " (matrices that begin at zero were filled for this question)" if subject.asleep else ""
    return passed(f"{reached} a gradient{still}{filled}")


def _meant(subject: ModelSubject) -> bool | None:
    if subject.wishes.tied is not None:
        return subject.wishes.tied
    meant = setting(subject.config, "tie_word_embeddings")
    return meant if isinstance(meant, bool) else None


def _head_of(model: nn.Module, embedding: nn.Parameter) -> tuple[str, nn.Parameter | None]:
    """The last other parameter of the embedding's shape outside of an embedding module."""
    last: tuple[str, nn.Parameter | None] = ("", None)
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Embedding) or "embedding" in type(module).__name__.lower():
            continue
        for name, parameter in module.named_parameters(prefix=module_name, recurse=False):
            if parameter is not embedding and parameter.shape == embedding.shape:
                last = name, parameter
    return last


def _head_moves(subject: ModelSubject, embedding: nn.Parameter) -> bool:
    """Whether the logit of a token that was not read has a gradient in the embedding's row of that token."""
    token = subject.vocab_size - 1
    ids = subject.ids(1, min(subject.sequence_length, 8), 30) % token
    with torch.enable_grad():
        logits = subject.calling(subject.probe, ids)
        if not logits.requires_grad:
            return False
        gradient: Tensor | None
        (gradient,) = torch.autograd.grad(logits[..., token].float().sum(), [embedding], allow_unused=True)
    return gradient is not None and bool(gradient[token].any())


def _apart(
    meant: bool | None, name: str, embedding: nn.Parameter, head_name: str, head: nn.Parameter | None
) -> Outcome:
    remedy = f"make them one parameter, after both are built and on their device: {head_name or 'head.weight'} = {name}"
    if head is None:
        if meant:
            return failed(f"the head's gradient does not reach {name}, so the head is a detached copy", remedy)
        return skipped(f"no head of the shape of {name} was found")
    if head.data_ptr() == embedding.data_ptr():
        return failed(
            f"{head_name} and {name} are two parameters over the same memory: each gets only its own gradient, and an "
            "optimizer moves the memory twice",
            remedy,
        )
    if torch.equal(head.detach(), embedding.detach()):
        return failed(
            f"{head_name} only holds a copy of {name}: equal now, and apart after the first step",
            remedy if meant is not False else "draw the head at random by itself",
        )
    if meant:
        return failed(f"{head_name} has weights of its own, though head and embedding are meant to be tied", remedy)
    return passed(f"{head_name} is a parameter of its own, apart from {name}")


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


NAMES = (Check("parameter names", examine_names),)
CHECKS = (
    Check("tied head", examine_tied_head),
    Check("gradient reach", examine_gradient_reach),
)
