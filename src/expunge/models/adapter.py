"""LoRA through peft: an adapter on the matrices that a selection names, linear layers and stacks of experts alike."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.matrices import WeightMatrix, block_matrices
from expunge.models.merging import merged_names


def add_lora(model: LanguageModel, selected: Sequence[str], config: LoraConfig, seed: int) -> None:
    """Wrap the network in a LoRA adapter on the selected matrices of its blocks. Trains nothing else.

    A stack of experts gets factors of the rank for each of them. Routers that do more than a linear layer get none.

    Args:
        model: changed in place.
        selected: parameter names that a localizer chose.
        config: rank, scale and dropout.
        seed: of the adapter's random factor.

    Raises:
        UserError: the selection holds no matrix, the rank is above that of every matrix, dropout is wanted on experts,
            for which peft has none, or peft cannot adapt this architecture.
    """
    matrices = _chosen(model, selected)
    if not matrices:
        raise UserError("model.adapter: the selection has no linear layer or expert matrix to put a LoRA adapter on")
    largest = max(min(matrix.num_inputs, matrix.num_outputs) for matrix in matrices)
    if config.r > largest:
        raise UserError(
            f"model.lora.r: {config.r} is above the rank that any chosen layer can have ({largest}); "
            "it is usually 8 to 64"
        )
    layers = {matrix.name for matrix in matrices if matrix.is_layer}
    wanted = {matrix.name for matrix in matrices}
    before = _logits(model)
    missed = _attach(model, wanted, layers, config, seed)
    if missed:
        missed = _attach(model, wanted, layers - missed, config, seed)
    if missed:
        raise UserError(f"model.adapter: peft cannot put an adapter on {min(missed)}; choose other localize.modules")
    _check_start(model, before)


def _chosen(model: LanguageModel, selected: Sequence[str]) -> list[WeightMatrix]:
    """The matrices in a selection; of a layer any parameter counts, its bias too."""
    names = {*selected}
    owners = {name.rpartition(".")[0] for name in names}
    return [
        matrix
        for matrix in block_matrices(model).values()
        if matrix.name in names or (matrix.is_layer and matrix.name.rpartition(".")[0] in owners)
    ]


def _attach(model: LanguageModel, wanted: set[str], layers: set[str], config: LoraConfig, seed: int) -> set[str]:
    """Put the adapter on these matrices, and on others never.

    In models whose experts had modules of their own in earlier versions of transformers, peft takes a linear layer that
    bears the name of such a module for the experts.

    Args:
        model: changed in place, or not at all where something is missed.
        wanted: names of the matrices.
        layers: those among them that are targeted as modules; the others are targeted as parameters.
        config: of the adapter.
        seed: of its random factor.

    Returns:
        Layers that peft took for something else; empty on success.

    Raises:
        UserError: peft refuses, or has no dropout where it is wanted.
    """
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    parameters = sorted(wanted - layers)
    if parameters and config.dropout:
        raise UserError(
            f"model.lora.dropout: {config.dropout:g} cannot be applied to {parameters[0]}, since peft has no dropout "
            "for experts and what is adapted beside them; set it to 0, or choose other localize.modules"
        )
    base = model.base
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=[name.rpartition(".")[0] for name in sorted(layers)],
        target_parameters=parameters or None,
    )
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a try that is given up where it found other targets
            network = peft.get_peft_model(base, settings)
    except ValueError as error:
        if layers and not any(isinstance(module, BaseTunerLayer) for module in base.modules()):
            return layers
        raise UserError(
            f"model.adapter: peft refuses: {str(error).splitlines()[0]} (localize.modules says what gets an adapter)"
        ) from None
    model.network = network
    found = merged_names(network) & block_matrices(model).keys()
    if found != wanted:
        model.network = network.unload()
        return layers & (wanted - found) or layers
    return set()


@torch.no_grad()
def _logits(model: LanguageModel, num_rows: int = 1) -> Tensor:
    """(B, 4, V) logits after four tokens, the same ones in each row."""
    ids = model.probe_ids(4).repeat(num_rows, 1)
    with model.evaluating(), model.autocast():
        logits: Tensor = model.network(input_ids=ids, use_cache=False).logits
    return logits


def _check_start(model: LanguageModel, before: Tensor) -> None:
    """A new adapter changes nothing, and the network runs with it, also when batches change their size.

    Raises:
        UserError: it does not, as where experts reach for their weights past peft's wrapper, or where a block resets a
            state on the wrapper instead of the module (RecurrentGemma).
    """
    name = type(model.base).__name__
    try:
        after = [_logits(model, num_rows) for num_rows in (2, 3)]
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.adapter: {name} does not run with peft's adapter on these modules ({reason}); "
            "choose others (localize.modules), or train the weights themselves"
        ) from None
    if not all(model.same_logits(before, one) for one in after):
        raise UserError(
            f"model.adapter: a new adapter changes the logits of {name}, so peft does not support it; set "
            'model.adapter = "none"'
        )
