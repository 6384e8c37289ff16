"""Settings of a server from a file and from the command line, and the file of its keys."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hourllava.errors import ConfigError
from hourllava.serving.settings import ServeSettings


def load_settings(config: Path | None, keys: Path | None, **given: Any) -> ServeSettings:
    """Settings of a server.

    Args:
        config: YAML file with settings by name; None: the defaults.
        keys: file of keys; None: everybody may use the server, or those of `config`.
        given: settings of the command line, which go before those of the file; None and empty ones do not count.

    Raises:
        ConfigError: a file cannot be read, or a setting is not allowed.
    """
    values: dict[str, Any] = {} if config is None else _read_yaml(config)
    if keys is not None:
        values["keys"] = read_keys(keys)
    values |= {name: value for name, value in given.items() if value not in (None, (), "")}
    try:
        settings = ServeSettings.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ConfigError(f"setting {where}: {fault['msg'].removeprefix('Value error, ')}") from None
    if settings.media_root is not None and not settings.media_root.is_dir():
        raise ConfigError(f"the media folder {settings.media_root} is no folder")
    return settings


def read_keys(path: Path) -> dict[str, str]:
    """Keys by name, from lines `NAME KEY`; empty lines and those that begin with # are left out.

    Raises:
        ConfigError: the file cannot be read, or a line has another form.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, key = line.strip().partition(" ")
        if not key.strip() or name in keys:
            raise ConfigError(f"{path}, line {number}: write NAME KEY, each name once")
        keys[name] = key.strip()
    if not keys:
        raise ConfigError(f"{path} holds no keys; write lines NAME KEY")
    return keys


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings, a line NAME: VALUE each")
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
