"""What a model is: the fields of Hugging Face's Llama `config.json`, and linnet's own architecture switches."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from linnet.config.rope_scaling import RopeScaling
from linnet.config.settings import Settings

SMOLLM2_INITIALIZER_RANGE = 0.041666666666666664
# Far beyond any model of this kind; what exceeds them is a mistake or an attack, and would only fail later.
MOST_WIDTH, MOST_LAYERS, MOST_HEADS, MOST_HEAD_DIM = 2**24, 2**12, 2**16, 2**10
# Positions are multiplied in float32, which holds every integer up to here.
MOST_POSITIONS = 2**24


# Fields of a ModelConfig that leave what its weights compute as it is; all others define it.
NOT_THE_FUNCTION = frozenset(
    {"attention", "init_from", "initializer_range", "scale_residual_init", "zero_init_residual"}
)


class ModelConfig(Settings):
    """Shape and switches of one model. Names up to `mlp_bias` are those of Hugging Face's LlamaConfig."""

    vocab_size: int = Field(
        49152,
        gt=0,
        le=MOST_WIDTH,
        description="Rows of the embedding. Left out of a run's config, the tokenizer's size is taken.",
    )
    hidden_size: int = Field(576, gt=0, le=MOST_WIDTH, description="Width of the residual stream.")
    intermediate_size: int = Field(
        1536,
        gt=0,
        le=MOST_WIDTH,
        description="Inner width of the SwiGLU feed-forward. With `feed_forward: silu` the two matrices are half as "
        "wide again, so that both kinds hold equally many parameters.",
    )
    num_hidden_layers: int = Field(30, gt=0, le=MOST_LAYERS, description="Transformer blocks.")
    num_attention_heads: int = Field(9, gt=0, le=MOST_HEADS, description="Query heads.")
    num_key_value_heads: int = Field(
        0, ge=0, description="Key and value heads; divides `num_attention_heads`. 0: as many as query heads."
    )
    head_dim: int = Field(
        0, ge=0, le=MOST_HEAD_DIM, description="Width of one head. 0: hidden_size / num_attention_heads."
    )
    max_position_embeddings: int = Field(8192, gt=0, le=MOST_POSITIONS, description="Longest context in tokens.")
    rms_norm_eps: float = Field(1e-5, gt=0, description="Added to the mean square before its root.")
    rope_theta: float = Field(100000.0, gt=0, le=1e30, description="Base of the rotary frequencies (Su et al., 2021).")
    initializer_range: float = Field(
        SMOLLM2_INITIALIZER_RANGE, gt=0, description="Standard deviation of every matrix at initialization."
    )
    tie_word_embeddings: bool = Field(True, description="Use the embedding as output head.")
    rope_scaling: RopeScaling | None = Field(
        None,
        description="Stretched rotary frequencies, as in Hugging Face's files: {rope_type: linear, dynamic, yarn or "
        "llama3, factor: …, and what that kind reads}.",
    )
    attention_bias: bool = Field(False, description="A bias in the query, key, value and output projections.")
    mlp_bias: bool = Field(False, description="A bias in the feed-forward's matrices.")
    position_embedding: Literal["rope", "none"] = Field(
        "rope", description="`none` leaves order to the causal mask alone (NoPE, Kazemnejad et al., 2023)."
    )
    norm: Literal["rmsnorm", "none"] = Field("rmsnorm", description="`none` leaves every norm out.")
    norm_position: Literal["pre", "post"] = Field(
        "pre",
        description="pre: x + f(norm(x)), with a last norm before the head. post: norm(x + f(x)), without one.",
    )
    feed_forward: Literal["swiglu", "silu"] = Field(
        "swiglu", description="silu: down(silu(up(x))) with as many parameters as swiglu."
    )
    qk_norm: bool = Field(False, description="RMSNorm on each query and key head before the rotation.")
    attention: Literal["auto", "sdpa", "reference", "flex"] = Field(
        "auto",
        description="auto: the fastest way, which is products over blocks of queries in training on a processor, and "
        "sdpa everywhere else. sdpa: PyTorch's fused kernels. reference: written out, for comparison. "
        "flex: FlexAttention where data.document_mask asks for a mask, which it passes over block by block, and sdpa "
        "elsewhere; it trains on CUDA only, and pays in long windows of many documents.",
    )
    rope_interleaved: bool = Field(
        False, description="Rotate neighbouring pairs (Su et al.) instead of halves (Hugging Face)."
    )
    scale_residual_init: bool = Field(
        False,
        description="Initialize what writes into the residual stream with initializer_range / sqrt(2 layers) (GPT-2).",
    )
    zero_init_residual: bool = Field(
        False,
        description="Initialize what writes into the residual stream with zeros, so that each block begins as nothing "
        "(Fixup, Zhang et al., 2019). Wants tie_word_embeddings false: a tied head would begin by repeating the token "
        "just read.",
    )
    init_from: str | None = Field(
        None,
        min_length=1,
        description="Begin with the weights of this run, checkpoint or imported model instead of random ones. Fields "
        "that are left out are its own, and so is the tokenizer.",
    )

    @field_validator("num_key_value_heads", "head_dim", mode="before")
    @classmethod
    def _null_is_derived(cls, value: Any) -> Any:
        return 0 if value is None else value

    @model_validator(mode="after")
    def _derive_and_check(self) -> Self:
        if self.num_key_value_heads == 0:
            self._settle(num_key_value_heads=self.num_attention_heads)
        if self.head_dim == 0:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size {self.hidden_size} does not divide into num_attention_heads "
                    f"{self.num_attention_heads}: change one of them or give head_dim"
                )
            self._settle(head_dim=self.hidden_size // self.num_attention_heads)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads} does not divide num_attention_heads "
                f"{self.num_attention_heads}: give a divisor"
            )
        if self.position_embedding == "rope" and self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd, and RoPE rotates pairs: give an even one")
        self._settle_rope_scaling()
        if self.feed_forward == "silu" and self.intermediate_size % 2:
            raise ValueError(
                f"intermediate_size {self.intermediate_size} is odd: feed_forward silu needs an even one "
                "to hold as many parameters as swiglu"
            )
        return self

    def _settle_rope_scaling(self) -> None:
        if self.rope_scaling is None:
            return
        if self.position_embedding == "none":
            raise ValueError("rope_scaling is given, but position_embedding none has no RoPE: leave one of them out")
        if self.rope_scaling.rope_type == "dynamic" and self.head_dim < 4:
            raise ValueError(f"head_dim {self.head_dim} is too narrow for rope_scaling dynamic: give 4 or more")
        if self.rope_scaling.rope_type == "yarn" and self.rope_theta <= 1:
            raise ValueError(f"rope_theta {self.rope_theta} is not above 1, which rope_scaling yarn needs")
        if self.rope_scaling.rope_type in ("yarn", "llama3"):
            original = self.rope_scaling.original_max_position_embeddings or self.max_position_embeddings
            self._settle(rope_scaling=self.rope_scaling.replace(original_max_position_embeddings=original))

    @property
    def longest_sequence(self) -> int:
        """Tokens that one forward pass may read: dynamic scaling goes beyond `max_position_embeddings`."""
        if self.rope_scaling is None or self.rope_scaling.rope_type != "dynamic":
            return self.max_position_embeddings
        return max(self.max_position_embeddings, int(self.max_position_embeddings * self.rope_scaling.factor))
