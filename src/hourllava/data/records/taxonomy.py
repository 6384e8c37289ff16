"""VideoMarathon's 22 tasks in 6 topics, each for short or long stretches of video (arXiv 2506.05332)."""

import json
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Task(BaseModel):
    """One task; `form` says whether it needs a short or a long stretch of the video."""

    model_config = ConfigDict(frozen=True)
    name: str
    topic: str
    form: Literal["short", "long"]


def _load() -> dict[str, Task]:
    taxonomy = json.loads(files("hourllava.data.records").joinpath("taxonomy.json").read_text(encoding="utf-8"))
    return {
        entry["task"]: Task(name=entry["task"], topic=topic, form=entry["form"])
        for topic, entries in taxonomy.items()
        for entry in entries
    }


TASKS = _load()
TOPICS = tuple(dict.fromkeys(task.topic for task in TASKS.values()))


def find_task(words: str) -> Task | None:
    """The task that a file means by `words`, whatever its case, underscores or hyphens."""
    return {_plain(name): task for name, task in TASKS.items()}.get(_plain(words))


def find_topic(words: str) -> str | None:
    """The topic that a file means by `words` ("Temporality", "temporal", ...)."""
    plain = _plain(words)
    # The beginning of a topic's name is one from 4 letters on: "oe" and "mc" are none.
    return next(
        (topic for topic in TOPICS if (len(plain) > 3 and topic.startswith(plain)) or plain.startswith(topic)), None
    )


def _plain(words: str) -> str:
    return " ".join(words.lower().replace("_", " ").replace("-", " ").split())
