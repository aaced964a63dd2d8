"""A safetensors file with a checksum, written and read one tensor at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from safetensors import SafetensorError, safe_open
from torch import Tensor

from expunge.models.checkpoint import FLOATS
from expunge.models.fingerprint import add_tensor, tensor_bytes

_HASH = "sha256"
_UNKNOWN = "0" * 64
_CODES = {dtype: code for code, dtype in FLOATS.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write floating-point tensors and their hash; of those on another device one at a time is copied to the CPU.

    Args:
        path: a new file.
        tensors: by name.
    """
    header: dict[str, object] = {"__metadata__": {_HASH: _UNKNOWN}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    digest = hashlib.sha256()
    with path.open("w+b") as file:
        _write_header(file, header)
        for name, tensor in sorted(tensors.items()):
            held = tensor.detach().cpu().contiguous()
            add_tensor(digest, name, held)
            file.write(tensor_bytes(held))
        file.seek(0)
        _write_header(file, {**header, "__metadata__": {_HASH: digest.hexdigest()}})


def is_intact(path: Path) -> bool:
    """Whether a file exists and matches its checksum."""
    digest = hashlib.sha256()
    try:
        for name, tensor in each_tensor(path):
            add_tensor(digest, name, tensor)
        with safe_open(path, "pt") as file:
            return bool((file.metadata() or {}).get(_HASH) == digest.hexdigest())
    except (OSError, SafetensorError):
        return False


def each_tensor(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor, one at a time, in the order of their names."""
    with safe_open(path, "pt") as file:
        for name in sorted(file.keys()):
            yield name, file.get_tensor(name)


def _write_header(file: IO[bytes], header: Mapping[str, object]) -> None:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
