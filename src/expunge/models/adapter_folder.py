"""Adapter folders in the format of peft: reading their configuration, and merging them into their base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from expunge.core.errors import UserError, near
from expunge.models.merging import PREFIX, merge, merged_names
from expunge.models.source import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_object


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_of(folder: Path) -> tuple[str, str | None]:
    """Name and revision of the model that an adapter belongs to.

    Raises:
        UserError: no weights that can be opened safely, an adapter of an unknown kind or one that cannot be merged, or
            no base.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType, PromptLearningConfig

    where = f"model.name: {folder}: {ADAPTER_CONFIG}"
    spec = read_object(folder / ADAPTER_CONFIG)
    kind = spec.get("peft_type")
    known = [member.value for member in PeftType]
    if not isinstance(kind, str):
        raise UserError(f"{where}: no 'peft_type', so the kind of the adapter is unknown")
    if kind not in known or PeftType(kind) not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise UserError(f"{where}: unknown peft_type '{kind}'{near(kind, known)}")
    if issubclass(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)], PromptLearningConfig):
        raise UserError(f"{where}: adapters of the kind {kind} cannot be merged into the weights")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickle = (folder / "adapter_model.bin").is_file()
        hint = (
            "; adapter_model.bin is a pickle, which can run code when it is opened: convert it where you trust it, "
            "with PeftModel.from_pretrained(BASE, FOLDER).save_pretrained(NEW_FOLDER)"
        )
        raise UserError(f"model.name: {folder}: no {ADAPTER_WEIGHTS} in this adapter folder{hint if pickle else ''}")
    base, revision = spec.get("base_model_name_or_path"), spec.get("revision")
    if not base:
        raise UserError(f"{where}: the adapter does not say which model it belongs to (base_model_name_or_path)")
    if not isinstance(base, str):
        raise UserError(f"{where}: base_model_name_or_path must be a name or path, found {base!r}")
    return base, revision if isinstance(revision, str) else None


def merge_folder(base: Any, folder: Path) -> tuple[Any, set[str], bool]:
    """Merge a folder's adapter into its base.

    Args:
        base: transformers model; its embedding takes the size that the adapter was trained with.
        folder: of the adapter.

    Returns:
        The merged model, names of the parameters that changed, and whether it has other weights than the base: a
        resized embedding, or a head that was tied.

    Raises:
        UserError: the adapter has weights that the base has no place for, or lacks some.
    """
    from peft import PeftModel

    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    resized = _resize(base, shapes)
    network: Any = PeftModel.from_pretrained(base, str(folder))
    _check_names(network, folder, set(shapes))
    plain_names = {name for name, _ in base.named_parameters()}
    changed = merged_names(network) | {name.removeprefix(PREFIX) for name in shapes} & plain_names
    plain, untied = merge(network)
    return plain, changed, resized or untied


def _resize(base: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Give the base as many embedding rows as the adapter's whole embedding has, if it brings one."""
    embedding = base.get_input_embeddings()
    names = [name for name, module in base.named_modules() if module is embedding]
    ends = tuple(f"{name}{part}.weight" for name in names for part in ("", ".base_layer", ".modules_to_save"))
    rows = next((shape[0] for name, shape in shapes.items() if name.endswith(ends) and len(shape) == 2), None)
    if rows is None or rows == embedding.weight.shape[0]:
        return False
    base.resize_token_embeddings(rows, mean_resizing=False)
    return True


def _check_names(network: Any, folder: Path, found: set[str]) -> None:
    """Compare the names in the file with those that the adapter has places for."""
    result = network.load_adapter(str(folder), network.active_adapter)  # once more, for what it reports
    place = f"model.name: {folder}"
    if result.unexpected_keys:
        names = sorted(result.unexpected_keys)
        raise UserError(f"{place}: the adapter does not fit its base: the base has no place for {_shown(names)}")
    if result.missing_keys:
        names = sorted(result.missing_keys)
        raise UserError(f"{place}: the adapter does not fit its base: {ADAPTER_WEIGHTS} lacks {_shown(names)}")


def _shown(names: list[str]) -> str:
    first = names[0].removeprefix(PREFIX)
    return first if len(names) == 1 else f"{first} (and {len(names) - 1} more)"
