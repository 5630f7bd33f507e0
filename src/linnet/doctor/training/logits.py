"""Known logits put in the place of a model's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from linnet.doctor.model.calling import Calling, logits_in


def ids_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The token ids among the arguments of a forward call: its first tensor of integers."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool:
            return value
    return None


@contextmanager
def known_logits(model: nn.Module, calling: Calling, table: Tensor) -> Iterator[None]:
    """Inside, `model` puts out `table[id]` for each id, rounded to whatever type its own logits came in.

    The exchange happens where the logits are made, so that a model which computes its own loss computes it of these.

    Args:
        table: (rows, vocabulary), float32; an id beyond its rows is looked up from the first row again.
    """
    site = _where_logits_are_made(model, calling)
    asked: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = ids_in(args, kwargs)
        if ids is not None:
            asked[:] = [ids]

    def exchange(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        ids = asked[0]
        if isinstance(output, Tensor):  # of some last positions only, where a model shortens its work
            return _looked_up(table, ids[:, -output.shape[-2] :] if output.ndim == 3 else ids, output)
        made = logits_in(output, ids)
        return output if made is None else _with_logits(output, _looked_up(table, ids, made))

    handles = [model.register_forward_pre_hook(note, with_kwargs=True), site.register_forward_hook(exchange)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _looked_up(table: Tensor, ids: Tensor, like: Tensor) -> Tensor:
    return table.to(like.device)[ids % len(table)].to(like.dtype).reshape(like.shape)


@torch.no_grad()
def _where_logits_are_made(model: nn.Module, calling: Calling) -> nn.Module:
    """The submodule called last whose output is the model's logits, else the model itself."""
    called: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            called.append((module, output.data_ptr()))

    handles = [module.register_forward_hook(note) for module in model.modules() if module is not model]
    ids = torch.zeros(1, 2, dtype=torch.int64, device=next(model.parameters()).device)
    try:
        logits = calling(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    same = [module for module, place in called if place == logits.data_ptr()]
    return same[-1] if same else model


def _with_logits(output: Any, known: Tensor) -> Any:
    if isinstance(output, tuple | list):
        place = next(
            index for index, item in enumerate(output) if isinstance(item, Tensor) and item.is_floating_point()
        )
        items = [*output[:place], known.reshape(output[place].shape), *output[place + 1 :]]
        return items if isinstance(output, list) else tuple(items)
    output["logits"] = known.reshape(output["logits"].shape)
    return output
