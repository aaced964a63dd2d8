"""From a name, path or loaded pair to a `LanguageModel`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from expunge.core.errors import ExpungeError, UserError
from expunge.core.memory import is_out_of_memory, memory_errors
from expunge.core.permission import check_remote_code
from expunge.core.progress import SILENT, Progress
from expunge.data.encode import Encoder
from expunge.models.adapter_folder import base_of, is_adapter, merge_folder
from expunge.models.base import LanguageModel
from expunge.models.checkpoint import stored_dtypes
from expunge.models.config import ModelConfig
from expunge.models.gguf import load_gguf
from expunge.models.load_checks import (
    about_quantized,
    check_kind,
    check_numbers,
    check_one_device,
    check_tokens,
    check_weights,
    quantization,
)
from expunge.models.merging import plain_network
from expunge.models.model_name import check_model_name
from expunge.models.precision import Hardware, compute_deterministically, hold, load_dtype, name_of
from expunge.models.pull import embedded, pull
from expunge.models.self_check import choose_caching
from expunge.models.source import (
    ADAPTER_CONFIG,
    CONFIG,
    ModelOrigin,
    check_folder,
    has_tokenizer,
    has_weights,
    resolve,
    weight_files,
)
from expunge.models.tensor_store import StateMemory

_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "model_max_length")
"""What configurations call the longest sequence that they allow for."""
_latest: list[torch.device] = []
"""Device of the model that was loaded last."""


def load_model(config: ModelConfig, progress: Progress = SILENT) -> LanguageModel:
    """Load a model by name.

    Raises:
        UserError: no such model, a folder that is damaged or unsafe to open, a hub that cannot be reached, an unknown
            device.
        MemoryExhausted: it does not fit.
    """
    if config.trust_remote_code:
        check_remote_code()
    device = _device(config.device)
    if config.deterministic:
        compute_deterministically()
    with memory_errors(
        f"model.name: '{config.name}' does not fit into the memory of {device}; use a smaller or quantized model, "
        "another model.device, or end other programs"
    ):
        found = _read(config, progress)
        check_tokens(found.network, found.tokenizer)
        model = wrap_model(found.network.to(device), found.tokenizer, config, found)
    model.unsettled = found.merged
    if not model.caching.keeps:
        progress.say(f"answers are computed without a cache, which is slow: {model.caching.reason}")
    return model


@dataclass
class LoadedNetwork:
    """What was read, and how it was stored."""

    network: Any
    tokenizer: PreTrainedTokenizerBase
    origin: ModelOrigin = field(default_factory=ModelOrigin)
    stored_dtype: torch.dtype = torch.float32
    stored_otherwise: dict[str, torch.dtype] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)
    """Names of the weights that a merged adapter changed."""


def wrap_model(
    network: Any, tokenizer: PreTrainedTokenizerBase, config: ModelConfig, stored: LoadedNetwork | None = None
) -> LanguageModel:
    """A `LanguageModel` around a network and tokenizer that are already in memory.

    Args:
        network: a transformers causal LM, or a peft model around one.
        tokenizer: its tokenizer.
        config: how it is used.
        stored: where the weights come from. Default: each is stored in the dtype that it has.

    Raises:
        UserError: adapters were injected into the network itself.
    """
    if hasattr(network, "peft_config") and not hasattr(network, "get_base_model"):
        raise UserError(
            "model: adapters were put into this network itself (add_adapter, or a peft model that was taken apart); "
            "give the peft model, or merge its adapter first"
        )
    inner = plain_network(network)
    check_one_device(inner)
    first = next(inner.parameters())
    _latest[:] = [first.device]
    if config.deterministic:
        compute_deterministically()
    context = _context(inner.config) or config.max_length
    encoder = Encoder(
        tokenizer,
        config.template,
        config.system_prompt,
        min(config.max_length, context),
        config.overflow,
        chat_template=config.chat_template,
        template_options=config.template_options,
        date=config.date,
        reasoning=config.reasoning,
    )
    if stored is None:
        others = {name: weight.dtype for name, weight in inner.named_parameters() if weight.dtype != first.dtype}
        stored = LoadedNetwork(network, tokenizer, ModelOrigin(), first.dtype, others)
    compute = hold(network, config.precision, first.device)
    model = LanguageModel(
        network.eval(),
        tokenizer,
        encoder,
        name_of(compute),
        config.name,
        stored.stored_dtype,
        stored.stored_otherwise,
        stored.origin,
    )
    encoder.max_length = min(encoder.max_length, model.layout.context or config.max_length)
    model.state_memory = StateMemory(int(config.states_gb * 1e9), getattr(torch, config.states_precision))
    model.caching = choose_caching(model)
    return model


def _context(config: Any) -> int | None:
    """Longest sequence that a configuration allows for; None if it names no limit."""
    text = config.get_text_config()
    found = (getattr(text, name, None) for name in _CONTEXT)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def _read(config: ModelConfig, progress: Progress, above: tuple[Path, ...] = ()) -> LoadedNetwork:
    """Network and tokenizer of a name.

    Args:
        config: the name, and how it is read.
        progress: where to report.
        above: adapter folders that led here, each by the base that it names.
    """
    check_model_name(config.name)
    path = Path(config.name)
    if config.name in embedded():
        return _whole(pull(config.name, progress), config)
    if path.is_file():
        with reading(config.name):
            return LoadedNetwork(*load_gguf(path))
    with reading(config.name):
        folder = resolve(config.name, config.revision)
    if not path.is_dir() and not (folder / CONFIG).is_file() and not is_adapter(folder):
        raise UserError(f"model.name: cannot load '{config.name}': no config.json in this repository")
    check_folder(folder)
    if is_adapter(folder):
        return _with_adapter(folder, config, progress, above)
    base = str(folder.resolve()) if path.is_dir() else config.name
    return _whole(folder, config, base, None if path.is_dir() else _commit(folder, config.revision))


def _whole(folder: Path, config: ModelConfig, base: str | None = None, revision: str | None = None) -> LoadedNetwork:
    """A folder with a whole model."""
    check_folder(folder)
    files = weight_files(folder)
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    with reading(config.name):
        settings = AutoConfig.from_pretrained(folder, **options)
    check_kind(config.name, settings)
    method = quantization(config.name, settings)
    with reading(config.name, about_quantized(method)):
        loaded: Any = _model_class(settings).from_pretrained(
            folder,
            config=settings,
            dtype=load_dtype(config.precision, Hardware.of(_device(config.device))),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the name
            **options,
        )
        network, found = loaded
        check_weights(config.name, found)
        usual, others = stored_dtypes(files, network)
    dequantized = method is not None and not getattr(network, "is_quantized", False)
    if dequantized:  # it is saved as what it is now: transformers would undo how it was read
        usual, others = next(network.parameters()).dtype, {}
        network._weight_conversions = None
    elif method is None:
        check_numbers(config.name, network, files)
    tokenizer = _tokenizer(folder, config)
    dtype = settings.dtype if isinstance(settings.dtype, torch.dtype) else usual
    if dtype != usual:
        others = {name: others.get(name, usual) for name, _ in network.named_parameters()}
    others = {name: other for name, other in others.items() if other != dtype}
    origin = ModelOrigin(folder, None, base, revision, same_layout=not dequantized)
    return LoadedNetwork(network, tokenizer, origin, dtype, others)


def _model_class(settings: Any) -> Any:
    """What reads a model: whole where its text model is part of a vision model, so that all weights are saved again."""
    wrappers = set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values())
    return AutoModelForImageTextToText if wrappers & set(settings.architectures or ()) else AutoModelForCausalLM


def _with_adapter(folder: Path, config: ModelConfig, progress: Progress, above: tuple[Path, ...]) -> LoadedNetwork:
    """A folder that holds an adapter: its base model with the adapter merged in."""
    here = folder.resolve()
    if here in above:
        raise UserError(f"model.name: {folder}: this adapter is its own base, through base_model_name_or_path")
    if has_weights(folder):
        raise UserError(
            f"model.name: {folder}: holds a whole model and an adapter ({ADAPTER_CONFIG}); put the adapter into a "
            "folder of its own, so that it is clear which of them is meant"
        )
    name, revision = base_of(folder)
    try:
        loaded = _read(config.model_copy(update={"name": name, "revision": revision}), progress, (*above, here))
    except UserError as error:
        raise UserError(f"model.name: {folder}: the base of this adapter: {error}") from None
    if has_tokenizer(folder):
        loaded.tokenizer = _tokenizer(folder, config)
    with reading(str(folder)):
        loaded.network, changed, restructured = merge_folder(loaded.network, folder)
    loaded.merged |= changed
    same = loaded.origin.same_layout and not restructured
    loaded.origin = replace(loaded.origin, overlay=folder, base=None, revision=None, same_layout=same)
    return loaded


def _tokenizer(folder: Path, config: ModelConfig) -> PreTrainedTokenizerBase:
    if not has_tokenizer(folder):
        raise UserError(f"model.name: cannot load '{folder}': no tokenizer (tokenizer.json) in this folder")
    with reading(config.name, "tokenizer: "):
        found: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
        if not isinstance(found, PreTrainedTokenizerBase):
            raise ValueError(f"not a tokenizer of transformers: {type(found).__name__}")
        if not isinstance(found.chat_template, str | dict | None):
            raise ValueError(f"its chat template must be text, found {found.chat_template!r}")
        if not isinstance(found.model_max_length, int | float):
            raise ValueError(f"model_max_length must be a number, found {found.model_max_length!r}")
        if not found("Who?", add_special_tokens=False)["input_ids"]:
            raise ValueError("it knows no tokens: a text is encoded as nothing")
    return found


def _commit(folder: Path, revision: str | None) -> str | None:
    """The commit of a hub snapshot, which its folder is called after."""
    return folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else revision


@contextmanager
def reading(name: str, what: str = "") -> Iterator[None]:
    """Turn whatever a library raises at a missing or damaged file into one line: they raise anything.

    Raises:
        UserError: with the library's own first line.
    """
    try:
        yield
    except (ExpungeError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        hint = "" if Path(name).exists() else "; without a network, give a local folder or an embedded name"
        raise UserError(f"model.name: cannot load '{name}': {what}{_reason(error)}{hint}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else ""
    plain = isinstance(error, OSError | ValueError | ImportError) and len(text) > 15
    return text if plain else f"{type(error).__name__}: {text}".rstrip(": ")


def helper_device() -> torch.device:
    """Where models that judge answers are loaded: the device of the model that was loaded last, which they judge."""
    return _latest[0] if _latest else _device("auto")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no numbers
    except Exception as error:  # each backend raises its own
        raise UserError(f"model.device: cannot use '{name}': {(str(error) or repr(error)).splitlines()[0]}") from None
    return device
