"""Where a run came from: versions, commit, machine, memory."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata

from expunge.core.plugins import ROOT
from expunge.core.records import Provenance

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "safetensors", "rouge-score")


def provenance(command: str, device: str, precision: str, caching: str | None = None) -> Provenance:
    """Command, code and machine of this process."""
    commit, dirty = _commit()
    return Provenance(
        command=command,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        expunge=version(),
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        platform=platform.platform(),
        device=device,
        precision=precision,
        caching=caching,
        packages={name: found for name in _PACKAGES if (found := _version(name))},
    )


def version() -> str:
    """Version of the installed package."""
    return _version("expunge") or "0+unknown"


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB (10^6 bytes); 0 if the system does not report it (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def sha256_text(*parts: str) -> str:
    """SHA-256 over the parts, each followed by a NUL, so that their boundaries count."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the source tree that this package runs from; (None, None) for an installed copy."""
    if not (ROOT.parent.parent / ".git").exists():
        return None, None
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
