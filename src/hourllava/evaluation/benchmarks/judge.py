"""A judge: a language model behind any OpenAI-compatible server, for answers that no rule can score.

    judge = JudgeClient("http://localhost:8000/v1", "gpt-3.5-turbo-1106", Path("out/judged.jsonl"))
    replies = judge.replies(["Is it right?"], lambda place, reply: "Correct" in reply)

Every reply is kept in a file, so a question is judged once, and scoring again costs nothing. A request that fails is
tried again a few times; then the question stays without a verdict, which is counted. After some failures in a row no
more is asked. The key is read from $HOURLLAVA_JUDGE_KEY or $OPENAI_API_KEY, and is never written anywhere.
"""

import functools
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from hourllava.errors import ConfigError, DataError
from hourllava.files import cut_unfinished_line

DEFAULT_JUDGE = "gpt-3.5-turbo-1106"
"""The judge of TempCompass's authors; another one gives figures that cannot be compared with theirs."""
JUDGED_NAME = "judged.jsonl"
_SYSTEM = "You are an AI assistant for question answering."
_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1, "presence_penalty": 1, "max_tokens": 128}
_PAUSES_SECONDS = (0.0, 1.0, 2.0, 4.0)  # before each try
_GIVE_UP_AFTER = 8  # failed requests in a row
_AT_ONCE = 8
_TIMEOUT_SECONDS = 120.0
_KEYS = ("HOURLLAVA_JUDGE_KEY", "OPENAI_API_KEY")
_WORTH_A_RETRY = frozenset({408, 409, 425, 429, *range(500, 600)})
_MAX_REPLY_BYTES = 2**20


class _Judged(BaseModel):
    """A line of the file of replies."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    model: str
    reply: str


class JudgeClient:
    """Asks a judge, a few requests at a time.

    Args:
        url: of the server, such as `http://localhost:8000/v1`.
        model: name of the judge there.
        kept: file of replies; lines are added to it.

    Attributes:
        model: as given.
        num_failed: requests without a usable reply.
        last_failure: why the last of them failed.

    Raises:
        ConfigError: `url` is no http(s) address.
        DataError: `kept` is damaged.
    """

    def __init__(self, url: str, model: str, kept: Path) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ConfigError(f"--judge is {url!r}; use the address of a server, such as http://localhost:8000/v1")
        base = url.rstrip("/")
        self._url = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self.model = model
        self.num_failed = 0
        self.last_failure = ""
        self._failed_in_row = 0
        self._kept_path = kept
        cut_unfinished_line(kept)
        self._kept = _read_kept(kept)

    def replies(
        self, prompts: Sequence[str], is_usable: Callable[[int, str], bool], *, progress: bool = True
    ) -> list[str | None]:
        """The judge's replies in order; None for a request that failed, or whose replies were of no use.

        Args:
            prompts: requests.
            is_usable: whether a reply to the request of this number gives a verdict.
            progress: whether to show a progress bar on stderr.

        Raises:
            ConfigError: the server refuses all requests: the address, the key or the model's name is wrong.
        """
        keys = [hashlib.sha256(f"{self.model}\n{prompt}".encode()).hexdigest()[:40] for prompt in prompts]
        found: list[str | None] = [self._kept.get(key) for key in keys]
        missing = [k for k, reply in enumerate(found) if reply is None]
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            with self._kept_path.open("a", encoding="utf-8") as file, _bar(len(missing), progress) as bar:
                results = pool.map(lambda k: self._ask(prompts[k], functools.partial(is_usable, k)), missing)
                for k, reply in zip(missing, results):
                    bar.update(1)
                    found[k] = reply
                    if reply is None:
                        self.num_failed += 1
                        continue
                    self._kept[keys[k]] = reply
                    file.write(_Judged(key=keys[k], model=self.model, reply=reply).model_dump_json() + "\n")
                    file.flush()
        finally:
            pool.shutdown(cancel_futures=True)  # a refusal or Ctrl-C ends all requests
        return found

    def _ask(self, prompt: str, is_usable: Callable[[str], bool]) -> str | None:
        for pause in _PAUSES_SECONDS:
            if self._failed_in_row >= _GIVE_UP_AFTER:
                return None
            time.sleep(pause)
            try:
                reply = self._request(prompt)
            except (OSError, ValueError, LookupError, TypeError) as error:  # no network, no JSON, another shape
                self.last_failure = str(error) or type(error).__name__
                if isinstance(error, urllib.error.HTTPError) and error.code not in _WORTH_A_RETRY:
                    raise ConfigError(
                        f"the judge at {self._url} refuses ({error.code} {error.reason}); check --judge, --judge-model "
                        f"{self.model} and ${_KEYS[0]}"
                    ) from error
            else:
                if is_usable(reply):
                    self._failed_in_row = 0
                    return reply
                self.last_failure = f"the judge says neither right nor wrong: {reply!r:.80}"
        self._failed_in_row += 1
        return None

    def _request(self, prompt: str) -> str:
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": prompt}]
        body = json.dumps({"model": self.model, "messages": messages, **_SAMPLING}).encode()
        headers = {"Content-Type": "application/json"}
        if key := next((os.environ[name] for name in _KEYS if os.environ.get(name)), ""):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, body, headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            return str(json.loads(response.read(_MAX_REPLY_BYTES))["choices"][0]["message"]["content"]).strip()


def _bar(total: int, progress: bool) -> tqdm:
    return tqdm(total=total, unit="answer", desc="judging", file=sys.stderr, disable=not progress or not total)


def _read_kept(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        lines = [_Judged.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except ValidationError as error:
        raise DataError(f"{path} is damaged or of another version; remove it to judge again") from error
    return {line.key: line.reply for line in lines}
