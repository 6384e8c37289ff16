"""Other people's models: the questions of a benchmark to any OpenAI-compatible server that takes videos.

Each question is one request: a message with `{"type": "video_url", "video_url": {"url": "file:///..."}}` and the
prompt, at temperature 0. The server must see the files under the same paths, or under the address given as `videos`.
How it samples frames, and whether it watches a video once, is its own matter. There is no evidence.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hourllava import __version__
from hourllava.errors import ConfigError, DataError, InputError
from hourllava.evaluation.benchmarks.asking import Asking, Result
from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.raw import RawAnswer
from hourllava.evaluation.benchmarks.runner import Part

KEYS = ("HOURLLAVA_SERVER_KEY", "OPENAI_API_KEY")
_AT_ONCE = 8
_PAUSES_SECONDS = (0.0, 1.0, 4.0)  # before each try
_WORTH_A_RETRY = frozenset({408, 409, 425, 429, *range(500, 600)})
_TIMEOUT_SECONDS = 3600.0  # a server may watch hours of video before it answers
_MAX_REPLY_BYTES = 2**22


@dataclass(frozen=True)
class ServedModel:
    """A model behind a server.

    Attributes:
        url: of the server, such as `http://localhost:8000/v1`.
        model: its name there.
        videos: address under which the server finds the data folder; "" for `file://` and the path.

    Raises:
        ConfigError: `url` is no http(s) address.
    """

    url: str
    model: str
    videos: str = ""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).netloc:
            raise ConfigError(f"--server is {self.url!r}; use an address such as http://localhost:8000/v1")

    def video_url(self, data: Path, file: str) -> str:
        """The address of a video of the data folder."""
        base = self.videos.rstrip("/") if self.videos else f"file://{quote(str(data.resolve()))}"
        return f"{base}/{quote(file)}"

    def reply(self, url: str | None, prompt: str, asking: Asking) -> dict[str, Any]:
        """The server's reply to a question about the video at `url`; None asks without one.

        Raises:
            ConfigError: the key or the model's name is wrong.
            InputError: the server refuses the request, or fails again and again.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
        if url is not None:
            content.insert(0, {"type": "video_url", "video_url": {"url": url}})
        body = {
            "model": self.model, "messages": [{"role": "user", "content": content}], "temperature": 0,
            "max_tokens": asking.protocol.max_new_tokens,
            **({"stop": [asking.protocol.stop]} if asking.protocol.stop else {}),
        }  # fmt: skip
        reason = ""
        for pause in _PAUSES_SECONDS:
            time.sleep(pause)
            try:
                return self._post(body)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}: {error.read(300).decode(errors='replace')}".strip()
                if error.code in (401, 403, 404):
                    raise ConfigError(
                        f"the server at {self.url} refuses ({reason}); check --server, --server-model and ${KEYS[0]}"
                    ) from error
                if error.code not in _WORTH_A_RETRY:
                    break
            except (OSError, ValueError, LookupError, TypeError) as error:  # no network, no JSON, another shape
                reason = str(error) or type(error).__name__
        raise InputError(f"the server at {self.url} gives no answer: {reason}")

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := next((os.environ[name] for name in KEYS if os.environ.get(name)), ""):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            reply: dict[str, Any] = json.loads(response.read(_MAX_REPLY_BYTES))
        text = reply["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise ValueError("the reply has no text")
        return reply


def answers_of_server(server: ServedModel, data: Path, asking: Asking, parts: Iterable[Part]) -> Iterator[Result]:
    """The answers of a served model; the questions about one video come one after the other, a few videos at once.

    Args:
        server: the model.
        data: the benchmark's data folder.
        asking: how the questions are asked.
        parts: with the questions.

    Raises:
        ConfigError: the server refuses all.
    """
    pool, stopped = ThreadPoolExecutor(_AT_ONCE), threading.Event()

    def answer(part: Part) -> list[Result]:
        return [] if stopped.is_set() else [_answer(server, data, asking, part, one) for one in part.questions]

    try:
        for results in pool.map(answer, parts):
            yield from results
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _answer(server: ServedModel, data: Path, asking: Asking, part: Part, question: Question) -> Result:
    if part.file is None and asking.condition != "blind":
        return question, DataError(f"the video {part.video} is missing")
    if part.start_seconds or part.end_seconds is not None:
        return question, DataError("the question is about a part of its file, which a server cannot be told")
    prompt = asking.protocol.prompt(question, None).as_one_turn()
    url = None if asking.condition == "blind" or part.file is None else server.video_url(data, part.file)
    start = time.perf_counter()
    try:
        reply = server.reply(url, prompt, asking)
    except InputError as error:
        return question, error
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    return RawAnswer(
        question=question, prompt=prompt, output=choice["message"]["content"], num_frames=0, fps=0.0,
        duration_seconds=question.duration_seconds or 0.0, num_prompt_tokens=usage.get("prompt_tokens") or 0,
        num_new_tokens=usage.get("completion_tokens") or 0, finish_reason=choice.get("finish_reason") or "",
        ask_seconds=time.perf_counter() - start, version=__version__,
    )  # fmt: skip
