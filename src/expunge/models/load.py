"""From a name, path or loaded pair to a `LanguageModel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.errors import UserError, near
from expunge.core.permission import check_remote_code
from expunge.core.progress import SILENT, Progress
from expunge.data.encode import Encoder
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.gguf import load_gguf
from expunge.models.pull import embedded, pull
from expunge.models.store import StateMemory

UNREADABLE = (OSError, ValueError, SafetensorError)
"""What transformers, peft and safetensors raise for files that are missing or damaged."""


def load_model(config: ModelConfig, progress: Progress = SILENT) -> LanguageModel:
    """Load a model by name.

    Raises:
        UserError: no such model, a folder without a config, a hub that cannot be reached, an unknown device.
    """
    if config.trust_remote_code:
        check_remote_code()
    device = _device(config.device)
    network, tokenizer = _network(config, progress)
    return wrap_model(network.to(device), tokenizer, config, _stored_dtype(config))


def wrap_model(
    network: Any, tokenizer: PreTrainedTokenizerBase, config: ModelConfig, stored_dtype: torch.dtype | None = None
) -> LanguageModel:
    """A `LanguageModel` around a network and tokenizer that are already in memory."""
    inner = network.get_base_model() if hasattr(network, "peft_config") else network
    context = getattr(inner.config.get_text_config(), "max_position_embeddings", None) or config.max_length
    encoder = Encoder(
        tokenizer, config.template, config.system_prompt, min(config.max_length, context), config.overflow
    )
    first = next(inner.parameters())
    precision = _precision(config.precision, first.device)
    model = LanguageModel(network.eval(), tokenizer, encoder, precision, config.name, stored_dtype or first.dtype)
    model.state_memory = StateMemory(int(config.states_gb * 1e9), getattr(torch, config.states_precision))
    return model


def check_model_name(name: str, option: str = "model.name") -> None:
    """Refuse a model name that cannot lead anywhere, before anything heavy happens.

    Args:
        name: what the user gave.
        option: dotted path of the option that it was given for.

    Raises:
        UserError: a path that does not exist or has no config, or a bare word that is no embedded name.
    """
    path = Path(name)
    if name in embedded() or path.is_file():
        return
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise UserError(f"{option}: {name}: no config.json in this folder, so it holds no model")
        return
    if path.is_absolute() or name.startswith((".", "~")) or path.suffix == ".gguf" or name.count("/") > 1:
        raise UserError(f"{option}: {name}: no such file or folder")
    if "/" not in name:
        raise UserError(f"{option}: no model '{name}'{near(name, embedded())} (a hub id is written org/name)")


def _network(config: ModelConfig, progress: Progress) -> tuple[Any, PreTrainedTokenizerBase]:
    check_model_name(config.name)
    path = Path(config.name)
    if config.name in embedded():
        return _pretrained(str(pull(config.name, progress)), config)
    if path.suffix == ".gguf":
        return load_gguf(path)
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        return _with_adapter(path, config, progress)
    return _pretrained(config.name, config)


def _pretrained(name: str, config: ModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    options: dict[str, Any] = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        AutoConfig.from_pretrained(name, **options)
        tokenizer: Any = AutoTokenizer.from_pretrained(name, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=_load_dtype(config.device), use_safetensors=True, output_loading_info=True, **options
        )
        model, found = loaded
    except UNREADABLE as error:
        raise _refusal(name, error) from None
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random numbers
        raise UserError(f"model.name: cannot load '{name}': its weights lack {missing[0]} (of {len(missing)} missing)")
    return model, tokenizer


def _with_adapter(path: Path, config: ModelConfig, progress: Progress) -> tuple[Any, PreTrainedTokenizerBase]:
    """A folder that holds only an adapter: its base model with the adapter merged in."""
    from peft import PeftConfig, PeftModel

    try:
        base_name = PeftConfig.from_pretrained(str(path)).base_model_name_or_path
        if not base_name:
            raise UserError(f"model.name: {path}: the adapter does not say which model it belongs to")
        base, tokenizer = _network(config.model_copy(update={"name": base_name}), progress)
        merged: Any = PeftModel.from_pretrained(base, str(path))
    except UNREADABLE as error:
        raise _refusal(str(path), error) from None
    return merged.merge_and_unload(), tokenizer


def _refusal(name: str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n", 1)[0]
    hint = "" if Path(name).exists() else "; without a network, give a local folder or an embedded name"
    return UserError(f"model.name: cannot load '{name}': {reason}{hint}")


def _stored_dtype(config: ModelConfig) -> torch.dtype | None:
    """The dtype that a folder or hub model was stored in; None where loading keeps it anyway."""
    if config.name in embedded() or Path(config.name).suffix == ".gguf" or not _has_config(config.name):
        return None
    found = AutoConfig.from_pretrained(config.name, revision=config.revision).dtype
    return found if isinstance(found, torch.dtype) else None


def _has_config(name: str) -> bool:
    return not Path(name).is_dir() or (Path(name) / "config.json").is_file()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"model.device: cannot use '{name}': {str(error).splitlines()[0]}") from None
    return device


def _load_dtype(device: str) -> torch.dtype | str:
    """Frozen weights keep the dtype they were stored in on an accelerator; a CPU computes in float32."""
    return "auto" if _device(device).type != "cpu" else torch.float32


def _precision(wanted: str, device: torch.device) -> str:
    """bfloat16 autocast only where it is fast: without the instructions for it a CPU is about 100 times slower."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = any(bool(has) for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    else:
        fast = False
    return "bfloat16" if fast else "float32"
