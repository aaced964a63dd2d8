"""Plug-ins: the file name is the registry.

`find("forget", "npo")` is the one class that `expunge/forget/npo.py` defines; `my_pkg.my_loss:MyLoss` is a user's own.
Listings, and reports on what a class declares, read files with `ast` and import nothing.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from expunge.core.errors import UserError, near
from expunge.core.permission import check_class

ROOT = Path(__file__).resolve().parent.parent
NOT_PLUGINS = ("base", "config", "engine")
"""Modules beside plug-ins that are none: their contract, common options, and what runs them."""
_PAPER = re.compile(r"\((arXiv:\S+?)\)")

Plugin = TypeVar("Plugin")


class Listed(NamedTuple):
    """One line of a listing."""

    name: str
    summary: str
    paper: str


def names(folder: str) -> list[str]:
    """Names of the plug-ins in a folder: its file names, except `base`, `config`, `engine` and private ones."""
    files = (ROOT / folder).glob("*.py")
    return sorted(path.stem for path in files if path.stem not in NOT_PLUGINS and not path.stem.startswith("_"))


def listing(folder: str) -> list[Listed]:
    """Name, first docstring line and paper of every plug-in in a folder, without importing any."""
    return [describe(folder, name) for name in names(folder)]


def describe(folder: str, name: str) -> Listed:
    """The same of one plug-in."""
    tree = ast.parse((ROOT / folder / f"{name}.py").read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").split("\n", 1)[0]
    paper = _PAPER.search(first)
    return Listed(
        name, _PAPER.sub("", first).replace("? .", "?").replace(" .", ".").strip(), paper.group(1) if paper else ""
    )


def attribute(folder: str, name: str, key: str) -> Any:
    """Literal value of a class attribute of a plug-in, its own or inherited, without importing it.

    Args:
        folder: folder of the package, e.g. `attacks`.
        name: a file name of that folder without `.py`.
        key: the attribute, assigned a literal in the class body.

    Returns:
        The value; None if neither the class nor its base classes assign the attribute, or no such file exists.

    Raises:
        ValueError: the value is not a literal.
    """
    package = folder.partition("/")[0]
    for line in lineages(f"expunge.{folder.replace('/', '.')}.{name}"):
        if any(module.startswith(f"expunge.{package}.") and module.endswith(".base") for module, _ in line):
            values = [_assigned(body, key) for _, body in line]
            return next((ast.literal_eval(value) for value in values if value is not None), None)
    return None


def lineages(module: str) -> list[list[tuple[str, ast.ClassDef]]]:
    """For each class of a module: the class and its base classes within the package, nearest first, with modules."""
    return [lineage(module, body.name) for body in parsed(module).body if isinstance(body, ast.ClassDef)]


def lineage(module: str, name: str) -> list[tuple[str, ast.ClassDef]]:
    """A class, as a module knows it by name, and its base classes within the package."""
    for node in parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            parents = [base.id for base in node.bases if isinstance(base, ast.Name)]
            return [(module, node), *(found for parent in parents for found in lineage(module, parent))]
        if isinstance(node, ast.ImportFrom) and name in {one.name for one in node.names}:
            return lineage(node.module or "", name)
    return []


@cache
def parsed(module: str) -> ast.Module:
    """Syntax tree of a module of the package; empty for any other module."""
    path = ROOT.parent / f"{module.replace('.', '/')}.py"
    inside = module.startswith("expunge.") and path.is_file()
    return ast.parse(path.read_text(encoding="utf-8") if inside else "")


def _assigned(body: ast.ClassDef, key: str) -> ast.expr | None:
    for node in body.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == key for target in targets):
                return node.value
    return None


def find(folder: str, name: str, base: type[Plugin]) -> type[Plugin]:
    """The class behind a plug-in name.

    Args:
        folder: folder of the package, e.g. `forget`.
        name: a file name of that folder without `.py`, or a dotted path `package.module:Class`.
        base: the contract that the class must fulfil.

    Raises:
        UserError: no such plug-in; a dotted path that does not lead to a subclass of `base`, or that only a file names
            (`core.permission`).
    """
    if ":" in name:
        return _user_class(folder, name, base)
    if name not in names(folder):
        raise UserError(f"{folder}: no '{name}'{near(name, names(folder))}")
    module = importlib.import_module(f"expunge.{folder.replace('/', '.')}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    assert len(classes) == 1, f"{module.__name__} must define exactly one {base.__name__}, found {classes}"
    return classes[0]


def _user_class(folder: str, path: str, base: type[Plugin]) -> type[Plugin]:
    check_class(folder, path)
    module_name, _, class_name = path.partition(":")
    try:
        with _working_folder_last():
            value = getattr(importlib.import_module(module_name), class_name)
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        shown = reason if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {reason}"
        raise UserError(f"{folder}: cannot load '{path}': {shown}") from None
    if not (inspect.isclass(value) and issubclass(value, base)):
        raise UserError(f"{folder}: '{path}' is not a subclass of expunge's {base.__name__}")
    return value


@contextmanager
def _working_folder_last() -> Iterator[None]:
    """Also find modules in the working folder, after all installed ones: a file there shadows nothing."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.reverse()
        sys.path.remove(folder)
        sys.path.reverse()
