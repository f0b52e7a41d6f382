"""Tests of who imports whom: pipeline <- model <- export <- tools."""

import ast
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("pipeline", "model", "export", "tools")


def _module(path: Path) -> str:
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_TREES = {
    _module(path): ast.parse(path.read_text(encoding="utf-8"))
    for package in _PACKAGES
    for path in sorted((_ROOT / package).rglob("*.py"))
}


def _imported(tree: ast.Module) -> set[str]:
    """Returns all that a module names in imports at any level: modules, and what is taken from them."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the direction"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


_IMPORTS = {module: _imported(tree) for module, tree in _TREES.items()}


def _defines_flags(tree: ast.Module) -> bool:
    at_import = [part for part in tree.body if isinstance(part, ast.Assign | ast.Expr)]
    calls = [node.func for part in at_import for node in ast.walk(part) if isinstance(node, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr.startswith("DEFINE_") for call in calls)


_ENTRIES = {module for module, tree in _TREES.items() if _defines_flags(tree)}


def _reached(module: str) -> set[str]:
    """Returns what a module imports, and what the project's modules that it imports do."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        new = _IMPORTS[waiting.pop()] - reached
        reached |= new
        waiting += [name for name in new if name in _IMPORTS]
    return reached


@pytest.mark.parametrize("module", _TREES)
def test_a_module_imports_from_its_own_package_and_those_to_its_left(module: str) -> None:
    right = _PACKAGES[_PACKAGES.index(module.split(".", maxsplit=1)[0]) + 1 :]
    assert {name for name in _IMPORTS[module] if name.split(".")[0] in right} == set()


def test_the_entry_modules_are_the_commands() -> None:
    assert {"pipeline.shard", "model.train", "model.evaluate", "export.predict", "tools.synthesize"} <= _ENTRIES


@pytest.mark.parametrize("entry", sorted(_ENTRIES))
def test_an_entry_module_is_imported_by_nothing(entry: str) -> None:
    assert [module for module, names in _IMPORTS.items() if entry in names] == []


@pytest.mark.parametrize("module", [module for module in _TREES if module.split(".")[0] == "pipeline"])
def test_in_pipeline_only_decoding_and_input_reach_tensorflow(module: str) -> None:
    found = any(name.split(".")[0] == "tensorflow" for name in _reached(module))
    assert found == (
        module in {"pipeline.decode", "pipeline.input", "pipeline.product_batches", "pipeline.python_batches"}
    )
