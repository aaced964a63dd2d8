"""The options of a plug-in without its module, whose imports take seconds: most need torch.

A `Config` class needs far less than the code around it: pydantic, a few constants, the options that it inherits. Its
definition is evaluated alone, with the definitions that it refers to.
"""

from __future__ import annotations

import ast
import copy
import importlib
import sys
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from expunge.core.errors import UserError, near
from expunge.core.plugins import find, lineage, lineages, names, parsed


class Described(NamedTuple):
    """A plug-in by what its source declares."""

    summary: str
    """First docstring line of its class."""
    options: type[BaseModel]
    """Its `Config`, own or inherited; equal to the imported one in fields and checks."""


def described(folder: str, name: str) -> Described:
    """Summary and options of a plug-in; only a user's own class is imported.

    Args:
        folder: folder of the package, e.g. `forget`.
        name: a file name of that folder without `.py`, or a dotted path `package.module:Class`.

    Raises:
        UserError: as `plugins.find`.
    """
    if ":" in name:
        kind = find(folder, name, _contract(folder))
        return Described((kind.__doc__ or "").split("\n", 1)[0], kind.Config)
    if name not in names(folder):
        raise UserError(f"{folder}: no '{name}'{near(name, names(folder))}")
    return _shipped(folder, name)


def options_class(folder: str, name: str) -> type[BaseModel]:
    """The `Config` of a plug-in, as `described`."""
    return described(folder, name).options


def _contract(folder: str) -> Any:
    """The class that the plug-ins of a folder extend."""
    module = importlib.import_module(f"expunge.{folder}.base")
    return next(
        kind for kind in vars(module).values() if hasattr(kind, "Config") and kind.__module__ == module.__name__
    )


@cache
def _shipped(folder: str, name: str) -> Described:
    package = f"expunge.{folder.partition('/')[0]}."
    for line in lineages(f"expunge.{folder.replace('/', '.')}.{name}"):
        if any(module.startswith(package) and module.endswith(".base") for module, _ in line):
            summary = (ast.get_docstring(line[0][1]) or "").split("\n", 1)[0]
            return Described(summary, _inherited(line))
    raise AssertionError(f"{folder}/{name}.py defines no plug-in")


def _inherited(line: list[tuple[str, ast.ClassDef]]) -> type[BaseModel]:
    """The `Config` of the first of a class and its base classes that has one."""
    for module, body in line:
        for node in body.body:
            if isinstance(node, ast.ClassDef) and node.name == "Config":
                imported = getattr(sys.modules.get(module), body.name, None)
                config: type[BaseModel] = _run(module, node) if imported is None else imported.Config
                return config
    raise AssertionError(f"{line[0][0]}: {line[0][1].name} has no options")


def _evaluated(module: str, name: str) -> Any:
    """The value of a name of a module: looked up if the module is imported or cheap to import."""
    if not module.startswith("expunge.") or module.startswith("expunge.core.") or module in sys.modules:
        found = importlib.import_module(module)
        return getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{module}.{name}")
    return _defined(module, name)


@cache
def _defined(module: str, name: str) -> Any:
    node = _definitions(module)[name]
    if isinstance(node, ast.ImportFrom):
        original = next(one.name for one in node.names if name == (one.asname or one.name))
        return _evaluated(node.module or "", original)
    return importlib.import_module(name) if isinstance(node, ast.Import) else _run(module, node, name)


def _definitions(module: str) -> dict[str, ast.stmt]:
    """Name -> the statement that defines it at the top of a module."""
    found: dict[str, ast.stmt] = {}
    for node in parsed(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {one.asname or one.name: node for one in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def _run(module: str, node: ast.stmt, name: str = "Config") -> Any:
    """The value of a name after a statement that defines it, and after those that the statement refers to."""
    node = _Standalone().visit(copy.deepcopy(node))
    known = _definitions(module)
    namespace: dict[str, Any] = {"__name__": module}
    loaded = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}
    for used in loaded - {name}:
        owner, dot, _ = used.partition(".")
        if dot:
            namespace[used] = _inherited(lineage(module, owner))
        elif used in known:
            namespace[used] = _evaluated(module, used)
    code = ast.fix_missing_locations(ast.Module([node], []))
    exec(compile(code, f"{module}:{name}", "exec", dont_inherit=True), namespace)
    return namespace[name]


class _Standalone(ast.NodeTransformer):
    """Drops hints of functions, which name what is not needed here; `Owner.Config` as a base becomes a single name."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        for one in ast.walk(node.args):
            if isinstance(one, ast.arg):
                one.annotation = None
        node.returns = None
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if node.attr == "Config" and isinstance(node.value, ast.Name):
            return ast.Name(f"{node.value.id}.Config", ast.Load())
        return node
