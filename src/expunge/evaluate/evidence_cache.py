"""Evidence cache on disk: nothing is generated twice, and a stopped evaluation resumes.

Every entry is signed with a key in the same folder that only its owner can read. Entries that are truncated, damaged,
changed or written by somebody without the key are deleted and computed again. The signature does not protect from
somebody who can read the owner's files.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from expunge.core.errors import ExpungeError, UserError
from expunge.core.files import clear_dead, disk_errors, write_atomic
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import sha256_text
from expunge.evaluate.base import Item
from expunge.evaluate.evidence_plan import Ask, Request
from expunge.models.base import LanguageModel
from expunge.models.pull import cache_dir

_FORMAT = 5
"""Raised when the same key would lead to other contents."""
_NOT_SAID = {"example", "original_greedy", "continuation", "stored", "reference", "accepted", "match"}
"""Fields of an item that are not the model's output."""
_KEY = "key"
_KEY_BYTES = 32
_NOT_COMPUTED = {"_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache"}
_ASKED = {"max_new_tokens", "max_reasoning_tokens", "stop", "temperature"}
"""Settings that change a model's output."""


def evidence_folder() -> Path:
    """Where evidence is kept: `evidence/` in the user's cache."""
    return cache_dir() / "evidence"


class EvidenceMemory:
    """Reads and writes the cached evidence of one model. Only the owner can open the folder: it holds answers.

    A folder that cannot be used is reported once, and nothing is then read or written.

    Args:
        model: whose weights, configuration and arithmetic are part of every key.
        folder: of the entries. Default: `evidence/` in the user's cache.
        progress: where to report a folder that cannot be used.
    """

    def __init__(self, model: LanguageModel, folder: Path | None = None, progress: Progress = SILENT) -> None:
        self._progress = progress
        encoder = model.encoder
        settings = _plain(model.base.config.to_dict())
        self._model = [
            model.fingerprint(),
            settings,
            model.precision,
            encoder.reasoning.markers,
            sorted(encoder.stop_ids),
        ]
        self._key: bytes | None = None
        try:
            self._folder = folder or evidence_folder()
            with disk_errors(self._folder):
                self._key = _open(self._folder)
        except (OSError, RuntimeError, ExpungeError) as error:
            self._give_up(error)

    def find(self, ask: Ask, requests: Sequence[Request], items: Sequence[Item]) -> list[Item] | None:
        """The cached items of some rows, if there are any.

        Args:
            ask: the rows and the evidence to collect.
            requests: the same as token ids, which are the key, so that templates and tokenizers cannot be confused.
            items: without evidence.
        """
        if self._key is None:
            return None
        path = self._path(ask, requests)
        try:
            signature, _, content = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None
        with suppress(ValueError, ValidationError, TypeError):
            if hmac.compare_digest(signature, self._sign(path, content)):
                given = [{field: getattr(item, field) for field in _NOT_SAID} for item in items]
                found = json.loads(content)
                return [_adapter().validate_python({**said, **rest}) for said, rest in zip(found, given, strict=True)]
        with suppress(OSError):
            path.unlink()
        return None

    def keep(self, ask: Ask, requests: Sequence[Request], items: Sequence[Item]) -> None:
        """Write the items of some rows."""
        if self._key is None:
            return
        path = self._path(ask, requests)
        rows = [_adapter().dump_python(item, mode="json", exclude=_NOT_SAID) for item in items]
        content = json.dumps(rows).encode()
        try:
            write_atomic(path, self._sign(path, content) + b"\n" + content, private=True)
        except (OSError, ExpungeError) as error:
            self._give_up(error)

    def _sign(self, path: Path, content: bytes) -> bytes:
        """Over name and content, so that entries cannot be exchanged."""
        assert self._key is not None
        return hmac.new(self._key, path.name.encode() + b"\0" + content, "sha256").hexdigest().encode()

    def _give_up(self, error: Exception) -> None:
        self._key = None
        _report_once(str(error), self._progress)

    def _path(self, ask: Ask, requests: Sequence[Request]) -> Path:
        asked = [{**asdict(request), "config": None} for request in requests]
        settings = ask.config.model_dump(mode="json", include=_ASKED)
        key = sha256_text(json.dumps([_FORMAT, self._model, sorted(ask.needs), settings, asked], sort_keys=True))
        return self._folder / f"{key[:32]}.json"


def _plain(value: Any) -> Any:
    """A configuration without keys that do not affect the arithmetic: its origin and storage."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key not in _NOT_COMPUTED}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _open(folder: Path) -> bytes:
    """Restrict the folder to its owner, and return the key that signs its entries.

    Raises:
        OSError: it cannot be made, read or written.
        UserError: it belongs to somebody else.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if hasattr(os, "getuid"):
        if found.st_uid != os.getuid():
            raise UserError(f"{folder}: belongs to another user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    clear_dead(folder)
    path = folder / _KEY
    if not path.is_file() or path.stat().st_size != _KEY_BYTES:
        write_atomic(path, secrets.token_bytes(_KEY_BYTES), private=True)
    return path.read_bytes()  # of two processes that create it together, one signs with a key that is overwritten


@cache
def _report_once(problem: str, progress: Progress) -> None:
    progress.say(f"answers are not cached, so that a repeated evaluation asks again: {problem}")


@cache
def _adapter() -> TypeAdapter[Item]:
    return TypeAdapter(Item)
