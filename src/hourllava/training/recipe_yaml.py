"""YAML of recipes: plain data of bounded size, without repeated keys. Anything else is an error of one line."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from hourllava.errors import ConfigError

MAX_VALUES = 100_000
"""Limit of values in a recipe, aliases expanded; a shipped recipe has about a hundred."""

MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does: PyYAML reads YAML 1.1, where `1e-4` is text. A repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """Plain data from a file.

    Raises:
        ConfigError: as `parse_yaml`; or the file cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give a readable YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no YAML: byte {error.start} is not UTF-8; save it as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Plain data: mappings with text keys, lists, texts, numbers, booleans and null.

    Args:
        text: the YAML.
        where: its source, for messages.

    Raises:
        ConfigError: the text is not YAML, holds other data (a date, bytes, a set), or exceeds a limit.
    """
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())}") from error
    # PyYAML's constructors raise these for text that does not fit its tag or number, and for too many brackets.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(f"{where} is no YAML of a recipe: {reason}") from error
    _check_plain(content, where)
    return content


def _check_plain(content: Any, where: str) -> None:
    """Check type, number and depth of values. Aliases can make a short file endless, so this comes first."""
    waiting: list[tuple[Any, int]] = [(content, 0)]
    num_values = 0
    while waiting:
        value, depth = waiting.pop()
        num_values += 1
        if num_values + len(waiting) > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigError(
                f"{where} has more than {MAX_VALUES:,} values or {MAX_DEPTH} levels; make the recipe smaller"
            )
        if isinstance(value, dict):
            odd = [key for key in value if not isinstance(key, str)]
            if odd:
                raise ConfigError(f"{where} has the key {odd[0]!r:.40}, which is not text; put it in quotes")
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
        elif value is not None and not isinstance(value, str | int | float | bool):
            kind = type(value).__name__
            raise ConfigError(f"{where} holds a {kind}, {str(value)!r:.40}; if you mean text, put it in quotes")
