"""What `hourllava train --list` prints: the recipes that come with the library."""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from hourllava.training.recipe import shipped_recipes

_COMMENT = re.compile(r"(?:#.*\n)+")
_BASE = re.compile(r"^base: *(\S+)$", re.MULTILINE)


def describe_recipes() -> Iterator[str]:
    """Yield the path of every shipped recipe with a sentence about it."""
    paths = shipped_recipes()
    width = max(map(len, paths))
    for path in paths:
        yield f"{path:<{width}}  {_sentence(Path(str(resources.files('hourllava'))) / path)}"


def _sentence(path: Path) -> str:
    """The first sentence of a recipe's leading comment; that of its base if it has none."""
    text = path.read_text(encoding="utf-8")
    if comment := _COMMENT.match(text):
        words = " ".join(line.lstrip("# ") for line in comment[0].splitlines())
        return re.split(r"(?<=\.)\s", words)[0]
    base = _BASE.search(text)
    assert base is not None, path
    return _sentence(path.parent / base[1])
