"""A kill, an exception or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from expunge.core.errors import UserError
from expunge.core.files import (
    LOCK,
    DiskError,
    disk_errors,
    locked,
    publish_folder,
    replacing,
    require_space,
    sha256_file,
    write_atomic,
)
from expunge.core.output_dir import check_empty, check_file, check_folder, claimed, contents


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
    with pytest.raises(DiskError, match=r"scores\.json: no space left"):
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


def test_left_behind_parts_are_cleared_by_the_owner_of_the_folder(tmp_path: Path) -> None:
    """A kill is a child that ends without unwinding; its unfinished file and folder are told apart from results."""
    for kill in (lambda: write_atomic(tmp_path / "record", "x"), lambda: _publish(tmp_path / "model", "x")):
        child = os.fork()
        if not child:
            os.fsync = lambda descriptor: os._exit(0)  # type: ignore[assignment]
            kill()
        assert os.waitpid(child, 0)[1] == 0
    (tmp_path / "results").touch()
    assert len(list(tmp_path.iterdir())) == 3
    assert [path.name for path in contents(tmp_path)] == ["results"]
    with claimed(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "results"]


def test_writers_of_one_path_do_not_meet(tmp_path: Path) -> None:
    """Two processes replace a file and a folder while a third reads: every read is one whole version."""
    path, versions = tmp_path / "entry", [letter * 50_000 for letter in "ab"]
    write_atomic(path, versions[0])
    children = []
    for version in versions:
        children.append(os.fork())
        if not children[-1]:
            for _ in range(40):
                write_atomic(path, version)
            os._exit(0)
    seen = {path.read_text() for _ in range(200)}
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert seen <= set(versions)
    assert [found.name for found in tmp_path.iterdir()] == ["entry"]


def test_two_processes_add_to_one_file_under_its_lock(tmp_path: Path) -> None:
    """Read, change and write: each of 2 x 20 additions counts."""
    path, children = tmp_path / "count", []
    write_atomic(path, "0")
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            for _ in range(20):
                with locked(tmp_path / LOCK):
                    write_atomic(path, str(int(path.read_text()) + 1))
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert path.read_text() == "40"
    with (
        locked(tmp_path / LOCK),
        pytest.raises(UserError, match="another process"),
        locked(tmp_path / LOCK, wait=False),
    ):
        pytest.fail("two held one lock")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_modes_are_those_of_the_umask_unless_private(tmp_path: Path, mask: int, mode: int) -> None:
    """Also for libraries that write 0600 whatever the umask says, as safetensors does."""
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "table", "x")
        write_atomic(tmp_path / "answers", "x", private=True)
        with publish_folder(tmp_path / "model") as partial:
            save_file({"w": torch.zeros(1)}, partial / "model.safetensors")
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("table", "answers")}
    assert modes == {"table": mode, "answers": 0o600}
    assert stat.S_IMODE((tmp_path / "model" / "model.safetensors").stat().st_mode) == mode


def test_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "\u00e9" * 127):
        write_atomic(tmp_path / name, "whole")
        assert (tmp_path / name).read_text() == "whole"


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no permission"), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "denied")
    with pytest.raises(DiskError, match="file is larger than the limit"), disk_errors(tmp_path):
        raise OSError(errno.EFBIG, "File too large")
    with pytest.raises(UserError, match="my own"), disk_errors(tmp_path):
        raise UserError("my own")
    with pytest.raises(ValueError, match="not about disks"), disk_errors(tmp_path):
        raise ValueError("not about disks")
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


def test_no_room_in_the_words_of_each_library(tmp_path: Path) -> None:
    """The real errors of safetensors, torch, pyarrow and Python in a process that may write 10 kB to a file."""
    import resource

    data = os.urandom(100_000)
    writers: dict[str, Callable[[Path], object]] = {
        "safetensors": lambda path: save_file({"w": torch.rand(30_000)}, path),
        "torch": lambda path: torch.save({"w": torch.rand(30_000)}, path),
        "pyarrow": lambda path: pyarrow.parquet.write_table(pyarrow.table({"x": [data]}), path),
        "python": lambda path: path.write_bytes(data),
    }
    for name, write in writers.items():
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            try:
                with replacing(tmp_path / name) as partial:
                    write(partial)
            except DiskError as error:
                os._exit(0 if re.match(r".*: (the file is larger|no space left)", str(error)) else 2)
            except BaseException:
                os._exit(3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, name
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for check in (check_folder, check_file):
        for name, message in (
            ("file/below", "file is a file, not a directory"),
            ("x" * 256, "file name too long"),
            ("new/" + "x" * 256 + "/below", "file name too long"),
            ("/".join(["x" * 200] * 30), "file name too long"),
            ("nowhere", "ordinary file|leads nowhere"),
            ("nowhere/below", "leads nowhere"),
            ("pipe", "ordinary file|is a file"),
            ("a\0b", "NUL"),
        ):
            with pytest.raises(UserError, match=f"^--out.*({message})"):
                check(tmp_path / name)
    with pytest.raises(UserError, match="is a directory"):
        check_file(tmp_path / "full")
    with pytest.raises(UserError, match="never overwritten"):
        check_empty(tmp_path / "full")
    for good in ("new/deep", "full"):
        check_folder(tmp_path / good)
    for good in ("new/deep.json", "file"):
        check_file(tmp_path / good)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "nowhere", "pipe"]
