"""Every imported package is declared in pyproject.toml, and every declared package is imported."""

import ast
import functools
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "hourllava"
LOADS_US = {"lmms_eval"}  # imported only by modules that it loads itself, in an environment of its own
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    """Normalised name of a package, without extras and versions."""
    for mark in "[<>=!~; ":
        requirement = requirement.split(mark)[0]
    return requirement.lower().replace("-", "_")


@functools.cache
def imported_modules() -> set[str]:
    """Top-level names of all imported modules, also of imports within functions."""
    names = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"hourllava"}


distributions_of_packages = functools.cache(packages_distributions)


def test_every_imported_package_is_a_dependency_or_in_an_extra():
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {name_of(line) for line in PROJECT["dependencies"] + extras}
    distributions = distributions_of_packages()
    for module in imported_modules() - LOADS_US:
        found = {name_of(name) for name in distributions.get(module, [module])}
        assert found & declared, f"{module} is imported, and no dependency or extra of pyproject.toml brings it"


def test_every_dependency_is_imported():
    distributions = distributions_of_packages()
    imported = {name_of(name) for module in imported_modules() for name in distributions.get(module, [])}
    unused = {name_of(line) for line in PROJECT["dependencies"]} - imported
    assert not unused, f"declared and never imported: {unused}"
