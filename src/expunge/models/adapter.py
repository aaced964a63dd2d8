"""LoRA through peft: an adapter on the matrices that a selection names, linear layers and stacks of experts alike."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.matrices import block_matrices


def add_lora(model: LanguageModel, selected: Sequence[str], config: LoraConfig, seed: int) -> None:
    """Wrap the network in a LoRA adapter on the selected matrices of its blocks. Trains nothing else.

    A stack of experts gets factors of the rank for each of them.

    Args:
        model: changed in place.
        selected: parameter names that a localizer chose.
        config: rank, scale and dropout.
        seed: of the adapter's random factor.

    Raises:
        UserError: the selection holds no matrix, the rank is above that of every matrix, or dropout is wanted on
            experts, for which peft has none.
    """
    import peft
    import torch

    owners = {name.rpartition(".")[0] for name in selected}
    matrices = [
        matrix
        for matrix in block_matrices(model).values()
        if matrix.name in selected or (matrix.is_layer and matrix.name.rpartition(".")[0] in owners)
    ]
    if not matrices:
        raise UserError("model.adapter: the selection has no linear layer or expert matrix to put a LoRA adapter on")
    largest = max(min(matrix.num_inputs, matrix.num_outputs) for matrix in matrices)
    if config.r > largest:
        raise UserError(
            f"model.lora.r: {config.r} is above the rank that any chosen layer can have ({largest}); "
            "it is usually 8 to 64"
        )
    stacks = [matrix.name for matrix in matrices if not matrix.is_layer]
    if stacks and config.dropout:
        raise UserError(
            f"model.lora.dropout: {config.dropout:g} cannot be applied to {stacks[0]}, which is no layer of its own "
            "(peft has no dropout there); set it to 0, or choose other modules (localize.modules)"
        )
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=[matrix.name.rpartition(".")[0] for matrix in matrices if matrix.is_layer],
        target_parameters=stacks or None,
    )
    torch.manual_seed(seed)
    model.network = peft.get_peft_model(model.base, settings)
