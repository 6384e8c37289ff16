"""What `import hourllava` promises: every name resolves, is documented and typed, and the import itself is light."""

import ast
import dataclasses
import inspect
import subprocess
import sys
import textwrap
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_overloads

import pytest

import hourllava

ROOT = Path(__file__).parent.parent
# Their methods are overridden transformers', which knows no narrower types.
TRANSFORMERS_OWN = {"HourLlavaConfig", "HourLlavaForConditionalGeneration", "HourLlavaProcessor"}


def public_callables() -> Iterator[tuple[str, Any]]:
    """All functions of the public face, and the constructor and public methods of its own classes."""
    for name in hourllava.__all__:
        thing = getattr(hourllava, name)
        if isinstance(thing, types.FunctionType):
            yield name, thing
        elif name not in TRANSFORMERS_OWN:
            for attribute, member in vars(thing).items():
                function = getattr(member, "__func__", getattr(member, "fget", member))
                is_written = attribute == "__init__" and not dataclasses.is_dataclass(thing)
                is_public = not attribute.startswith("_") or is_written
                if (
                    is_public
                    and isinstance(function, types.FunctionType)
                    and function.__module__.startswith("hourllava")
                ):
                    yield f"{name}.{attribute}", function


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("name", hourllava.__all__)
def test_every_name_resolves_and_is_documented(name):
    thing = getattr(hourllava, name)
    assert thing.__name__ == name
    assert thing.__module__.startswith("hourllava.")
    documented = thing.__doc__ or ""
    assert len(documented) > 20
    assert not documented.startswith(f"{name}("), "the docstring that a dataclass or a named tuple is given"


def test_the_list_is_sorted_and_shown():
    assert hourllava.__all__ == sorted(hourllava.__all__)
    assert set(hourllava.__all__) <= set(dir(hourllava))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        hourllava.Nothing  # noqa: B018


def test_type_checkers_see_what_is_imported():
    """Names that are imported when first used are imported from the same places for type checkers."""
    (block,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "src/hourllava/__init__.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: getattr(hourllava, name).__module__ for name in seen}
    assert set(seen) == {name for name in hourllava.__all__ if not hasattr(hourllava.errors, name)}


def test_the_methods_are_found():
    for name in ("HourLlava.ask", "HourLlava.from_pretrained", "Chat.ask", "Memory.load", "read_subtitles"):
        assert name in CALLABLES


@pytest.mark.parametrize("name", CALLABLES)
def test_functions_and_methods_are_documented_and_typed(name):
    function = CALLABLES[name]
    assert function.__doc__ or name.endswith(".__init__")
    for typed in (function, *get_overloads(function)):
        (written,) = ast.parse(textwrap.dedent(inspect.getsource(typed))).body
        arguments = [*written.args.posonlyargs, *written.args.args, *written.args.kwonlyargs]
        arguments += filter(None, (written.args.vararg, written.args.kwarg))
        annotations = [argument.annotation for argument in arguments if argument.arg not in ("self", "cls")]
        for annotation in (*annotations, written.returns):
            assert annotation is not None
            assert not any(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(annotation))


@pytest.mark.parametrize("name", [name for name in CALLABLES if name.startswith(("HourLlava.", "Chat."))])
def test_every_argument_is_described(name):
    function = CALLABLES[name]
    parameters = inspect.signature(function).parameters.keys() - {"self", "cls"}
    text = function.__doc__ if not name.endswith(".__init__") else getattr(hourllava, name.split(".")[0]).__doc__
    described = {word.strip(" *,") for line in text.splitlines() for word in line.split(":")[0].split(",")}
    assert parameters <= described


IMPORT = """
import sys
import hourllava
from hourllava import Cue, HourLlavaError, read_subtitles
dir(hourllava)
print(sorted({"torch", "av", "transformers", "numpy"} & sys.modules.keys()))
"""


def test_importing_the_package_imports_nothing_heavy():
    result = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    path = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{hourllava.__version__}"' in path.read_text(encoding="utf-8")
