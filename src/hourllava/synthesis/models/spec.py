"""Which model is meant: `world`, `hourllava:NAME`, or `MODEL@ADDRESS`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hourllava.errors import ConfigError
from hourllava.synthesis.models.request import Model

WORLD, HOURLLAVA = "world", "hourllava:"


def open_model(spec: str, server: dict[str, Any], videos: Sequence[Path], prompts: Path | None = None) -> Model:
    """The model of a command's option.

    Args:
        spec: `world` (MarathonWorld's own truth, for videos that `hourllava world make` made), `hourllava:nano` or
            another model of ours (captions only), or `MODEL@ADDRESS,ADDRESS,...` for OpenAI-compatible servers.
        server: how servers are asked.
        videos: the files that will be asked about.
        prompts: a folder that may replace `aspects.json`.

    Raises:
        ConfigError: the option has another form, or the package `openai` is missing.
    """
    if spec == WORLD:
        from hourllava.synthesis.world.model import WorldModel, scripts_of

        return WorldModel(scripts_of(videos))
    if spec.startswith(HOURLLAVA):
        from hourllava.synthesis.models.watching import WatchingModel
        from hourllava.synthesis.prompting import read_package_text

        own = prompts / "aspects.json" if prompts is not None else None
        text = (
            own.read_text(encoding="utf-8") if own is not None and own.is_file() else read_package_text("aspects.json")
        )
        return WatchingModel(spec.removeprefix(HOURLLAVA), json.loads(text))
    name, at, addresses = spec.rpartition("@")
    if not at or not name or not addresses:
        raise ConfigError(
            f"{spec!r} is no model; use world, hourllava:NAME, or MODEL@ADDRESS, such as "
            "Qwen/Qwen2.5-VL-7B-Instruct@http://localhost:8000/v1"
        )
    from hourllava.synthesis.models.openai_server import ServerModel, ServerOptions

    try:
        options = ServerOptions.model_validate(server)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"server.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return ServerModel(name, addresses.split(","), options)
