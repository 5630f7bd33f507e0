"""What a run is: model, tokenizer, data, optimizer and training settings, each field with its default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from linnet.config.model import ModelConfig
from linnet.config.patterns import canonical_pattern
from linnet.config.presets import preset
from linnet.config.settings import Settings, free
from linnet.config.shorthand import resolve_model

SCHEDULE_FIELDS = ("total_steps", "warmup_steps")
DEFAULT_STEPS = 5000
MOST_WARMUP_STEPS = 200
END_OF_TEXT = "<|endoftext|>"


class TokenizerConfig(Settings):
    """Which tokenizer a run uses: one that lies ready (`source`), or one trained on the training split."""

    source: str | None = Field(
        None,
        description="Directory with tokenizer.json or vocab.json + merges.txt, a tokenizer.json, or a Hub name. "
        "Null: train one.",
    )
    vocab_size: int = Field(8192, gt=256, description="Size to train to, special tokens and single bytes included.")
    pattern: str = Field(
        "gpt2",
        description="How text is cut into pre-tokens before merging: gpt2, smollm, gpt4 (also called cl100k, llama3), "
        "o200k or a regular expression, which is slow.",
    )
    special_tokens: tuple[str, ...] = Field(
        (END_OF_TEXT,), description="They take the first ids; the first one ends every document."
    )
    max_bytes: int | None = Field(
        None, gt=0, description="Train on at most this many bytes from the start of the training split."
    )
    sample: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Train on this share of the documents, drawn by a hash of (data.seed, document number).",
    )

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, pattern: str) -> str:
        return canonical_pattern(pattern)

    @field_validator("special_tokens")
    @classmethod
    def _tokens(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        if any(not token for token in tokens):
            raise ValueError("a special token is empty: remove it")
        if len(set(tokens)) != len(tokens):
            raise ValueError("a special token is listed twice: remove one")
        return tokens


class DataConfig(Settings):
    """Which text a run reads, and how it is split and cut into windows."""

    source: tuple[str, ...] = Field(
        ("builtin:stories",),
        description="One or several of: file, directory, glob (.txt .jsonl .parquet, also .gz and .zst), "
        "`builtin:stories`, `builtin:stdlib`, `hf:owner/name[:config][@split]`.",
    )
    val_source: tuple[str, ...] = Field(
        (), description="Text to validate on, in the same forms. Empty: split off from `source`."
    )
    text_field: str = Field("text", description="The field or column that holds the text in .jsonl and .parquet.")
    max_bytes: int | None = Field(
        None,
        gt=0,
        description="Read at most this many bytes of text. `builtin:stories` writes 8 MB when null.",
    )
    seq_len: int = Field(256, gt=0, description="Tokens in one training window.")
    val_fraction: float = Field(0.1, ge=0, lt=1, description="Share of the text kept for validation.")
    split: Literal["auto", "document", "position"] = Field(
        "auto",
        description="document: whole documents, chosen by a hash of `seed` and their number. position: the last part "
        "of the text. auto: position when there is a single document, else document.",
    )
    order: Literal["shuffled", "sequential"] = Field(
        "shuffled", description="Order in which an epoch visits the windows."
    )
    document_mask: bool = Field(
        False,
        description="Let each token attend to its own document only, in training and validation; positions count on "
        "through the window. It pays where documents are much shorter than `seq_len` and have nothing to do with each "
        "other. Attention is then slower, except with model.attention flex on CUDA.",
    )
    seed: int = Field(0, ge=0, lt=2**62, description="Seed of the built-in corpora and of the document split.")
    directory: str = free("prepared", "Directory under which prepared data sets are kept and found again.")

    @field_validator("source", "val_source", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("val_source")
    @classmethod
    def _no_empty_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("holds an empty name: remove it")
        return value

    @field_validator("source")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(value):
            raise ValueError("names no text: give a file, a glob, builtin:stories, builtin:stdlib or hf:owner/name")
        return value


class OptimConfig(Settings):
    """The optimizer and the course of its learning rate."""

    name: Literal["adamw", "adamw_reference", "muon"] = Field(
        "adamw",
        description="adamw: PyTorch's fused AdamW. adamw_reference: the same, written out. muon: Muon (Jordan et al., "
        "2024) for the matrices inside the blocks, AdamW for all else. It learns more from each token, and pays "
        "where a step has some thousand tokens or more.",
    )
    max_lr: float = Field(3e-4, gt=0, description="Learning rate after warm-up.")
    muon_lr: float = Field(
        0.02, gt=0, description="muon: the matrices' rate after warm-up; it follows the same course as `max_lr`."
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="muon: share of the momentum that a step keeps.")
    muon_ns_steps: int = Field(
        5, gt=0, le=20, description="muon: Newton-Schulz iterations. Fewer are faster and less exact; 3 may do."
    )
    embedding_lr: float | None = Field(
        None,
        gt=0,
        description="Rate of the embedding and the head after warm-up. Null: max_lr. Worth a try where these hold much "
        "of a small model.",
    )
    min_lr: float = Field(3e-5, ge=0, description="Learning rate at `total_steps` and after it.")
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        "cosine", description="Course after warm-up. wsd: warm-up, stable, decay (Hu et al., 2024)."
    )
    warmup_steps: int = Field(MOST_WARMUP_STEPS, ge=0, description="Steps over which the rate rises linearly from 0.")
    total_steps: int = Field(
        DEFAULT_STEPS,
        gt=0,
        description="Horizon of the schedule, apart from the run's length. Left out: train.max_steps.",
    )
    decay_fraction: float = Field(0.2, ge=0, le=1, description="wsd: share of `total_steps` spent in the last decay.")
    decay_shape: Literal["linear", "1-sqrt"] = Field("linear", description="wsd: how the rate falls in the decay.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay, on matrices only.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's averaging constants.")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    max_grad_norm: float = Field(1.0, ge=0, description="Clip the gradient's global norm to this. 0: never.")

    @field_validator("betas")
    @classmethod
    def _betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{list(betas)} must both lie in [0, 1)")
        return betas

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_lr > self.max_lr:
            raise ValueError(f"min_lr {self.min_lr} is greater than max_lr {self.max_lr}: swap them")
        return self


class TrainConfig(Settings):
    """Length, batch, precision and watching of a run. An interval of 0 means never."""

    max_steps: int = free(DEFAULT_STEPS, "Optimizer steps in the whole run.", gt=0)
    stages: tuple[Annotated[int, Field(gt=0, strict=True)], ...] = free(
        (),
        "Train in stages of so many steps, each ended by a checkpoint from which the next resumes; "
        "their sum replaces max_steps.",
    )
    max_seconds: float | None = free(
        None,
        "Budget in seconds since the process began; the run ends with an evaluation and a checkpoint inside it.",
        gt=0,
    )
    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        1,
        description="Windows in one micro-batch. auto: as many as fit into memory when the run begins, of `grad_accum` "
        "windows a step in all; the settled numbers stand in the run's config.yaml. More at once are faster, up to "
        "some thousand tokens on a processor and some ten thousand on a card.",
    )
    grad_accum: int = Field(
        4,
        gt=0,
        description="Micro-batches in one optimizer step; they cost time, not memory. With `batch_size: auto`: windows "
        "in one step.",
    )
    seed: int = Field(1337, ge=0, lt=2**62, description="Seed of the initial weights and of the sample order.")
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        "none",
        description="What the backward pass computes again instead of keeping it (Chen et al., 2016). selective: what "
        "is inside the feed-forwards; half the activations, for a sixth more operations at most. full: all inside the "
        "blocks; a tenth of them, for a third more operations at most. Pays where the batch does not fit otherwise; "
        "smaller micro-batches cost less time.",
    )
    batch_warmup_steps: int = Field(
        0,
        ge=0,
        description="Steps over which the micro-batches of a step rise from 1 to `grad_accum`: more steps for the same "
        "tokens while the gradient is still far larger than its noise.",
    )
    z_loss: float = Field(
        0.0, ge=0, description="Weight of the mean squared log-normalizer added to what is minimized (PaLM, 2022)."
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Validate, sample and export with an average of the weights that decays by this at each step. 0: "
        "none. It stands for a decay of the rate, so it pays where the rate is still high at the end.",
    )
    precision: Literal["auto", "float32", "bf16", "bf16_weights", "fp16"] = Field(
        "auto",
        description="bf16, fp16: matrix products in that type, all else in float32. bf16_weights: the layers wholly in "
        "bfloat16, their weights rounded to it in each pass; activations take half the memory, which pays where memory "
        "or its speed is the limit. Parameters, summed gradients and the optimizer are float32 in all of them. auto: "
        "bf16 on a card that computes in it, else float32; a processor that computes in bfloat16 (AVX-512, AMX) uses "
        "it only when asked.",
    )
    compile: Literal["auto", True, False] = Field(
        "auto",
        description="torch.compile. auto: on CUDA, and on a processor in runs long enough to win the compiler's time "
        "back.",
    )
    chunked_loss: bool = Field(
        True,
        description="Make the loss and its gradient together, in chunks of tokens, without ever holding all logits. "
        "false: through PyTorch's cross-entropy.",
    )
    onednn: Literal["auto", True, False] = Field(
        "auto",
        description="Multiply float32 matrices on a processor with oneDNN instead of MKL. auto: where MKL leaves "
        "AVX-512 unused, as on AMD's.",
    )
    spike_threshold: float = free(
        8.0,
        "Refuse a step whose gradient norm is so many robust deviations (of its logarithm, over the last 128 steps) "
        "above the median. 0: refuse only what is not finite.",
        ge=0,
    )
    on_spike: Literal["skip", "rollback", "stop"] = free(
        "skip",
        "What to do about a refused step. skip: go on with the next. rollback: go back to the last checkpoint and pass "
        "over the data since then. stop: end the run, for a person to look.",
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    tf32: bool = Field(True, description="Allow TF32 in float32 matrix products on CUDA.")
    deterministic: bool = Field(True, description="Refuse kernels whose result varies from run to run.")
    log_every: int = free(50, "Steps between log lines.", ge=0)
    eval_every: int = free(250, "Steps between validations.", ge=0)
    eval_windows: int | None = free(64, "Windows of the validation split to evaluate on. Null: all.", gt=0)
    save_every: int = free(250, "Steps between checkpoints; the last step is always saved.", ge=0)
    keep_last: int = free(3, "Newest checkpoints to keep.", gt=0)
    keep_every: int = free(0, "Also keep each checkpoint whose step is a multiple of this.", ge=0)
    sample_every: int = free(500, "Steps between samples.", ge=0)
    sample_prompt: str = free("", "What samples begin with. Empty: the end-of-text token.")
    sample_tokens: int = free(100, "Tokens in one sample.", gt=0)
    sample_temperature: float = free(0.8, "Temperature of samples. 0: greedy.", ge=0)
    tensorboard: bool = free(True, "Write TensorBoard events into the run directory.")
    wandb: Literal["off", "online", "offline"] = free("off", "Weights & Biases.")
    wandb_project: str = free("linnet", "Weights & Biases project.")

    @field_validator("wandb", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false

    @field_validator("batch_size", mode="before")
    @classmethod
    def _windows_or_auto(cls, value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, str) and value != "auto" and not value.isdecimal()):
            raise ValueError(f"should be a number of windows, or auto, not {value!r}")
        return value

    @model_validator(mode="after")
    def _warmed_up_in_known_parts(self) -> Self:
        if self.batch_size == "auto" and self.batch_warmup_steps:
            raise ValueError(
                "batch_warmup_steps counts micro-batches, and batch_size auto leaves their size to the machine: give "
                "batch_size a number, or set batch_warmup_steps to 0"
            )
        return self

    @property
    def windows_at_once(self) -> int:
        """Windows in one micro-batch, once that is settled."""
        assert self.batch_size != "auto", "batch_size is still to be settled"
        return self.batch_size

    @property
    def windows_per_step(self) -> int:
        """Windows in one optimizer step, settled or not."""
        return self.grad_accum if self.batch_size == "auto" else self.batch_size * self.grad_accum

    @model_validator(mode="after")
    def _stages_set_length(self) -> Self:
        if self.stages:
            self._settle(max_steps=sum(self.stages))
        return self


class RunConfig(Settings):
    """A whole run. `RunConfig()` is a valid one: SmolLM2-135M on the built-in stories."""

    model: ModelConfig = Field(
        default_factory=lambda: preset("smollm2-135m"),
        description="A preset's name, a mapping of the fields below, or a Hugging Face config.json (path or pasted).",
    )
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig, description="The tokenizer.")
    data: DataConfig = Field(default_factory=DataConfig, description="The text.")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="The optimizer.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="The training loop.")

    @model_validator(mode="before")
    @classmethod
    def _spell_out_model(cls, values: Any) -> Any:
        return resolve_model(values)

    @model_validator(mode="after")
    def _derive_schedule(self) -> Self:
        optim = self.optim.model_copy()
        if "total_steps" not in optim.model_fields_set:
            optim._settle(total_steps=self.train.max_steps)
        if "warmup_steps" not in optim.model_fields_set:
            optim._settle(warmup_steps=min(MOST_WARMUP_STEPS, optim.total_steps // 10))
        self._settle(optim=optim)
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.seq_len > self.model.max_position_embeddings:
            raise ValueError(
                f"data.seq_len {self.data.seq_len} is longer than model.max_position_embeddings "
                f"{self.model.max_position_embeddings}: shorten the one or raise the other"
            )
        warmup, horizon = self.optim.warmup_steps, self.optim.total_steps
        if warmup > horizon:
            derived = ""
            if "total_steps" in self.derived_schedule_fields:
                derived = ", the sum of train.stages" if self.train.stages else ", taken from train.max_steps"
            raise ValueError(
                f"optim.warmup_steps {warmup} exceeds optim.total_steps {horizon}{derived}: the rate would never reach "
                "max_lr; lower the one or raise the other"
            )
        trained = self.tokenizer.source is None
        if trained and self.model_vocabulary_given and self.tokenizer.vocab_size > self.model.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size {self.tokenizer.vocab_size} is greater than model.vocab_size "
                f"{self.model.vocab_size}: a model's vocabulary may be larger than its tokenizer's, never smaller"
            )
        return self

    @property
    def derived_schedule_fields(self) -> tuple[str, ...]:
        """Fields of `optim` that were left out and taken from the run's length."""
        return tuple(name for name in SCHEDULE_FIELDS if name not in self.optim.model_fields_set)

    @property
    def model_vocabulary_given(self) -> bool:
        """Whether `model.vocab_size` was set; otherwise the tokenizer's size is to be taken."""
        return "vocab_size" in self.model.model_fields_set
