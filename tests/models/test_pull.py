"""Embedded models in the user's cache."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from expunge.models import pull as pulling
from expunge.models.pull import pull


def test_two_that_want_the_same_model_fetch_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(name: str, spec: object, folder: Path, progress: object) -> None:
        made.append(folder)
        time.sleep(0.2)
        folder.mkdir()

    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pulling, "_make", make)
    with ThreadPoolExecutor(2) as two:
        folders = list(two.map(pull, ["all-minilm-l6-v2"] * 2))
    assert made == [folders[0]]
    assert folders[0] == folders[1]
