"""YAML as recipes are written in it: plain data of a bounded size, each key once; anything else is one clear line."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from hourllava.errors import ConfigError

MAX_VALUES = 100_000
"""Of a recipe, with what its aliases repeat; a shipped one has about a hundred."""

MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: to YAML 1.1, which PyYAML reads, `1e-4` is text. A key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} comes twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """Plain data from a file.

    Raises:
        ConfigError: as `parse_yaml`; the file cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give a YAML file that you may read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no YAML: byte {error.start} is not UTF-8; save it as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Plain data: mappings with texts as keys, lists, texts, numbers, true and false, null.

    Args:
        text: in YAML.
        where: it stands, for messages.

    Raises:
        ConfigError: it is no YAML, holds anything else (a date, bytes, a set), or is larger or deeper than recipes are.
    """
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())}") from error
    # What PyYAML's constructors raise of tags and numbers whose text does not fit them, and of too many brackets.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(f"{where} is no YAML that recipes are written in: {reason}") from error
    _check_plain(content, where)
    return content


def _check_plain(content: Any, where: str) -> None:
    """Aliases can make a short file endless, so values are counted before anything else looks at them."""
    waiting: list[tuple[Any, int]] = [(content, 0)]
    num_values = 0
    while waiting:
        value, depth = waiting.pop()
        num_values += 1
        if num_values + len(waiting) > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigError(
                f"{where} has more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} levels; recipes are smaller"
            )
        if isinstance(value, dict):
            odd = [key for key in value if not isinstance(key, str)]
            if odd:
                raise ConfigError(f"{where} has the key {odd[0]!r:.40}, which is no text; put it in quotes")
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
        elif value is not None and not isinstance(value, str | int | float | bool):
            kind = type(value).__name__
            raise ConfigError(f"{where} holds a {kind}, {str(value)!r:.40}; if it is meant as text, put it in quotes")
