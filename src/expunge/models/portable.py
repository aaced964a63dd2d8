"""Make saved folders readable by transformers 4, which uses other names for some settings of transformers 5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from expunge.core.files import write_atomic
from expunge.models.source import CONFIG, read_object

_TOKENIZER_CONFIG = "tokenizer_config.json"
_NEW_CLASS, _OLD_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"


def add_old_names(folder: Path) -> None:
    """Write into a folder's configuration what transformers 4 reads, beside what transformers 5 does."""
    _edit(folder / CONFIG, _old_config)
    _edit(folder / _TOKENIZER_CONFIG, _old_tokenizer)


def needs_transformers_5(folder: Path) -> bool:
    """Whether transformers 4 would misread or refuse a folder."""
    config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    path = folder / _TOKENIZER_CONFIG
    tokenizer = read_object(path) if path.is_file() else {}
    misread = any("rope_parameters" in part and "rope_theta" not in part for part in _parts(config))
    return misread or tokenizer.get("tokenizer_class") == _NEW_CLASS


def _edit(path: Path, change: Any) -> None:
    if path.is_file():
        content = read_object(path)
        change(content)
        write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [config, *(part for part in config.values() if isinstance(part, dict) and "hidden_size" in part)]


def _old_config(config: dict[str, Any]) -> None:
    for part in _parts(config):
        if "dtype" in part:
            part["torch_dtype"] = part["dtype"]
        rope = part.get("rope_parameters")
        if isinstance(rope, dict):
            part.update(_old_rope(rope))


def _old_rope(rope: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` of one set of parameters; or of one for each kind of attention, as in Gemma 3."""
    old: dict[str, Any]
    if "rope_theta" in rope:
        scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
        old = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
        return {**old, "rope_scaling": None if scaling.get("rope_type", "default") == "default" else scaling}
    full, sliding = rope.get("full_attention"), rope.get("sliding_attention")
    if len(rope) != 2 or not isinstance(full, dict) or not isinstance(sliding, dict):
        return {}
    old = _old_rope(full)
    return {**old, "rope_local_base_freq": sliding["rope_theta"]} if "rope_theta" in sliding and old else {}


def _old_tokenizer(config: dict[str, Any]) -> None:
    if config.get("tokenizer_class") == _NEW_CLASS:
        config["tokenizer_class"] = _OLD_CLASS
    more = config.get("extra_special_tokens")
    if isinstance(more, list):  # transformers 4 wants a table here, and knows the list by another name
        del config["extra_special_tokens"]
        config["additional_special_tokens"] = more
