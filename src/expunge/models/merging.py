"""Merging peft adapters into the weights, and which weights that changes."""

from __future__ import annotations

from typing import Any

from torch import nn

from expunge.core.errors import UserError

PREFIX = "base_model.model."
"""What peft puts before the names of the network inside."""


def plain_network(network: Any) -> Any:
    """The transformers model inside a peft model; any other network as it is."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def merged_names(network: Any) -> set[str]:
    """Names, in the plain network, of the parameters that a merge of this peft model changes."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    owners, exact = set(), set()
    for path, module in network.named_modules():
        if isinstance(module, kinds):
            place = path.removeprefix(PREFIX).replace(".base_layer", "")
            parameter = getattr(module, "parameter_name", None)  # of a wrapper around one parameter of a module
            if parameter is None:
                owners.add(place)
            else:
                exact.add(f"{place}.{parameter}")
    inner = [name for name, _ in network.get_base_model().named_parameters()]
    plain = {name.replace(".base_layer", "").replace(".original_module.", ".") for name in inner}
    return {name for name in plain if name in exact or name.rpartition(".")[0] in owners}


def merge(network: Any) -> tuple[Any, bool]:
    """The network inside a peft model with its active adapters merged into the weights.

    An input and an output embedding that share their weight are separated first if an adapter sits on one of them:
    merged into both, it would change the other one too.

    Returns:
        The transformers model, and whether its embeddings were tied before and are not now.

    Raises:
        UserError: an adapter of a kind that cannot be merged, e.g. prompt tuning.
    """
    if not hasattr(network, "merge_and_unload"):
        kinds = ", ".join(sorted({str(getattr(c, "peft_type", "?")) for c in network.peft_config.values()}))
        raise UserError(f"model: an adapter of the kind {kinds.rpartition('.')[2]} cannot be merged into the weights")
    inner = network.get_base_model()
    _separate(inner)
    was_tied = bool(inner.config.get_text_config().tie_word_embeddings)
    plain = network.merge_and_unload()
    is_tied = plain.get_input_embeddings().weight is plain.get_output_embeddings().weight
    if was_tied and not is_tied:
        for config in (plain.config, plain.config.get_text_config()):
            config.tie_word_embeddings = False
    return plain, was_tied and not is_tied


def _separate(inner: Any) -> None:
    """Give a tied head a weight of its own where an adapter sits on it or on the input embedding."""
    head, embedding = inner.get_output_embeddings(), inner.get_input_embeddings()
    plain = [getattr(module, "base_layer", module) for module in (head, embedding)]
    wrapped = any(hasattr(module, "base_layer") for module in (head, embedding))
    if wrapped and plain[0].weight is plain[1].weight:
        plain[0].weight = nn.Parameter(plain[0].weight.detach().clone(), requires_grad=False)
