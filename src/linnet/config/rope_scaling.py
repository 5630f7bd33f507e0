"""How rotary frequencies are changed so that a model reads further than it was trained to: `rope_scaling`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from linnet.config.settings import Settings

# Beyond rope_type and factor: what each kind reads, and what it cannot do without.
_READS = {
    "linear": (),
    "dynamic": (),
    "yarn": (
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
    "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}
_NEEDS = {"llama3": ("low_freq_factor", "high_freq_factor")}


class RopeScaling(Settings):
    """Hugging Face's `rope_scaling` of a config.json; null stands for the default of each kind."""

    rope_type: Literal["linear", "dynamic", "yarn", "llama3"] = Field(
        description="linear: positions divided by the factor (Chen et al., 2023). dynamic: a base that grows with the "
        "sequence once it exceeds max_position_embeddings (NTK-aware). yarn: Peng et al., 2023. llama3: Llama 3.1."
    )
    factor: float = Field(gt=0, le=1e6, description="By how much the context is stretched.")
    original_max_position_embeddings: int | None = Field(
        None, gt=0, lt=2**24, description="Context before stretching. Null: max_position_embeddings."
    )
    low_freq_factor: float | None = Field(None, gt=0, description="llama3: longest wavelength left as it is.")
    high_freq_factor: float | None = Field(None, gt=0, description="llama3: shortest wavelength stretched in full.")
    attention_factor: float | None = Field(None, gt=0, description="yarn: factor on cosine and sine.")
    beta_fast: float | None = Field(
        None, ge=1e-6, le=1e6, description="yarn: above so many turns nothing changes. Null: 32."
    )
    beta_slow: float | None = Field(
        None, ge=1e-6, le=1e6, description="yarn: below so many turns all is stretched. Null: 1."
    )
    mscale: float | None = Field(None, ge=0, description="yarn: DeepSeek's way to attention_factor.")
    mscale_all_dim: float | None = Field(None, ge=0, description="yarn: the same.")
    truncate: bool | None = Field(
        None, description="yarn: round the bounds of the ramp to whole dimensions. Null: yes."
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        for name in given:
            if name not in ("rope_type", "factor", *_READS[self.rope_type]):
                raise ValueError(f"rope_type {self.rope_type} does not read {name}: leave it out")
        for name in _NEEDS.get(self.rope_type, ()):
            if name not in given:
                raise ValueError(f"rope_type {self.rope_type} needs {name}: give it")
        low, high = self.low_freq_factor, self.high_freq_factor
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low_freq_factor {low} is not below high_freq_factor {high}: correct one")
        return self

    def given(self) -> dict[str, object]:
        """The fields that are not null, under Hugging Face's names."""
        return {name: value for name, value in self if value is not None}
