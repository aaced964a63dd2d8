"""Checks of a checkpoint and its tokenizer; each refuses with one line that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from expunge.core.errors import UserError
from expunge.models.checkpoint import FLOATS, aliases, entries


def check_one_device(network: Any) -> None:
    """Refuse a network whose weights are spread over devices, or not in memory at all: inputs go to one device."""
    places = sorted({str(weight.device) for weight in network.parameters()})
    if len(places) > 1 or places == ["meta"]:
        raise UserError(
            f"model: the weights of this network are spread over {', '.join(places)} (device_map or offloading); give "
            "a network that is on one device as a whole"
        )


def check_tokens(network: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with tokens that the embedding lacks; one that pads is never looked up.

    Raises:
        UserError: there are some.
    """
    rows = network.get_input_embeddings().weight.shape[0]
    unused = (
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    )  # GGUF tokenizers get an unknown token that they never use
    places = tokenizer.get_vocab().items()
    beyond = sorted((place, token) for token, place in places if place >= rows and place not in unused)
    if beyond:
        place, token = beyond[0]
        raise UserError(
            f"model.name: the embedding has {rows} rows and no place for {len(beyond)} of the tokenizer's tokens, "
            f"e.g. {token!r} ({place}); give the tokenizer that the model was trained with"
        )


def check_kind(name: str, settings: Any) -> None:
    """Refuse a configuration that transformers has no causal language model for.

    Raises:
        UserError: it is one, e.g. that of an encoder, or of a model that reads its input with an encoder (T5).
    """
    own = getattr(settings, "auto_map", None) or {}
    kinds = ("AutoModelForCausalLM", "AutoModelForImageTextToText")
    known = any(
        type(settings) in mapping for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
    )
    if not known and not any(kind in own for kind in kinds):
        what = ", ".join(settings.architectures or ()) or settings.model_type
        unknown = f"transformers has no {kinds[0]} of the type '{settings.model_type}'"
        if what.endswith("ForCausalLM"):  # e.g. the text model of Emu3
            raise UserError(
                f"model.name: cannot use '{name}': {unknown}, in which config.json describes its {what}; if this is "
                "the text part of a larger model, give the folder of that model"
            )
        raise UserError(f"model.name: cannot use '{name}': {what} is no causal language model ({unknown})")


def quantization(name: str, settings: Any) -> str | None:
    """The method by which a checkpoint is quantized; None if it is not.

    Raises:
        UserError: transformers would read the weights as they are, although they are quantized by something it lacks.
    """
    quantized = getattr(settings, "quantization_config", None)
    method = quantized.get("quant_method") if isinstance(quantized, dict) else getattr(quantized, "quant_method", None)
    method = None if method is None else str(getattr(method, "value", method))
    known = {one.removesuffix("_4bit").removesuffix("_8bit") for one in AUTO_QUANTIZATION_CONFIG_MAPPING}
    if method is not None and method not in known and method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise UserError(
            f"model.name: cannot load '{name}': config.json says that its weights are quantized by '{method}', which "
            "this version of transformers does not know; give the model before quantization"
        )
    return method


def about_quantized(method: str | None) -> str:
    """What an error says of weights that are quantized; nothing of others."""
    if method is None:
        return ""
    return f"its weights are quantized by {method}; to unlearn, give the model before quantization; to evaluate: "


def check_weights(name: str, found: dict[str, Any]) -> None:
    """Refuse what transformers would go on with: random numbers for weights that are not there, weights left out."""
    if wrong := sorted(found["mismatched_keys"], key=str):
        key, theirs, ours = wrong[0]
        raise UserError(
            f"model.name: cannot load '{name}': {key} has the shape {list(theirs)}, but config.json requires "
            f"{list(ours)}"
        )
    for kind, words in (("missing_keys", "its weights lack"), ("unexpected_keys", "config.json has no place for")):
        if keys := sorted(found[kind]):
            raise UserError(f"model.name: cannot load '{name}': {words} {keys[0]} (of {len(keys)} such)")


def check_numbers(name: str, network: Any, files: list[Path]) -> None:
    """Refuse weights that are no numbers, or are stored as integers, which transformers would take for floats."""
    weights = dict(network.named_parameters())
    for file in files:
        for key, (_, code) in entries(file).items():
            if code not in FLOATS and any(alias in weights for alias in aliases(key, network)):
                raise UserError(f"model.name: cannot load '{name}': {key} is stored as {code}, not as floating point")
    for key, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise UserError(f"model.name: cannot load '{name}': weights hold NaN or infinity in {key}")
