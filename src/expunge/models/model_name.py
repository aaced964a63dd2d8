"""A model's name, checked without importing torch."""

from __future__ import annotations

from pathlib import Path

from expunge.core.errors import UserError, near
from expunge.models.pull import embedded
from expunge.models.source import ADAPTER_CONFIG, CONFIG


def check_model_name(name: str, option: str = "model.name") -> None:
    """Refuse a model name that cannot lead anywhere, before anything heavy happens.

    Args:
        name: what the user gave.
        option: dotted path of the option that it was given for.

    Raises:
        UserError: a path that does not exist or has no config, a file that is no GGUF file, or a bare word that is no
            embedded name.
    """
    path = Path(name)
    if name in embedded():
        return
    try:
        path.stat()
    except (OSError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            raise UserError(f"{option}: {name[:80]}: {getattr(error, 'strerror', None) or error}") from None
    if not name.strip():
        raise UserError(f"{option}: is empty; give an embedded name, a folder, a .gguf file or a hub id")
    if path.is_dir():
        if not any((path / file).is_file() for file in (CONFIG, ADAPTER_CONFIG)):
            ggufs = sorted(path.glob("*.gguf"))
            hint = f"; it has {ggufs[0].name}: give that file" if ggufs else ""
            raise UserError(f"{option}: {name}: no config.json in this folder, so it holds no model{hint}")
        return
    if path.is_file():
        check_gguf(path, option)
        return
    if path.is_absolute() or name.startswith((".", "~")) or path.suffix == ".gguf" or name.count("/") > 1:
        raise UserError(f"{option}: {name}: no such file or folder")
    if "/" not in name:
        raise UserError(f"{option}: no model '{name}'{near(name, embedded())} (a hub id is written org/name)")


def check_gguf(path: Path, option: str = "model.name") -> None:
    """Refuse a file that is not a GGUF file.

    Raises:
        UserError: another format; the message names what to give instead, if known.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UserError(f"{option}: {path}: cannot be read ({error.strerror})") from None
    if magic != b"GGUF":
        hint = "; give the folder that it lies in" if (path.parent / "config.json").is_file() else ""
        raise UserError(f"{option}: {path}: not a GGUF file, and no other kind of file can be loaded{hint}")
