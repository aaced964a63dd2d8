"""The files of docs/extending.md, put into a copy of the package: their tests pass, and the rules for imports hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from expunge.config import load_run
from expunge.core.permission import granted
from expunge.core.plugins import ROOT

REPOSITORY = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = dict(BLOCK.findall((REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")))
TESTS = REPOSITORY / "tests"
HELPERS = [*(path for path in TESTS.glob("*.py") if not path.name.startswith("test_")), TESTS / "test_layers.py"]
PLUGINS = [name for name in FILES if not name.startswith("tests/")]
SLOTS = [name for name in PLUGINS if Path(name).parts[2] in ("forget", "retain", "combine", "localize")]


def test_every_kind_of_plugin_has_one_file_and_its_test() -> None:
    folders = [Path(name).parent.relative_to("src/expunge").as_posix() for name in PLUGINS]
    slots = ["forget", "retain", "combine", "localize"]
    assert folders == [*slots, "evaluate/metrics", "attacks", "data/sources", "evaluate/suites"]
    tests = [Path(name).stem for name in FILES if name.startswith("tests/")]
    assert tests == [f"test_{Path(name).stem}" for name in PLUGINS]
    assert not [name for name in FILES if (REPOSITORY / name).exists()]


def test_a_file_and_its_test_are_all_it_takes(tmp_path: Path) -> None:
    """Nothing else in the copy is changed."""
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT, tmp_path / "src" / "expunge", ignore=left_out)
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.png"))
    (tmp_path / "tests").mkdir()
    for path in HELPERS:
        shutil.copy(path, tmp_path / "tests")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    slow = ("test_no_module_imports_itself_through_others", "test_importing_and_listing_leave_torch_alone")
    skipped = [f"--deselect=tests/test_layers.py::{name}" for name in slow]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *skipped, "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SLOTS)
def test_the_same_file_works_from_the_working_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, stem = Path(name).parts[2], f"own_{Path(name).stem}"
    (tmp_path / f"{stem}.py").write_text(FILES[name], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = f"{stem}:{''.join(part.title() for part in Path(name).stem.split('_'))}"
    with granted(classes=[path]):
        built = load_run(None, {"recipe": "npo"}, [f"{slot}.name={path}"]).build(slot)
    assert type(built).__module__ == stem
    sys.modules.pop(stem)
