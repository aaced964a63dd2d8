"""Checkpoints that are whole and belong to this run: hashed when they are written, checked before they are used."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from expunge.core.errors import UserError
from expunge.core.files import settle_folder, sha256_file, write_atomic
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import sha256_text
from expunge.core.schema import Frozen
from expunge.data.example import Example, fingerprint
from expunge.models.base import LanguageModel

MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"
_DOOMED = "doomed-"


class _Manifest(Frozen):
    """Inputs and files of a checkpoint."""

    inputs: dict[str, str]
    files: dict[str, str]
    """Path below the checkpoint -> SHA-256."""


def inputs_of(
    model: LanguageModel, splits: Iterable[tuple[str, Sequence[Example]]], sha256: str | None = None
) -> dict[str, str]:
    """Hashes of everything that training starts from, named as in messages.

    The layout of questions is `Encoder.fingerprint`: it changes with the chat template, its variables, the tokenizer,
    a system prompt, or a date that the template writes.

    Args:
        model: the original model.
        splits: names and rows.
        sha256: the hash of its weights, if that is known already.
    """
    return {
        "model weights": sha256 or model.fingerprint(),
        "chat template or tokenizer": model.encoder.fingerprint(),
        **{f"rows of data.{name}": fingerprint(rows) for name, rows in splits},
    }


def seal(folder: Path, inputs: Mapping[str, str]) -> None:
    """Write the manifest of a complete checkpoint: the last file, under a hash of itself."""
    settle_folder(folder)
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    content = _Manifest(inputs=dict(inputs), files=files).model_dump_json(indent=1)
    write_atomic(folder / MANIFEST, f"{sha256_text(content)}\n{content}")


def newest(folder: Path, inputs: Mapping[str, str], progress: Progress = SILENT) -> Path | None:
    """The newest intact checkpoint; damaged ones are reported and deleted.

    Args:
        folder: of the checkpoints.
        inputs: hashes of everything that this run starts from.
        progress: where to report.

    Raises:
        UserError: the checkpoint is of a run that started from something else.
    """
    damaged: list[Path] = []
    for checkpoint in reversed(checkpoints(folder)):
        manifest = _read(checkpoint)
        if manifest is not None and _is_whole(checkpoint, manifest):
            _refuse_other(folder, manifest, inputs)
            _report(damaged, f"step {checkpoint.name.removeprefix(_PREFIX)}", progress)
            return checkpoint
        damaged.append(checkpoint)
    _report(damaged, "the start", progress)
    return None


def check_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    """Compare the inputs of checkpoints, without reading their weights.

    Raises:
        UserError: one is of a run that started from something else.
    """
    for checkpoint in checkpoints(folder):
        if (manifest := _read(checkpoint)) is not None:
            _refuse_other(folder, manifest, inputs)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint so that a kill midway never leaves half of one under its own name."""
    doomed = checkpoint.with_name(f"{_DOOMED}{checkpoint.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_unfinished(folder: Path, staging: str) -> None:
    """Delete files that a killed process was writing or deleting."""
    for path in (folder / staging, *folder.glob(f"{_DOOMED}*")):
        shutil.rmtree(path, ignore_errors=True)


def _read(checkpoint: Path) -> _Manifest | None:
    """The manifest of a checkpoint, if it is there and intact."""
    try:
        sha256, _, content = (checkpoint / MANIFEST).read_text(encoding="utf-8").partition("\n")
        return _Manifest.model_validate_json(content) if sha256_text(content) == sha256 else None
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def _is_whole(checkpoint: Path, manifest: _Manifest) -> bool:
    try:
        return all(sha256_file(checkpoint / name) == known for name, known in manifest.files.items())
    except OSError:
        return False


def _refuse_other(folder: Path, manifest: _Manifest, inputs: Mapping[str, str]) -> None:
    names = {**manifest.inputs, **inputs}
    if changed := [name for name in names if manifest.inputs.get(name) != inputs.get(name)]:
        raise UserError(
            f"{folder}: the checkpoint here was made with other inputs (changed: {', '.join(changed)}); "
            "restore them, or choose another --out"
        )


def _report(damaged: Sequence[Path], place: str, progress: Progress) -> None:
    for checkpoint in damaged:
        remove(checkpoint)
    if damaged:
        progress.say(f"{', '.join(path.name for path in damaged)}: damaged or incomplete; resuming from {place}")
