"""Hugging Face `config.json` to ModelConfig and back: what maps, what is inert, and what is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from linnet.config.model import ModelConfig
from linnet.config.rope_scaling import RopeScaling
from linnet.errors import UserError

LINNET = "linnet"  # the model_type of configs in linnet's own fields

# transformers makes a name for each, whether or not anything has labels.
MOST_LABELS = 100_000

_SAME_NAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "initializer_range",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "rope_interleaved",
)
_EVERY_LLAMA = {"position_embedding": "rope", "norm": "rmsnorm", "norm_position": "pre", "feed_forward": "swiglu"}
# Of no weight for the function: bookkeeping of transformers, hints for generation, and what no Llama reads.
_INERT = {
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "is_llama_config",
    "model_type",
    "pad_token_id",
    "pretraining_tp",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


@dataclass(frozen=True)
class _Family:
    """A model of transformers that computes what linnet's does.

    Attributes:
        architecture: its class.
        defaults: its config's own, for keys that a file leaves out.
        only: keys that would change the function unless they hold one of these values.
        settles: fields of ModelConfig that the family itself decides.
        needs: keys that must be there because their default changes the function.
    """

    architecture: str
    defaults: dict[str, Any]
    only: dict[str, tuple[Any, ...]]
    settles: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


_LLAMA_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
}
_NOTHING_ELSE: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "sliding_window": (None,),
    "attention_dropout": (None, 0, 0.0),
    "partial_rotary_factor": (None, 1, 1.0),
    "quantization_config": (None,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "no_rope_layers": (None,),
    "attention_multiplier": (None, 1, 1.0),
    "embedding_multiplier": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "logit_scale": (None, 1, 1.0),
    "final_logit_softcapping": (None,),
    "attn_logit_softcapping": (None,),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "attention_chunk_size": (None,),
    "use_qk_norm": (None, False),
    "is_causal": (None, True),
    "transformers_weights": (None,),
}
_NO_BIAS = {"attention_bias": (None, False), "mlp_bias": (None, False)}
_FAMILIES = {
    "llama": _Family("LlamaForCausalLM", _LLAMA_DEFAULTS, {}, {"qk_norm": False}),
    "mistral": _Family(
        "MistralForCausalLM",
        {
            **_LLAMA_DEFAULTS,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096 * 32,
        },
        _NO_BIAS,
        {"qk_norm": False},
        needs=("sliding_window",),
    ),
    "qwen3": _Family(
        "Qwen3ForCausalLM",
        {
            **_LLAMA_DEFAULTS,
            "vocab_size": 151936,
            "intermediate_size": 22016,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "max_position_embeddings": 32768,
        },
        {"mlp_bias": (None, False), "use_sliding_window": (None, False)},
        {"qk_norm": True},
    ),
}
# Read by the families themselves, or named above.
_READ = {"rope_theta", "rope_scaling", "rope_parameters", "layer_types", "use_sliding_window", "max_window_layers"}


def is_huggingface(mapping: Mapping[str, Any]) -> bool:
    """Whether `mapping` looks like a whole config.json rather than linnet's own fields."""
    return "model_type" in mapping or "architectures" in mapping


