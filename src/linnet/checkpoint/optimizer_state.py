"""An optimizer's state dict as tensors and JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from linnet.errors import UserError

_TENSOR, _TUPLE = "__tensor__", "__tuple__"


def flatten_optimizer(state_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split `optimizer.state_dict()` into tensors, named `state.{parameter index}.{name}`, and a JSON-able rest.

    Raises:
        UserError: something in it is no tensor, number, text, None, or list, tuple or mapping of those.
    """
    unknown = set(state_dict) - {"state", "param_groups"}
    if unknown:
        raise UserError(f"optimizer state has {sorted(map(str, unknown))} beside 'state' and 'param_groups'")
    tensors: dict[str, Tensor] = {}
    rest = {
        "state": {str(index): _pack(entry, f"state.{index}", tensors) for index, entry in state_dict["state"].items()},
        "param_groups": _pack(state_dict["param_groups"], "param_groups", tensors),
    }
    return tensors, rest


def restore_optimizer(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Join what `flatten_optimizer` split into a state dict ready for `load_state_dict`."""
    indices = sorted(int(index) for index in rest["state"])
    return {
        "state": {index: _unpack(rest["state"][str(index)], tensors) for index in indices},
        "param_groups": _unpack(rest["param_groups"], tensors),
    }


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    match value:
        case Tensor():
            if path in tensors:
                raise UserError(f"optimizer state has two tensors named {path}")
            tensors[path] = value
            return {_TENSOR: path}
        case None | bool() | int() | float() | str():
            return value
        case tuple():  # JSON knows lists only, and PyTorch compares betas as a tuple
            return {_TUPLE: [_pack(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]}
        case list():
            return [_pack(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
        case dict() if all(isinstance(key, str) and key not in (_TENSOR, _TUPLE) for key in value):
            return {key: _pack(item, f"{path}.{key}", tensors) for key, item in value.items()}
    raise UserError(f"optimizer state {path} is a {type(value).__name__}: only tensors and numbers can be saved")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"__tensor__": path}:
            return tensors[path]
        case {"__tuple__": items}:
            return tuple(_unpack(item, tensors) for item in items)
        case list():
            return [_unpack(item, tensors) for item in value]
        case dict():
            return {key: _unpack(item, tensors) for key, item in value.items()}
    return value
