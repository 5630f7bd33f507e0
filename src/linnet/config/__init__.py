"""What a run is: frozen, validated settings; presets; YAML and dotted overrides."""

from linnet.config.huggingface import from_huggingface, ignored_keys, to_huggingface
from linnet.config.load import SECTIONS, Override, build_config, dump_config, load_config
from linnet.config.model import NOT_THE_FUNCTION, ModelConfig
from linnet.config.presets import PRESETS, preset
from linnet.config.rope_scaling import RopeScaling
from linnet.config.run import (
    END_OF_TEXT,
    DataConfig,
    OptimConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)
from linnet.config.settings import Settings, may_change_on_resume
from linnet.config.shorthand import model_of_source, tokenizer_of
from linnet.config.yaml_files import read_yaml

__all__ = [
    "END_OF_TEXT",
    "NOT_THE_FUNCTION",
    "PRESETS",
    "SECTIONS",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "Override",
    "RopeScaling",
    "RunConfig",
    "Settings",
    "TokenizerConfig",
    "TrainConfig",
    "build_config",
    "dump_config",
    "from_huggingface",
    "ignored_keys",
    "load_config",
    "may_change_on_resume",
    "model_of_source",
    "preset",
    "read_yaml",
    "to_huggingface",
    "tokenizer_of",
]
