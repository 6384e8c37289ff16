"""Prompts: text files with a part for the system and one for the user, and places that are filled in.

    [system]
    You describe short clips of a video.
    [user]
    The clip lasts from {{start}} to {{end}}.
    {{frames}}

Ours lie in `prompts/`; a folder of your own may replace any of them. A prompt's digest is part of the key of all that
is made with it, so a changed prompt makes anew what depends on it, and nothing else.

What comes from a video (captions, texts on screen) is data, never instructions: `data_block` puts it between tags, as
JSON in which no tag can be written.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hourllava.errors import ConfigError
from hourllava.synthesis.models.request import Picture
from hourllava.synthesis.rows import digest

PROMPTS = ("clip_caption", "events", "event_caption", "summary", "open_questions", "choice_questions", "verify_choice",
           "verify_open", "guess")  # fmt: skip
"""Names of all prompts; `NAME.txt` in the folder."""

Filling = str | Sequence[str | Picture]
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Prompt:
    """A prompt as it is written.

    Attributes:
        name: one of `PROMPTS`.
        system, user: its parts, with places `{{name}}`.
    """

    name: str
    system: str
    user: str

    @property
    def digest(self) -> str:
        """Stands for the wording."""
        return digest(self.name, self.system, self.user)

    def filled(self, **values: Filling) -> tuple[str, tuple[str | Picture, ...]]:
        """The system's text, and the parts of the user's message.

        Raises:
            ConfigError: the prompt has a place that is none of the values.
        """
        (system,) = self._filled(self.system, values)
        return str(system), tuple(self._filled(self.user, values))

    def _filled(self, text: str, values: dict[str, Filling]) -> list[str | Picture]:
        parts: list[str | Picture] = [""]

        def add(part: str | Picture) -> None:
            if isinstance(part, str) and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)

        for k, piece in enumerate(_PLACE.split(text)):
            if k % 2 == 0:
                add(piece)
                continue
            if piece not in values:
                raise ConfigError(
                    f"prompt {self.name} has {{{{{piece}}}}}; known places are: {', '.join(sorted(values))}"
                )
            value = values[piece]
            for part in [value] if isinstance(value, str) else value:
                add(part)
        return [part for part in parts if not isinstance(part, str) or part.strip()] or [""]


def load_prompts(folder: Path | None = None) -> dict[str, Prompt]:
    """All prompts by name: those of a folder in place of ours.

    Raises:
        ConfigError: the folder has a file of another name, or one without its two parts.
    """
    own: dict[str, str] = {}
    if folder is not None:
        paths = sorted(folder.glob("*.txt"))
        if not paths:
            raise ConfigError(f"{folder} holds no prompt; prompts are {', '.join(f'{name}.txt' for name in PROMPTS)}")
        for path in paths:
            if path.stem not in PROMPTS:
                raise ConfigError(f"{path} is no prompt; prompts are {', '.join(f'{name}.txt' for name in PROMPTS)}")
            own[path.stem] = path.read_text(encoding="utf-8")
    return {name: _prompt(name, own.get(name) or read_package_text(f"{name}.txt")) for name in PROMPTS}


def read_package_text(name: str) -> str:
    """A file of ours in `prompts/`."""
    return files("hourllava.synthesis").joinpath("prompts", name).read_text(encoding="utf-8")


def data_block(tag: str, lines: Iterable[Any]) -> str:
    """Data of a video between tags, a line of JSON each; `<` in it is written as \\u003c."""
    written = [json.dumps(line, ensure_ascii=False).replace("<", "\\u003c") for line in lines]
    return "\n".join([f"<{tag}>", *written, f"</{tag}>"])


def read_block(tag: str, text: str) -> list[Any]:
    """The lines of the data block with this tag, as they were given; none if there is no such block.

    Raises:
        ValueError: a line is no JSON.
    """
    match = re.search(rf"^<{tag}>\n(.*?)^</{tag}>$", text, re.DOTALL | re.MULTILINE)
    # Not splitlines: JSON may hold other ends of lines, such as U+2028, as they are.
    return [json.loads(line) for line in match[1].split("\n")[:-1]] if match else []


def _prompt(name: str, text: str) -> Prompt:
    match = re.fullmatch(r"\s*\[system\]\n(.*?)^\[user\]\n(.*)", text, re.DOTALL | re.MULTILINE)
    if match is None:
        raise ConfigError(f"prompt {name} needs a line [system] and, after it, a line [user]")
    return Prompt(name, match[1].strip(), match[2].strip())
