"""Imports run down the floors of the library and never in a circle; the table of floors is here."""

import ast
import functools
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src" / "hourllava"

# From the ground up: a floor may import the floors before it.
FLOORS = (
    "ground", "video", "model",
    "inference.memories", "inference.rows", "inference.questions", "inference.watching", "inference",
    "data.records", "data.mds", "data.features", "data.batches", "data.prepare",
    "training", "world", "evaluation", "synthesis", "serving", "cli",
)  # fmt: skip
# The faces of the library may import from every floor.
FACES = {"hourllava", "hourllava.__main__"}


def module_of(path: Path) -> str:
    return ".".join(("hourllava", *path.relative_to(SOURCES).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(SOURCES.rglob("*.py"))}


@functools.cache
def imports_of(module: str) -> set[str]:
    """The modules of this library that a module imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in whole}
    return {name for name in found if name.split(".")[0] == "hourllava" and name not in FACES}


def floor_of(module: str) -> str:
    parts = module.split(".")[1:]
    return next((floor for floor in FLOORS if floor in (parts[0], ".".join(parts[:2]))), "ground")


def test_imports_run_down():
    upward = [
        f"{module} imports {name}, which is on a floor above"
        for module in sorted(MODULES.keys() - FACES)
        for name in sorted(imports_of(module))
        if FLOORS.index(floor_of(name)) > FLOORS.index(floor_of(module))
    ]
    assert not upward


def test_every_folder_is_a_floor():
    folders = {module.split(".")[1] for module, path in MODULES.items() if path.parent != SOURCES}
    assert folders == {floor.split(".")[0] for floor in FLOORS} - {"ground"}


def test_no_modules_import_each_other_in_a_circle():
    """Modules that import no remaining module are removed again and again, until none remains."""
    waiting = {module: imports_of(module) & MODULES.keys() - {module} for module in MODULES.keys() - FACES}
    while free := {module for module, needed in waiting.items() if not needed & waiting.keys()}:
        waiting = {module: needed for module, needed in waiting.items() if module not in free}
    assert not waiting, f"in a circle, or importing one: {sorted(waiting)}"
