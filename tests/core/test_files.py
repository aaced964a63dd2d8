"""A kill, an exception or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from expunge.core.errors import UserError
from expunge.core.files import disk_errors, publish_folder, require_space, sha256_file, write_atomic


def test_write_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_atomic(path, "old and longer")
    write_atomic(path, "néw")
    assert path.read_text(encoding="utf-8") == "néw"
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [found.name for found in tmp_path.iterdir()] == ["scores.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "scores.json"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"scores\.json: no space left"):
        write_atomic(path, "new")
    assert path.read_text(encoding="utf-8") == "old"


def test_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "model"
    with publish_folder(final) as partial:
        (partial / "weights").write_text("new", encoding="utf-8")
        assert not final.exists()
    assert (final / "weights").read_text(encoding="utf-8") == "new"
    assert [path.name for path in final.parent.iterdir()] == ["model"]


def _publish(final: Path, text: str, error: BaseException | None = None) -> None:
    with publish_folder(final) as partial:
        (partial / text).write_text(text, encoding="utf-8")
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_failed_folder_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    _publish(tmp_path / "model", "old")
    with pytest.raises(type(error)):
        _publish(tmp_path / "model", "new", error)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_folder_is_never_deleted_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File by file, that would leave half of it to a kill."""
    removed: list[str] = []
    remove = shutil.rmtree

    def spy(path: Path, ignore_errors: bool = False) -> None:
        removed.append(path.name)
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", spy)
    _publish(tmp_path / "model", "old")
    _publish(tmp_path / "model", "new")
    assert "model" not in removed
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_left_behind_parts_are_cleared(tmp_path: Path) -> None:
    for name in ("model.partial", "model.old.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "junk").touch()
    with publish_folder(tmp_path / "model") as partial:
        assert not list(partial.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no permission"), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "denied")
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_space_is_asked_where_the_path_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (asked.append(path), usage(2 * 10**9))[1])
    require_space(tmp_path / "not" / "yet", 2 * 10**9, "this")
    with pytest.raises(UserError, match=r"this needs 3\.0 GB of disk, 2\.0 GB are free"):
        require_space(tmp_path / "not" / "yet", 3 * 10**9, "this")
    assert asked == [tmp_path, tmp_path]


def test_hash_of_a_file_larger_than_one_block(tmp_path: Path) -> None:
    """SHA-256 of a million times "a", from FIPS 180-2, appendix B.3; two megabytes differ by their last byte."""
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 10**6)
    assert sha256_file(path) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    path.write_bytes(b"a" * 2**21)
    first = sha256_file(path)
    path.write_bytes(b"a" * (2**21 - 1) + b"b")
    assert sha256_file(path) != first
