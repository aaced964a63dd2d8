"""Saving models: a copy of their source folder with the trained tensors replaced, or an adapter folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from expunge.core.errors import ExpungeError, UserError
from expunge.core.files import publish_folder
from expunge.models.base import LanguageModel
from expunge.models.checkpoint import copy_with, match
from expunge.models.merging import plain_network
from expunge.models.portable import add_old_names, needs_transformers_5
from expunge.models.source import (
    ADAPTER_CONFIG,
    CONFIG,
    GENERATION,
    INDEX,
    WEIGHTS,
    files_to_copy,
    has_tokenizer,
    is_tokenizer_file,
    weight_files,
)

CARD = "README.md"
ORIGINAL_CARD = "README.original.md"
TENSORS = Path("expunge") / "tensors.safetensors"
"""What a run keeps beside its weights: in a folder, since servers read every safetensors file beside `config.json`."""
OLD_TENSORS = Path("expunge.safetensors")
"""Where version 0.1 kept it."""


def save_model(
    model: LanguageModel, folder: Path, card: str | None = None, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model folder that transformers or peft loads as it was measured; it appears only when it is whole.

    A model that came from a folder gives a copy of that folder: every file stays as it was but the tensors that
    changed, which are cast to the dtype they were stored in. Nothing is copied that could hold the weights before
    training: pickles, other formats, other checkpoints. A network that was given from Python, or that came from a GGUF
    file, is written anew. A model with an adapter gives an adapter folder. The model in memory is not touched.

    Args:
        model: what to save.
        folder: where.
        card: text of its model card; the source's own is kept as README.original.md.
        tensors: what else is worth keeping, e.g. the direction that hidden states were steered to.
    """
    with publish_folder(folder) as partial:
        if model.is_adapted:
            _write_adapter(model, partial)
        elif model.origin.folder is not None and model.origin.folder.is_dir():
            _write_copy(model, partial, model.origin.folder)
        else:
            _write_network(model, partial)
            model.tokenizer.save_pretrained(partial)
            add_old_names(partial)
        if card is not None:
            (partial / CARD).write_text(card + _requirement(partial), encoding="utf-8")
        if tensors:
            (partial / TENSORS).parent.mkdir(exist_ok=True)
            save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial / TENSORS)


def _write_copy(model: LanguageModel, partial: Path, source: Path) -> None:
    """A copy of the source folder; or, where the network has other weights than it, of all but weights and config."""
    files = weight_files(source)
    live = match(files, model.base) if model.origin.same_layout else None
    if live is not None:
        for file in files:
            target = partial / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_with(file, target, live)
        if not (source / WEIGHTS).is_file():
            shutil.copyfile(source / INDEX, partial / INDEX)
    else:
        _write_network(model, partial)
        _adapt_config(model, source, partial)
    _copy_files(model, partial, without=() if live is not None else (CONFIG, GENERATION))


def _copy_files(model: LanguageModel, partial: Path, without: tuple[str, ...]) -> None:
    source, overlay = model.origin.folder, model.origin.overlay
    copied: dict[PurePath, Path] = {name: source / name for name in files_to_copy(source)} if source else {}
    if overlay is not None:
        if has_tokenizer(overlay):
            copied = {name: path for name, path in copied.items() if not is_tokenizer_file(name)}
        more = {name: overlay / name for name in files_to_copy(overlay)}
        own = (ADAPTER_CONFIG, CONFIG, GENERATION)
        copied |= {name: path for name, path in more.items() if name.name not in own}
    if PurePath(CARD) in copied:
        copied.setdefault(PurePath(ORIGINAL_CARD), copied.pop(PurePath(CARD)))
    for name, path in copied.items():
        if str(name) not in without:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, partial / name)


def _write_network(model: LanguageModel, partial: Path) -> None:
    """Weights and configuration by transformers, every weight in the dtype that it is stored in."""
    network: Any = model.base
    config = network.config
    weights = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    before = {name: getattr(config, name, None) for name in ("dtype", "architectures")}
    state = {
        name: tensor.detach().to(model.stored_as(name)) if name in weights else tensor
        for name, tensor in network.state_dict().items()
    }
    try:
        with savable_generation(network):
            network.save_pretrained(partial, state_dict=state)
    finally:
        for name, value in before.items():
            setattr(config, name, value)
    if network.can_generate() and network.generation_config is not None:
        network.generation_config.to_json_file(partial / GENERATION)
    content = json.loads((partial / CONFIG).read_text(encoding="utf-8"))
    content["dtype"] = str(model.stored_dtype).removeprefix("torch.")
    content.pop("_name_or_path", None)
    _write_json(partial / CONFIG, content)


def _adapt_config(model: LanguageModel, source: Path, partial: Path) -> None:
    """The source's configuration with the size of the vocabulary and the tie that the network has now.

    Weights that were quantized are plain numbers now.
    """
    content = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    content.pop("quantization_config", None)
    now = model.base.config.get_text_config()
    nested = next((content[key] for key in ("text_config",) if isinstance(content.get(key), dict)), content)
    nested["vocab_size"] = now.vocab_size
    for part in {id(content): content, id(nested): nested}.values():
        part["tie_word_embeddings"] = bool(now.tie_word_embeddings)
    _write_json(partial / CONFIG, content)
    (partial / GENERATION).unlink(missing_ok=True)
    if (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, partial / GENERATION)


def _write_adapter(model: LanguageModel, partial: Path) -> None:
    """The adapter, naming its base so that peft finds it from anywhere, with the tokenizer beside it."""
    network: Any = model.network
    config = network.peft_config[network.active_adapter]
    if model.origin.base is not None:
        config.base_model_name_or_path = model.origin.base
        config.revision = model.origin.revision
    network.save_pretrained(partial, save_embedding_layers=False)
    (partial / CARD).unlink(missing_ok=True)  # peft's own, which says nothing
    settings = (model.origin.folder or partial) / "tokenizer_config.json"
    if settings.is_file() and "tokenizer_class" in settings.read_text(encoding="utf-8"):
        _copy_files(model, partial, without=(CONFIG, GENERATION))
    else:
        model.tokenizer.save_pretrained(partial)
        add_old_names(partial)


@contextmanager
def savable_generation(network: Any) -> Iterator[None]:
    """Within this block `save_pretrained` cannot fail on a generation config that transformers loads but does not save.

    Sampling parameters without `do_sample` are such a case.
    """
    from transformers import GenerationConfig

    inner = plain_network(network)
    kept = getattr(inner, "generation_config", None)
    if kept is not None:
        inner.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if kept is not None:
            inner.generation_config = kept


def _requirement(folder: Path) -> str:
    if not needs_transformers_5(folder):
        return ""
    return "\nThis folder needs transformers 5 or newer; older versions misread its configuration or tokenizer.\n"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_repo(repo: str) -> None:
    """Refuse a name that no repository of the hub can have, before any work.

    Raises:
        UserError: it is not NAME or OWNER/NAME.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--push-to-hub {repo}: {str(error).splitlines()[0].partition('. Use')[0]}") from None


def push_to_hub(folder: Path, repo: str) -> str:
    """Upload a saved model folder; gives its address.

    Raises:
        ExpungeError: the hub refused or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repo, exist_ok=True, private=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ExpungeError(f"cannot push to '{repo}': {str(error).strip().splitlines()[0]}") from None
