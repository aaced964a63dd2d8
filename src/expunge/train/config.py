"""Options of training, of its diagnostics and of the guard."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from expunge.core.records import Frozen


class TrainConfig(Frozen):
    """The optimizer and its schedule."""

    lr: float = Field(1e-5, gt=0, description="Peak learning rate")
    epochs: int = Field(5, ge=0, description="Passes over the forget rows; 0: no training, the edit alone")
    steps: int | None = Field(None, ge=1, description="Optimizer steps in all, instead of `epochs`")
    batch_size: int = Field(8, ge=1, description="Forget rows in a micro-batch")
    accumulation: int = Field(1, ge=1, description="Micro-batches in one optimizer step")
    order: Literal["shuffled", "stored"] = Field(
        "shuffled", description="Rows in a new random order in each pass, or always as they are stored"
    )
    topics: Literal["mixed", "alternate"] = Field(
        "mixed",
        description="alternate: topics take turns, each micro-batch holds forget rows of one topic, and retain rows of "
        "that topic if there are any",
    )
    answers: Literal["stored", "own"] = Field(
        "stored", description="Train on the answers of the data, or on the original model's own greedy ones"
    )
    wordings: int = Field(
        0,
        ge=0,
        le=1_000,
        description="With own answers: also forget up to this many sampled answers that hold a keyword",
    )
    forget_labels: Literal["answer", "keywords"] = Field(
        "answer", description="Forget every token of an answer, or only those that hold one of the row's keywords"
    )
    retain_ratio: int = Field(1, ge=1, le=1_000, description="Retain rows beside each forget row")
    schedule: Literal["linear", "constant", "cosine"] = Field("linear", description="Learning rate after warm-up")
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs over which the learning rate rises from 0")
    weight_decay: float = Field(0.01, ge=0, le=1_000, description="Decoupled weight decay")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this global norm; 0: never")
    optimizer: str = Field(
        "adamw_torch_fused",
        description="One of `expunge list optimizers`, or any optimizer name of transformers' TrainingArguments",
    )
    optimizer_options: dict[str, Any] | None = Field(
        None,
        description="The optimizer's own options, e.g. eps and betas of AdamW, rho of sophia_g. Default: its defaults",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, slower steps")
    checkpoint_every: int = Field(
        0,
        ge=0,
        description="Optimizer steps between checkpoints, rounded up if a loss needs whole epochs; 0: one each epoch",
    )
    checkpoints: bool = Field(True, description="Keep checkpoints while running, so that a killed run can resume")
    report_to: tuple[str, ...] = Field((), description="Loggers of transformers: tensorboard, wandb, mlflow, ...")

    @property
    def takes_steps(self) -> bool:
        """Whether there is any training."""
        return self.steps is not None or self.epochs > 0


class SqueezeConfig(Frozen):
    """Squeezing: do other wordings of a forgotten answer rise while the answer itself falls (arXiv:2510.19422)?"""

    prompts: int = Field(32, ge=1, description="Forget prompts that are followed, a seeded sample")
    beams: int = Field(20, ge=2, le=1_000, description="Candidate answers by beam search from the original model")
    samples: int = Field(
        20, ge=1, le=10_000, description="Candidate answers drawn from it at temperature 1, without any cut"
    )
    max_new_tokens: int = Field(32, ge=1, le=100_000, description="Longest candidate, in tokens")
    top_k: int = Field(20, ge=1, description="Size of the neighbourhood of each target token")
    dynamic: bool = Field(
        False, description="At the end of each epoch also draw answers from the current model, and compare their text"
    )


class DiagnoseConfig(Frozen):
    """Diagnostics during training, besides the guard's checks; off unless they are set."""

    squeeze: SqueezeConfig | None = Field(
        None, description="Follow other wordings of the forget answers: true, or a table of its options"
    )

    @field_validator("squeeze", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        """`true` is the table of defaults, `false` is no table."""
        return ({} if value else None) if isinstance(value, bool) else value


class GuardConfig(Frozen):
    """When training stops early, and which weights are then kept."""

    utility_floor: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Stop and roll back when the answer probability on held-out retain rows falls below this share of "
        "its start; 0 or none: never",
    )
    forget_target: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Stop when the mean answer probability on forget rows is at most this. Default: never",
    )
    stop_below: dict[str, float] = Field(
        {},
        description="Stop after a step if a logged value is at most this, e.g. { forget_cosine = 0.0 }",
    )
    stop_above: dict[str, float] = Field(
        {},
        description="Stop after a step if a logged value is at least this, e.g. { retain_loss = 0.1 }",
    )
    holdout: float = Field(
        0.15, ge=0, lt=1, description="Share of the retain rows that is held out to measure utility; 0: none"
    )
    rows: int = Field(32, ge=1, description="At most this many rows of each kind in a check")
    every: int = Field(0, ge=0, description="Optimizer steps between checks; 0: one each epoch")

    @field_validator("utility_floor", mode="before")
    @classmethod
    def _never(cls, value: object) -> object:
        """TOML has no null, so that an absent floor is written as 0."""
        return 0.0 if value in (None, "none") else value
