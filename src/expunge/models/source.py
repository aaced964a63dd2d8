"""The folder that a model comes from: which files are read, and which of them a saved model takes over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

from expunge.core.errors import UserError

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_OBJECTS = (
    CONFIG,
    GENERATION,
    INDEX,
    ADAPTER_CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
"""Files that must hold a JSON object where they exist; the libraries answer anything else with a traceback."""

_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "normalizer.json",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates",
)
_VOCABULARY = ("tokenizer.json", "vocab*", "*.model", "*.spm", "*.tiktoken", "tokenization_*.py")
"""Files without which no tokenizer can be made: its settings alone hold no tokens."""

_BINARY = (".model", ".spm", ".tiktoken", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf")
_MAX_BINARY = 64_000_000
_ARCHIVES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"GGUF", b"\x1f\x8b")
"""How zip files, pickles, GGUF and gzip begin: formats that weights come in."""

NOT_FETCHED = (
    "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.gguf",
    "*.ggml", "*.tflite", "*.mlmodel", "*.mlpackage/*", "*.llamafile", "consolidated*", "original/*", "onnx/*",
    "checkpoint-*/*",
)  # fmt: skip
"""Files of a hub repository that are never needed: other formats of the same weights."""


@dataclass(frozen=True)
class ModelOrigin:
    """Where the files of a model come from; all None for a network that was given from Python."""

    folder: Path | None = None
    """Folder of the whole model; a saved model is a copy of it."""
    overlay: Path | None = None
    """Adapter folder whose adapter was merged in; its tokenizer wins, if it has one."""
    base: str | None = None
    """What an adapter can name as its base so that it loads anywhere: a hub id or an absolute path."""
    revision: str | None = None
    """Commit of the hub model."""
    same_layout: bool = True
    """Whether the network has the weights of `folder` in the same shapes; False once a merge untied or resized some."""


def resolve(name: str, revision: str | None) -> Path:
    """The folder of a local or hub model; the latter is fetched into the hub's cache if it is not there.

    Raises:
        OSError, ValueError: the hub has no such model, or cannot be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, ignore_patterns=list(NOT_FETCHED)))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: damaged, or not an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"model.name: cannot load '{path.parent}': {path.name}: not valid JSON ({reason})") from None
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise UserError(f"model.name: cannot load '{path.parent}': {path.name}: must hold a JSON object, found {kind}")
    return found


def check_folder(folder: Path) -> None:
    """Refuse what no library should be asked to open: links that lead out of the folder, and JSON of another shape.

    Raises:
        UserError: as described, with the file's name.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not _stays(path, folder):
            raise UserError(
                f"model.name: cannot load '{folder}': {path.name} is a link that leads outside the folder; "
                "put the file itself there"
            )
    for name in _OBJECTS:
        if (folder / name).is_file():
            read_object(folder / name)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers reads in a model folder.

    Raises:
        UserError: none, only pickled ones, or an index that names files outside the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return [_shard(folder, name) for name in _shard_names(folder)]
    pickles = sorted(path.name for path in folder.glob("*.bin") if path.name.startswith("pytorch_model"))
    if pickles:
        raise UserError(
            f"model.name: cannot load '{folder}': it has {pickles[0]} and no {WEIGHTS}; pickled weights can run code "
            "when they are opened, so convert them where you trust them: "
            f"AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER)"
        )
    raise UserError(f"model.name: cannot load '{folder}': no {WEIGHTS} and no {INDEX} in this folder")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer can be made from a folder's files."""
    return any(fnmatch(path.name, pattern) for path in folder.iterdir() for pattern in _VOCABULARY)


def is_tokenizer_file(name: PurePath) -> bool:
    """Whether a file (relative to its folder) belongs to the tokenizer."""
    return any(fnmatch(name.parts[0], pattern) for pattern in _TOKENIZER)


def files_to_copy(folder: Path) -> list[PurePath]:
    """Every file that a saved model takes over unchanged, relative to the folder.

    Only what cannot hold weights: text, and the binary files of tokenizers and model cards. Weights in other formats
    would still know what was forgotten, so a subfolder that holds anything else is left out as a whole.
    """
    found: list[PurePath] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and path.name != ".gitattributes":
            continue
        if path.is_dir():
            found += _subfolder(path, folder)
        elif path.name != INDEX and _is_copied(path, folder):
            found.append(PurePath(path.name))
    return found


def _subfolder(folder: Path, root: Path) -> list[PurePath]:
    if folder.is_symlink() or folder.name == "__pycache__" or fnmatch(folder.name, "checkpoint-*"):
        return []
    paths = [
        Path(at) / name for at, _, names in os.walk(folder) for name in names if "__pycache__" not in Path(at).parts
    ]
    if not all(_is_copied(path, root) for path in paths):
        return []
    return [path.relative_to(root) for path in sorted(paths)]


def _is_copied(path: Path, root: Path) -> bool:
    if not path.is_file() or not _stays(path, root):
        return False
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4).startswith(_ARCHIVES):
            return False
    if path.suffix.lower() in _BINARY:
        return size <= _MAX_BINARY
    return _is_text(path)


def _is_text(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return all("\0" not in block for block in iter(lambda: file.read(1 << 20), ""))
    except UnicodeDecodeError:
        return False


def _stays(path: Path, folder: Path) -> bool:
    """Whether what a path leads to lies in its folder, or in the blobs of the hub cache that the folder belongs to."""
    target, root = path.resolve(), folder.resolve()
    blobs = root.parent.parent / "blobs"
    roots = [root, blobs] if root.parent.name == "snapshots" and blobs.is_dir() else [root]
    return any(target.is_relative_to(place) for place in roots)


def _shard_names(folder: Path) -> Iterator[str]:
    index = read_object(folder / INDEX)
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise UserError(
            f"model.name: cannot load '{folder}': {INDEX}: must hold a table 'weight_map' from weights to files"
        )
    yield from sorted(set(names.values()))


def _shard(folder: Path, name: str) -> Path:
    path = folder / name
    if PurePath(name).is_absolute() or "\\" in name or ".." in PurePath(name).parts or not _stays(path, folder):
        raise UserError(f"model.name: cannot load '{folder}': {INDEX} names '{name}', which is outside the folder")
    if not path.is_file():
        raise UserError(f"model.name: cannot load '{folder}': {INDEX} names '{name}', which is not there")
    return path
