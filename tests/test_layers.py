"""Imports point one way: the table of DESIGN.md, read off the source with `ast`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from expunge.core.plugins import ROOT, listing

SLOTS = ("forget", "retain", "combine", "localize", "edit")
ENGINE = ("core", "numerics", "data", "models", "losses")
FOLDERS = (*ENGINE, *SLOTS, "optimizers", "train", "evaluate", "diagnose", "attacks", "reports")
MODULES = (
    "config",
    "run",
    "evaluation",
    "teach",
    "continual",
    "series",
    "reproduce",
    "sweep",
    "diagnosis",
    "subject",
    "attacking",
    "robustness",
    "given",
    "api",
    "locate",
    "meta",
)
ALLOWED = {
    "core": ("core",),
    "numerics": ("core", "numerics"),
    "data": ("core", "data"),
    "losses": (
        "core",
        "data",
        "losses",
        "models.base",
        "models.batches",
        "models.forward",
        "models.original",
        "models.partial",
        "models.sites",
    ),
    "models": ENGINE,
    **{slot: (*ENGINE, f"{slot}.base") for slot in SLOTS},
    "optimizers": ("core", "optimizers.base"),
    "train": (*ENGINE, "train", "optimizers.base", *(f"{slot}.base" for slot in SLOTS)),
    "evaluate": (*ENGINE, "evaluate"),
    "diagnose": (*ENGINE, "train.config", "evaluate", "localize.mutual_information", "diagnose.base"),
    "attacks": (*ENGINE, "train", "evaluate", "attacks.base"),
    "reports": ("core", "reports"),
    **{module: (*FOLDERS, *MODULES) for module in ("__init__", *MODULES)},
    "cli": (*FOLDERS, *MODULES, "cli"),
    "__main__": ("cli",),
}
"""For each part of the package, the prefixes below `expunge` that it may import, besides its own private files."""

LISTED = (
    *SLOTS,
    "optimizers",
    "evaluate/metrics",
    "evaluate/set_metrics",
    "evaluate/depth",
    "diagnose",
    "attacks",
    "data/formats",
    "data/shapes",
    "data/sources",
)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top, in a function or for the type checker."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides where it leads"
            for alias in node.names:
                folder = ROOT.parent / Path(*(node.module or "").split("."))
                is_module = (folder / f"{alias.name}.py").is_file() or (folder / alias.name).is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module or ""


def test_imports_point_one_way() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT)
        allowed = ALLOWED[place.parts[0].removesuffix(".py")]
        for module in imported(path):
            inside = module.removeprefix("expunge").removeprefix(".")
            private = inside.startswith(f"{place.parts[0]}._")
            known = private or any(f"{inside}.".startswith(f"{part}.") for part in allowed)
            if module.split(".")[0] == "expunge" and not known:
                wrong.append(f"{place} imports {module}")
    assert not wrong


def test_core_stands_on_the_standard_library_pydantic_and_filelock() -> None:
    known = {*sys.stdlib_module_names, "tomli", "pydantic", "filelock", "expunge"}  # tomli: tomllib before Python 3.11
    wrong = [
        f"{path.name} imports {module}"
        for path in sorted((ROOT / "core").glob("*.py"))
        for module in imported(path)
        if module.split(".")[0] not in known
    ]
    assert not wrong


def test_importing_and_listing_leave_torch_alone() -> None:
    program = (
        "import sys, expunge\n"
        "from expunge.core.plugins import listing\n"
        f"found = [line for folder in {LISTED!r} for line in listing(folder)]\n"
        "assert found\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", LISTED)
def test_every_file_introduces_itself(folder: str) -> None:
    """A listing is the first docstring line of each file: one sentence, `Name: idea.` or a question."""
    for line in listing(folder):
        assert line.summary.endswith((".", "?")), f"{folder}/{line.name}.py"
        assert len(line.summary) < 110, f"{folder}/{line.name}.py"
