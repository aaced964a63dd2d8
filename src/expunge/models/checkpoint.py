"""Compare the safetensors files of a folder with the weights in memory, and copy them with changed tensors replaced."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from expunge.models.fingerprint import tensor_bytes

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Names of dtypes in safetensors files."""


def file_tensors(network: PreTrainedModel, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights under the names, and in the parts, in which transformers writes them to files.

    Args:
        network: whose weights.
        state: other values for them, by the names of its state dict.
    """
    from transformers.core_model_loading import revert_weight_conversion

    found: dict[str, Tensor] = revert_weight_conversion(network, dict(state or network.state_dict()))
    return found


def aliases(name: str, network: PreTrainedModel) -> Iterable[str]:
    """Names under which a file may hold a weight: with and without the prefix of the whole model."""
    prefix = f"{network.base_model_prefix}."
    return (name, f"{prefix}{name}", name.removeprefix(prefix))


def match(files: Iterable[Path], network: PreTrainedModel) -> dict[str, Tensor] | None:
    """Name in the files -> weight in memory; None if the files hold another set of weights, or other shapes.

    Entries of the files that the network does not have (buffers of older versions) are left out.
    """
    live = file_tensors(network)
    shapes = {name: shape for file in files for name, (shape, _) in entries(file).items()}
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, shape in shapes.items():
        ours = next((alias for alias in aliases(name, network) if alias in live), None)
        if ours is not None:
            if tuple(live[ours].shape) != shape:
                return None
            found[name] = live[ours]
            used.add(ours)
    storages = {tensor.data_ptr() for tensor in found.values()}
    buffers = {name for name, _ in network.named_buffers()}
    rest = [name for name, tensor in live.items() if name not in used and tensor.data_ptr() not in storages]
    return None if any(name not in buffers for name in rest) else found


def copy_with(source: Path, target: Path, live: Mapping[str, Tensor]) -> None:
    """Copy a safetensors file and overwrite, in their place and dtype, the tensors that differ from those in memory.

    A tensor counts as different if the stored one, in the dtype of memory, is not equal to it. All other bytes,
    the header's included, stay as they are.

    Args:
        source: the file to copy.
        target: where to.
        live: name in the file -> weight in memory, of the same shape.
    """
    shutil.copyfile(source, target)
    with safe_open(source, "pt") as stored, target.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
        for name, tensor in live.items():
            if name not in header:
                continue
            old, new = stored.get_tensor(name), tensor.detach().cpu()
            if not torch.equal(old.to(new.dtype), new):
                file.seek(8 + size + header[name]["data_offsets"][0])
                file.write(tensor_bytes(new.to(old.dtype).contiguous()))


def entries(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and dtype code of every tensor in a safetensors file."""
    with safe_open(file, "pt") as stored:
        slices = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def stored_dtypes(files: Iterable[Path], network: PreTrainedModel) -> tuple[torch.dtype, dict[str, torch.dtype]]:
    """The most frequent dtype of the stored weights, and by parameter name those that are stored in another one."""
    stored = {name: FLOATS[code] for file in files for name, (_, code) in entries(file).items() if code in FLOATS}
    if not stored:
        return torch.float32, {}
    usual = Counter(stored.values()).most_common(1)[0][0]
    others = {}
    for name, _ in network.named_parameters():
        dtype = next((stored[alias] for alias in aliases(name, network) if alias in stored), usual)
        if dtype != usual:
            others[name] = dtype
    return usual, others
