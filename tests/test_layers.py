"""Imports point one way: the table of docs/architecture.md, checked against the source read with `ast`."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

from expunge.core.plugins import NOT_PLUGINS, ROOT, listing
from expunge.core.schema import SLOTS, SPLITS, Split

DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"
LISTED = (
    *SLOTS,
    "optimizers",
    "evaluate/metrics",
    "evaluate/set_metrics",
    "evaluate/whitebox",
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


def allowed_imports() -> dict[str, set[str]]:
    """Part of the package -> prefixes below `expunge` that it may import, as the document's table says."""
    found: dict[str, set[str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        left, right = (cell.strip() for cell in line.strip("|").split("|"))
        earlier = set(found)
        for part in re.findall(r"`([^`]+)`", left):
            found[part] = earlier | {part} if right == "every part above" else {part, *re.findall(r"`([^`]+)`", right)}
    return found


def test_imports_point_one_way() -> None:
    allowed = allowed_imports()
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT)
        part = place.parts[0].removesuffix(".py")
        for module in imported(path):
            inside = module.removeprefix("expunge").removeprefix(".")
            if module.split(".")[0] == "expunge" and not any(
                f"{inside}.".startswith(f"{one}.") for one in allowed[part]
            ):
                wrong.append(f"{place} imports {module}")
    assert not wrong


def test_the_table_names_every_part() -> None:
    parts = {path.stem for path in ROOT.iterdir() if any(path.glob("*.py")) or path.suffix == ".py"}
    assert set(allowed_imports()) == parts


@pytest.mark.parametrize("folder", [*SLOTS, "optimizers", "diagnose", "attacks", "data/sources", "evaluate/metrics"])
def test_plugins_import_no_sibling(folder: str) -> None:
    place = f"expunge.{folder.replace('/', '.')}."
    wrong = [
        f"{folder}/{line.name}.py imports {module}"
        for line in listing(folder)
        for module in imported(ROOT / folder / f"{line.name}.py")
        if module.startswith(place)
        and module.removeprefix(place)[0] != "_"
        and module.removeprefix(place) not in NOT_PLUGINS
    ]
    assert not wrong


def test_no_module_imports_itself_through_others() -> None:
    modules = {module_name(path): path for path in ROOT.rglob("*.py")}
    graph = {name: {*imported(path)} & modules.keys() - {name} for name, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def module_name(path: Path) -> str:
    """The dotted name of a module's file."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


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


def test_every_split_is_a_table_a_field_and_a_parameter() -> None:
    """`SPLITS` defines them; what has to name them for the type checker names all of them."""
    from expunge import api
    from expunge.data.base import DataConfig
    from expunge.data.splits import Splits

    splits = [*SPLITS]
    assert [name for name in DataConfig.model_fields if name in SPLITS] == splits == [*get_args(Split)]
    assert [field.name for field in dataclasses.fields(Splits)][: len(splits)] == splits
    assert set(splits) < set(inspect.signature(api.unlearn).parameters)


def test_no_class_name_is_defined_twice() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
