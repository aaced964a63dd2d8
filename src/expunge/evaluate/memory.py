"""Evidence that is kept on disk: a model is asked the same once, and a stopped evaluation goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from expunge.core.files import write_atomic
from expunge.core.provenance import sha256_text
from expunge.evaluate.asking import Ask, Request
from expunge.evaluate.base import Item
from expunge.models.base import LanguageModel
from expunge.models.pull import cache_dir

_FORMAT = 3
"""Raised when the same key would lead to other contents."""
_NOT_SAID = {"example", "original_greedy", "continuation", "stored", "reference"}
"""Fields of an item that are not the model's words about it."""


def evidence_folder() -> Path:
    """Where evidence is kept: `evidence/` in the user's cache."""
    return cache_dir() / "evidence"


class EvidenceMemory:
    """Finds and keeps what one model said. Its folder is open to its owner only: it holds answers.

    Args:
        model: whose weights and arithmetic are part of every key.
        folder: where; none takes `evidence/` in the user's cache.
    """

    def __init__(self, model: LanguageModel, folder: Path | None = None) -> None:
        self._folder = folder or evidence_folder()
        self._model = [model.fingerprint(), model.precision]

    def find(self, ask: Ask, requests: Sequence[Request], blank: Sequence[Item]) -> list[Item] | None:
        """The items of some rows, if they were kept.

        Args:
            ask: what is asked.
            requests: the same as token ids, which are the key: no template or tokenizer can be mistaken for another.
            blank: the items before anything is asked.
        """
        path = self._path(ask, requests)
        if not path.is_file():
            return None
        found = json.loads(path.read_bytes())
        given = [{field: getattr(item, field) for field in _NOT_SAID} for item in blank]
        return [_adapter().validate_python({**said, **rest}) for said, rest in zip(found, given, strict=True)]

    def keep(self, ask: Ask, requests: Sequence[Request], items: Sequence[Item]) -> None:
        """Write the items of some rows."""
        path = self._path(ask, requests)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        rows = [_adapter().dump_python(item, mode="json", exclude=_NOT_SAID) for item in items]
        write_atomic(path, json.dumps(rows))

    def _path(self, ask: Ask, requests: Sequence[Request]) -> Path:
        asked = [{**asdict(request), "config": None} for request in requests]
        settings = ask.config.model_dump(mode="json", include={"max_new_tokens", "stop", "temperature"})
        key = sha256_text(json.dumps([_FORMAT, self._model, sorted(ask.needs), settings, asked], sort_keys=True))
        return self._folder / f"{key[:32]}.json"


@cache
def _adapter() -> TypeAdapter[Item]:
    return TypeAdapter(Item)
