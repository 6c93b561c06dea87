"""Which files ship, and what they import: read from the source text, nothing is imported."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# Where each shipped top package lives; hecompile/passes and hecompile/models are links to these.
FOLDERS = {"hecompile": "hecompile", "hecompile.passes": "passes", "hecompile.models": "models"}


@dataclass(frozen=True)
class Import:
    """One import statement, or one `import_module` call with a literal name.

    `deferred` tells that importing the file does not import the module: the statement is in a
    function, or there for type checkers only.
    """

    path: str
    line: int
    module: str
    deferred: bool

    @property
    def top(self) -> str:
        """The first part of the imported name."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in order, without following links to folders."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if not entry.is_symlink() and entry.name != "__pycache__":
                yield from walk(entry)
        else:
            yield entry


def module_of(path: str) -> str:
    """The dotted name under which a file (relative to the root) is imported."""
    package = next(name for name, folder in FOLDERS.items() if path.split("/")[0] == folder)
    parts = path.removesuffix(".py").split("/")[1:]
    return ".".join([package, *(part for part in parts if part != "__init__")])


@cache
def shipped() -> dict[str, ast.Module]:
    """Every shipped Python file: its path relative to the root, and its syntax tree."""
    return {
        file.relative_to(ROOT).as_posix(): ast.parse(file.read_bytes(), filename=str(file))
        for folder in FOLDERS.values()
        for file in walk(ROOT / folder)
        if file.suffix == ".py"
    }


@cache
def imports() -> tuple[Import, ...]:
    """Every import in the shipped files, relative ones resolved."""
    return tuple(found for path, tree in shipped().items() for found in _imports_of(path, tree))


def _imports_of(path: str, tree: ast.Module) -> Iterator[Import]:
    package = module_of(path)
    if not path.endswith("/__init__.py"):
        package = package.rpartition(".")[0]
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, deferred = stack.pop()
        for module in _names(node, package):
            yield Import(path, getattr(node, "lineno", 0), module, deferred)
        inside = deferred or _defers(node)
        stack.extend((child, inside) for child in ast.iter_child_nodes(node))


def _defers(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def _names(node: ast.AST, package: str) -> list[str]:
    """The modules that one node imports; `from a import b` counts as a and as a.b."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = module or ""
            if level:
                parent = ".".join(package.split(".")[: len(package.split(".")) - level + 1])
                base = f"{parent}.{module}" if module else parent
            return [base, *(f"{base}.{alias.name}" for alias in names)]
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []


def within(module: str, package: str) -> bool:
    """Whether a dotted name is a package or something in it."""
    return module == package or module.startswith(f"{package}.")
