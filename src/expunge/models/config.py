"""How a run names and prepares its model."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from expunge.core.records import Frozen
from expunge.data.encode import Overflow, Template


class LoraConfig(Frozen):
    """Options of the LoRA adapter (arXiv:2106.09685), used when `model.adapter = "lora"`."""

    r: int = Field(16, ge=1, description="Rank")
    alpha: float = Field(32.0, gt=0, description="Scale; the update is alpha / r times the product of the factors")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input")


class ModelConfig(Frozen):
    """Which model, and how it is run."""

    name: str = Field(description="Embedded name, local folder, .gguf file or hub id")
    reference: str | None = Field(
        None, description="Model that losses compare with, e.g. the one before earlier requests; none: the model itself"
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model")
    template: Template = Field("chat", description="chat: the tokenizer's chat template; plain: Question:/Answer:")
    chat_template: str | None = Field(
        None,
        description="Name of one of the tokenizer's chat templates, or a .jinja file; none: its only one, or default",
    )
    template_options: dict[str, Any] = Field(
        default_factory=dict, description="Variables of the chat template, e.g. {enable_thinking = false}"
    )
    date: datetime.date | None = Field(
        None,
        description="What a chat template that writes the date takes for today; none: the day of the start, recorded",
    )
    reasoning: tuple[str, ...] | None = Field(
        None,
        description='What opens and closes the model\'s reasoning, e.g. ["<think>", "</think>"]; []: it has none; '
        "none: as the chat template shows",
    )
    system_prompt: str | None = Field(
        None, description="System turn, where a row brings none; none leaves the chat template's own"
    )
    adapter: Literal["none", "lora"] = Field("none", description="Train the weights themselves, or a LoRA adapter")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="Options of the adapter")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of matrix products; trained weights are always float32; auto: bfloat16 or else float16 "
        "where the device is fast at it",
    )
    deterministic: bool = Field(
        False,
        description="Use kernels that give the same bits in every run on the same machine, which CUDA's usual ones do "
        "not; slower",
    )
    states_gb: float = Field(
        4.0, ge=0, description="Kept hidden states take at most this much memory; the rest goes to a temporary file"
    )
    states_precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Kept hidden states; bfloat16 halves them and rounds to 3 digits"
    )
    max_length: int = Field(2048, ge=8, description="Longest row in tokens; also bounded by the model's context")
    overflow: Overflow = Field("refuse", description="A longer row is refused, or truncated at its start and counted")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model")

    def dated(self, date: str | None) -> ModelConfig:
        """The same with the date (ISO) that a chat template saw before, unless one was set or it saw none."""
        if self.date is not None or date is None:
            return self
        return self.model_copy(update={"date": datetime.date.fromisoformat(date)})

    @field_validator("reasoning")
    @classmethod
    def _pair(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value and (len(value) != 2 or not all(marker.strip() for marker in value)):
            raise ValueError("give what opens and what closes it, or [] for none")
        return value and tuple(marker.strip() for marker in value)
