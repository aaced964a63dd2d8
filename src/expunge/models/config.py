"""How a run names and prepares its model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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
    system_prompt: str | None = Field(None, description="System turn; none leaves the chat template's own")
    adapter: Literal["none", "lora"] = Field("none", description="Train the weights themselves, or a LoRA adapter")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="Options of the adapter")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Arithmetic; bfloat16 is autocast over float32 masters; auto: where the device is fast at it",
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
