"""Run files as editors save them."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge.core.errors import UserError
from expunge.core.toml import read_toml


def test_a_byte_order_mark_is_no_statement(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('\ufeffrecipe = "npo"\r\n', encoding="utf-8")
    assert read_toml(path) == {"recipe": "npo"}


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.toml"
    path.write_text('recipe = "npo"\n', encoding="utf-16")
    with pytest.raises(UserError, match="not TOML"):
        read_toml(path)

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=r"run\.toml: cannot be read \(Permission denied\)"):
        read_toml(path)