def from_huggingface(mapping: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Read the `config.json` of a Llama, of a Mistral without a sliding window, or of a Qwen3, by transformers 4 or 5.

    A `model_type` of "linnet" holds ModelConfig's own fields, as `linnet export --format weights` writes them.

    Raises:
        UserError: if the file describes something that linnet's model does not compute; the key is named.
    """
    if mapping.get("model_type") == LINNET:
        if mapping.get("init_from") is not None:
            raise UserError(f"{where}: init_from is no part of a model: remove it")
        return _build({key: value for key, value in mapping.items() if key != "model_type"}, where)
    family = _family(mapping, where)
    for key, allowed in {**_NOTHING_ELSE, **family.only}.items():
        if key in mapping and not any(mapping[key] is value or mapping[key] == value for value in allowed):
            raise UserError(
                f"{where}: {key} = {_short(mapping[key])} would change the model and is not supported "
                f"(only {' or '.join(repr(value) for value in allowed)})"
            )
    for key in family.needs:
        if key not in mapping:
            raise UserError(f"{where}: {key} is left out, which in a {family.architecture} changes the model")
    labels = mapping.get("num_labels")
    if labels is not None and not (_is_count(labels) and labels <= MOST_LABELS):
        raise UserError(f"{where}: num_labels = {_short(labels)} is no number of labels, of which a Llama has none")
    layers = mapping.get("layer_types")
    if layers is not None and (not isinstance(layers, list) or any(kind != "full_attention" for kind in layers)):
        raise UserError(f"{where}: layer_types = {_short(layers)} would change the model (only full_attention)")
    values = {**family.defaults, **family.settles, **_rope(mapping, where)}
    values.update({key: mapping[key] for key in _SAME_NAME if mapping.get(key) is not None})
    return _build(values, where)


def ignored_keys(mapping: Mapping[str, Any]) -> list[str]:
    """Keys of a config.json that neither linnet nor transformers' model of that type reads."""
    if mapping.get("model_type") == LINNET:
        return []
    known = {*_SAME_NAME, *_INERT, *_READ, *_NOTHING_ELSE}
    return sorted(key for key in mapping if key not in known)


def refuse_what_no_llama_has(config: ModelConfig, kind: str) -> None:
    """See that `config` is the decoder that all Llamas are, whatever their sizes.

    Raises:
        UserError: naming the setting that no `kind` has.
    """
    for name, allowed in _EVERY_LLAMA.items():
        if getattr(config, name) != allowed:
            raise UserError(
                f"model.{name} {getattr(config, name)} is in no {kind} that linnet knows (only {allowed}): "
                "export this one with --format weights"
            )


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """The keys of a `config.json` that define the function of `config`, for transformers 4 and 5.

    A model with `qk_norm` is a Qwen3, any other a Llama. Rows of queries and keys are to be in rotate-half order.

    Raises:
        UserError: naming the setting that neither of them has.
    """
    refuse_what_no_llama_has(config, "model of transformers")
    if config.qk_norm and config.mlp_bias:
        raise UserError("model.qk_norm with mlp_bias is in no model of transformers: export it with --format weights")
    name = "qwen3" if config.qk_norm else "llama"
    rope = {"rope_type": "default"} if config.rope_scaling is None else config.rope_scaling.given()
    values: dict[str, Any] = {
        "architectures": [_FAMILIES[name].architecture],
        "model_type": name,
        **{key: getattr(config, key) for key in _SAME_NAME if key not in ("rope_interleaved", "mlp_bias")},
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else {**rope, "rope_theta": config.rope_theta},
        "rope_parameters": {**rope, "rope_theta": config.rope_theta},
        "use_cache": True,
    }
    if name == "llama":
        values["mlp_bias"] = config.mlp_bias
    else:
        values["use_sliding_window"] = False
        values["sliding_window"] = None
    return values


def _family(mapping: Mapping[str, Any], where: str) -> _Family:
    by_architecture = {family.architecture: name for name, family in _FAMILIES.items()}
    architectures = mapping.get("architectures")
    name = mapping.get("model_type")
    if architectures:
        one = architectures[0] if isinstance(architectures, list) and len(architectures) == 1 else None
        if not isinstance(one, str) or one not in by_architecture:
            raise UserError(
                f"{where}: architectures {_short(architectures)} is not supported: only one of "
                f"{', '.join(by_architecture)} is"
            )
        name = name if name is not None else by_architecture[architectures[0]]
        if by_architecture[architectures[0]] != name:
            raise UserError(f"{where}: model_type {_short(name)} and architectures {_short(architectures)} disagree")
    if not isinstance(name, str) or name not in _FAMILIES:
        raise UserError(f"{where}: model_type {_short(name)} is not supported: only {', '.join(_FAMILIES)} are")
    return _FAMILIES[name]


def _rope(mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
    """rope_theta and rope_scaling, which transformers 4 keeps apart and 5 together, in `rope_parameters`."""
    found = []
    for key in ("rope_parameters", "rope_scaling"):
        value = mapping.get(key)
        if value and not isinstance(value, Mapping):
            raise UserError(f"{where}: {key} should be a mapping, not {_short(value)}")
        if value:
            found.append((key, _one_rope(value, mapping, f"{where}: {key}")))
    if len(found) == 2 and found[0][1] != found[1][1]:
        raise UserError(f"{where}: rope_parameters and rope_scaling disagree: make them one")
    if found:
        return found[0][1]
    return {"rope_theta": mapping["rope_theta"]} if mapping.get("rope_theta") is not None else {}


def _one_rope(given: Mapping[str, Any], mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
    rest = {name: value for name, value in given.items() if value is not None}
    kind = rest.pop("rope_type", rest.get("type", "default"))
    if rest.pop("type", kind) != kind:
        raise UserError(f"{where}: type and rope_type disagree: keep one")
    theta, outer = rest.pop("rope_theta", None), mapping.get("rope_theta")
    if theta is not None and outer is not None and theta != outer:
        raise UserError(f"{where}.rope_theta is {_short(theta)}, but rope_theta is {_short(outer)}: make them one")
    values = {} if theta is None and outer is None else {"rope_theta": outer if theta is None else theta}
    if rest.pop("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{where} has a partial_rotary_factor, which would change the model and is not supported")
    outside = mapping.get("original_max_position_embeddings")
    if outside is not None and kind in ("yarn", "llama3"):
        rest["original_max_position_embeddings"] = outside
    if kind == "default":
        rest.pop("factor", None)  # transformers does not read it then
        if rest:
            raise UserError(f"{where} has {', '.join(sorted(rest))}, which rope_type default does not read")
        return values
    original: Any = rest.get("original_max_position_embeddings")
    longest: Any = mapping.get("max_position_embeddings")
    if kind == "yarn" and "factor" not in rest and _is_count(original) and _is_count(longest):
        rest["factor"] = longest / original
    if kind not in ("linear", "dynamic", "yarn", "llama3"):
        raise UserError(
            f"{where} with rope_type {_short(kind)} would change the model and is not supported "
            "(only default, linear, dynamic, yarn and llama3 are)"
        )
    if kind in ("linear", "dynamic"):
        rest.pop("original_max_position_embeddings", None)  # transformers does not read it then
    try:
        return {**values, "rope_scaling": RopeScaling(rope_type=kind, **rest)}
    except (ValidationError, TypeError) as error:
        raise UserError(f"{where}: {_complaint(error)}") from error


def _build(values: dict[str, Any], where: str) -> ModelConfig:
    try:
        return ModelConfig(**values)
    except (ValidationError, TypeError) as error:
        raise UserError(f"{where}: {_complaint(error)}") from error


def _complaint(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{key} would change the model and is not supported"
    return f"{key}{': ' if key else ''}{first['msg'].removeprefix('Value error, ')}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
