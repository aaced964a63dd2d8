"""LoRA through peft: an adapter on the linear layers that a selection names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig


def add_lora(model: LanguageModel, selected: Sequence[str], config: LoraConfig, seed: int) -> None:
    """Wrap the network in a LoRA adapter on the selected linear layers of its blocks. Trains nothing else.

    Args:
        model: changed in place.
        selected: parameter names that a localizer chose.
        config: rank, scale and dropout.
        seed: of the adapter's random factor.

    Raises:
        UserError: the selection holds no linear layer, or the rank is above that of every layer.
    """
    import peft
    import torch

    in_blocks = tuple(f"{prefix}." for prefix, _ in model.blocks())
    modules = dict(model.base.named_modules())
    owners = dict.fromkeys(name.rpartition(".")[0] for name in selected if name.startswith(in_blocks))
    targets = [owner for owner in owners if isinstance(modules[owner], nn.Linear | Conv1D)]
    if not targets:
        raise UserError("model.adapter: the selection has no linear layer to put a LoRA adapter on")
    largest = max(min(modules[name].weight.shape) for name in targets)
    if config.r > largest:
        raise UserError(
            f"model.lora.r: {config.r} is above the rank that any chosen layer can have ({largest}); "
            "it is usually 8 to 64"
        )
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=targets,
    )
    torch.manual_seed(seed)
    model.network = peft.get_peft_model(model.base, settings)
